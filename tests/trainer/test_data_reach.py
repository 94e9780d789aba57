"""Two-way filters and clocks that go back: what would carry one part into another."""

from __future__ import annotations

import numpy as np
import pytest

from recording.contract import Channel, Events, Piece, Recording, Series
from recording.preparation import parse_steps, prepare
from recording.signals import blocks
from trainer.data import DataError, SplitError
from trainer.data.blocks import Block
from trainer.data.building import build_recordings
from trainer.data.cutting import Stride
from trainer.data.reach import check_reach, seconds_reached
from trainer.data.splits import FoldSplit, TimeSplit

RATE = 100.0
SLOW = {"step": "filter", "low": 1.0, "order": 2, "phase": "zero"}


def recording(samples: int = 6000, pieces: tuple[Piece, ...] = ()) -> Recording:
    values = np.random.default_rng(1).normal(size=(samples, 2)).astype(np.float32)
    channels = (Channel("a", "eeg", "µV"), Channel("b", "eeg", "µV"))
    times = np.arange(0, samples / RATE, 2.0)
    trials = Events(times, np.arange(len(times)) % 2, ("left", "right"), np.full(len(times), 2.0))
    series = Series(values, RATE, channels, pieces)
    behavior = Series(values[:, :1].copy(), RATE, (Channel("x", "behavior"),), pieces)
    return Recording("a.edf", "edf", "a", {"neural": series, "behavior": behavior}, trials=trials)


@pytest.mark.parametrize(
    "step",
    [
        SLOW,
        {"step": "filter", "high": 10.0, "order": 4, "phase": "zero"},
        {"step": "notch", "frequency": 20.0, "width": 2.0, "phase": "zero"},
        {"step": "resample", "rate": 40.0, "phase": "zero"},
        {"step": "resample", "rate": 150.0, "phase": "zero"},
    ],
)
def test_an_impulse_fades_within_the_reach(step: dict) -> None:
    one = recording()
    steps = parse_steps([step])
    values = np.zeros((6000, 2), np.float32)
    values[3000] = 1.0
    answer = prepare(one.with_modality("neural", one.neural.with_values(values)), steps).neural
    found = np.concatenate(list(blocks(answer.values)))[:, 0]
    far = np.abs(answer.times() - 30.0) > seconds_reached(steps, one) + 1 / RATE
    assert far.any()
    assert np.abs(found[far]).max() < 0.01 * np.abs(found).max()


def test_a_forecast_refuses_to_see_the_future() -> None:
    with pytest.raises(DataError, match=r"preparation\[0\] \(filter\): phase: zero"):
        build_recordings(
            "r", [recording()], description="", task="forecast", preparation=parse_steps([SLOW])
        )


def test_the_gap_that_nobody_set_is_as_long_as_the_filter_reaches() -> None:
    steps = parse_steps([SLOW])
    reach = int(np.ceil(seconds_reached(steps, recording()) * RATE))
    assert 50 < reach < 150
    for split in (TimeSplit(), FoldSplit(by="fold", unit="block", folds=5, fold=2)):
        data = build_recordings(
            "r",
            [recording()],
            description="",
            task="decode",
            preparation=steps,
            window=10,
            stride=Stride(train=1, validation=1, test=1),
            split=split,
        )
        held = data.test.starts
        train = data.train.starts
        after = train[train > held.max()]
        before = train[train < held.min()]
        if len(after):
            assert after.min() - (held.max() + 10) >= reach
        assert held.min() - (before.max() + 10) >= reach


def test_parts_that_are_too_near_are_refused() -> None:
    settings = {"description": "", "preparation": parse_steps([SLOW]), "window": 100}
    near = TimeSplit(gap=20)
    with pytest.raises(SplitError, match=r"0\.2 s apart .* phase: causal"):
        build_recordings("r", [recording()], task="decode", split=near, **settings)
    with pytest.raises(SplitError, match="0 s apart"):
        build_recordings("r", [recording()], task="classify", **settings)
    causal = settings | {"preparation": parse_steps([SLOW | {"phase": "causal"}])}
    assert len(build_recordings("r", [recording()], task="classify", **causal).test)


def test_borders_that_a_filter_does_not_cross_need_no_gap() -> None:
    one = recording()
    parts = {"train": [Block("a", 0, 3000, segment=0)], "test": [Block("a", 3000, 6000, segment=1)]}
    segment = {"step": "segment", "length": 3000}
    check_reach(parts, parse_steps([segment, SLOW]), [one], RATE)
    with pytest.raises(SplitError, match="0 s apart"):
        check_reach(parts, parse_steps([SLOW, segment]), [one], RATE)


def test_a_clock_that_goes_back_cannot_tell_parts() -> None:
    one = recording(pieces=(Piece(0.0, 0, 3000), Piece(10.0, 3000, 6000)))
    with pytest.raises(SplitError, match=r"'a' .* its clock goes back .* train and "):
        build_recordings("r", [one], description="", task="forecast")

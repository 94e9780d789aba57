"""Channels, units and clipping: what the operations are, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from preparation_cases import in_blocks, neural, noise, of, run, series

from recording.contract import Channel, Piece
from recording.errors import RecordingError
from recording.preparation import evaluate, parse_steps, units
from recording.preparation.operations import Clip
from recording.preparation.units import spelled


def mixed(**changes):
    """Four channels: two EEG in µV, one MEG in T, one without a unit."""
    channels = (
        Channel("F3", "eeg", "µV"),
        Channel("F4", "eeg", "uV"),
        Channel("M1", "meg", "T"),
        Channel("X", "lfp", changes.get("unit", "")),
    )
    return of(replace(series(noise(50, 4)), channels=channels))


def test_select_and_drop_choose_by_pattern_and_type_in_the_order_of_the_file():
    chosen = run(mixed(), {"step": "select", "names": ["M*"], "types": ["eeg"]})
    assert chosen.neural.names == ("F3", "F4", "M1")
    left = run(mixed(), {"step": "drop", "names": ["F*", "X"]})
    assert left.neural.names == ("M1",)
    np.testing.assert_array_equal(neural(left), noise(50, 4)[:, 2:3])


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"step": "select", "names": ["F*", "Q"]}, r"no channel 'Q'; there are: F3 \(eeg\), F4"),
        ({"step": "select", "types": ["seeg"]}, r"no channel of type seeg; there are: F3 \(eeg\)"),
        ({"step": "drop", "names": ["*"]}, "drops all 4 channels"),
        (
            {"step": "reference", "names": ["F*"]},
            "channels are in no stated unit, T, uV, µV; bring",
        ),
        (
            {"step": "scale", "unit": "mV"},
            "X: .*states no unit .1 of 4 do not.; .* unit: mV, names",
        ),
        ({"step": "declare", "unit": "µV", "names": ["Q"]}, "no channel 'Q'"),
    ],
)
def test_channels_that_do_not_fit_are_named(step, text):
    with pytest.raises(RecordingError, match=text):
        run(mixed(), step)


def test_declared_units_and_factors():
    after = run(
        mixed(),
        {"step": "declare", "unit": "uV", "factor": 1e-7, "names": ["X"]},
        {"step": "scale", "unit": "mV"},
        {"step": "scale", "unit": "fT"},
    )
    assert [c.unit for c in after.neural.channels] == ["mV", "mV", "fT", "mV"]
    raw = noise(50, 4)
    factors = np.array([1e-3, 1e-3, 1e15, 1e-7], np.float32)
    wanted = raw * factors
    wanted[:, 3] *= np.float32(1e-3)
    np.testing.assert_array_equal(neural(after), wanted)
    everything = run(mixed(), {"step": "declare", "unit": "V"})
    assert {c.unit for c in everything.neural.channels} == {"V"}
    with pytest.raises(
        RecordingError, match=r"no channel can be converted to M; they are in T, a.u., "
    ):
        run(mixed(unit="a.u."), {"step": "scale", "unit": "M"})


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("uV", "µV"), ("μV", "µV"), (" mV ", "mV"), ("count", "count"), ("u", "u")],
)
def test_micro_is_spelled_one_way(written, wanted):
    assert spelled(written) == wanted


def test_the_mean_of_reference_channels_is_subtracted():
    raw = noise(60, 3)
    common = neural(of(series(raw)), {"step": "reference"})
    np.testing.assert_allclose(common, raw - raw.mean(axis=1, keepdims=True), atol=1e-3)
    named = run(of(series(raw)), {"step": "reference", "names": ["c0", "c2"], "keep": False})
    assert named.neural.names == ("c1",)
    wanted = raw[:, 1] - raw[:, [0, 2]].mean(axis=1)
    np.testing.assert_allclose(neural(named)[:, 0], wanted, atol=1e-3)
    with pytest.raises(RecordingError, match=r"every channel is a reference channel"):
        run(of(series(raw)), {"step": "reference", "names": ["c*"], "keep": False})


def test_clipping_takes_one_limit_or_two():
    raw = noise(60)
    low = neural(of(series(raw)), {"step": "clip", "low": 300})
    np.testing.assert_array_equal(low, np.maximum(raw, 300))
    both = neural(of(series(raw)), {"step": "clip", "low": 290, "high": 310})
    np.testing.assert_array_equal(both, np.clip(raw, 290, 310))
    edge = np.array([[[-0.0]], [[0.0]], [[np.nan]]], np.float32)
    zero = Clip(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    assert evaluate([zero], edge).tobytes() == edge.tobytes()


def test_medians_are_those_of_the_train_ranges_alone():
    (step,) = parse_steps([{"step": "clip", "around": "median", "by": 10}])
    assert not step.fitted
    with pytest.raises(RecordingError, match=r"is not fitted: the medians .* which training finds"):
        step.apply(of(series(noise(50))))
    first, second = noise(200), noise(100, seed=1)
    first[150:] = 1e6
    first[3, 0] = np.nan
    pieces = (Piece(0.0, 0, 100), Piece(50.0, 100, 200))
    one = of(replace(series(first), pieces=pieces))
    two = of(series(in_blocks(second, (7, 31))))
    fitted = step.fit([(one, [(0.0, 1.0), (50.0, 50.5)]), (two, [(0.2, 0.4)]), (two, [])])
    train = np.concatenate([first[:150], second[20:40]])
    assert fitted.fitted
    np.testing.assert_array_equal(fitted.medians, np.nanmedian(train, axis=0))
    after = neural(one, fitted.model_dump())
    assert np.nanmax(np.abs(after - np.array(fitted.medians, np.float32))) <= 10 + 1e-4
    assert fitted.fit([]) is fitted


def test_medians_of_very_much_are_those_of_an_even_sample(monkeypatch):
    (step,) = parse_steps([{"step": "clip", "around": "median", "by": 10}])
    values = noise(1000, 2)
    monkeypatch.setattr(units, "MEDIAN_VALUES", 600)
    wanted = np.median(values[::4], axis=0)
    for sizes in ((1000,), (3, 10, 1)):
        recording = of(series(in_blocks(values, sizes)))
        parts = [(0.0, 3.33), (3.33, 10.0)]
        assert step.fit([(recording, parts)]).medians == tuple(wanted)


def test_medians_need_values_and_the_same_channels():
    (step,) = parse_steps([{"step": "clip", "around": "median", "by": 10}])
    empty = noise(50)
    empty[:, 1] = np.nan
    with pytest.raises(RecordingError, match=r"c1: has no value in the train part; drop it"):
        step.fit([(of(series(empty)), [(0.0, 1.0)])])
    with pytest.raises(RecordingError, match=r"channels differ from those of file.edf"):
        step.fit([(of(series(noise(9))), [(0.0, 1.0)]), (of(series(noise(9, 3))), [(0.0, 1.0)])])
    with pytest.raises(RecordingError, match=r"medians of 3 channels for 2 channels"):
        run(
            of(series(noise(9))),
            {"step": "clip", "around": "median", "by": 1, "medians": [1, 2, 3]},
        )


def test_eye_state_limits_of_the_data_card(shared_data):
    """0.16 % of values lie outside the train median ± 150."""
    path = shared_data / "eeg_eyestate" / "eeg-eye-state.csv"
    raw = np.loadtxt(path, delimiter=",", skiprows=1, dtype=str)[:, :14]
    values = np.char.strip(raw, "'\"").astype(np.float32)
    recording = of(series(values, 128.0))
    (step,) = parse_steps([{"step": "clip", "around": "median", "by": 150}])
    fitted = step.fit([(recording, [(0.0, 0.7 * len(values) / 128)])])
    changed = neural(recording, fitted.model_dump()) != values
    assert changed.mean() == pytest.approx(0.0016, abs=5e-5)

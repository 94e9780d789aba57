"""The data set of recordings: parts, targets, plan and fingerprint, on small made ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recording.contract import Channel, Events, Piece, Recording, Series
from recording.errors import RecordingError
from recording.preparation import Step, parse_steps
from recording.preparation.operations import Clip
from recording.signals import Derived
from trainer.data import DataError, SplitError
from trainer.data.building import build_recordings
from trainer.data.cutting import Stride
from trainer.data.leaks import check_leaks
from trainer.data.splits import SessionSplit, TimeSplit, TrialSplit

RATE = 10.0
SELECT = parse_steps([{"step": "select", "names": ["c1", "c2"]}])


def made(session="one", *, time=400, channels=4, names=None, pieces=(), seed=0, **fields):
    values = np.random.default_rng(seed).normal(size=(time, channels)).astype(np.float32)
    columns = [Channel(n, "eeg", "µV") for n in names or [f"c{i}" for i in range(channels)]]
    neural = Series(values, RATE, tuple(columns), pieces)
    fields = {"source": f"{session}.tiny", "format": "tiny", **fields}
    return Recording(session=session, modalities={"neural": neural}, **fields)


def with_trials(recording, *, count=12, seconds=2.0, names=("right", "left")):
    times = 0.5 + 3.0 * np.arange(count)
    kinds = np.arange(count) % len(names)
    return replace(recording, trials=Events(times, kinds, names, np.full(count, seconds)))


def with_behavior(recording, *, measured=slice(None), rate=RATE):
    neural = recording.neural
    values = np.full((len(neural.values), 2), np.nan, np.float32)
    values[measured] = np.asarray(neural.values)[measured, :2] * 3
    channels = (Channel("x", "behavior", "m"), Channel("y", "behavior", "m"))
    series = Series(values, rate, channels, neural.pieces)
    return recording.with_modality("behavior", series)


def build(recordings, **settings):
    recordings = recordings if isinstance(recordings, list) else [recordings]
    dataset = build_recordings(
        "made", recordings, description="made", **{"task": "forecast"} | settings
    )
    check_leaks(dataset.parts)
    return dataset


def changed(recording, sample, channel, value):
    values = np.asarray(recording.neural.values).copy()
    values[sample, channel] = value
    return recording.with_modality("neural", recording.neural.with_values(values))


class Slowed(Step):
    """Half of every value, computed from the beginning, as a filter is."""

    step: str = "slowed"

    def apply(self, recording):
        source = recording.neural.values
        derived = Derived(source.shape, lambda: iter([np.asarray(source[:]) / 2]))
        return recording.with_modality("neural", recording.neural.with_values(derived))


class Around(Step):
    """Clip at the largest value of the train part."""

    step: str = "around"
    limits: tuple[float, ...] | None = None

    @property
    def fitted(self):
        return self.limits is not None

    def fit(self, sessions):
        limits = []
        for recording, ranges in sessions:
            times = recording.neural.times()
            inside = np.zeros(len(times), bool)
            for first, stop in ranges:
                inside |= (times >= first - 1e-9) & (times < stop - 1e-9)
            limits.append(np.asarray(recording.neural.values[:])[inside].max(axis=0))
        return Around(limits=tuple(map(float, np.max(limits, axis=0))))

    def operations(self, channels):
        high = np.array(self.limits, np.float32)[:, None]
        return (Clip(-high, high),)


def test_forecast_windows_are_the_recording():
    one = made()
    data = build(one, window=20, observed=10)
    values = np.asarray(one.neural.values)
    assert [len(p) for p in data.parts.values()] == [121, 11, 5]
    starts = data.test.starts
    got = data.test.recorded(slice(None))["neural"][..., 0]
    np.testing.assert_array_equal(got, np.stack([values[s : s + 20] for s in starts]))
    assert (data.rate, data.unit, data.channel_names) == (RATE, "µV", ("c0", "c1", "c2", "c3"))
    assert data.plan.test == (("one", 34.0, 40.0),)
    assert data.plan.outputs == data.channel_names
    assert data.plan.output_units == ("µV",) * 4
    assert (data.plan.graph_steps, data.operations, data.train.raw) == (0, (), None)


def test_windows_stay_inside_pieces():
    pieces = (Piece(0.0, 0, 150), Piece(20.0, 150, 300), Piece(99.0, 300, 400))
    data = build(made(pieces=pieces), window=20, observed=10, stride=Stride(train=1, test=1))
    for part in data.parts.values():
        for border in (150, 300):
            assert not ((part.starts < border) & (part.starts + 20 > border)).any()
    assert data.plan.test[0][2] == pytest.approx(99.0 + 10.0)


def test_steps_at_the_end_are_the_graphs():
    data = build(made(), preparation=[Slowed(), *SELECT])
    assert data.plan.graph_steps == 1
    assert data.channel_names == ("c1", "c2")
    assert [c.name for c in data.plan.channels] == ["c0", "c1", "c2", "c3"]
    inside, outside = data.test, data.test.outside()
    assert outside.inputs[0].shape[2] == 4
    np.testing.assert_array_equal(
        outside.recorded(slice(None))["neural"][:, :, [1, 2]],
        inside.recorded(slice(None))["neural"],
    )


def test_statistics_of_steps_come_from_the_train_part_alone():
    one = changed(made(), 390, 0, 1000.0)
    data = build(one, preparation=[Slowed(), Around(), *SELECT])
    values = np.asarray(one.neural.values)[:260] / 2  # train without its gap
    assert data.plan.steps[1].limits == tuple(values.max(axis=0).astype(float))
    assert data.plan.graph_steps == 2
    assert data.train.recorded(slice(None))["neural"].max() <= max(data.plan.steps[1].limits[1:3])


def test_a_window_per_trial_and_classes_in_order():
    one = with_trials(made())
    data = build(one, task="classify")
    assert data.output_names == ("left", "right")  # alphabetical, whatever the file's order
    assert data.train.steps == 20
    assert [len(p) for p in data.parts.values()] == [8, 2, 2]
    np.testing.assert_array_equal(data.train.starts[:3], [5, 35, 65])
    np.testing.assert_array_equal(data.train.targets[:4], [1, 0, 1, 0])
    np.testing.assert_array_equal(data.test.trials, [10, 11])
    assert build(with_trials(made(), names=("left", "right")), task="classify").output_names == (
        data.output_names
    )
    turned = build(one, task="classify", classes=("right", "left"))
    np.testing.assert_array_equal(turned.train.targets, 1 - data.train.targets)
    assert turned.fingerprint != data.fingerprint


def test_classes_choose_trials():
    one = with_trials(made(), names=("right", "rest", "left"))
    data = build(one, task="classify", classes=("right", "left"))
    assert sum(len(p) for p in data.parts.values()) == 8
    assert data.output_names == ("right", "left")


def test_sliding_windows_inside_trials():
    data = build(
        with_trials(made()), task="classify", cut="sliding", window=10, stride=Stride(train=5)
    )
    np.testing.assert_array_equal(data.train.starts[:4], [5, 10, 15, 35])
    np.testing.assert_array_equal(data.train.targets[:4], [1, 1, 1, 0])


def test_the_shortest_whole_trial_is_the_window():
    one = made()
    trials = Events(
        np.array([1.0, 5.0, 9.0, 13.0, 17.0, 39.0]),
        np.array([0, 1, 0, 1, 0, 1]),
        ("a", "b"),
        np.array([2.0, 1.5, 2.0, 2.0, 2.0, 2.0]),
    )
    data = build(
        replace(one, trials=trials),
        task="classify",
        split=TrialSplit(train=0.5, validation=0.25, test=0.25),
    )
    assert data.train.steps == 15


def test_decode_takes_the_last_sample_and_leaves_out_what_was_not_measured():
    measured = np.arange(400) % 7 != 0
    one = with_behavior(made(), measured=measured)
    data = build(one, task="decode", window=5, stride=Stride(train=1, validation=1, test=1))
    last = data.train.starts + 4
    assert (last % 7 != 0).all()
    np.testing.assert_array_equal(
        data.train.targets, np.asarray(one.modalities["behavior"].values)[last]
    )
    assert data.output_names == ("x", "y")
    assert data.train.outputs[0].unit == "m"
    only = build(one, task="decode", window=5, target=("y",))
    assert only.train.targets.shape[1] == 1
    assert only.plan.outputs == ("y",)


def test_sessions_by_name_and_their_stretches():
    ones = [made("a", seed=1), made("b", seed=2), made("c", seed=3)]
    split = SessionSplit(by="session", train=("a",), validation=("b",), test=("c",))
    data = build(ones, split=split)
    assert data.plan.test == (("c", 0.0, 40.0),)
    assert set(data.test.sessions) == {2}


def test_the_fingerprint_is_of_contents_and_settings():
    base = build(made()).fingerprint
    assert build(made()).fingerprint == base
    assert build(made("renamed")).fingerprint == base
    assert build(changed(made(), 3, 0, 9.0)).fingerprint != base
    assert build(made(), window=22, observed=10).fingerprint != base
    assert build(made(), preparation=SELECT).fingerprint != base
    assert build(made(), split=TimeSplit(train=0.6, validation=0.2, test=0.2)).fingerprint != base
    decode = {"task": "decode", "window": 5}
    other = with_behavior(made(), measured=slice(0, 390))
    assert build(with_behavior(made()), **decode).fingerprint != build(other, **decode).fingerprint


def test_a_missing_sample_in_a_window_is_an_error_that_names_it():
    with pytest.raises(
        RecordingError, match=r"one\.tiny: neural channel c2: at 5\.5 s: .*split_missing"
    ):
        build(changed(made(), 55, 2, np.nan))
    with pytest.raises(RecordingError, match="infinite"):
        build(changed(made(), 55, 2, np.inf))
    # In the gap between parts no window needs it.
    build(changed(made(), 270, 2, np.nan))


def test_a_channel_that_is_dropped_may_miss_samples():
    """An artifact refuses NaN, so the choice of channels is then made in front of it."""
    data = build(changed(made(), 55, 3, np.nan), preparation=SELECT)
    assert data.plan.graph_steps == 0
    assert [c.name for c in data.plan.channels] == ["c1", "c2"]
    assert data.operations == ()


def test_sessions_that_a_step_makes_alike():
    ones = [made("a"), made("b", channels=5, names=["extra", "c0", "c1", "c2", "c3"])]
    data = build(ones, preparation=SELECT)
    assert data.plan.graph_steps == 0
    with pytest.raises(DataError, match=r"'b' \(b\.tiny\).*has besides extra.*step: select"):
        build(ones)


@pytest.mark.parametrize(
    ("recording", "settings", "error", "text"),
    [
        (made(), {"task": "decode", "window": 5}, RecordingError, "step: behavior"),
        (made(), {"task": "classify"}, RecordingError, "no trials.*step: epochs"),
        (with_behavior(made()), {"task": "decode"}, DataError, "window: is missing"),
        (with_behavior(made(), rate=5.0), {"task": "decode", "window": 5}, RecordingError, "align"),
        (
            with_behavior(made()),
            {"task": "decode", "window": 5, "target": ("z",)},
            RecordingError,
            "no channel 'z'; there are: x, y",
        ),
        (
            with_behavior(made(), measured=slice(0, 300)),
            {"task": "decode", "window": 5},
            SplitError,
            "split.test: no window is left",
        ),
        (made(), {"window": 20, "observed": 20}, DataError, "observed: is 20"),
        (made(), {"window": 100}, SplitError, "one window needs 100"),
        (
            with_trials(made()),
            {"task": "classify", "classes": ("left", "up")},
            DataError,
            "no trial of 'up'; there are: left, right",
        ),
        (with_trials(made()), {"task": "classify", "classes": ("left",)}, DataError, "two or more"),
        (
            with_trials(made()),
            {"task": "classify", "observed": 3},
            DataError,
            "belongs to forecast",
        ),
        (
            with_trials(made(), names=("a", "b", *"cdefghijkl")),
            {"task": "classify"},
            SplitError,
            "no window of class",
        ),
    ],
)
def test_what_does_not_fit_is_refused(recording, settings, error, text):
    with pytest.raises(error, match=text):
        build(recording, **settings)


def test_two_sessions_of_one_name():
    with pytest.raises(DataError, match="two sessions are called 'one'"):
        build([made(), made()])

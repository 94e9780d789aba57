"""Trials of markers and of states, and spikes in bins."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparation_cases import events, in_blocks, noise, of, read, run, series

from recording.contract import Channel, Samples
from recording.errors import RecordingError

MARKERS = events([0.5, 1.0, 2.0, 3.0, 9.9], [0, 1, 2, 0, 1], ["S 1", "S 2", "rest"])


def with_markers(markers=MARKERS, **changes):
    return of(series(noise(1000)), markers=markers, **changes)


def test_epochs_are_trials_around_events_with_their_classes():
    after = run(
        with_markers(),
        {"step": "epochs", "start": -0.2, "stop": 0.8, "classes": {"S 2": "right", "S*": "left"}},
    )
    np.testing.assert_allclose(after.trials.times, [0.3, 0.8, 2.8])
    np.testing.assert_allclose(after.trials.durations, 1.0)
    assert after.trials.names == ("right", "left")
    assert after.trials.kinds.tolist() == [1, 0, 1]
    texts = [finding.text for finding in after.findings]
    assert texts == [
        "1 of 4 trials reach out of their piece and are left out",
        "1 of 3 trials overlap the next one",
    ]
    named = run(
        with_markers(), {"step": "epochs", "events": ["rest", "S 1"], "start": 0, "stop": 1}
    )
    assert named.trials.names == ("S 1", "rest")
    assert named.trials.counts == {"S 1": 2, "rest": 1}
    assert named.findings == ()


@pytest.mark.parametrize(
    ("recording", "settings", "text"),
    [
        (with_markers(None), {"events": ["a"]}, "markers: .*has no markers"),
        (
            with_markers(),
            {"events": ["S 1", "T*"]},
            r"no event 'T\*'; there are: S 1 \(2\), S 2 \(2\), rest \(1\)",
        ),
        (
            with_markers(),
            {"events": ["*"], "classes": {"S*": "x"}},
            "event 'rest' has no class; classes has S",
        ),
        (with_markers(), {"events": ["*"], "stop": 20}, "at 0.5 s: .*none of the 5 trials lies in"),
    ],
)
def test_epochs_that_do_not_work_say_what_there_is(recording, settings, text):
    with pytest.raises(RecordingError, match=text):
        run(recording, {"step": "epochs", "start": 0, "stop": 1, **settings})


def test_epochs_stay_in_a_piece_and_may_begin_half_a_sample_before_it():
    pieces = [(0.0, 0, 100), (1.0, 100, 200), (5.0, 200, 300)]
    markers = events([0.0, 0.501, 0.996, 4.996, 5.5], [0] * 5, ["m"])
    recording = of(series(noise(300), pieces=pieces), markers=markers)
    after = run(recording, {"step": "epochs", "events": ["m"], "start": 0, "stop": 0.5})
    np.testing.assert_array_equal(after.trials.times, [0.0, 0.501, 0.996, 4.996, 5.5])
    longer = run(recording, {"step": "epochs", "events": ["m"], "start": 0, "stop": 0.6})
    np.testing.assert_array_equal(longer.trials.times, [0.0, 0.996, 4.996])


def eye_states(**changes):
    """A channel of states beside a neural one: 0 ×50, 1 ×30, 0 ×5, nan ×5, 2 ×10, 0 ×100."""
    states = np.repeat([0, 1, 0, np.nan, 2, 0], [50, 30, 5, 5, 10, 100]).astype(np.float32)
    values = np.stack([noise(200, 1)[:, 0], states], axis=1)
    pieces = changes.get("pieces", ())
    signal = in_blocks(values, changes["sizes"]) if "sizes" in changes else values
    return of(series(signal, pieces=pieces))


MOVE = {"step": "behavior", "channels": ["c1"]}


@pytest.mark.parametrize("sizes", [(200,), (1,), (50, 30, 7), (3, 11)])
def test_states_are_runs_of_one_value(sizes):
    pieces = [(0.0, 0, 150), (9.0, 150, 200)]
    step = {"step": "states", "channel": "c1", "classes": {0: "open", "1": "closed"}}
    after = run(eye_states(pieces=pieces, sizes=sizes), MOVE, step)
    np.testing.assert_allclose(after.trials.times, [0.0, 0.5, 0.8, 1.0, 9.0])
    np.testing.assert_allclose(after.trials.durations, [0.5, 0.3, 0.05, 0.5, 0.5])
    assert [after.trials.names[kind] for kind in after.trials.kinds] == [
        "open",
        "closed",
        "open",
        "open",
        "open",
    ]
    shorter = run(eye_states(pieces=pieces, sizes=sizes), MOVE, {**step, "minimum": 0.1})
    assert len(shorter.trials) == 4
    assert "1 of 5 runs of states are shorter than 0.1 s" in shorter.findings[0].text
    values = run(eye_states(), MOVE, {"step": "states", "channel": "c*"}).trials
    assert values.names == ("0", "1", "2")
    assert len(values) == 5


def test_states_of_irregular_samples_last_until_the_next_one():
    times = np.array([0, 0.1, 0.5, 0.6, 2.0, 2.5])
    values = np.array([[1, 1, np.nan, 3, 3, 1]]).T
    behavior = Samples(times, values, (Channel("x"),))
    after = run(of(modalities={"behavior": behavior}), {"step": "states", "channel": "x"})
    np.testing.assert_allclose(after.trials.times, [0, 0.6, 2.5])
    np.testing.assert_allclose(after.trials.durations, [0.5, 1.9, 0])


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (
            [{"step": "states", "channel": "c1"}],
            "no behavior; there is neural; move channels there",
        ),
        ([MOVE, {"step": "states", "channel": "x"}], r"no channel 'x'; there are: c1 \(behavior\)"),
        (
            [MOVE, {"step": "states", "channel": "c1", "classes": {"7": "x"}}],
            "c1: .*none of the values 7; there are: 0, 1, 2",
        ),
        (
            [MOVE, {"step": "states", "channel": "c1", "minimum": 5}],
            "no run lasts 5 s; the longest lasts 1 s",
        ),
        (
            [{"step": "behavior", "channels": ["c0"]}, {"step": "states", "channel": "c0"}],
            "c0: .*has more than 100 values; it is no channel of states",
        ),
    ],
)
def test_states_that_do_not_work_say_why(steps, text):
    with pytest.raises(RecordingError, match=text):
        run(eye_states(), *steps)


def spiking(times, kinds=None, names=("u0", "u1"), span=None):
    kinds = [0] * len(times) if kinds is None else kinds
    return of(modalities={"spikes": events(times, kinds, names, span=span)})


def test_a_spike_on_an_edge_belongs_to_the_later_bin():
    times = [0.0, 0.25, 0.4999, 0.5, 0.75, 0.99, 1.0]
    recording = spiking(times, [0, 0, 1, 1, 0, 0, 0], span=(0.0, 1.0))
    after = run(recording, {"step": "bin", "width": 0.25}).neural
    assert (after.rate, after.span) == (4.0, (0.0, 1.0))
    assert after.channels == (Channel("u0", "spikes", "count"), Channel("u1", "spikes", "count"))
    np.testing.assert_array_equal(read(after.values), [[1, 0], [1, 1], [0, 1], [2, 0]])


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 400), max_size=80).map(sorted),
    st.sampled_from(["1/10", "1/8", "3/10", "1/3"]),
    st.integers(1, 4),
    st.integers(0, 12),
    st.data(),
)
def test_bins_and_their_trailing_means_are_the_same_from_any_slice(ticks, width, span, cut, data):
    width = float(Fraction(width))
    times = np.array(ticks) / 40 + 3
    kinds = np.array(
        data.draw(st.lists(st.integers(0, 1), min_size=len(ticks), max_size=len(ticks)))
    )
    recording = spiking(times, kinds, span=(3.0, 13.0))
    edges = 3.0 + np.arange(int(10 / width + 1e-9) + 1) * width
    counts = np.stack(
        [
            [((times >= a) & (times < b) & (kinds == unit)).sum() for a, b in pairwise(edges)]
            for unit in (0, 1)
        ],
        axis=1,
    )
    step = {"step": "bin", "width": width}
    np.testing.assert_array_equal(read(run(recording, step).neural.values), counts)
    smoothed = run(recording, {**step, "smoothing": span * width}).neural.values
    whole = read(smoothed)
    means = [counts[max(0, i + 1 - span) : i + 1].mean(axis=0) for i in range(len(counts))]
    np.testing.assert_allclose(whole, means, rtol=1e-6)
    assert smoothed[cut : cut + 9].tobytes() == whole[cut : cut + 9].tobytes()


def test_bins_cover_what_was_observed_in_whole_bins_and_chosen_units():
    recording = spiking([5.0, 5.9, 6.35], [0, 1, 0])
    after = run(recording, {"step": "bin", "width": 0.3, "units": ["*1"]}).neural
    assert after.names == ("u1",)
    assert (len(after.values), after.pieces[0].start) == (4, 5.0)
    exact = spiking([0.1], span=(0.0, 0.3))
    assert len(run(exact, {"step": "bin", "width": 0.1}).neural.values) == 3
    both = recording.with_modality("neural", series(noise(10)))
    assert "take the place" in run(both, {"step": "bin", "width": 0.3}).findings[0].text


@pytest.mark.parametrize(
    ("recording", "settings", "text"),
    [
        (of(series(noise(5))), {}, "no spikes to bin; there is neural"),
        (spiking([]), {}, "has no spike, and nothing says what was observed"),
        (spiking([1.0, 2.0]), {"units": ["v*"]}, r"no unit 'v\*'; there are: u0, u1"),
        (spiking([1.0, 2.0]), {"width": 5}, "1 to 2 s hold 0.2 bins of 5 s; must be 1 to"),
        (spiking([1.0, 2.0]), {"width": 1e-12}, r"hold 1e\+12 bins"),
        (spiking([1.0, 2.0]), {"smoothing": 1e6}, "10000000 bins, more than 100000"),
        (spiking([], names=(), span=(0.0, 5.0)), {}, "there are no units"),
    ],
)
def test_bins_that_do_not_work_say_why(recording, settings, text):
    with pytest.raises(RecordingError, match=text):
        run(recording, {"step": "bin", "width": 0.1, **settings})

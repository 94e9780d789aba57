"""Pieces and stretches: segments, missing samples, crops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preparation_cases import events, in_blocks, neural, noise, of, read, run, series

from recording.contract import Channel, Events, Piece, Recording, Samples, Series
from recording.errors import RecordingError
from recording.preparation import parse_steps, prepare
from recording.preparation.piece_parts import take_rows


def test_joined_segments_become_pieces_on_the_same_clock():
    """The layout of the EEGLAB file: 89 samples, then 79 times 385."""
    before = of(series(noise(30504, 1), 128.0))
    after = run(before, {"step": "segment", "first": 89, "length": 385})
    assert len(after.neural.pieces) == 80
    assert after.neural.pieces[:3] == (
        Piece(0.0, 0, 89),
        Piece(89 / 128, 89, 474),
        Piece(474 / 128, 474, 859),
    )
    assert after.findings == ()
    np.testing.assert_allclose(after.neural.times(), before.neural.times(), atol=1e-12)
    again = run(before, {"step": "segment", "starts": [89 + 385 * k for k in range(79)]})
    assert again.neural.pieces == after.neural.pieces


def test_borders_stay_and_a_shorter_last_segment_is_noted():
    before = of(series(noise(100), pieces=[(5.0, 0, 30), (9.0, 30, 100)]))
    after = run(before, {"step": "segment", "length": 40})
    assert [(p.first, p.stop) for p in after.neural.pieces] == [
        (0, 30),
        (30, 40),
        (40, 80),
        (80, 100),
    ]
    assert [p.start for p in after.neural.pieces] == [5.0, 9.0, 9.1, 9.5]
    assert "last segment has 20 samples, the others 40" in after.findings[0].text


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"starts": [0, 100]}, "a segment starts at sample 100, the series has 100"),
        ({"first": 100, "length": 5}, "a segment starts at sample 100, the series has 100"),
    ],
)
def test_segments_outside_are_refused(step, text):
    with pytest.raises(RecordingError, match=text):
        run(of(series(noise(100))), {"step": "segment", **step})


def test_too_many_segments_are_refused_before_they_are_made():
    long = np.broadcast_to(np.float32(0), (2_000_000, 1))
    with pytest.raises(RecordingError, match=r"2000000 segments of 1 samples are more than"):
        run(of(series(long)), {"step": "segment", "length": 1})


@given(
    st.lists(st.booleans(), min_size=1, max_size=60).filter(any),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(1, 59),
)
def test_runs_without_missing_samples_are_the_pieces(whole, sizes, border):
    values = np.arange(2 * len(whole), dtype=np.float32).reshape(-1, 2)
    values[~np.array(whole), np.arange(len(whole))[~np.array(whole)] % 2] = np.nan
    pieces = [(0.0, 0, len(whole))]
    if border < len(whole):
        pieces = [(0.0, 0, border), (50.0, border, len(whole))]
    before = series(values, pieces=pieces)
    after = run(of(series(in_blocks(values, sizes), pieces=pieces)), {"step": "split_missing"})
    kept = ~np.isnan(values).any(axis=1)
    np.testing.assert_array_equal(read(after.neural.values), values[kept])
    np.testing.assert_allclose(after.neural.times(), before.times()[kept], atol=1e-9)
    for one, two in pairwise(after.neural.pieces):
        assert two.start > one.start + len(one) / 100 - 1e-9
        touching = two.start < one.start + len(one) / 100 + 0.005
        assert not touching or border in np.flatnonzero(kept)[[one.stop, two.first]]


def test_nothing_missing_changes_nothing_and_all_missing_is_refused():
    whole = of(series(noise(40)))
    assert run(whole, {"step": "split_missing"}) is whole
    values = noise(40)
    values[:, 1] = np.nan
    values[3, 0] = np.nan
    with pytest.raises(
        RecordingError, match=r"no sample has all channels; channel c1 misses 40 of 40"
    ):
        run(of(series(values)), {"step": "split_missing"})
    values[:30] = 1
    noted = run(of(series(values)), {"step": "split_missing"})
    assert "10 of 40 samples (0.1 s) are missing" in noted.findings[0].text


def test_a_crop_cuts_everything_and_keeps_the_clock():
    times = np.arange(0, 10, 0.5)
    behavior = Samples(times, times[:, None], (Channel("x"),))
    recording = of(
        series(noise(900), pieces=[(0.0, 0, 400), (5.0, 400, 900)]),
        modalities={
            "behavior": behavior,
            "spikes": events([1, 2, 3.5, 7], [0, 0, 0, 0], ["u"], span=(0.0, 10.0)),
        },
        markers=events([1, 2, 6.99, 7], [0, 1, 0, 1], "ab"),
        trials=events([1.5, 2, 6], [0, 0, 0], ["t"], durations=np.array([1.0, 1, 1.01])),
    )
    after = run(recording, {"step": "crop", "start": 2, "stop": 7})
    assert after.neural.pieces == (Piece(2.0, 0, 200), Piece(5.0, 200, 400))
    np.testing.assert_array_equal(
        neural(after), np.concatenate([noise(900)[200:400], noise(900)[400:600]])
    )
    np.testing.assert_array_equal(after.modalities["behavior"].times, times[4:14])
    np.testing.assert_array_equal(after.modalities["spikes"].times, [2, 3.5])
    assert after.modalities["spikes"].span == (2, 7)
    np.testing.assert_array_equal(after.markers.times, [2, 6.99])
    np.testing.assert_array_equal(after.trials.times, [2])
    sliced = after.neural.values[150:250]
    np.testing.assert_array_equal(sliced, neural(after)[150:250])
    assert len(after.neural.values[5:5]) == 0
    late = run(recording, {"step": "crop", "start": 8})
    assert late.neural.pieces == (Piece(8.0, 0, 200),)


def test_a_crop_of_nothing_says_what_there_is():
    with pytest.raises(
        RecordingError, match=r"neural: .*nothing lies from 9 to inf s; it goes from 0 to 1 s"
    ):
        run(of(series(noise(100))), {"step": "crop", "start": 9})


@pytest.mark.parametrize("rate", [100.0, 250.0, 30.0, 1024.0, 29.97])
def test_crops_at_samples_are_exact(rate):
    before = of(series(noise(600), rate))
    for first in (0, 1, 7, 333, 599):
        start = before.neural.times()[first]
        assert len(neural(run(before, {"step": "crop", "start": start}))) == 600 - first
        if first:
            assert len(neural(run(before, {"step": "crop", "stop": start}))) == first


def test_rows_of_a_whole_signal_are_the_signal():
    values = noise(30)
    assert take_rows(values, [(0, 30)]) is values


def test_crop_on_a_clock_since_1970_and_at_the_borders_of_trials() -> None:
    begin = 1.7e9 + 0.123
    lone = Series(np.zeros((5000, 1)), 1000.0, (Channel("a"),), (Piece(begin, 0, 5000),))
    times = begin + np.array([0.1, 1.0, 2.0])
    trials = Events(times, np.zeros(3, int), ("t",), np.full(3, 1.0))
    recording = Recording("f", "test", "s", {"neural": lone}, trials=trials)
    (crop,) = parse_steps([{"step": "crop", "start": begin + 1.0, "stop": begin + 3.0}])
    cropped = prepare(recording, [crop])
    assert len(cropped.neural.values) == 2000
    assert cropped.trials is not None
    assert cropped.trials.times.tolist() == times[1:].tolist()
    assert "1 of 3 trials reach out" in cropped.findings[-1].text

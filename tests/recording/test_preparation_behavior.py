"""Behavior: moved out of neural, masked, aligned to neural's samples, and of movement alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparation_cases import events, in_blocks, neural, noise, of, read, run, series

from recording.contract import Channel, Piece, Recording, Samples, Series
from recording.errors import RecordingError

XY = (Channel("x", "behavior", "px"), Channel("y", "behavior", "px"))


def behavior(recording: Recording, *steps: dict) -> np.ndarray:
    """All values of "behavior" after steps."""
    found = run(recording, *steps).modalities["behavior"]
    return found.values if isinstance(found, Samples) else read(found.values)


def tracked(times, values, rate: float = 10.0, samples: int = 30, pieces=()) -> Recording:
    """A neural series from 0 s on and irregular samples of x and y."""
    neural = series(noise(samples), rate, pieces=pieces)
    measured = Samples(np.array(times, float), np.array(values), XY)
    return of(neural, modalities={"behavior": measured})


def regular(values: np.ndarray, rate: float, pieces=(), samples: int = 30) -> Recording:
    """A neural series at 10 Hz and a regular x and y at another rate."""
    measured = Series(values, rate, XY, tuple(Piece(*piece) for piece in pieces))
    return of(series(noise(samples), 10.0), modalities={"behavior": measured})


def test_channels_move_from_neural_to_behavior():
    values = noise(40, 3)
    after = run(of(series(values)), {"step": "behavior", "channels": ["c1"]})
    assert after.neural.names == ("c0", "c2")
    np.testing.assert_array_equal(neural(after), values[:, [0, 2]])
    moved = after.modalities["behavior"]
    assert moved.channels == (Channel("c1", "behavior", "µV"),)
    np.testing.assert_array_equal(read(moved.values), values[:, [1]])
    deep = replace(series(values), values=values[:, :, None])
    again = run(of(deep), {"step": "behavior", "channels": ["c1"]})
    assert again.neural.values.shape == (40, 2, 1)
    assert again.modalities["behavior"].values.shape == (40, 1)
    with pytest.raises(RecordingError, match="moves every channel"):
        run(of(series(values)), {"step": "behavior", "channels": ["c*"]})
    with pytest.raises(RecordingError, match="there is behavior already"):
        run(after, {"step": "behavior", "channels": ["c0"]})
    with pytest.raises(RecordingError, match="no behavior; there is neural"):
        run(of(series(values)), {"step": "mask"})


def test_lost_positions_are_masked_where_all_channels_have_the_value():
    pixels = np.array([[0, 0], [0, 7], [3, 0], [5, 5], [0, 0]], np.uint16)
    lost = np.array([True, False, False, False, True])
    masked = behavior(tracked(range(5), pixels), {"step": "mask"})
    np.testing.assert_array_equal(masked, np.where(lost[:, None], np.nan, pixels))
    single = behavior(tracked(range(5), pixels), {"step": "mask", "channels": ["x"]})
    np.testing.assert_array_equal(np.isnan(single[:, 0]), pixels[:, 0] == 0)
    assert not np.isnan(single[:, 1]).any()
    lazily = behavior(regular(pixels, 10.0), {"step": "mask"})
    np.testing.assert_array_equal(lazily, masked)
    with pytest.raises(RecordingError, match="no channel 'z'; there are: x"):
        run(tracked(range(5), pixels), {"step": "mask", "channels": ["z"]})


TIMES = [0.0, 0.25, 0.3, 1.0]
VALUES = [[0.0, 0], [25, 1], [30, np.nan], [100, 3]]


@pytest.mark.parametrize(
    ("method", "x", "y"),
    [
        ("linear", [0, 10, 20, 30, None, None, None, None, None, None, 100], [0, 0.4, 0.8]),
        ("previous", [0, 0, 0, 30, 30, 30, None, None, None, None, 100], [0, 0, 0, 1, 1, 1]),
        (
            "nearest",
            [0, 0, 25, 30, 30, 30, None, None, 100, 100, 100],
            [0, 0, 1, 1, 1, 1, None, None, 3, 3, 3],
        ),
    ],
)
def test_alignment_by_each_method_and_its_gap(method, x, y):
    found = behavior(
        tracked(TIMES, VALUES, samples=11), {"step": "align", "method": method, "gap": 0.25}
    )
    np.testing.assert_allclose(found[:, 0], np.array(x, float), rtol=1e-6)
    np.testing.assert_allclose(found[: len(y), 1], np.array(y, float), rtol=1e-6)
    assert np.isnan(found[len(y) : 10, 1]).all() or len(y) == 11


def brute(times, values, at, method, gap):
    """The same by hand, one value at a time."""
    known = [(t, v) for t, v in zip(times, values, strict=True) if np.isfinite(v)]
    before = [(t, v) for t, v in known if t <= at + (1e-9 if method == "previous" else 0)]
    after = [(t, v) for t, v in known if t >= at]
    if method == "previous":
        return before[-1][1] if before and at - before[-1][0] <= gap + 1e-9 else np.nan
    if method == "nearest":
        near = min(known, key=lambda p: (abs(p[0] - at), p[0]), default=(np.inf, np.nan))
        return near[1] if abs(near[0] - at) <= gap + 1e-9 else np.nan
    if not before or not after:
        return np.nan
    (t0, v0), (t1, v1) = before[-1], after[0]
    if max(at - t0, t1 - at) > gap + 1e-9:
        return np.nan
    return v0 if t1 == t0 else v0 + (at - t0) / (t1 - t0) * (v1 - v0)


@settings(max_examples=50)
@given(
    ticks=st.lists(st.integers(0, 300), min_size=1, max_size=40, unique=True).map(sorted),
    lost=st.sets(st.integers(0, 39)),
    method=st.sampled_from(["linear", "previous", "nearest"]),
    gap=st.sampled_from([0.015, 0.05, 0.2, 5.0]),
    first=st.integers(0, 25),
)
def test_alignment_is_that_of_every_single_sample(ticks, lost, method, gap, first):
    times = np.array(ticks) / 100 - 0.2
    values = np.stack([times * 3 + 1, times**2], axis=1)
    values[[i for i in lost if i < len(times)], 1] = np.nan
    recording = tracked(times, values, pieces=[(0.0, 0, 12), (1.53, 12, 30)])
    aligned = run(recording, {"step": "align", "method": method, "gap": gap}).modalities["behavior"]
    whole = read(aligned.values)
    at = recording.neural.times()
    wanted = [[brute(times, values[:, c], t, method, gap) for c in (0, 1)] for t in at]
    np.testing.assert_allclose(whole, wanted, rtol=1e-5, atol=1e-6)
    assert aligned.values[first : first + 5].tobytes() == whole[first : first + 5].tobytes()


@pytest.mark.parametrize("method", ["linear", "previous", "nearest"])
@pytest.mark.parametrize("rate", [3.0, 25.0, 1000.0])
def test_a_series_at_another_rate_is_aligned_as_its_samples_are(method, rate):
    count = round(rate * 3)
    values = np.cumsum(noise(count), axis=0)
    values[count // 3] = np.nan
    pieces = [(0.05, 0, count // 2), (1.9, count // 2, count)]
    step = {"step": "align", "method": method, "gap": 0.4}
    recording = regular(values, rate, pieces)
    measured = recording.modalities["behavior"]
    irregular = tracked(measured.times(), values)
    found = behavior(recording, step)
    np.testing.assert_array_equal(found, behavior(irregular, step))
    assert np.isfinite(found).any()
    derived = measured.with_values(in_blocks(values, (7,)))
    again = behavior(recording.with_modality("behavior", derived), step)
    np.testing.assert_array_equal(again, found)


def test_behavior_on_the_same_samples_is_aligned_already():
    moved = run(of(series(noise(40))), {"step": "behavior", "channels": ["c1"]})
    assert run(moved, {"step": "align", "gap": 0.001}) is moved
    after = run(moved, {"step": "resample", "rate": 50}, {"step": "align", "method": "previous"})
    np.testing.assert_array_equal(
        read(after.modalities["behavior"].values)[:, 0], noise(40)[::2, 1]
    )


def test_series_whose_clock_goes_back_are_not_aligned():
    values = noise(20)
    recording = regular(values, 10.0, [(0.0, 0, 10), (0.5, 10, 20)])
    with pytest.raises(RecordingError, match=r"at 0.5 s: .*piece starts before the one in front"):
        run(recording, {"step": "align"})


def test_only_movement_is_kept():
    times = np.arange(8) * 0.5
    position = np.array([[0, 0], [0, 0], [3, 4], [6, 8], [6, 8], [6, 8], [np.nan, 8], [6, 8]])
    # Over the sample before and after: 0, 5, 10, 5, 0 px/s … and no neighbour at the end.
    step = {"step": "moving", "above": 4.9}
    found = behavior(tracked(times, position), step)
    moving = np.array([False, True, True, True, False, False, False, False])
    np.testing.assert_array_equal(np.isfinite(found).all(axis=1), moving)
    series_found = behavior(regular(position, 2.0), step)
    np.testing.assert_array_equal(series_found, found)
    along_y = behavior(
        tracked(times, position), {"step": "moving", "channels": ["y"], "above": 3.9}
    )
    np.testing.assert_array_equal(np.isnan(along_y[:, 1]), ~moving)
    exactly = behavior(tracked(times, position), {"step": "moving", "above": 5.0})
    assert np.isfinite(exactly[:, 0]).sum() == 1


@settings(max_examples=30)
@given(st.lists(st.integers(0, 39), max_size=6), st.integers(0, 39), st.integers(0, 39))
def test_movement_is_the_same_from_any_slice_and_stays_in_its_piece(lost, start, stop):
    values = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32).cumsum(axis=0)
    values[lost] = np.nan
    pieces = [(0.0, 0, 11), (9.0, 11, 12), (20.0, 12, 40)]
    step = {"step": "moving", "above": 8.0}
    found = run(regular(values, 10.0, pieces), step).modalities["behavior"]
    whole = read(found.values)
    assert found.values[start:stop].tobytes() == whole[start:stop].tobytes()
    alone = [behavior(regular(values[a:b], 10.0), step) for _, a, b in pieces]
    np.testing.assert_array_equal(whole, np.concatenate(alone))
    blocked = run(regular(in_blocks(values, (3, 8)), 10.0, pieces), step).modalities["behavior"]
    np.testing.assert_array_equal(read(blocked.values), whole)


def test_the_linear_track(shared_data):
    """Spikes and positions of the data card on one clock: bins, positions, movement."""
    with np.load(shared_data / "hippocampus_linear_track" / "linear_track.npz") as file:
        times, position = file["pos_t"], file["pos_xy_px"]
        order = np.argsort(file["spike_times"], kind="stable")
        spikes, units = file["spike_times"][order], file["spike_unit"][order]
    kept = np.append(True, np.diff(times) > 0)  # one time stamp is there twice
    recording = of(
        modalities={
            "behavior": Samples(times[kept], position[kept], XY),
            "spikes": events(spikes, units, map(str, range(31)), span=(times[0], times[-1])),
        }
    )
    after = run(
        recording,
        {"step": "bin", "width": 0.25},
        {"step": "mask"},
        {"step": "align", "gap": 0.2},
        {"step": "moving", "above": 15},
    )
    counts, found = read(after.neural.values), read(after.modalities["behavior"].values)
    assert counts.shape == (7929, 31)
    assert (
        counts.sum()
        == len(spikes) - (spikes >= after.neural.span[1]).sum() - (spikes < times[0]).sum()
    )
    moving = np.flatnonzero(np.isfinite(found).all(axis=1))
    assert after.neural.times()[moving[-1]] - times[0] == pytest.approx(986, abs=1)
    assert 1500 < len(moving) < 1800

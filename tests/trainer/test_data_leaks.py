"""Copies, overlaps and shared trials between parts: found where planted, never by chance."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recording.contract import Channel, Piece, Recording, Series
from recording.preparation import parse_steps, prepare
from trainer.data import load_dataset
from trainer.data.copies import LEAST, Covered, find_copy
from trainer.data.errors import SplitError
from trainer.data.leaks import check_copies, check_leaks, check_recorded, check_trials, spans_of
from trainer.data.splits import Block, SegmentSplit, split_blocks, window_starts
from trainer.data.windows import PARTS, Windows, forecast_specs

relaxed = settings(deadline=None, max_examples=30)


def noise(seed, rows, channels):
    return np.random.default_rng(seed).standard_normal((rows, channels)).astype(np.float32)


def smooth(seed, rows, channels):
    """Slow, quantised, correlated channels, as a recorder of 12 bits writes them."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, channels)) + random.standard_normal((rows, 1))
    for _ in range(3):
        values[1:] = values[1:] + 0.8 * values[:-1]
    return (0.1 * np.round(20 * values)).astype(np.float32)


def counts(seed, rows, channels):
    """Sparse spike counts whose rates come and go."""
    random = np.random.default_rng(seed)
    rates = np.repeat(random.gamma(0.3, 0.3, (rows // 50 + 1, channels)), 50, axis=0)[:rows]
    return random.poisson(rates).astype(np.float32)


def parts_of(series, borders=(0.6, 0.8)):
    """The parts of one session, by time."""
    rows = len(series)
    edges = [0, *(int(rows * border) for border in borders), rows]
    return {
        part: Covered((series,), np.array([[0, first, stop]]))
        for part, first, stop in zip(PARTS, edges, edges[1:], strict=False)
    }


MAKERS = {"noise": noise, "smooth": smooth, "counts": counts}


@relaxed
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(sorted(MAKERS)),
    rows=st.integers(100, 3000),
    channels=st.integers(1, 12),
)
def test_data_without_a_copy_pass(seed, kind, rows, channels):
    parts = parts_of(MAKERS[kind](seed, rows, channels))
    assert find_copy(parts).copy is None
    other = Covered((MAKERS[kind](seed + 1, rows, channels),), np.array([[0, 0, rows]]))
    assert find_copy({"train": parts["train"], "test": other}).copy is None


@relaxed
@given(data=st.data(), seed=st.integers(0, 10**6), channels=st.integers(1, 9))
def test_a_copy_planted_anywhere_is_found(data, seed, channels):
    series = noise(seed, 2000, channels)
    length = data.draw(st.integers(LEAST, 80))
    a = data.draw(st.integers(0, 1200 - length))
    b = data.draw(st.integers(1200, 2000 - length))
    if b < 1600 < b + length:
        b = 1600
    series[b : b + length] = series[a : a + length]
    copy = find_copy(parts_of(series)).copy
    assert copy is not None
    assert (copy.first.part, copy.first.start) == ("train", a)
    assert (copy.second.part, copy.second.start) == ("validation" if b < 1600 else "test", b)
    assert (copy.length, copy.channels) == (length, channels)


@relaxed
@given(seed=st.integers(0, 10**6), shift=st.integers(0, 300), kind=st.sampled_from(sorted(MAKERS)))
def test_a_session_that_is_there_twice_is_found_shifted_or_in_another_dtype(seed, shift, kind):
    whole = MAKERS[kind](seed, 4000, 6)
    copy = whole[shift:].astype(np.float64)
    train = Covered((whole, copy), np.array([[0, 0, 4000]]))
    test = Covered((whole, copy), np.array([[1, 0, 4000 - shift]]))
    found = find_copy({"train": train, "test": test}).copy
    assert found is not None
    assert (found.first.start - found.second.start, found.length) == (shift, 4000 - shift)


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2, 2.0])
@pytest.mark.parametrize("channels", [1, 8, 40])
def test_counts_repeat_by_chance_and_are_no_copies(rate, channels):
    random = np.random.default_rng(channels)
    series = random.poisson(rate, (20_000, channels)).astype(np.float32)
    assert find_copy(parts_of(series)).copy is None
    if rate * channels > 0.1:
        series[17_000:18_500] = series[3000:4500]
        copy = find_copy(parts_of(series)).copy
        assert copy is not None
        # What lies around the copy may be as silent as the copy's own end.
        assert copy.second.start <= 17_000
        assert copy.second.start + copy.length >= 18_500


@pytest.mark.parametrize(
    "series",
    [
        np.zeros((3000, 4), np.float32),
        np.arange(3000, dtype=np.float32)[:, None] * 0.1 + np.arange(3),
        np.repeat(noise(0, 12, 5), 250, axis=0),
        np.full((3000, 2), np.nan, np.float32),
        np.where(np.arange(3000) % 1000 < 700, 5.0, noise(1, 3000, 3).T).T,
        np.repeat(np.round(smooth(2, 3000, 1)), 30, axis=1),
        (np.cumsum(noise(3, 3000, 1) > 2.3, axis=0) % 2).astype(np.float32),
    ],
    ids=["zeros", "ramps", "held", "missing", "flat stretches", "equal channels", "on and off"],
)
def test_flat_and_foreseeable_rows_are_no_copies(series):
    assert find_copy(parts_of(series)).copy is None


def test_one_equal_channel_is_no_copy():
    series = noise(4, 1000, 4)
    series[700:, :3] = series[:300, :3]
    assert find_copy(parts_of(series)).copy is None


def test_a_copy_within_a_part_or_between_what_no_part_covers_passes():
    series = noise(5, 1000, 3)
    series[200:300] = series[100:200]
    parts = parts_of(series)
    assert find_copy(parts).copy is None
    series[900:] = series[100:200]
    parts["train"] = Covered((series,), np.array([[0, 0, 100], [0, 300, 600]]))
    assert find_copy(parts).copy is None


def test_only_stretches_within_one_span_count():
    series = noise(6, 400, 3)
    series[350:362] = series[100:112]
    spans = np.array([[0, at, at + 6] for at in range(0, 300, 6)])
    parts = {
        "train": Covered((series,), spans),
        "test": Covered((series,), np.array([[0, 300, 400]])),
    }
    assert find_copy(parts).copy is None


def test_feature_0_decides_and_negative_zero_is_zero():
    series = np.stack([noise(7, 600, 3), noise(8, 600, 3)], axis=2)
    series[20:40, 1, 0] = 0.0
    series[500:520] = series[20:40]
    series[500:520, :, 1] += 1.0
    series[500:520, 1, 0] = -0.0
    copy = find_copy(parts_of(series)).copy
    assert copy is not None
    assert copy.length == 20


def test_large_data_are_compared_in_spread_chunks(monkeypatch):
    monkeypatch.setattr("trainer.data.copies.CHUNK_VALUES", 1000)
    whole = noise(9, 20_000, 2)
    series = (whole, whole.copy())
    parts = {
        "train": Covered(series, np.array([[0, 0, 20_000]])),
        "test": Covered(series, np.array([[1, 0, 20_000]])),
    }
    assert find_copy(parts).share == 1.0
    search = find_copy(parts, max_values=40_000)
    assert search.share == 0.5
    assert search.copy is not None
    assert search.copy.length == 20_000
    assert find_copy(parts, max_rows=4000).share == 0.1


def test_that_not_all_was_compared_is_said(monkeypatch, capsys):
    monkeypatch.setattr("trainer.data.check_leaks", lambda *_, **__: 0.25)
    load_dataset({"name": "synthetic", "samples": 600})
    assert "copies between the parts in 25.0% of the samples" in capsys.readouterr().err


def test_the_check_is_fast():
    series = noise(10, 100_000, 32)
    started = time.process_time()
    find_copy(parts_of(series))
    assert time.process_time() - started < 2.0  # 0.1 s; a busy machine may take its time


def windows_of(series, cut, steps=20, trials=None):
    inputs, outputs = forecast_specs(
        steps=steps, channels=series[0].shape[1], features=1, unit="raw"
    )
    sessions, starts = np.array(cut).T
    return Windows(
        "forecast",
        10,
        inputs,
        outputs,
        {"neural": tuple(series)},
        sessions,
        starts,
        trials=None if trials is None else np.array(trials),
    )


@relaxed
@given(
    cut=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 80)), min_size=1),
    steps=st.integers(1, 20),
)
def test_spans_are_what_windows_cover(cut, steps):
    spans = spans_of(windows_of((noise(0, 100, 1),) * 2, cut, max(steps, 11)))
    steps = max(steps, 11)
    covered = {(s, i) for s, start in cut for i in range(start, start + steps)}
    assert {(s, i) for s, first, stop in spans for i in range(first, stop)} == covered
    assert sum(stop - first for _, first, stop in spans) == len(covered)
    assert spans.tolist() == sorted(spans.tolist())
    for (s, _, stop), (t, first, _) in pairwise(spans):
        assert s != t or first > stop


def test_errors_name_both_places_and_what_to_do():
    series = (noise(11, 400, 4), noise(12, 400, 4))
    series[1][200:230] = series[0][40:70]
    parts = {
        "train": windows_of(series, [(0, 20), (0, 40), (0, 60)], trials=[3, 4, 5]),
        "test": windows_of(series, [(1, 195), (1, 215)], trials=[-1, 7]),
    }
    text = (
        r"^samples 40 to 69 \(0\.4 s to 0\.7 s\) of session 'a', trial 4 in train are the same "
        r"numbers as samples 200 to 229 \(2 s to 2\.3 s\) of session 'b' in test, 30 samples in a "
        r"row: remove the copy, or split so that both lie in one part"
    )
    with pytest.raises(SplitError, match=text):
        check_leaks(parts, rate=100.0, session_names=("a", "b"))
    parts["train"] = windows_of(series, [(0, 80)])
    assert check_leaks(parts, rate=100.0) == 1.0
    parts["train"] = windows_of(series, [(1, 185)])
    with pytest.raises(SplitError, match=r"sample 195 \(1\.95 s\) of session 'b' is in both"):
        check_leaks(parts, rate=100.0, session_names=("a", "b"))


def test_a_file_listed_twice_is_told_so(tmp_path):
    values = noise(13, 600, 3)
    paths = []
    for name in "abc":
        paths.append(str(tmp_path / f"{name}.npy"))
        np.save(paths[-1], noise(14, 600, 3) if name == "b" else values)
    data = {
        "name": "array",
        "path": paths,
        "rate": 100.0,
        "split": {"by": "session", "train": ["a"], "validation": ["b"], "test": ["c"]},
    }
    with pytest.raises(
        SplitError, match=r"of session 'a' in train are .* the recording is there twice"
    ):
        load_dataset(data)
    np.save(paths[2], noise(15, 600, 3))
    load_dataset(data)


def sessions_of(*arrays, rate=100.0):
    """A recording of each array (time, channel), the last channel of which counts samples."""
    return [
        Recording("x", "array", name, {"neural": Series(values, rate, CHANNELS)})
        for name, values in zip("abc", arrays, strict=False)
    ]


CHANNELS = tuple(Channel(name, "eeg", "µV") for name in ("A", "B", "count"))
STEPS = parse_steps(
    [
        {"step": "drop", "names": ["count"]},
        {"step": "filter", "low": 2.0, "high": 20.0, "phase": "causal"},
        {"step": "resample", "rate": 50.0},
    ]
)


@pytest.mark.parametrize("shift", [0, 37])
def test_a_copy_is_found_behind_filter_and_resampling(shift):
    values = noise(17, 1200, 3)
    values[:, 2] = np.arange(1200)
    values[800 + shift : 860 + shift, :2] = values[100:160, :2]
    recordings = sessions_of(values)
    prepared = [prepare(one, STEPS) for one in recordings]
    assert len(prepared[0].neural.values) == 600
    parts = {"train": [Block("a", 0, 300)], "test": [Block("a", 350, 600)]}
    text = (
        rf"^samples 100 to 159 \(1 s to 1\.6 s\) of session 'a' in train are the same numbers as "
        rf"samples {800 + shift} to {859 + shift}"
    )
    with pytest.raises(SplitError, match=text):
        check_recorded(recordings, prepared, parts)
    # Where a block ends in the middle of what is copied, and where none holds it.
    with pytest.raises(SplitError, match=r"samples 100 to 119 .* 20 samples in a row"):
        check_recorded(recordings, prepared, {**parts, "train": [Block("a", 0, 60)]})
    parts["train"] = [Block("a", 0, 50), Block("a", 80, 300)]
    check_recorded(recordings, prepared, parts)


def test_recorded_sessions_are_compared_where_times_are_clear():
    first, second = noise(18, 400, 3), noise(19, 400, 3)
    second[50:90] = first[10:50]
    recordings = sessions_of(first, second)
    parts = {"train": [Block("a", 0, 200)], "test": [Block("b", 0, 200)]}
    prepared = [prepare(one, STEPS[1:]) for one in recordings]
    with pytest.raises(SplitError, match=r"of session 'a' in .* session 'b' in test, 40 samples"):
        check_recorded(recordings, prepared, parts)
    check_recorded(recordings, recordings, parts)  # not prepared: the windows say it
    spikes = [replace(one, modalities={}) for one in recordings]
    check_recorded(spikes, prepared, parts)
    twice = (Piece(0.0, 0, 200), Piece(1.0, 200, 400))
    unclear = [one.with_modality("neural", replace(one.neural, pieces=twice)) for one in recordings]
    check_recorded(unclear, prepared, parts)


def test_shared_trials_are_refused():
    series = (noise(16, 400, 2),)
    parts = {
        "train": windows_of(series, [(0, 0), (0, 20)], trials=[1, 2]),
        "test": windows_of(series, [(0, 60), (0, 100)], trials=[2, -1]),
    }
    with pytest.raises(SplitError, match=r"trial 2 of session 'a' is in both train and test"):
        check_trials(parts, session_names=("a",))
    parts["test"] = windows_of(series, [(0, 60), (0, 100)], trials=[3, -1])
    check_trials(parts)


@pytest.mark.parametrize(
    "data",
    [
        {"name": "synthetic", "samples": 3000},
        {"name": "synthetic_decoding", "trials": 300},
        pytest.param({"name": "uecog_goose"}, marks=pytest.mark.slow),
    ],
    ids=lambda data: data["name"],
)
def test_sets_of_the_registry_pass(data, request):
    if data["name"] == "uecog_goose":
        request.getfixturevalue("shared_data")
    load_dataset(data)


@pytest.fixture(scope="module")
def eeg(shared_data):
    """Joined segments, some of which overlap in the original recording: (time, channel), blocks."""
    path = shared_data / "eeg_eeglab" / "eeglab_data.fdt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    values = np.fromfile(path, "<f4").reshape((32, -1), order="F").T
    starts = [0, *(89 + 385 * k for k in range(79))]
    blocks = [
        Block("eeg", start, min(stop, len(values)), segment=segment)
        for segment, (start, stop) in enumerate(
            zip(starts, [*starts[1:], len(values)], strict=True)
        )
    ]
    return np.ascontiguousarray(values), blocks


def test_the_segments_of_eeglab_pass_where_the_card_cuts_them(eeg):
    values, blocks = eeg
    parts = split_blocks(blocks, SegmentSplit(by="segment"), window=20)
    assert [parts[part][0].segment for part in PARTS] == [0, 56, 68]
    windows = {
        part: windows_of((values,), [(0, at) for _, at in window_starts(own, window=20, stride=2)])
        for part, own in parts.items()
    }
    assert check_leaks(windows, rate=128.0, session_names=("eeg",)) == 1.0


def test_a_border_between_segments_of_eeglab_that_overlap_is_refused(eeg):
    values, blocks = eeg
    lengths = []
    for before, after in pairwise(blocks):
        series, border = values[before.start : after.stop], len(before)
        parts = {
            "train": Covered((series,), np.array([[0, 0, border]])),
            "test": Covered((series,), np.array([[0, border, len(series)]])),
        }
        if (copy := find_copy(parts).copy) is not None:
            assert (copy.first.start + copy.length, copy.second.start) == (border, border)
            lengths.append(copy.length)
            refused = after.segment
    assert (len(lengths), sum(lengths), min(lengths), max(lengths)) == (11, 1356, 14, 266)
    parts = {
        part: Covered((values,), np.array([[0, b.start, b.stop] for b in own]))
        for part, own in (("train", blocks[:refused]), ("test", blocks[refused:]))
    }
    with pytest.raises(SplitError, match=r"in train are the same numbers as .* other borders$"):
        check_copies(parts, rate=128.0, session_names=("eeg",))


@pytest.mark.parametrize("filtered", [False, True])
def test_a_recording_is_refused_where_the_split_parts_segments_that_overlap(shared_data, filtered):
    steps = [
        {"step": "declare", "unit": "µV"},
        {"step": "segment", "first": 89, "length": 385},
        *([{"step": "filter", "low": 1.0, "high": 30.0, "phase": "causal"}] if filtered else []),
    ]

    def load(border):
        split = {"by": "segment", "train": border / 80, "validation": (68 - border) / 80}
        load_dataset(
            {
                "name": "recording",
                "path": str(shared_data / "eeg_eeglab" / "eeglab_data.set"),
                "preparation": steps,
                "window": 20,
                "split": {**split, "test": 12 / 80},
            }
        )

    load(56)
    with pytest.raises(SplitError, match=r"samples 23765 to 23958 \(185\.\d+ s to 187\.\d+ s\)"):
        load(63)

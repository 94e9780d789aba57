"""Splits: no sample, trial, session or subject in two parts, whatever the numbers."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from trainer.data.errors import SplitError
from trainer.data.leaks import check_disjoint
from trainer.data.splits import (
    Block,
    SessionSplit,
    Split,
    SubjectSplit,
    TimeSplit,
    TrialSplit,
    check_blocks,
    split_blocks,
    window_starts,
)
from trainer.data.windows import PARTS, Windows, forecast_specs

relaxed = settings(deadline=None, max_examples=80)


@st.composite
def fractions(draw):
    train = draw(st.integers(1, 98))
    validation = draw(st.integers(1, 99 - train))
    return train / 100, validation / 100, (100 - train - validation) / 100


def samples(cut, window):
    return {(session, start + step) for session, start in cut for step in range(window)}


@relaxed
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    shares=fractions(),
    gap=st.none() | st.integers(0, 60),
    window=st.integers(1, 40),
    strides=st.tuples(st.integers(1, 15), st.integers(1, 15), st.integers(1, 15)),
)
def test_time_blocks_share_no_sample_and_keep_the_gap(lengths, shares, gap, window, strides):
    blocks = [Block(f"s{i}", 0, length) for i, length in enumerate(lengths)]
    split = TimeSplit(train=shares[0], validation=shares[1], test=shares[2], gap=gap)
    try:
        parts = split_blocks(blocks, split, window=window)
    except SplitError as error:
        assert "one window needs" in str(error)  # noqa: PT017
        return
    cut = {
        part: window_starts(parts[part], window=window, stride=stride)
        for part, stride in zip(PARTS, strides, strict=True)
    }
    seen = {part: samples(cut[part], window) for part in PARTS}
    width = window if gap is None else gap
    for first, second in combinations(PARTS, 2):
        assert not seen[first] & seen[second]
        for session in {s for s, _ in seen[first]} & {s for s, _ in seen[second]}:
            last = max(i for s, i in seen[first] if s == session)
            assert min(i for s, i in seen[second] if s == session) - last > width
    assert all(0 <= i < lengths[int(s[1:])] for part in PARTS for s, i in seen[part])


def test_the_gap_is_cut_from_the_end_of_the_earlier_part():
    parts = split_blocks([Block("s", 0, 10_000)], TimeSplit(), window=20)
    spans = {part: (block.start, block.stop) for part, (block,) in parts.items()}
    assert spans == {"train": (0, 6980), "validation": (7000, 8480), "test": (8500, 10_000)}


@relaxed
@given(
    trials=st.lists(st.integers(3, 60), min_size=1, max_size=3),
    shares=fractions(),
)
def test_trials_stay_whole_and_in_order(trials, shares):
    blocks = [
        Block(f"s{s}", 20 * t, 20 * t + 20, trial=t)
        for s, count in enumerate(trials)
        for t in range(count)
    ]
    split = TrialSplit(train=shares[0], validation=shares[1], test=shares[2])
    try:
        parts = split_blocks(blocks, split, window=20)
    except SplitError as error:
        assert "one window needs" in str(error)  # noqa: PT017
        return
    assert sorted(b.start for p in PARTS for b in parts[p]) == sorted(b.start for b in blocks)
    for session in {b.session for b in blocks}:
        order = [b.trial for p in PARTS for b in parts[p] if b.session == session]
        assert order == sorted(set(order))


@relaxed
@given(data=st.data(), steps=st.integers(1, 12))
def test_check_disjoint_agrees_with_brute_force(data, steps):
    inputs, outputs = forecast_specs(steps=steps, channels=1, features=1, unit="raw")
    series = {"neural": tuple(np.zeros((120, 1, 1), np.float32) for _ in range(2))}
    parts, seen = {}, {}
    for part in PARTS:
        cut = data.draw(
            st.lists(st.tuples(st.integers(0, 1), st.integers(0, 120 - steps)), min_size=1)
        )
        seen[part] = samples(cut, steps)
        sessions, starts = np.array(cut).T
        parts[part] = Windows("forecast", 1, inputs, outputs, series, sessions, starts)
    if any(seen[a] & seen[b] for a, b in combinations(PARTS, 2)):
        with pytest.raises(SplitError, match="in both"):
            check_disjoint(parts)
    else:
        check_disjoint(parts)


@relaxed
@given(data=st.data())
def test_check_blocks_agrees_with_brute_force(data):
    spans = st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 9)), max_size=5
    )
    parts = {
        part: [Block(s, start, start + size) for s, start, size in data.draw(spans)]
        for part in PARTS
    }
    seen = {p: {(b.session, i) for b in parts[p] for i in range(b.start, b.stop)} for p in PARTS}
    if any(seen[a] & seen[b] for a, b in combinations(PARTS, 2)):
        with pytest.raises(SplitError, match="are in both"):
            check_blocks(parts, "time")
    else:
        check_blocks(parts, "time")


@pytest.mark.parametrize("by", ["trial", "session", "subject"])
def test_check_blocks_refuses_what_the_split_goes_by(by):
    parts = {"train": [Block("a", 0, 20, "x", 1)], "test": [Block("a", 20, 40, "x", 1)]}
    with pytest.raises(SplitError, match=rf"^{by} .*in both train and test"):
        check_blocks(parts, by)
    check_blocks(parts, "time")


SESSIONS = [
    Block("a", 0, 50, "x"),
    Block("b", 0, 50, "x"),
    Block("c", 0, 50, "y"),
    Block("d", 0, 50, "z"),
]


def test_sessions_and_subjects_stay_whole():
    split = SessionSplit(by="session", train=("a", "b"), validation=("c",), test=("d",))
    parts = split_blocks(SESSIONS, split, window=20)
    assert [[b.session for b in parts[p]] for p in PARTS] == [["a", "b"], ["c"], ["d"]]
    split = SubjectSplit(by="subject", train=("x",), validation=("z",), test=("y",))
    parts = split_blocks(SESSIONS, split, window=20)
    assert [[b.session for b in parts[p]] for p in PARTS] == [["a", "b"], ["d"], ["c"]]


@pytest.mark.parametrize(
    ("split", "text"),
    [
        (
            SessionSplit(by="session", train=("a", "b"), validation=("c",), test=("e",)),
            r"split\.test: no session 'e'; there are: a, b, c, d",
        ),
        (
            SessionSplit(by="session", train=("a", "b"), validation=("c",), test=("a", "d")),
            "split.train: session 'a' is listed twice",
        ),
        (
            SessionSplit(by="session", train=("a",), validation=("c",), test=("d",)),
            "session 'b' is in no part",
        ),
        (TimeSplit(train=0.7, validation=0.2, test=0.2), r"0.7 \+ .* is 1\.1; must be 1"),
        (TimeSplit(train=0.6, validation=0.15, test=0.15), r"is 0\.9; must be 1"),
        (
            TimeSplit(train=0.9, validation=0.05, test=0.05),
            "split.validation: 0 samples are left; one window needs 20",
        ),
        (TimeSplit(gap=40), "split.train: 0 samples are left"),
        (TrialSplit(), "session 'a' has 1 trials; needs three"),
    ],
)
def test_splits_that_do_not_work_out_are_refused(split, text):
    with pytest.raises(SplitError, match=text):
        split_blocks(SESSIONS, split, window=20)


def test_time_split_of_trials_is_refused():
    with pytest.raises(SplitError, match="these have trials: use trial"):
        split_blocks([Block("a", 0, 50), Block("a", 50, 100, trial=1)], TimeSplit(), window=20)


def test_split_settings_default_to_time_and_name_the_kinds():
    adapter = TypeAdapter(Split)
    assert adapter.validate_python({"train": 0.6, "validation": 0.2, "test": 0.2}).by == "time"
    assert adapter.validate_python({"by": "trial"}) == TrialSplit()
    with pytest.raises(
        ValidationError, match="one of: time, segment, trial, session, subject, site, fold"
    ):
        adapter.validate_python({"by": "shuffle"})
    with pytest.raises(ValidationError, match="train"):
        adapter.validate_python({"train": 1.5})
    with pytest.raises(ValidationError, match="tst"):
        adapter.validate_python({"tst": 0.1})

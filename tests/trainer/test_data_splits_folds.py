"""Splits by segment, site and grouped fold: every unit whole, folds equal, gaps on both sides."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from trainer.data.blocks import Block, keep_gap, unit_of
from trainer.data.errors import SplitError
from trainer.data.folds import fold_blocks
from trainer.data.splits import (
    FoldSplit,
    SegmentSplit,
    SiteSplit,
    Split,
    TimeSplit,
    TrialSplit,
    split_blocks,
)
from trainer.data.windows import PARTS

relaxed = settings(deadline=None, max_examples=80)


def covered(blocks):
    return {(block.session, i) for block in blocks for i in range(block.start, block.stop)}


@st.composite
def recordings(draw):
    """Sessions of pieces that follow one another, each piece of one or two trials."""
    blocks = []
    for session in range(draw(st.integers(1, 4))):
        at = trial = 0
        for segment in range(draw(st.integers(1, 7))):
            for length in draw(st.lists(st.integers(1, 40), min_size=1, max_size=2)):
                kind = draw(st.sampled_from("ab"))
                names = {"subject": f"p{session // 2}", "site": f"x{session % 2}"}
                block = Block(f"s{session}", at, at + length, trial=trial, segment=segment)
                blocks.append(Block(**{**vars(block), **names, "kind": kind}))
                at, trial = at + length, trial + 1
    return blocks


@relaxed
@given(
    blocks=recordings(),
    unit=st.sampled_from(["trial", "segment", "session", "subject", "site"]),
    folds=st.integers(3, 6),
    gap=st.none() | st.integers(0, 12),
)
def test_folds_cover_everything_once_and_part_no_unit(blocks, unit, folds, gap):
    count = len({unit_of(block, unit) for block in blocks})
    if count < folds:
        with pytest.raises(SplitError, match=f"{folds} folds of {count} {unit}"):
            fold_blocks(blocks, unit, folds)
        return
    made = fold_blocks(blocks, unit, folds)
    assert all(made)
    assert sorted((b.session, b.start) for own in made for b in own) == sorted(
        (b.session, b.start) for b in blocks
    )
    for first, second in combinations(made, 2):
        assert not {unit_of(b, unit) for b in first} & {unit_of(b, unit) for b in second}
    assert made == fold_blocks(blocks, unit, folds)
    tested = set()
    for fold in range(folds):
        split = FoldSplit(by="fold", unit=unit, folds=folds, fold=fold, gap=gap)
        try:
            parts = split_blocks(blocks, split, window=1)
        except SplitError as error:
            assert gap
            assert "one window needs" in str(error)  # noqa: PT017
            continue
        tested |= covered(parts["test"])
        assert parts["test"] == made[fold]
        keeps_distance(parts, gap or 0)
    assert gap or tested == covered(blocks)


@relaxed
@given(
    lengths=st.lists(st.lists(st.integers(20, 90), min_size=1, max_size=3), min_size=1, max_size=3),
    folds=st.integers(3, 5),
    window=st.integers(1, 6),
)
def test_folds_of_blocks_are_stretches_of_time_with_a_gap_on_both_sides(lengths, folds, window):
    blocks = []
    for session, pieces in enumerate(lengths):
        at = 0
        for segment, length in enumerate(pieces):
            blocks.append(Block(f"s{session}", at, at + length, segment=segment))
            at += length
    tested = []
    for fold in range(folds):
        split = FoldSplit(by="fold", unit="block", folds=folds, fold=fold)
        try:
            parts = split_blocks(blocks, split, window=window)
        except SplitError as error:
            assert "one window needs" in str(error)  # noqa: PT017
            continue
        keeps_distance(parts, window)
        tested.append(covered(parts["test"]))
        for session, pieces in enumerate(lengths):
            own = sum(1 for name, _ in tested[-1] if name == f"s{session}")
            assert abs(own - sum(pieces) / folds) <= 1
    assert not any(a & b for a, b in combinations(tested, 2))


def keeps_distance(parts, gap):
    for first, second in combinations(PARTS, 2):
        for a in parts[first]:
            for b in parts[second]:
                if a.session == b.session:
                    assert max(a.start, b.start) - min(a.stop, b.stop) >= gap


def test_folds_are_balanced_in_samples_and_classes_and_run_in_time():
    blocks = [
        Block("s", 10 * i, 10 * i + 10, trial=i, kind="rare" if i % 5 == 2 else "common")
        for i in range(100)
    ]
    made = fold_blocks(blocks, "trial", 5)
    assert [len(own) for own in made] == [20] * 5
    assert [sum(b.kind == "rare" for b in own) for own in made] == [4] * 5
    for own in made:
        common = sorted(b.trial for b in own if b.kind == "common")
        others = sum(b.kind == "common" and common[0] < b.trial < common[-1] for b in blocks)
        assert others == len(common) - 2


def test_sessions_are_spread_by_size_and_class():
    sizes = {"a": 90, "b": 50, "c": 40, "d": 30, "e": 30, "f": 30}
    blocks = [Block(name, 0, size) for name, size in sizes.items()]
    made = fold_blocks(blocks, "session", 3)
    assert sorted(sum(map(len, own)) for own in made) == [80, 90, 100]
    blocks = [
        Block(f"{kind}{i}", 0, size, kind=kind) for kind in "xy" for i, size in enumerate([9, 5, 5])
    ]
    for own in fold_blocks(blocks, "session", 3):
        assert sorted(b.kind for b in own) == ["x", "y"]


def test_classes_too_rare_for_every_fold_do_not_empty_one():
    blocks = [Block("s", 10 * i, 10 * i + 10, trial=i, kind=str(i)) for i in range(7)]
    assert all(fold_blocks(blocks, "trial", 5))


def test_a_session_of_many_trials_is_in_every_fold():
    blocks = [Block(s, 5 * i, 5 * i + 5, trial=i) for s in "ab" for i in range(20)]
    for own in fold_blocks(blocks, "trial", 5):
        assert sorted(b.session for b in own) == ["a"] * 4 + ["b"] * 4
    single = [Block(f"s{i}", 0, 5) for i in range(10)]
    assert [len(own) for own in fold_blocks(single, "trial", 5)] == [2] * 5


def test_trials_that_share_samples_stay_in_one_fold_and_are_refused_by_trial():
    blocks = [Block("s", 15 * i, 15 * i + 20, trial=i) for i in range(4)]
    blocks += [Block("s", 100 + 30 * i, 120 + 30 * i, trial=4 + i) for i in range(2)]
    made = fold_blocks(blocks, "trial", 3)
    assert sorted([b.trial for b in own] for own in made) == [[0, 1, 2, 3], [4], [5]]
    with pytest.raises(SplitError, match="4 folds of 3 trial"):
        fold_blocks(blocks, "trial", 4)
    split = TrialSplit(train=0.5, validation=0.3, test=0.2)
    text = (
        r"samples 45 to 49 \(0.9 s to 1 s\) of session 's' are in both train \(trial 2\) and "
        r"validation \(trial 3\): trials that overlap"
    )
    with pytest.raises(SplitError, match=text):
        split_blocks(blocks, split, window=20, rate=50.0)


def test_a_trial_that_the_gap_would_cut_is_left_out():
    blocks = [Block("s", 10 * i, 10 * i + 10, trial=i) for i in range(9)]
    split = FoldSplit(by="fold", unit="trial", folds=3, fold=1, gap=1)
    parts = split_blocks(blocks, split, window=10)
    assert [[b.trial for b in parts[part]] for part in PARTS] == [[0, 1], [7, 8], [3, 4, 5]]


@relaxed
@given(data=st.data(), gap=st.integers(0, 5))
def test_keep_gap_agrees_with_brute_force(data, gap):
    spans = st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(1, 12)), max_size=6
    )
    own, others = (
        [Block(s, start, start + size) for s, start, size in data.draw(spans)] for _ in range(2)
    )
    near = {(b.session, i) for b in others for i in range(b.start - gap, b.stop + gap)}
    for block in own:
        kept = keep_gap([block], others, gap)
        assert covered(kept) == covered([block]) - near
        assert sum(map(len, kept)) == len(covered(kept))
        assert keep_gap([block], others, gap, whole=True) == ([] if kept != [block] else [block])


SEGMENTS = [
    Block(name, 50 * i, 50 * i + 50, segment=i, subject=name, site=site)
    for name, site in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "z"))
    for i in range(10)
]


def test_segments_stay_whole_and_in_order():
    parts = split_blocks(SEGMENTS, SegmentSplit(by="segment"), window=20)
    for name in "abcd":
        order = [[b.segment for b in parts[part] if b.session == name] for part in PARTS]
        assert order == [[0, 1, 2, 3, 4, 5, 6], [7], [8, 9]]


def test_test_sessions_are_kept_whole_for_test():
    split = SegmentSplit(by="segment", test_sessions=("b", "d"))
    parts = split_blocks(SEGMENTS, split, window=20)
    assert {b.session for b in parts["test"]} == {"b", "d"}
    assert len(parts["test"]) == 20
    assert [b.segment for b in parts["train"] if b.session == "a"] == list(range(8))
    assert [b.segment for b in parts["validation"]] == [8, 9, 8, 9]
    split = TrialSplit(train=0.5, validation=0.5, test_sessions=("b",))
    trials = [Block(s, 9 * i, 9 * i + 9, trial=i) for s in "ab" for i in range(4)]
    parts = split_blocks(trials, split, window=9)
    assert [len(parts[part]) for part in PARTS] == [2, 2, 4]


def test_sites_stay_whole():
    split = SiteSplit(by="site", train=("x",), validation=("z",), test=("y",))
    parts = split_blocks(SEGMENTS, split, window=20)
    assert [sorted({b.session for b in parts[part]}) for part in PARTS] == [
        ["a", "b"],
        ["d"],
        ["c"],
    ]


def test_time_runs_over_the_pieces_of_a_session():
    pieces = [Block("s", 0, 300, segment=0), Block("s", 300, 1000, segment=1)]
    parts = split_blocks(pieces, TimeSplit(gap=10), window=20)
    assert [[(b.start, b.stop) for b in parts[part]] for part in PARTS] == [
        [(0, 300), (300, 690)],
        [(700, 840)],
        [(850, 1000)],
    ]


@pytest.mark.parametrize(
    ("blocks", "split", "text"),
    [
        (
            SEGMENTS,
            SegmentSplit(by="segment", test_sessions=("e",)),
            "no session 'e'; there are: a",
        ),
        (SEGMENTS, SegmentSplit(by="segment", test_sessions=("a", "a")), "'a' is listed twice"),
        (SEGMENTS, SegmentSplit(by="segment", test_sessions=tuple("abcd")), "names every session"),
        (SEGMENTS[:2], SegmentSplit(by="segment"), "session 'a' has 2 segments; needs three"),
        (
            SEGMENTS[:11],
            SegmentSplit(by="segment", test_sessions=("a",)),
            "session 'b' has 1 segments; needs two",
        ),
        (SEGMENTS, FoldSplit(by="fold", unit="site", folds=4), "4 folds of 3 site"),
        (
            [Block("a", 0, 50)],
            FoldSplit(by="fold", unit="subject", folds=3),
            "session 'a' names no subject",
        ),
        (
            [Block("a", 0, 50), Block("a", 50, 100, trial=1)],
            FoldSplit(by="fold"),
            "split.unit: block needs continuous sessions; these have trials",
        ),
    ],
)
def test_splits_that_do_not_work_out_are_refused(blocks, split, text):
    with pytest.raises(SplitError, match=text):
        split_blocks(blocks, split, window=20)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"by": "fold", "fold": 5}, "fold 5 of 5; must be 0 to 4"),
        ({"by": "fold", "folds": 2}, "greater than or equal to 3"),
        ({"by": "fold", "unit": "window"}, "'trial', 'segment'"),
        ({"by": "fold", "train": 0.5}, "train"),
        ({"by": "segment", "gap": 3}, "gap"),
        ({"by": "site", "train": [], "validation": ["x"], "test": ["y"]}, "train"),
    ],
)
def test_settings_are_strict(values, text):
    with pytest.raises(ValidationError, match=text):
        TypeAdapter(Split).validate_python(values)

"""Leakage-safe splits: by time, segment, trial, session, subject or site, or in grouped folds.

Never by shuffled windows. `trainer.data.leaks` checks what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from trainer.data.blocks import Block, Parts, by_session, in_stretches, keep_gap, unit_of
from trainer.data.errors import SplitError
from trainer.data.folds import fold_blocks
from trainer.data.windows import PARTS

Share = Annotated[float, Field(gt=0, lt=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Gap = Annotated[int, Field(ge=0)] | None


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeSplit(_Settings):
    """Consecutive time blocks of every session, as fractions.

    `gap` samples are cut from the end of the earlier part: left out, one window, or more where the
    preparation mixes more over time.
    """

    by: Literal["time"] = "time"
    train: Share = 0.7
    validation: Share = 0.15
    test: Share = 0.15
    gap: Gap = None


class TrialSplit(_Settings):
    """Consecutive trials of every session, as fractions, in order of recording.

    `test_sessions` are kept whole for test; the trials of the others are then train and validation
    alone, in the ratio of these two fractions.
    """

    by: Literal["trial"] = "trial"
    train: Share = 0.7
    validation: Share = 0.15
    test: Share = 0.15
    test_sessions: tuple[str, ...] = ()


class SegmentSplit(_Settings):
    """Consecutive segments (pieces that were recorded without a break), like `TrialSplit`."""

    by: Literal["segment"]
    train: Share = 0.7
    validation: Share = 0.15
    test: Share = 0.15
    test_sessions: tuple[str, ...] = ()


class SessionSplit(_Settings):
    """Whole sessions, by name."""

    by: Literal["session"]
    train: Names
    validation: Names
    test: Names


class SubjectSplit(_Settings):
    """Whole subjects, by name."""

    by: Literal["subject"]
    train: Names
    validation: Names
    test: Names


class SiteSplit(_Settings):
    """Whole recording sites, by name."""

    by: Literal["site"]
    train: Names
    validation: Names
    test: Names


class FoldSplit(_Settings):
    """Fold `fold` of a grouped k-fold: test is that fold, validation the next, train the rest.

    No `unit` is divided; the unit `block` cuts every session into as many equal stretches of time
    as there are folds. `gap` samples (one window for `block`, else 0) are cut from train and
    validation on both sides of what is held out; a trial that it would cut is left out.
    """

    by: Literal["fold"]
    unit: Literal["trial", "segment", "session", "subject", "site", "block"] = "block"
    folds: Annotated[int, Field(ge=3, le=1000)] = 5
    fold: Annotated[int, Field(ge=0)] = 0
    gap: Gap = None

    @model_validator(mode="after")
    def _fold_exists(self) -> FoldSplit:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds}; must be 0 to {self.folds - 1}")
        return self


def _kind(value: Any) -> str:
    return str(value.get("by", "time") if isinstance(value, dict) else getattr(value, "by", "time"))


KINDS = ("time", "segment", "trial", "session", "subject", "site", "fold")
Split = Annotated[
    Annotated[TimeSplit, Tag("time")]
    | Annotated[SegmentSplit, Tag("segment")]
    | Annotated[TrialSplit, Tag("trial")]
    | Annotated[SessionSplit, Tag("session")]
    | Annotated[SubjectSplit, Tag("subject")]
    | Annotated[SiteSplit, Tag("site")]
    | Annotated[FoldSplit, Tag("fold")],
    Discriminator(
        _kind,
        custom_error_type="split",
        custom_error_message=f"split.by must be one of: {', '.join(KINDS)}",
    ),
]


def split_blocks(
    blocks: Sequence[Block], split: Split, *, window: int, rate: float | None = None
) -> Parts:
    """The blocks of each part, checked; `rate` in Hz lets errors say seconds.

    Raises SplitError where fractions do not add up, a name is unknown or twice, a part has no
    room for one window, or parts overlap.
    """
    by: str = split.by
    if isinstance(split, TimeSplit):
        parts = _by_time(blocks, split, window if split.gap is None else split.gap)
    elif isinstance(split, TrialSplit | SegmentSplit):
        parts = _in_order(blocks, split)
    elif isinstance(split, FoldSplit):
        parts = _by_fold(blocks, split, window)
        by = "time" if split.unit == "block" else split.unit
    else:
        parts = _by_name(blocks, split)
    for name, part in parts.items():
        if not any(len(block) >= window for block in part):
            longest = max((len(block) for block in part), default=0)
            raise SplitError(
                f"split.{name}: {longest} samples are left; one window needs {window}: "
                "give it a larger fraction, a smaller gap or a longer recording"
            )
    check_blocks(parts, by, rate=rate)
    return parts


def cut_fractions(count: int, fractions: Sequence[float]) -> tuple[int, int]:
    """Ends of the first and second part of `count` things."""
    return round(count * fractions[0]), round(count * (fractions[0] + fractions[1]))


def window_starts(blocks: Iterable[Block], *, window: int, stride: int) -> list[tuple[str, int]]:
    """(session, first sample) of every window inside the blocks, `stride` samples apart."""
    return [
        (block.session, start)
        for block in blocks
        for start in range(block.start, block.stop - window + 1, stride)
    ]


def check_blocks(
    parts: Mapping[str, Sequence[Block]], by: str, *, rate: float | None = None
) -> None:
    """Raise SplitError where two parts share a sample, or what the split goes by."""
    if by != "time":
        for first, second in combinations(parts, 2):
            shared = {unit_of(b, by) for b in parts[first]} & {
                unit_of(b, by) for b in parts[second]
            }
            if shared:
                unit: Any = min(shared)  # type: ignore[type-var]
                raise SplitError(f"{by} {unit!r} is in both {first} and {second}")
    placed = [(b.session, b.start, b.stop, part, b) for part in parts for b in parts[part]]
    reach: dict[tuple[str, str], Block] = {}
    for session, start, _, part, block in sorted(placed, key=lambda place: place[:4]):
        for other in parts:
            furthest = reach.get((session, other))
            if other != part and furthest is not None and furthest.stop > start:
                raise SplitError(_overlap(furthest, other, block, part, rate))
        furthest = reach.get((session, part))
        if furthest is None or block.stop > furthest.stop:
            reach[session, part] = block


def _overlap(a: Block, first: str, b: Block, second: str, rate: float | None) -> str:
    """What two blocks of different parts share, and what would be right."""
    start, stop = max(a.start, b.start), min(a.stop, b.stop)
    when = "" if rate is None else f" ({start / rate:.6g} s to {stop / rate:.6g} s)"
    text = f"samples {start} to {stop - 1}{when} of session {a.session!r} are in both "
    if a.trial == b.trial:
        return f"{text}{first} and {second}"
    return (
        f"{text}{first} (trial {a.trial}) and {second} (trial {b.trial}): trials that overlap must "
        "be in one part: cut shorter trials, or split by fold, session or subject"
    )


def _fractions(split: TimeSplit | TrialSplit | SegmentSplit) -> tuple[float, float, float]:
    fractions = (split.train, split.validation, split.test)
    if not math.isclose(sum(fractions), 1.0, abs_tol=1e-9):
        raise SplitError(
            f"split: train {split.train:g} + validation {split.validation:g} + test {split.test:g} "
            f"is {sum(fractions):g}; must be 1"
        )
    return fractions


def _by_time(blocks: Sequence[Block], split: TimeSplit, gap: int) -> Parts:
    train, validation, _ = _fractions(split)
    parts = dict(
        zip(PARTS, in_stretches(blocks, (train, train + validation), "split.by: time"), strict=True)
    )
    return _with_gap(parts, gap)


def _with_gap(parts: Parts, gap: int, *, whole: bool = False) -> Parts:
    """The parts with `gap` samples kept between them: validation yields to test, train to both."""
    if gap == 0:
        return parts
    held = [*parts["validation"], *parts["test"]]
    return {
        "train": keep_gap(parts["train"], held, gap, whole=whole),
        "validation": keep_gap(parts["validation"], parts["test"], gap, whole=whole),
        "test": parts["test"],
    }


def _in_order(blocks: Sequence[Block], split: TrialSplit | SegmentSplit) -> Parts:
    parts: Parts = {part: [] for part in PARTS}
    sessions = by_session(blocks)
    fractions = _fractions_with_tests(split, list(sessions))
    for session, own in sessions.items():
        if session in split.test_sessions:
            parts["test"] += own
            continue
        units = list(dict.fromkeys(unit_of(block, split.by) for block in own))
        needed = 2 if split.test_sessions else len(PARTS)
        if len(units) < needed:
            raise SplitError(
                f"split.by: {split.by}: session {session!r} has {len(units)} {split.by}s; "
                f"needs {'two' if split.test_sessions else 'three'}"
            )
        ends = cut_fractions(len(units), fractions)
        order = {unit: index for index, unit in enumerate(units)}
        for block in own:
            parts[PARTS[sum(order[unit_of(block, split.by)] >= end for end in ends)]].append(block)
    return parts


def _fractions_with_tests(
    split: TrialSplit | SegmentSplit, sessions: Sequence[str]
) -> tuple[float, float, float]:
    if not split.test_sessions:
        return _fractions(split)
    for name in split.test_sessions:
        if name not in sessions:
            raise SplitError(
                f"split.test_sessions: no session {name!r}; there are: {', '.join(sessions)}"
            )
        if split.test_sessions.count(name) > 1:
            raise SplitError(f"split.test_sessions: session {name!r} is listed twice")
    if len(split.test_sessions) == len(sessions):
        raise SplitError(
            "split.test_sessions: names every session; leave one or more for train and validation"
        )
    train = split.train / (split.train + split.validation)
    return train, 1 - train, 0.0


def _by_fold(blocks: Sequence[Block], split: FoldSplit, window: int) -> Parts:
    _check_named(blocks, split.unit)
    folds = fold_blocks(blocks, split.unit, split.folds)
    test, validation = split.fold, (split.fold + 1) % split.folds
    parts = {
        "train": [b for i, own in enumerate(folds) if i not in (test, validation) for b in own],
        "validation": folds[validation],
        "test": folds[test],
    }
    gap = (window if split.unit == "block" else 0) if split.gap is None else split.gap
    return _with_gap(parts, gap, whole=split.unit == "trial")


def _check_named(blocks: Sequence[Block], by: str) -> None:
    """Raise SplitError where a split goes by a name that a session lacks."""
    if by in ("subject", "site"):
        for block in blocks:
            if getattr(block, by) == "":
                raise SplitError(
                    f"split: session {block.session!r} names no {by}; name one per file: `{by}s`"
                )


def _by_name(blocks: Sequence[Block], split: SessionSplit | SubjectSplit | SiteSplit) -> Parts:
    _check_named(blocks, split.by)
    known = sorted({getattr(block, split.by) for block in blocks})
    listed = [(part, name) for part in PARTS for name in getattr(split, part)]
    names = [name for _, name in listed]
    for part, name in listed:
        if name not in known:
            raise SplitError(f"split.{part}: no {split.by} {name!r}; there are: {', '.join(known)}")
        if names.count(name) > 1:
            raise SplitError(f"split.{part}: {split.by} {name!r} is listed twice")
    if left := [name for name in known if name not in names]:
        raise SplitError(
            f"split: {split.by} {left[0]!r} is in no part: list it or leave its file out"
        )
    return {
        part: [block for block in blocks if getattr(block, split.by) in getattr(split, part)]
        for part in PARTS
    }

"""Leakage-safe splits: by time block, trial, session or subject, never by shuffled windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from trainer.data.blocks import Block, Parts
from trainer.data.errors import SplitError
from trainer.data.windows import PARTS, Windows

Share = Annotated[float, Field(gt=0, lt=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeSplit(_Settings):
    """Consecutive time blocks of every session, as fractions.

    `gap` samples (one window if left out) are cut from the end of the earlier part.
    """

    by: Literal["time"] = "time"
    train: Share = 0.7
    validation: Share = 0.15
    test: Share = 0.15
    gap: Annotated[int, Field(ge=0)] | None = None


class TrialSplit(_Settings):
    """Consecutive trials of every session, as fractions, in order of recording."""

    by: Literal["trial"] = "trial"
    train: Share = 0.7
    validation: Share = 0.15
    test: Share = 0.15


class SessionSplit(_Settings):
    """Whole sessions, by name."""

    by: Literal["session"]
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    validation: Annotated[tuple[str, ...], Field(min_length=1)]
    test: Annotated[tuple[str, ...], Field(min_length=1)]


class SubjectSplit(_Settings):
    """Whole subjects, by name."""

    by: Literal["subject"]
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    validation: Annotated[tuple[str, ...], Field(min_length=1)]
    test: Annotated[tuple[str, ...], Field(min_length=1)]


def _kind(value: Any) -> str:
    return str(value.get("by", "time") if isinstance(value, dict) else getattr(value, "by", "time"))


Split = Annotated[
    Annotated[TimeSplit, Tag("time")]
    | Annotated[TrialSplit, Tag("trial")]
    | Annotated[SessionSplit, Tag("session")]
    | Annotated[SubjectSplit, Tag("subject")],
    Discriminator(
        _kind,
        custom_error_type="split",
        custom_error_message="split.by must be one of: time, trial, session, subject",
    ),
]


def split_blocks(blocks: Sequence[Block], split: Split, *, window: int) -> Parts:
    """The blocks of each part, checked.

    Raises SplitError where fractions do not add up, a name is unknown or twice, a part has no
    room for one window, or parts overlap.
    """
    if isinstance(split, TimeSplit):
        gap = window if split.gap is None else split.gap
        parts = _by_time(blocks, _fractions(split), gap)
    elif isinstance(split, TrialSplit):
        parts = _by_trial(blocks, _fractions(split))
    else:
        parts = _by_name(blocks, split)
    for name, part in parts.items():
        if not any(len(block) >= window for block in part):
            longest = max((len(block) for block in part), default=0)
            raise SplitError(
                f"split.{name}: {longest} samples are left; one window needs {window}: "
                "give it a larger fraction, a smaller gap or a longer recording"
            )
    check_blocks(parts, split.by)
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


def check_blocks(parts: Mapping[str, Sequence[Block]], by: str) -> None:
    """Raise SplitError where two parts share a sample, or what the split goes by."""
    if by != "time":
        for first, second in combinations(parts, 2):
            shared = {_unit(b, by) for b in parts[first]} & {_unit(b, by) for b in parts[second]}
            if shared:
                raise SplitError(f"{by} {min(shared)!r} is in both {first} and {second}")
    placed = [(b.session, b.start, b.stop, part) for part in parts for b in parts[part]]
    reach: dict[tuple[str, str], int] = {}
    for session, start, stop, part in sorted(placed):
        for other in parts:
            if other != part and (end := reach.get((session, other), start)) > start:
                raise SplitError(
                    f"samples {start} to {min(stop, end) - 1} of session {session!r} are in both "
                    f"{other} and {part}"
                )
        reach[session, part] = max(stop, reach.get((session, part), stop))


def check_disjoint(parts: Mapping[str, Windows]) -> None:
    """Raise SplitError where windows of two parts share a sample of a session."""
    for first, second in combinations(parts, 2):
        a, b = parts[first], parts[second]
        for session in np.intersect1d(a.sessions, b.sessions):
            clash = _overlap(
                a.starts[a.sessions == session], a.steps, b.starts[b.sessions == session], b.steps
            )
            if clash is not None:
                raise SplitError(
                    f"sample {clash} of session {session} is in both {first} and {second}: "
                    "windows of two parts must not overlap"
                )


def _overlap(a: np.ndarray, a_steps: int, b: np.ndarray, b_steps: int) -> int | None:
    """First sample that windows from `a` and from `b` share, None if there is none."""
    b = np.sort(b)
    after = np.searchsorted(b, a - b_steps, side="right")
    near = after < len(b)
    hit = np.flatnonzero(near & (b[np.minimum(after, len(b) - 1)] < a + a_steps))
    if len(hit) == 0:
        return None
    return int(max(a[hit[0]], b[after[hit[0]]]))


def _fractions(split: TimeSplit | TrialSplit) -> tuple[float, float, float]:
    fractions = (split.train, split.validation, split.test)
    if not math.isclose(sum(fractions), 1.0, abs_tol=1e-9):
        raise SplitError(
            f"split: train {split.train:g} + validation {split.validation:g} + test {split.test:g} "
            f"is {sum(fractions):g}; must be 1"
        )
    return fractions


def _by_time(blocks: Sequence[Block], fractions: Sequence[float], gap: int) -> Parts:
    parts: Parts = {part: [] for part in PARTS}
    if len({block.session for block in blocks}) != len(blocks):
        raise SplitError("split.by: time needs continuous sessions; these have trials: use trial")
    for block in blocks:
        first, second = (block.start + end for end in cut_fractions(len(block), fractions))
        edges = ((block.start, first - gap), (first, second - gap), (second, block.stop))
        for part, (start, stop) in zip(PARTS, edges, strict=True):
            if stop > start:
                parts[part].append(replace(block, start=start, stop=stop))
    return parts


def _by_trial(blocks: Sequence[Block], fractions: Sequence[float]) -> Parts:
    parts: Parts = {part: [] for part in PARTS}
    for session in dict.fromkeys(block.session for block in blocks):
        trials = [block for block in blocks if block.session == session]
        if len(trials) < len(PARTS):
            raise SplitError(
                f"split.by: trial: session {session!r} has {len(trials)} trials; needs three"
            )
        first, second = cut_fractions(len(trials), fractions)
        for part, chosen in zip(
            PARTS, (trials[:first], trials[first:second], trials[second:]), strict=True
        ):
            parts[part].extend(chosen)
    return parts


def _by_name(blocks: Sequence[Block], split: SessionSplit | SubjectSplit) -> Parts:
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


def _unit(block: Block, by: str) -> tuple[str, int] | str:
    return (block.session, block.trial) if by == "trial" else str(getattr(block, by))

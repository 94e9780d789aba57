"""Blocks: the stretches of samples that a split hands out and windows are cut within."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from trainer.data.errors import SplitError


@dataclass(frozen=True)
class Block:
    """Samples [start, stop) of one session, no border inside: windows are cut within it.

    `trial` and `segment` count within the session; blocks that share a trial, a segment, a session,
    a subject or a site stay together where a split goes by it. A session without trials leaves
    `trial` at 0. `kind` is the block's class where it has one: folds are balanced over it.
    """

    session: str
    start: int
    stop: int
    subject: str = ""
    trial: int = 0
    segment: int = 0
    site: str = ""
    kind: str = ""

    def __len__(self) -> int:
        return self.stop - self.start


Parts = dict[str, list[Block]]


def unit_of(block: Block, by: str) -> Hashable:
    """What of a block a split by `by` never parts: (session, trial), a subject's name, …"""
    if by in ("trial", "segment"):
        return block.session, getattr(block, by)
    return str(getattr(block, by))


def by_session(blocks: Iterable[Block]) -> dict[str, list[Block]]:
    """The blocks of each session, sessions in order of appearance."""
    sessions: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        sessions[block.session].append(block)
    return sessions


def in_stretches(blocks: Sequence[Block], shares: Sequence[float], where: str) -> list[list[Block]]:
    """Every session cut into consecutive stretches that end at `shares` of its samples, and at 1.

    Raises SplitError, naming the setting `where`, for sessions of several trials.
    """
    stretches: list[list[Block]] = [[] for _ in range(len(shares) + 1)]
    for own in by_session(blocks).values():
        if len({block.trial for block in own}) > 1:
            raise SplitError(f"{where} needs continuous sessions; these have trials: use trial")
        total = sum(map(len, own))
        edges = [0, *(round(total * share) for share in shares), total]
        at = 0
        for block in own:
            for stretch, first, stop in zip(stretches, edges, edges[1:], strict=False):
                start = block.start + max(first - at, 0)
                end = block.start + min(stop - at, len(block))
                if start < end:
                    stretch.append(replace(block, start=start, stop=end))
            at += len(block)
    return stretches


def keep_gap(
    blocks: Iterable[Block], others: Iterable[Block], gap: int, *, whole: bool = False
) -> list[Block]:
    """`blocks` without the samples that lie within `gap` samples of any of `others`.

    With `whole` a block that would be cut is left out.
    """
    near = {session: _merged(own, gap) for session, own in by_session(others).items()}
    kept = []
    for block in blocks:
        starts, stops = near.get(block.session, ([], []))
        rest, at = [], block.start
        # The spans that reach into the block, which follow one another.
        for span in range(bisect_right(stops, block.start), bisect_left(starts, block.stop)):
            if starts[span] > at:
                rest.append(replace(block, start=at, stop=starts[span]))
            at = stops[span]
        if at < block.stop:
            rest.append(replace(block, start=at))
        kept += [] if whole and rest != [block] else rest
    return kept


def _merged(blocks: Iterable[Block], gap: int) -> tuple[list[int], list[int]]:
    """Starts and stops of what blocks of one session cover, `gap` samples around them included."""
    starts: list[int] = []
    stops: list[int] = []
    for start, stop in sorted((block.start - gap, block.stop + gap) for block in blocks):
        if stops and start <= stops[-1]:
            stops[-1] = max(stop, stops[-1])
        else:
            starts.append(start)
            stops.append(stop)
    return starts, stops

"""Blocks: the stretches of samples that a split hands out and windows are cut within."""

from __future__ import annotations

from dataclasses import dataclass


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

"""Clocks: whether time stamps are regular, and whether streams of a session share one clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from recording.contract import Events, Finding, Modality, Piece, check_times
from recording.errors import RecordingError
from recording.signals import Signal

BLOCK = 2**20
GAP = 1.5  # a step longer than this many periods is a gap
MOST_GAPS = 0.01  # of all steps; with more of them, a clock is not a regular one with gaps


@dataclass(frozen=True)
class Clock:
    """Time stamps seen as a regular clock: `rate` in Hz and the `pieces` between its gaps.

    `deviation` is the largest distance, in seconds, of a stamp from its place on that clock, and
    `worst` the stamp that has it.
    """

    rate: float
    pieces: tuple[Piece, ...]
    deviation: float
    worst: float

    @property
    def regular(self) -> bool:
        """Whether every sample lies within half a step of its place."""
        return self.deviation <= 0.5 / self.rate

    def findings(self, stream: str) -> tuple[Finding, ...]:
        """What to know of it: its gaps, and stamps that are off by more than a tenth of a step."""
        found = []
        if len(self.pieces) > 1:
            starts = tuple(piece.start for piece in self.pieces[1:])
            found.append(
                Finding(
                    "gap",
                    f"{len(starts)} gaps between time stamps; the first ends at {starts[0]:.6g} s",
                    "none needed: no window and no filter crosses a gap",
                    stream=stream,
                    times=starts[:10],
                    level="note",
                )
            )
        if self.deviation > 0.1 / self.rate:
            found.append(
                Finding(
                    "clock",
                    f"time stamps jitter by up to {self.deviation * 1e3:.3g} ms; "
                    f"read as {self.rate:g} Hz",
                    "none needed where a part of a step does not matter",
                    stream=stream,
                    times=(self.worst,),
                    level="note",
                )
            )
        return tuple(found)


def clock(times: Signal, *, file: object = "", stream: str = "") -> Clock:
    """The regular clock that comes closest to time stamps (sample,) in seconds, read in blocks.

    Raises RecordingError at the first stamp that is not finite, goes back or repeats, and for fewer
    than two of them.
    """
    if len(times) < 2:
        raise RecordingError("fewer than two time stamps", file=file, stream=stream)
    try:
        starts, firsts, period, count = _runs(times)
    except RecordingError as error:
        raise error.within(file=file, stream=stream) from None
    mean = 1 / period
    if count < 1 or len(firsts) > 1 + MOST_GAPS * len(times):
        return Clock(mean, (), float("inf"), starts[min(1, len(starts) - 1)])
    deviation, worst = _deviation(times, starts, firsts, mean)
    rate = mean
    # The rate that was meant rather than its rounding error: a short number, of Hz or of seconds,
    # that fits as well.
    meant_ones = [
        short
        for digits in range(4)
        for short in (round(mean, digits), 1 / (round(period, digits) or np.inf))
    ]
    for meant in dict.fromkeys(meant_ones):
        if meant > 0:
            found = _deviation(times, starts, firsts, meant)
            if found[0] <= deviation + 0.01 * period:
                rate, (deviation, worst) = meant, found
                break
    stops = [*firsts[1:], len(times)]
    pieces = tuple(map(Piece, starts, firsts, stops))
    return Clock(rate, pieces, deviation, worst)


def span(modality: Modality) -> tuple[float, float] | None:
    """From when to when a modality runs, in seconds; None where nothing tells."""
    if not isinstance(modality, Events) or modality.span is not None:
        return modality.span
    if not len(modality):
        return None
    return float(modality.times[0]), float(modality.stops.max())


def check_clocks(streams: Mapping[str, Modality], *, file: object = "") -> None:
    """Raise RecordingError where a stream has no moment in common with the main one.

    The main one is "neural", else "spikes", else the first.
    """
    spans = {name: found for name, one in streams.items() if (found := span(one)) is not None}
    if not spans:
        return
    main = next((name for name in ("neural", "spikes") if name in spans), next(iter(spans)))
    for name, own in spans.items():
        other = spans[main]
        shared = min(own[1], other[1]) - max(own[0], other[0])
        moment = own[0] == own[1] or other[0] == other[1]
        if shared < 0 or (shared == 0 and not moment):
            raise RecordingError(
                f"runs from {own[0]:.6g} to {own[1]:.6g} s, but {main} from {other[0]:.6g} to "
                f"{other[1]:.6g} s: the clocks disagree; both must count seconds from the same "
                "moment",
                file=file,
                stream=name,
                at=own[0],
            )


def _blocks(times: Signal) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of the stamps, each beginning with the last stamp of the block in front of it."""
    for start in range(0, len(times), BLOCK):
        first = max(0, start - 1)
        yield first, np.asarray(times[first : start + BLOCK], np.float64).reshape(-1)


def _runs(times: Signal) -> tuple[list[float], list[int], float, int]:
    """Start time and first sample of every run without a gap, the mean step, how many steps."""
    period, total, count = 0.0, 0.0, 0
    starts: list[float] = []
    firsts: list[int] = []
    for first, block in _blocks(times):
        check_times(block, rising=True, first=first)
        if not starts:
            starts, firsts = [float(block[0])], [0]
            period = float(np.median(np.diff(block)))
        steps = np.diff(block)
        gaps = np.flatnonzero(steps > GAP * period)
        total += float(steps.sum() - steps[gaps].sum())
        count += len(steps) - len(gaps)
        if len(firsts) <= 1 + MOST_GAPS * len(times):
            starts += block[gaps + 1].tolist()
            firsts += (gaps + 1 + first).tolist()
    return starts, firsts, total / count if count else period, count


def _deviation(
    times: Signal, starts: list[float], firsts: list[int], rate: float
) -> tuple[float, float]:
    """Largest distance of a stamp from its place, and that stamp."""
    largest, worst = 0.0, starts[0]
    begin, index = np.array(starts), np.array(firsts)
    for first, block in _blocks(times):
        own = np.arange(first, first + len(block))
        run = np.searchsorted(index, own, side="right") - 1
        off = np.abs(block - (begin[run] + (own - index[run]) / rate))
        at = int(off.argmax())
        if off[at] > largest:
            largest, worst = float(off[at]), float(block[at])
    return largest, worst

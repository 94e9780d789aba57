"""Copies: a stretch of samples that two parts of a data set hold, found by hashes of stretches.

Equal numbers alone prove nothing: silence, a held value or sparse spike counts repeat by chance. So
each stretch is weighed in bits, how unlikely its values are in these data, and only stretches that
chance repeats less than once in a million data sets are looked for. A row is all channels of one
sample; only feature 0 is compared, since filtered features of a copy differ by their history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from recording.signals import Signal
from trainer.data.chance import CONTEXT, Weights, channels_of, read_rows

# A stretch begins with two rows that give its level and slope; the six that follow are weighed.
# Eight rows are shorter than a window of any use, and a longer copy holds many of them.
LEAST = 8
LONGEST = 4096
CHUNK_VALUES = 2**18
# What is read at most, and 128 MB of hashes. Larger data are read in evenly spread chunks.
MAX_VALUES, MAX_ROWS = 2**28, 2**24
CHANCE_BITS = 20.0  # one in a million
TABLE_BITS = 26


@dataclass(frozen=True, eq=False)
class Covered:
    """What a part covers: `spans` (span, 3) int64: session, first, stop; sorted, apart."""

    series: Sequence[Signal]
    spans: np.ndarray


@dataclass(frozen=True)
class Place:
    """Where a stretch begins."""

    part: str
    session: int
    start: int


@dataclass(frozen=True)
class Copy:
    """`length` samples that are the same in two places, in `channels` channels."""

    first: Place
    second: Place
    length: int
    channels: int


@dataclass(frozen=True)
class Search:
    """What was found, and the share of the samples that was looked at."""

    copy: Copy | None
    share: float


def find_copy(
    parts: Mapping[str, Covered], *, max_values: int = MAX_VALUES, max_rows: int = MAX_ROWS
) -> Search:
    """A stretch of `LEAST` or more samples that two parts hold, the first in order of parts.

    Where single samples say little, such as sparse counts, the stretch must be longer.
    """
    signals = _signals(parts)
    if len({channels_of(signal) for signal in signals}) != 1:
        return Search(None, 1.0)
    rows, channels = sum(map(len, signals)), channels_of(signals[0])
    share = min(1.0, max_values / (rows * channels), max_rows / rows)
    weights = Weights.of(signals)
    # Pairs of stretches that chance could make equal; half as many bits again, since rows that
    # follow one another depend on one another in ways that the weights do not know.
    needed = 1.5 * 2 * np.log2(max(rows * share, 2)) + CHANCE_BITS
    length = LEAST
    while length < LONGEST and (length - CONTEXT) * weights.mean < 1.25 * needed:
        length *= 2
    scan = _Scan(parts, weights, length, needed, share)
    keys = scan.keys()
    for first, second in combinations(parts, 2):
        if (copy := scan.locate(first, second, _common(keys[first], keys[second]))) is not None:
            return Search(copy, share)
    return Search(None, share)


class _Scan:
    """Runs through what the parts cover, stretch by stretch of `length` rows."""

    def __init__(
        self,
        parts: Mapping[str, Covered],
        weights: Weights,
        length: int,
        needed: float,
        share: float,
    ) -> None:
        self.parts, self.weights, self.length = parts, weights, length
        self.needed, self.share = needed, share
        channels = len(weights.bits)
        random = np.random.Generator(np.random.PCG64(channels))
        self.multipliers = random.integers(0, 2**64, channels, np.uint64) | np.uint64(1)
        self.rows = max(4 * length, CHUNK_VALUES // channels)

    def keys(self) -> dict[str, np.ndarray]:
        """Hashes of the stretches of each part that chance does not repeat."""
        found: dict[str, list[np.ndarray]] = {part: [] for part in self.parts}
        for signal in _signals(self.parts):
            for part, _, _, keys in self._stretches(signal):
                found[part].append(keys)
        empty = np.empty(0, np.uint64)
        return {part: np.concatenate([empty, *keys]) for part, keys in found.items()}

    def locate(self, first: str, second: str, common: np.ndarray) -> Copy | None:
        """The first copy whose hash is in `common`; None where the values differ after all."""
        seen: set[int] = set()
        for b, key in self._places(second, common):
            if key in seen:
                continue
            seen.add(key)
            for a, _ in self._places(first, np.array([key], np.uint64)):
                if (copy := self._extended(a, b)) is not None:
                    return copy
                break
        return None

    def _places(self, part: str, wanted: np.ndarray) -> Iterator[tuple[Place, int]]:
        """Where the stretches of a part have one of the `wanted` hashes (sorted)."""
        if len(wanted) == 0:
            return
        for signal in _signals({part: self.parts[part]}):
            for owner, session, starts, keys in self._stretches(signal):
                for at in np.flatnonzero(_among(keys, wanted)) if owner == part else ():
                    yield Place(part, session, int(starts[at])), int(keys[at])

    def _stretches(self, signal: Signal) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
        """Part, session, first rows and hashes of stretches with enough bits, chunk by chunk."""
        owners = [
            (part, session, covered.spans[covered.spans[:, 0] == session, 1:])
            for part, covered in self.parts.items()
            for session, own in enumerate(covered.series)
            if own is signal
        ]
        for chunk, start in enumerate(range(0, len(signal), self.rows)):
            if int((chunk + 1) * self.share) == int(chunk * self.share):
                continue
            starts = np.arange(start, min(start + self.rows, len(signal) - self.length + 1))
            inside = [
                (part, session, self._inside(starts, spans)) for part, session, spans in owners
            ]
            if not any(mask.any() for _, _, mask in inside):
                continue
            values = read_rows(signal, start, int(starts[-1]) + self.length)
            keys, enough = self._hashed(values)
            for part, session, mask in inside:
                chosen = mask & enough
                yield part, session, starts[chosen], keys[chosen]

    def _inside(self, starts: np.ndarray, spans: np.ndarray) -> np.ndarray:
        """Which stretches lie within one span: (stretch,) bool."""
        if len(spans) == 0 or len(starts) == 0:
            return np.zeros(len(starts), bool)
        first, last = int(starts[0]), int(starts[-1])
        own = int(np.searchsorted(spans[:, 0], first, side="right")) - 1
        if own >= 0 and last + self.length <= spans[own, 1]:
            return np.ones(len(starts), bool)
        owns = np.searchsorted(spans[:, 0], starts, side="right") - 1
        return np.asarray((owns >= 0) & (starts + self.length <= spans[owns, 1]))

    def _hashed(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hash of every stretch of rows, and whether it has enough bits."""
        with np.errstate(all="ignore"):
            total = np.concatenate([[0.0], np.cumsum(self.weights.rows(values))])
        count = len(values) - self.length + 1
        bits = total[self.length : self.length + count] - total[CONTEXT : CONTEXT + count]
        keys, size, factor = self._row_keys(values), 1, 0x9E3779B97F4A7C15
        while size < self.length:
            keys = keys[:-size] * np.uint64(factor) + keys[size:]
            size, factor = 2 * size, factor * factor % 2**64
        return keys, bits >= self.needed

    def _row_keys(self, values: np.ndarray) -> np.ndarray:
        words = values.view(np.uint32)
        words = words ^ (words >> np.uint32(16))
        words *= np.uint32(0x85EBCA6B)
        words ^= words >> np.uint32(13)
        return _mixed(words.astype(np.uint64) @ self.multipliers)

    def _extended(self, a: Place, b: Place) -> Copy | None:
        """The copy around two places as far as it goes within the parts' spans; None for none."""
        here, there = self._side(a), self._side(b)
        forward = _run(here, there, a.start, b.start, 1)
        if forward < self.length:
            return None
        back = _run(here, there, a.start - 1, b.start - 1, -1)
        return Copy(
            Place(a.part, a.session, a.start - back),
            Place(b.part, b.session, b.start - back),
            back + forward,
            len(self.weights.bits),
        )

    def _side(self, place: Place) -> tuple[Signal, int, int]:
        """The signal of a place and the span of its part around it."""
        covered = self.parts[place.part]
        spans = covered.spans[covered.spans[:, 0] == place.session, 1:]
        own = int(np.searchsorted(spans[:, 0], place.start, side="right")) - 1
        return covered.series[place.session], int(spans[own, 0]), int(spans[own, 1])


def _run(
    here: tuple[Signal, int, int], there: tuple[Signal, int, int], a: int, b: int, way: int
) -> int:
    """How many rows from `a` and `b` on, forward (1) or back (-1), are equal."""
    run, step = 0, 4096
    while True:
        if way > 0:
            size = min(step, here[2] - a, there[2] - b)
            first, second = a, b
        else:
            size = min(step, a + 1 - here[1], b + 1 - there[1])
            first, second = a + 1 - size, b + 1 - size
        if size <= 0:
            return run
        left, right = (
            read_rows(side[0], at, at + size).view(np.uint32)
            for side, at in ((here, first), (there, second))
        )
        differ = np.flatnonzero((left != right).any(axis=1)[::way])
        if len(differ):
            return run + int(differ[0])
        run, a, b = run + size, a + way * size, b + way * size


def _signals(parts: Mapping[str, Covered]) -> list[Signal]:
    """The signals of all parts, each once."""
    return list({id(s): s for covered in parts.values() for s in covered.series}.values())


def _mixed(keys: np.ndarray) -> np.ndarray:
    keys = keys ^ (keys >> np.uint64(32))
    keys *= np.uint64(0xD6E8FEB86659FD93)
    keys ^= keys >> np.uint64(29)
    return keys


def _among(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which keys are in `wanted`, sorted and not empty."""
    at = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    return np.asarray(wanted[at] == keys)


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What two arrays of hashes share, sorted."""
    less, more = sorted((a, b), key=len)
    # Most of the many have no partner; a table tells so without sorting them.
    more = _filtered(more, less)
    less = np.sort(_filtered(less, more))
    return less[_among(less, np.sort(more))] if len(more) else less


def _filtered(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The keys that may be among the others: all that are, and a few more."""
    bits = min(max(16 * len(others), 2).bit_length(), TABLE_BITS)
    shift = np.uint64(64 - bits)
    table = np.zeros(2**bits, bool)
    table[others >> shift] = True
    return np.asarray(keys[table[keys >> shift]])

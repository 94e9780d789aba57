"""Channels that are another channel, some samples earlier or later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from recording.contract import Finding, Series
from recording.series_sample import plane
from recording.stream_health import MEASURED, ChannelHealth, listed

WINDOW = 16
SAMPLES = 4096
LEAST_DISTINCT = 8  # values in a window that is compared
LEAST_SHARE = 0.5  # of the samples that both have at that lag
LEAST_WINDOWS = 4


def lagged_findings(
    name: str, series: Series, channels: Sequence[ChannelHealth]
) -> Iterator[Finding]:
    """A finding for channels that repeat another one shifted in time, to the bit."""
    longest = max(series.pieces, key=len)
    values = plane(series, longest.first, min(longest.stop, longest.first + SAMPLES))
    chosen = [
        index
        for index, c in enumerate(channels)
        if c.type in MEASURED and not (c.flat or c.code) and c.missing < 1
    ]
    copies = lagged_copies(values[:, chosen])
    if not copies:
        return
    pairs = [
        f"{channels[chosen[late]].name} has what {channels[chosen[early]].name} has, "
        f"{abs(lag)} samples {'earlier' if lag < 0 else 'later'}"
        for late, early, lag in copies
    ]
    names = tuple(channels[chosen[late]].name for late, _, _ in copies)
    rows = all(abs(lag) == len(channels) for _, _, lag in copies)
    cause = f": one long row was cut every {len(channels)} samples" if rows else ""
    yield Finding(
        "duplicate",
        f"{len(copies)} of {len(channels)} channels repeat another one shifted in time: "
        f"{listed(pairs, 3)}{cause}",
        "ask where the file is from: its channels are not what their names say, and a forecast of "
        "one is known from another",
        name,
        channels=names,
    )


def lagged_copies(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Channels of (time, channel) that equal an earlier channel at a lag: (channel, of, lag).

    The lag is in samples, negative where the channel comes first.
    """
    count, width = values.shape
    if count < 2 * WINDOW or width < 2:
        return []
    bits = np.ascontiguousarray(values.T + 0.0).view(np.uint64)
    mixed = (bits ^ (bits >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    keys = np.zeros((width, count - WINDOW + 1), np.uint64)
    changes = np.zeros(keys.shape, np.int64)
    for offset in range(WINDOW):
        part = slice(offset, offset + keys.shape[1])
        keys = keys * np.uint64(0x100000001B3) + mixed[:, part]
        if offset:
            changes += bits[:, part] != bits[:, offset - 1 : offset - 1 + keys.shape[1]]
    lively = (changes >= LEAST_DISTINCT) & np.isfinite(values.T[:, : keys.shape[1]])
    rows, places = np.nonzero(lively)
    flat = keys[lively]
    order = np.lexsort((places, rows, flat))
    same = np.flatnonzero(flat[order[1:]] == flat[order[:-1]])
    found: Counter[tuple[int, int, int]] = Counter()
    for before, after in zip(order[same], order[same + 1], strict=True):
        if rows[before] != rows[after] and places[before] != places[after]:
            lag = int(places[after] - places[before])
            found[int(rows[after]), int(rows[before]), lag] += 1
    copies: dict[int, tuple[int, int, int]] = {}
    for pair, windows in found.items():
        if windows >= max(LEAST_WINDOWS, LEAST_SHARE * (keys.shape[1] - abs(pair[2]))):
            copies.setdefault(pair[0], pair)
    return sorted(copies.values())

"""What is wrong with behaviour and events: lost positions, doubled events, unbalanced classes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from recording.contract import Channel, Events, Finding

SHOWN = 12
SMALL_CLASS = 0.1
_AXIS = re.compile(r"^(?P<stem>.*?)(?P<axis>[xyzXYZ])(?P<tail>[0-9]*)$")


def position_groups(channels: tuple[Channel, ...]) -> list[tuple[int, ...]]:
    """Channels that are the coordinates of one point: names alike but for x, y, z."""
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for index, channel in enumerate(channels):
        name = re.sub(r"[ _]?\(?(px|cm|mm|m)\)?$", "", channel.name)
        if match := _AXIS.match(name):
            stem = (match["stem"].rstrip("_- .").lower(), match["tail"])
            groups.setdefault(stem, {})[match["axis"].lower()] = index
    return [
        tuple(group[axis] for axis in sorted(group))
        for group in groups.values()
        if {"x", "y"} <= set(group)
    ]


def lost_positions(
    name: str, times: np.ndarray, values: np.ndarray, channels: tuple[Channel, ...]
) -> Iterator[Finding]:
    """Stretches where all coordinates of a point are 0: a tracker's way to say that it is lost.

    A point that really passes the origin gets there in small steps; a lost one jumps.
    """
    for group in position_groups(channels):
        points = values[:, list(group)]
        zero = (points == 0).all(axis=1)
        seen = ~zero & np.isfinite(points).all(axis=1)
        if not zero.any() or seen.sum() < 2:
            continue
        edges = np.flatnonzero(np.diff(zero.view(np.int8)))
        jumps = np.abs(points[edges + 1] - points[edges]).max(axis=1)
        steps = np.abs(np.diff(points, axis=0)).max(axis=1)[seen[1:] & seen[:-1]]
        usual = float(np.quantile(steps, 0.99)) if steps.size else 0.0
        if edges.size and not np.median(jumps) > 5 * max(usual, 1e-12):
            continue
        names = tuple(channels[index].name for index in group)
        starts = np.flatnonzero(zero & ~np.concatenate([[False], zero[:-1]]))
        yield Finding(
            "lost",
            f"{', '.join(names)} are 0 in {int(zero.sum())} samples "
            f"({100 * zero.mean():.2g} %), in {starts.size} runs: the position was lost",
            "mask them: they count as not measured",
            name,
            tuple(float(times[at]) for at in starts[:SHOWN]),
            names,
            steps=({"step": "mask", "channels": list(names), "value": 0},),
        )


def event_findings(name: str, events: Events) -> Iterator[Finding]:
    """Events that occur twice at the same moment; of trials, classes that are rare or empty."""
    if len(events) > 1:
        order = np.lexsort((events.kinds, events.times))
        times, kinds = events.times[order], events.kinds[order]
        twice = np.flatnonzero((np.diff(times) == 0) & (np.diff(kinds) == 0))
        if twice.size:
            yield Finding(
                "duplicate",
                f"{twice.size} of {len(events)} events come twice at the same moment",
                "check how the file was written; each is counted twice",
                name,
                tuple(float(times[at]) for at in twice[:SHOWN]),
            )
    if name != "trials" or not len(events):
        return
    counts = {label: count for label, count in events.counts.items() if count}
    if len(counts) == 1:
        yield Finding(
            "balance",
            f"all {len(events)} trials are of one class, {next(iter(counts))!r}",
            "nothing to classify: take the class from markers, {step: epochs}",
            name,
            level="note",
        )
        return
    rare = {label: n for label, n in counts.items() if n < SMALL_CLASS * len(events)}
    if rare and len(counts) < len(events) / 2:
        shown = ", ".join(f"{label!r} {n}" for label, n in list(rare.items())[:6])
        yield Finding(
            "balance",
            f"rare classes among {len(events)} trials: {shown}",
            "judge by balanced accuracy; group or leave out classes with few trials",
            name,
            level="note",
        )

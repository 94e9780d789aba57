"""What a first config has to know of behaviour: where it is, when it changes, which are states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recording.contract import Events, Recording, Samples, Series
from recording.errors import RecordingError
from recording.preparation import parse_steps, prepare
from recording.signals import blocks
from recording.stream_health import listed, patterns
from trainer.first_remedies import MOVES, Choices, Line, in_order, moved

LENGTHS = ("px", "mm", "cm", "m")
SHARES = (
    (0.6, 0.15, 0.25),
    (0.6, 0.2, 0.2),
    (0.5, 0.2, 0.3),
    (0.5, 0.25, 0.25),
    (0.4, 0.3, 0.3),
    (0.4, 0.2, 0.4),
    (0.6, 0.1, 0.3),
)
STATES = 12  # at most so many values make a behaviour channel a state
READ = 200_000  # samples of behaviour that tell when it changes


def with_behavior(
    chosen: Choices, recording: Recording, target: tuple[str, ...] | None
) -> Recording:
    """The recording after the steps that say which channels are behaviour and where it is lost.

    Channels of `neural` that `target` names are moved by a step of their own. Raises RecordingError
    for a target that is no channel.
    """
    behavior, neural = recording.modalities.get("behavior"), recording.modalities.get("neural")
    there = names_of(behavior)
    if there:
        chosen.lines = [_left_out(line) for line in chosen.lines]
    free = neural.names if isinstance(neural, Series) else ()
    wanted = [name for name in target or () if name not in there]
    if unknown := [name for name in wanted if name not in free]:
        raise RecordingError(
            f"--target: no channel {unknown[0]!r}; behaviour: {listed(there, 20) or 'none'}; "
            f"neural: {listed(free, 20) or 'none'}",
            file=recording.source,
        )
    if wanted and there:
        raise RecordingError(
            f"--target: {wanted[0]!r} is among the neural channels, and there is behaviour "
            f"already ({listed(there)}); say which are behaviour with --option behavior=…",
            file=recording.source,
        )
    if wanted := [name for name in wanted if not moved(chosen.lines, name)]:
        step = {"step": "behavior", "channels": patterns(wanted)}
        chosen.lines.append(Line(step, f"{listed(wanted)}: behaviour, as --target says"))
    chosen.lines = _one_behavior(chosen.lines)
    steps = [line.step for line in in_order(chosen.lines) if line.name in MOVES]
    return prepare(recording, parse_steps(steps))


def _left_out(line: Line) -> Line:
    """A step that moves channels as one that drops them: there is behaviour already."""
    if line.name != "behavior":
        return line
    return Line({"step": "drop", "names": list(line.step["channels"])}, line.reason)


def _one_behavior(lines: Sequence[Line]) -> list[Line]:
    """One step that moves channels in place of several."""
    moves = [line for line in lines if line.name == "behavior"]
    if len(moves) < 2:
        return list(lines)
    channels = [name for line in moves for name in line.step["channels"]]
    step = {"step": "behavior", "channels": list(dict.fromkeys(channels))}
    one = Line(step, "; ".join(line.reason for line in moves))
    return [one, *(line for line in lines if line.name != "behavior")]


def names_of(behavior: object) -> tuple[str, ...]:
    """The channels of behaviour; none where it is none."""
    return behavior.names if isinstance(behavior, (Series, Samples)) else ()


def changing(behavior: Series | Samples, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Times and values (time, variable) of some channels, every k-th of very long ones."""
    columns = [behavior.names.index(name) for name in names]
    if isinstance(behavior, Samples):
        return behavior.times, np.asarray(behavior.values[:, columns], np.float64)
    step = max(1, len(behavior.values) // READ)
    read, at = [], 0
    for block in blocks(behavior.values):
        rows = np.asarray(block[-at % step :: step], np.float64)
        read.append(rows.reshape(len(rows), -1)[:, columns])
        at += len(block)
    return behavior.times()[::step], np.concatenate(read)


def active_stretch(times: np.ndarray, values: np.ndarray) -> tuple[float, float] | None:
    """Seconds in which 99 % of the movement lies, None where that is nearly everything.

    values (time, variable); movement is the way that the variables go, in standard deviations.
    """
    spread = np.nanstd(values, axis=0)
    spread[~(spread > 0)] = 1.0
    steps = np.abs(np.diff(values, axis=0)) / spread
    way = np.cumsum(np.nan_to_num(steps.sum(axis=1)))
    if not len(way) or way[-1] <= 0:
        return None
    first, last = np.searchsorted(way, [0.005 * way[-1], 0.995 * way[-1]])
    start, stop = float(np.floor(times[first])), float(np.ceil(times[last + 1]))
    if stop - start > 0.8 * (times[-1] - times[0]):
        return None
    return max(start, float(times[0])), min(stop, float(times[-1]))


def walking(
    behavior: Series | Samples, names: tuple[str, ...], times: np.ndarray, values: np.ndarray
) -> float | None:
    """Speed above which an animal walks, where the variables are its position; None otherwise.

    A position is two or three variables in one unit of length. The speed is a tenth of that which
    is exceeded a twentieth of the time, in a second's way.
    """
    units = {c.unit for c in behavior.channels if c.name in names}
    if not 2 <= len(names) <= 3 or len(units) != 1 or not units & set(LENGTHS):
        return None
    step = max(1, round(1.0 / max(float(np.median(np.diff(times))), 1e-6)))
    way = np.sqrt(np.square(values[step:] - values[:-step]).sum(axis=1))
    speed = way / (times[step:] - times[:-step])
    fast = float(np.nanpercentile(speed, 95)) if np.isfinite(speed).any() else 0.0
    return float(f"{0.1 * fast:.2g}") if fast > 0 else None


def lively_shares(times: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Shares of train, validation and test such that behaviour changes in train and test.

    The first of some candidates in which both have two fifths of the whole spread or more, or else
    that with the most.
    """
    spread = np.nanstd(values, axis=0)
    spread[~(spread > 0)] = 1.0
    place = (times - times[0]) / max(times[-1] - times[0], 1e-9)

    def least(shares: tuple[float, float, float]) -> float:
        # What happens in the last tenth of a part may fall into the gap behind it.
        ends = np.cumsum(shares)
        firsts = ends - shares
        parts = [
            (place >= first) & (place < last - 0.1 * share)
            for first, last, share in zip(firsts, ends, shares, strict=True)
        ][::2]
        kept = [values[part] for part in parts]
        if any(len(part) < 2 for part in kept):
            return 0.0
        return min(float((np.nanstd(part, axis=0) / spread).mean()) for part in kept)

    found = [(least(shares), shares) for shares in SHARES]
    for least_spread, shares in found:
        if least_spread >= 0.4:
            return shares
    return max(found)[1]


def states_of(
    behavior: object, target: tuple[str, ...] | None
) -> dict[str, dict[float, int] | None]:
    """Samples per value of each (named) channel of behaviour, None where there are many values."""
    if not isinstance(behavior, (Series, Samples)):
        return {}
    counts: dict[str, dict[float, int] | None] = {
        name: {} for name in behavior.names if target is None or name in target
    }
    for block in blocks(behavior.values):
        rows = np.asarray(block).reshape(len(block), -1)
        for name, seen in counts.items():
            if seen is not None:
                counts[name] = _counted(rows[:, behavior.names.index(name)], seen)
    return counts


def _counted(values: np.ndarray, seen: dict[float, int]) -> dict[float, int] | None:
    found, numbers = np.unique(values[np.isfinite(values)], return_counts=True)
    if len(found) > STATES:
        return None
    for value, number in zip(found.tolist(), numbers.tolist(), strict=True):
        seen[float(value)] = seen.get(float(value), 0) + number
    return seen if len(seen) <= STATES else None


def state_shares(trials: Events) -> tuple[float, float, float]:
    """Shares of train, validation and test such that every class is in each part, long enough.

    Stretches of states differ in length: equal shares of their number may be little time.
    """
    assert trials.durations is not None
    best, found = -1.0, (0.6, 0.2, 0.2)
    for train in range(8, 16):
        for validation in range(2, 8):
            test = 20 - train - validation
            if test < 2:
                continue
            shares = (train / 20, validation / 20, test / 20)
            part = np.searchsorted(
                np.cumsum(shares)[:2] * len(trials), np.arange(len(trials)), "right"
            )
            least = min(
                float(trials.durations[(part == index) & (trials.kinds == kind)].sum() / wanted)
                for index, wanted in enumerate((0.6, 0.2, 0.2))
                for kind in np.unique(trials.kinds)
            )
            if least > best:
                best, found = least, shares
    return found

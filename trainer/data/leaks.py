"""What must not be in two parts of a data set at once: a sample, a trial, a copy of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np

from recording.contract import Recording, Series
from recording.signals import Pointwise, Signal
from trainer.data.blocks import Block
from trainer.data.copies import MAX_ROWS, MAX_VALUES, Copy, Covered, Place, find_copy
from trainer.data.errors import SplitError
from trainer.data.windows import Windows


def check_leaks(
    parts: Mapping[str, Windows],
    *,
    rate: float | None = None,
    session_names: Sequence[str] = (),
    max_values: int = MAX_VALUES,
    max_rows: int = MAX_ROWS,
) -> float:
    """Raise SplitError where two parts share a sample or a trial, or hold copies of samples.

    `rate` in Hz and the names let the error say where. Returns the share of the samples that was
    compared: below 1 where more than `max_values` numbers or `max_rows` samples are covered.
    """
    check_disjoint(parts, rate=rate, session_names=session_names)
    check_trials(parts, session_names=session_names)
    covered = {
        part: Covered(
            windows.series.get("neural", windows.series[windows.inputs[0].name]), spans_of(windows)
        )
        for part, windows in parts.items()
    }
    return check_copies(
        covered,
        rate=rate,
        session_names=session_names,
        trials=parts,
        max_values=max_values,
        max_rows=max_rows,
    )


def check_disjoint(
    parts: Mapping[str, Windows], *, rate: float | None = None, session_names: Sequence[str] = ()
) -> None:
    """Raise SplitError where windows of two parts share a sample of a session."""
    for first, second in combinations(parts, 2):
        a, b = parts[first], parts[second]
        for session in np.intersect1d(a.sessions, b.sessions):
            clash = _overlap(
                a.starts[a.sessions == session], a.steps, b.starts[b.sessions == session], b.steps
            )
            if clash is not None:
                when = "" if rate is None else f" ({clash / rate:.6g} s)"
                name = _name(int(session), session_names)
                raise SplitError(
                    f"sample {clash}{when} of session {name} is in both {first} and {second}: "
                    "windows of two parts must not overlap"
                )


def check_trials(parts: Mapping[str, Windows], *, session_names: Sequence[str] = ()) -> None:
    """Raise SplitError where windows of two parts are cut from one trial."""
    for first, second in combinations(parts, 2):
        shared = _trials(parts[first]) & _trials(parts[second])
        if shared:
            session, trial = min(shared)
            raise SplitError(
                f"trial {trial} of session {_name(session, session_names)} is in both {first} and "
                f"{second}: keep trials whole, split by trial, session, subject or fold"
            )


def check_copies(
    parts: Mapping[str, Covered],
    *,
    rate: float | None = None,
    session_names: Sequence[str] = (),
    trials: Mapping[str, Windows] | None = None,
    max_values: int = MAX_VALUES,
    max_rows: int = MAX_ROWS,
) -> float:
    """Raise SplitError where two parts hold the same stretch of samples, unless by chance.

    Filters leave no copy exactly equal: for those, give what was recorded instead of what was
    prepared. Returns the share of the samples that was compared.
    """
    search = find_copy(parts, max_values=max_values, max_rows=max_rows)
    if search.copy is not None:
        lengths = [len(signal) for signal in parts[search.copy.first.part].series]
        raise SplitError(_copy_text(search.copy, rate, session_names, trials or {}, lengths))
    return search.share


def check_recorded(
    recordings: Sequence[Recording],
    prepared: Sequence[Recording],
    parts: Mapping[str, Sequence[Block]],
) -> None:
    """Raise SplitError where what was recorded in the blocks of two parts is a copy.

    A filter leaves no copy exactly equal, so that this looks at the recordings before preparation,
    in the channels that are left after it; `parts` are blocks of the `prepared` ones.
    """
    found = [one.modalities.get("neural") for one in recordings]
    series = [one for one in found if isinstance(one, Series) and _rising(one)]
    same = all(one is two for one, two in zip(recordings, prepared, strict=True))
    if same or len(series) < len(found):
        return
    signals = [
        _same_channels(before, after.neural.names)
        for before, after in zip(series, prepared, strict=True)
    ]
    names = [one.session for one in prepared]
    covered = {
        part: Covered(signals, _recorded(blocks, series, prepared))
        for part, blocks in parts.items()
    }
    rates = {one.rate for one in series}
    check_copies(covered, rate=rates.pop() if len(rates) == 1 else None, session_names=names)


def check_clock(recordings: Sequence[Recording], parts: Mapping[str, Sequence[Block]]) -> None:
    """Raise SplitError where a time belongs to samples of two parts: prediction goes by time."""
    for one in recordings:
        own = [part for part in parts if any(b.session == one.session for b in parts[part])]
        if len(own) > 1 and not _rising(one.neural):
            raise SplitError(
                f"session {one.session!r} ({one.source}): its clock goes back from one piece to a "
                f"later one, so that times of {' and '.join(own)} are the same: mend the clock, or "
                "split by session or subject"
            )


def spans_of(windows: Windows) -> np.ndarray:
    """What windows cover: (span, 3) int64 session, first sample, stop; sorted, apart."""
    order = np.lexsort((windows.starts, windows.sessions))
    sessions, starts = windows.sessions[order], windows.starts[order]
    new = np.ones(len(starts), bool)
    new[1:] = (np.diff(sessions) != 0) | (np.diff(starts) > windows.steps)
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(starts)) - 1
    return np.stack([sessions[first], starts[first], starts[last] + windows.steps], axis=1)


def _same_channels(series: Series, names: Sequence[str]) -> Signal:
    """The values of those channels, of all where a preparation renamed them."""
    kept = np.array([index for index, name in enumerate(series.names) if name in names], np.int64)
    if len(kept) in (0, len(series.names)):
        return series.values
    tail = (len(kept), *series.values.shape[2:])
    return Pointwise(series.values, lambda rows: rows[:, kept], tail, series.values.dtype)


def _recorded(
    blocks: Sequence[Block],
    series: Sequence[Series],
    prepared: Sequence[Recording],
) -> np.ndarray:
    """Blocks as samples before preparation: (span, 3) int64 session, first, stop; sorted, apart."""
    numbers = {one.session: number for number, one in enumerate(prepared)}
    clocks = [np.array([piece.start for piece in one.pieces]) for one in series]
    found = []
    for block in blocks:
        session = numbers[block.session]
        before, after = series[session], prepared[session].neural
        start = float(after.times(block.start, block.start + 1)[0])
        end = start + len(block) / after.rate
        touched = slice(
            max(int(np.searchsorted(clocks[session], start, side="right")) - 1, 0),
            int(np.searchsorted(clocks[session], end)),
        )
        for piece in before.pieces[touched]:
            # Rounded inwards, so that no sample comes to lie in two parts.
            first = piece.first + max(math.ceil((start - piece.start) * before.rate - 1e-6), 0)
            stop = min(
                piece.first + math.floor((end - piece.start) * before.rate + 1e-6), piece.stop
            )
            if first < stop:
                found.append((session, first, stop))
    return _merged(found)


def _rising(series: Series) -> bool:
    """Whether a time belongs to one sample: no piece begins before the one in front of it ends."""
    pairs = pairwise(series.pieces)
    return all(b.start > a.start + (len(a) - 0.5) / series.rate for a, b in pairs)


def _merged(spans: list[tuple[int, int, int]]) -> np.ndarray:
    merged: list[list[int]] = []
    for session, first, stop in sorted(spans):
        if merged and merged[-1][0] == session and first <= merged[-1][2]:
            merged[-1][2] = max(stop, merged[-1][2])
        else:
            merged.append([session, first, stop])
    return np.array(merged, np.int64).reshape(-1, 3)


def _overlap(a: np.ndarray, a_steps: int, b: np.ndarray, b_steps: int) -> int | None:
    """First sample that windows from `a` and from `b` share, None if there is none."""
    b = np.sort(b)
    after = np.searchsorted(b, a - b_steps, side="right")
    near = after < len(b)
    hit = np.flatnonzero(near & (b[np.minimum(after, len(b) - 1)] < a + a_steps))
    if len(hit) == 0:
        return None
    return int(max(a[hit[0]], b[after[hit[0]]]))


def _trials(windows: Windows) -> set[tuple[int, int]]:
    if windows.trials is None:
        return set()
    pairs = np.stack([windows.sessions, windows.trials], axis=1)[windows.trials >= 0]
    return {(int(session), int(trial)) for session, trial in np.unique(pairs, axis=0)}


def _copy_text(
    copy: Copy,
    rate: float | None,
    session_names: Sequence[str],
    trials: Mapping[str, Windows],
    lengths: Sequence[int],
) -> str:
    """Both places of a copy, and what would be right."""
    first, second = (
        _place_text(place, copy.length, rate, session_names, trials.get(place.part))
        for place in (copy.first, copy.second)
    )
    text = f"{first} are the same numbers as {second}, {copy.length} samples in a row: "
    apart = copy.first.session != copy.second.session
    if apart and copy.length >= 0.5 * lengths[copy.first.session]:
        return text + "the recording is there twice; leave one out, or keep both in one part"
    text += "remove the copy, or split so that both lie in one part: with other borders"
    if len(lengths) == 1:
        return text
    return text + (", or by subject" if apart else ", or by session")


def _place_text(
    place: Place,
    length: int,
    rate: float | None,
    session_names: Sequence[str],
    windows: Windows | None,
) -> str:
    stop = place.start + length
    when = "" if rate is None else f" ({place.start / rate:.6g} s to {stop / rate:.6g} s)"
    trial = None if windows is None else _trial_at(windows, place)
    within = "" if trial is None else f", trial {trial}"
    name = _name(place.session, session_names)
    return f"samples {place.start} to {stop - 1}{when} of session {name}{within} in {place.part}"


def _trial_at(windows: Windows, place: Place) -> int | None:
    if windows.trials is None:
        return None
    reach = windows.starts - place.start
    own = (windows.sessions == place.session) & (reach <= 0) & (reach > -windows.steps)
    found = windows.trials[own & (windows.trials >= 0)]
    return int(found[0]) if len(found) else None


def _name(session: int, session_names: Sequence[str]) -> str:
    return repr(session_names[session]) if session < len(session_names) else str(session)

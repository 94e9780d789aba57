"""What the readers of EEG-like files share: options, units, channel types, markers, modalities."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from recording.contract import (
    NEURAL_TYPES,
    TYPES,
    Channel,
    Events,
    Finding,
    Piece,
    Recording,
    Series,
)
from recording.errors import RecordingError
from recording.readers import Options, bids
from recording.readers.behavior_merging import checked
from recording.readers.potential_scale import scale_findings
from recording.readers.unit_names import microvolts
from recording.signals import Pointwise, Signal

MOST_SEGMENTS = 10**6
# A type that a name gives away; the first that fits counts.
_NAMES = (
    ("stimulus", r"status|sti ?\d*|trig(ger)?s?\d*|marker|event( marker)?|stim\d*"),
    ("eog", r"[vh]?eog.*|e[ol]g[lr]?|.*\beog\b.*"),
    ("ecg", r"e[ck]g.*|.*\be[ck]g\b.*"),
    ("emg", r"emg.*|.*\bemg\b.*"),
    ("ecog", r"ecog.*"),
    ("seeg", r"seeg.*"),
    ("lfp", r"(lfp|dbs).*"),
    ("other", r"(resp|temp|spo2|sao2|pulse|pleth|gsr|eda|airflow|snore|light|battery).*"),
)
_BORDER = re.compile(r"(bad |edge )?boundary|new segment/?.*", re.IGNORECASE)


class EegOptions(Options):
    """`types`: channel type by name pattern; `behavior`: patterns of channels that are behaviour.

    Left out, `behavior` is what the file or its sidecar calls MISC; an empty list is none.
    """

    behavior: tuple[str, ...] | None = None
    types: dict[str, str] = Field(default_factory=dict)

    @field_validator("types")
    @classmethod
    def _known(cls, types: dict[str, str]) -> dict[str, str]:
        for kind in types.values():
            if kind not in TYPES:
                raise ValueError(f"no channel type {kind!r}; valid: {', '.join(TYPES)}")
        return types


@dataclass(frozen=True)
class Marker:
    """One marker as the file gives it, in seconds."""

    onset: float
    duration: float
    label: str


@dataclass
class Contents:
    """What a file says: one series per rate, before sidecars, options and types by name.

    `stated` are the types that the file gives, by channel name; `misc` the channels that it calls
    miscellaneous. `subject` counts where the file's name says nothing.
    """

    series: list[Series]
    markers: list[Marker] = field(default_factory=list)
    trials: Events | None = None
    stated: Mapping[str, str] = field(default_factory=dict)
    misc: tuple[str, ...] = ()
    default_type: str = "eeg"
    subject: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def assemble(path: Path, format: str, found: Contents, options: EegOptions) -> Recording:
    """The recording of a file: its contents, what BIDS says beside it, and the options over both.

    Raises RecordingError: a sidecar that cannot be read or that contradicts the file.
    """
    sidecars = bids.sidecars(path)
    findings = found.findings + list(sidecars.findings)
    series = [_with_sidecar(one, sidecars) for one in found.series]
    series = _with_types(series, found, sidecars, options, findings)
    borders = [marker.onset for marker in found.markers if _BORDER.fullmatch(marker.label)]
    series = [replace(one, pieces=split_pieces(one, borders)) for one in series]
    if borders and (inner := [p.start for p in series[0].pieces[1:]]):
        findings.append(
            Finding(
                "discontinuity",
                f"the file marks {len(inner)} borders between stretches that were not recorded "
                "one after the other",
                "nothing to do: no window and no filter crosses them",
                times=tuple(inner[:8]),
                level="note",
            )
        )
    modalities = _modalities(series, found, sidecars, options, findings)
    if neural := modalities.get("neural"):
        sidecars.check_rate(neural.rate)
        findings += sidecars.status_findings(neural.names)
        findings += scale_findings(neural)
    modalities = {
        name: checked(one, file=path.name, stream=name) for name, one in modalities.items()
    }
    entities = bids.entities(path.name)
    return Recording(
        source=path.name,
        format=format,
        session=options.session or bids.session_name(path),
        subject=options.subject or entities.get("sub") or found.subject,
        site=options.site or "",
        modalities=modalities,
        markers=events(m for m in found.markers if not _BORDER.fullmatch(m.label)),
        trials=found.trials,
        findings=tuple(findings),
        facts={**found.facts, **sidecars.facts},
    )


def channel(name: str, unit: str) -> tuple[Channel, float]:
    """A channel in the contract's unit and the factor to it: potentials become µV."""
    factor = microvolts(unit)
    return (Channel(name, unit=unit), 1.0) if factor is None else (Channel(name, unit="µV"), factor)


def linear(values: Signal, gains: np.ndarray, offsets: np.ndarray | float = 0.0) -> Signal:
    """values · gains + offsets as float32, one gain and offset per channel."""

    def run(block: np.ndarray) -> np.ndarray:
        # A damaged number may be beyond float32: infinite then, and refused when it is read.
        with np.errstate(over="ignore", invalid="ignore"):
            result: np.ndarray = (block.astype(np.float64) * gains + offsets).astype(np.float32)
        return result

    return Pointwise(values, run, values.shape[1:])


def distinct(channels: Sequence[Channel], findings: list[Finding]) -> tuple[Channel, ...]:
    """The channels, each with a name of its own; a finding says which were renamed."""
    seen: set[str] = set()
    renamed, result = [], []
    for index, old in enumerate(channels):
        name, number = old.name or f"channel {index + 1}", 1
        while name in seen:
            number += 1
            name = f"{old.name} ({number})"
        seen.add(name)
        if name != old.name:
            renamed.append(name)
        result.append(replace(old, name=name))
    if renamed:
        findings.append(
            Finding(
                "duplicate",
                f"the file gives channels no name or one name twice; called here {_list(renamed)}",
                "correct the names in the file if another file of this kind must match it",
                channels=tuple(renamed),
            )
        )
    return tuple(result)


def type_of_name(name: str) -> str | None:
    """The channel type that a name gives away, None where it says nothing."""
    words = name.strip().lower()
    for kind, pattern in _NAMES:
        if re.fullmatch(pattern, words):
            return kind
    return None


def events(markers: Iterable[Marker]) -> Events | None:
    """Markers as Events in order of time, names sorted; None where there are none."""
    ordered = sorted(markers, key=lambda marker: marker.onset)
    if not ordered:
        return None
    names = tuple(sorted({marker.label for marker in ordered}))
    index = {name: number for number, name in enumerate(names)}
    return Events(
        np.array([marker.onset for marker in ordered], np.float64),
        np.array([index[marker.label] for marker in ordered], np.int64),
        names,
        np.array([marker.duration for marker in ordered], np.float64),
    )


def split_pieces(series: Series, borders: Sequence[float]) -> tuple[Piece, ...]:
    """The pieces, cut in front of the first sample at or after each border (seconds)."""
    pieces = []
    rising = np.sort(np.asarray(borders, np.float64))
    for piece in series.pieces:
        cuts = {0, len(piece)}
        ends = piece.start, piece.start + len(piece) / series.rate
        first, last = np.searchsorted(rising, ends)
        for border in rising[first:last].tolist():
            # Rounded, since a border on a sample must not become the next one by a last digit.
            at = math.ceil(round((border - piece.start) * series.rate, 3))
            if 0 < at < len(piece):
                cuts.add(at)
        ordered = sorted(cuts)
        pieces += [
            Piece(piece.start + first / series.rate, piece.first + first, piece.first + stop)
            for first, stop in pairwise(ordered)
        ]
    return tuple(pieces)


def take(series: Series, columns: Sequence[int]) -> Series:
    """The series with these columns alone, in this order."""
    if list(columns) == list(range(len(series.channels))):
        return series
    index = list(columns)
    values = Pointwise(series.values, lambda v: v[:, index], (len(index),))
    return series.with_values(values, channels=tuple(series.channels[i] for i in index))


def _with_sidecar(series: Series, sidecars: bids.Sidecars) -> Series:
    """Positions and, where the file states none, units of the sidecars."""
    channels, factors = [], np.ones(len(series.channels))
    for index, old in enumerate(series.channels):
        new = old
        if not old.unit and (unit := sidecars.unit(old.name)):
            stated, factors[index] = channel(old.name, unit)
            new = replace(old, unit=stated.unit)
        if position := sidecars.positions.get(old.name):
            new = replace(new, position=position)
        channels.append(new)
    if (factors == 1).all():
        return replace(series, channels=tuple(channels))
    return series.with_values(linear(series.values, factors), channels=tuple(channels))


def _with_types(
    series: Sequence[Series],
    found: Contents,
    sidecars: bids.Sidecars,
    options: EegOptions,
    findings: list[Finding],
) -> list[Series]:
    names = [name for one in series for name in one.names]
    for pattern in options.types:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RecordingError(f"option types: no channel {pattern!r}; there are {_list(names)}")
    guessed: dict[str, list[str]] = {}

    def kind(one: Channel) -> str:
        for pattern, chosen in options.types.items():
            if fnmatchcase(one.name, pattern):
                return chosen
        known = sidecars.type(one.name) or found.stated.get(one.name)
        if known:
            return known
        potential = one.unit in ("", "µV")
        guess = type_of_name(one.name) or (found.default_type if potential else "other")
        guessed.setdefault(guess, []).append(one.name)
        return guess

    typed = [
        replace(one, channels=tuple(replace(c, type=kind(c)) for c in one.channels))
        for one in series
    ]
    if guessed:
        shown = "; ".join(f"{_list(guessed[one])} {one}" for one in sorted(guessed))
        findings.append(
            Finding(
                "type",
                f"the file does not say what its channels measure; by their names: {shown}",
                "where that is wrong, set the option types: {NAME: TYPE}",
                level="note",
            )
        )
    return typed


def _modalities(
    series: Sequence[Series],
    found: Contents,
    sidecars: bids.Sidecars,
    options: EegOptions,
    findings: list[Finding],
) -> dict[str, Series]:
    behavior = _behavior_names(series, found, sidecars, options)
    main = max(
        range(len(series)),
        key=lambda i: (
            sum(c.type in NEURAL_TYPES and c.name not in behavior for c in series[i].channels),
            len(series[i].channels),
        ),
    )
    order = [main, *(i for i in range(len(series)) if i != main)]
    modalities: dict[str, Series] = {}
    for index in order:
        one = series[index]
        groups: dict[str, list[int]] = {}
        for column, c in enumerate(one.channels):
            groups.setdefault(_group(c, behavior, index == main, one), []).append(column)
        for name, columns in groups.items():
            key = name if name not in modalities else f"{name}_{one.rate:g}hz"
            modalities[key] = _typed_behavior(take(one, columns), name)
    if len(series) > 1:
        rates = ", ".join(f"{len(one.channels)} at {one.rate:g} Hz" for one in series)
        findings.append(
            Finding(
                "rate",
                f"channels have different rates: {rates}; none was resampled, each rate is a "
                f"modality: {', '.join(modalities)}",
                "nothing to do to model `neural`",
                level="note",
            )
        )
    if options.behavior is None and behavior:
        findings.append(
            Finding(
                "type",
                f"{_list(sorted(behavior))}: miscellaneous channels, taken as behaviour",
                "to keep them among the neural channels set the option behavior: []",
                stream="behavior",
                channels=tuple(sorted(behavior)),
                level="note",
            )
        )
    return modalities


def _typed_behavior(series: Series, name: str) -> Series:
    if name != "behavior":
        return series
    return replace(series, channels=tuple(replace(c, type="behavior") for c in series.channels))


def _group(c: Channel, behavior: set[str], main: bool, series: Series) -> str:
    if c.name in behavior or c.type == "behavior":
        return "behavior"
    if c.type == "stimulus":
        return "stimulus"
    if main:
        return "neural"
    neural = any(one.type in NEURAL_TYPES for one in series.channels)
    return f"{'neural' if neural else 'other'}_{series.rate:g}hz"


def _behavior_names(
    series: Sequence[Series], found: Contents, sidecars: bids.Sidecars, options: EegOptions
) -> set[str]:
    channels = [c for one in series for c in one.channels]
    if options.behavior is None:
        misc = {*found.misc, *sidecars.misc}
        return {c.name for c in channels if c.name in misc and c.type == "other"}
    for pattern in options.behavior:
        if not any(fnmatchcase(c.name, pattern) for c in channels):
            names = _list([c.name for c in channels])
            raise RecordingError(f"option behavior: no channel {pattern!r}; there are {names}")
    return {c.name for c in channels for p in options.behavior if fnmatchcase(c.name, p)}


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"

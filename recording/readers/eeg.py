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
from recording.readers.eeg_channels import (
    channel,
    linear,
    listed,
    take,
    type_of_name,
    unknown_units,
)
from recording.readers.potential_scale import scale_findings

MOST_SEGMENTS = 10**6
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
    findings += unknown_units(series)
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
            raise RecordingError(f"option types: no channel {pattern!r}; there are {listed(names)}")
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
        shown = "; ".join(f"{listed(guessed[one])} {one}" for one in sorted(guessed))
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
                f"{listed(sorted(behavior))}: miscellaneous channels, taken as behaviour",
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
            names = listed([c.name for c in channels])
            raise RecordingError(f"option behavior: no channel {pattern!r}; there are {names}")
    return {c.name for c in channels for p in options.behavior if fnmatchcase(c.name, p)}

"""EDF, EDF+, BDF and BDF+: the header is checked field by field before a sample is read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from recording.contract import Finding, Piece, Recording, Series
from recording.errors import RecordingError
from recording.readers import Format, bids, register
from recording.readers.edf_records import Layout, Records, Timeline, read_status, read_timeline
from recording.readers.eeg import Contents, EegOptions, assemble
from recording.readers.eeg_channels import channel, distinct, linear

EDF_MAGIC, BDF_MAGIC = b"0       ", b"\xffBIOSEMI"
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FIELDS = (
    ("label", 16),
    ("transducer", 80),
    ("dimension", 8),
    ("physical minimum", 8),
    ("physical maximum", 8),
    ("digital minimum", 8),
    ("digital maximum", 8),
    ("prefilter", 80),
    ("samples per record", 8),
    ("reserved", 32),
)


class EdfOptions(EegOptions):
    """`records`: how many data records to read of a file whose header has the wrong number."""

    records: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class EdfSignal:
    """One signal of the header: physical = digital * gain + offset, in `unit`."""

    label: str
    unit: str
    gain: float
    offset: float
    samples: int  # per record
    first: int  # byte in a record


@dataclass(frozen=True)
class EdfHeader(Layout):
    """The header: signals, annotation signals, patient's code, start; `constant` have no range."""

    signals: tuple[EdfSignal, ...]
    annotations: tuple[EdfSignal, ...]
    subject: str
    start: str
    constant: tuple[str, ...]


def open_edf(path: Path, options: EdfOptions) -> Recording:
    """Open an EDF or BDF file, or a folder that holds one; raises RecordingError."""
    if path.is_dir():
        path = bids.sole_file(path, (".edf", ".bdf"))
    header = read_header(path, options.records)
    timeline = Timeline(0.0, (), ())
    if header.annotations:
        first = header.annotations
        columns = [(one.first, one.samples * header.sample_bytes) for one in first]
        timeline = read_timeline(path, header, columns)
    findings = [_constant(header)] if header.constant else []
    found = Contents(
        _series(path, header, timeline, findings),
        list(timeline.markers),
        subject=header.subject,
        facts={"start": header.start} if header.start else {},
        findings=findings,
    )
    status = [one for one in header.signals if one.label == "Status"]
    if header.sample_bytes == 3 and status:
        found.stated = {"Status": "stimulus"}
        if not found.markers:
            rate = status[0].samples / header.seconds
            found.markers = read_status(path, header, status[0].first, status[0].samples, rate)
    name = "bdf" if header.sample_bytes == 3 else "edf"
    return assemble(path, name, found, options)


def read_header(path: Path, records: int | None = None) -> EdfHeader:
    """The header, every number checked against the file's size; `records` overrides its count.

    Raises RecordingError: text in a number, a count that does not fit the file, truncation.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        fixed = file.read(256)
        if len(fixed) < 256:
            raise RecordingError(f"ends inside its header: {len(fixed)} bytes of at least 256")
        sample_bytes = {EDF_MAGIC: 2, BDF_MAGIC: 3}.get(fixed[:8])
        if sample_bytes is None:
            raise RecordingError("does not begin with the version of EDF or BDF")
        count = _integer(fixed[252:256], "number of signals")
        length = _integer(fixed[184:192], "bytes in the header")
        if not 1 <= count <= 9999 or length != 256 * (count + 1):
            raise RecordingError(
                f"the header says {count} signals in {length} bytes; "
                "must be 256 bytes and 256 more per signal"
            )
        if length > size:
            raise RecordingError(f"ends inside its header: {size} bytes of {length}")
        table = file.read(length - 256)
    seconds = _number(fixed[244:252], "duration of a data record")
    if seconds <= 0:
        raise RecordingError(f"data records last {seconds:g} s: it holds no signal, or no rate")
    columns = _columns(table, count)
    signals, first, constant = [], 0, []
    for row in range(count):
        one, flat = _signal({key: values[row] for key, values in columns.items()}, row, first)
        if flat:
            constant.append(one.label)
        signals.append(one)
        first += one.samples * sample_bytes
    kind = _text(fixed[192:236])
    annotated = kind.startswith(("EDF+", "BDF+"))
    labels = ("EDF Annotations", "BDF Annotations") if annotated else ()
    shown = [one for one in signals if one.label not in labels]
    if not shown:
        raise RecordingError("holds annotations only, no signal")
    stated = _integer(fixed[236:244], "number of data records")
    return EdfHeader(
        size=length,
        records=_records(stated, size - length, first, records),
        seconds=seconds,
        record_bytes=first,
        sample_bytes=sample_bytes,
        discontinuous=kind.startswith(("EDF+D", "BDF+D")),
        signals=tuple(shown),
        annotations=tuple(one for one in signals if one.label in labels),
        subject=_subject(_text(fixed[8:88]), annotated),
        start=_start(_text(fixed[168:176]), _text(fixed[176:184])),
        constant=tuple(name for name in constant if name not in labels),
    )


def _records(stated: int, available: int, record: int, chosen: int | None) -> int:
    """The number of data records; raises RecordingError where the file's size says another."""
    whole, rest = divmod(available, record)
    if chosen is not None:
        if chosen > whole:
            raise RecordingError(f"option records: {chosen}; the file holds {whole} whole ones")
        return chosen
    if stated == whole and rest == 0 and whole > 0:
        return stated
    said = "-1 data records (not known)" if stated == -1 else f"{stated} data records"
    extra = f" and {rest} bytes more" if rest else ""
    cut = "it is truncated; " if 0 < whole < stated or (whole < stated and rest) else ""
    raise RecordingError(
        f"the header says {said} of {record} bytes; the file holds {whole}{extra}: {cut}"
        + (f"to read the whole ones set the option records: {whole}" if whole else "no data")
    )


def _columns(table: bytes, count: int) -> dict[str, list[bytes]]:
    columns, at = {}, 0
    for name, width in _FIELDS:
        part = table[at : at + width * count]
        columns[name] = [part[row * width : (row + 1) * width] for row in range(count)]
        at += width * count
    return columns


def _signal(fields: dict[str, bytes], row: int, first: int) -> tuple[EdfSignal, bool]:
    label = _text(fields["label"])
    stream = label or f"signal {row + 1}"
    try:
        low, high = (_number(fields[f"physical {end}"], f"physical {end}") for end in _ENDS)
        bottom, top = (_integer(fields[f"digital {end}"], f"digital {end}") for end in _ENDS)
        samples = _integer(fields["samples per record"], "samples per record")
        if bottom >= top:
            raise RecordingError(f"digital minimum {bottom} and maximum {top}; must rise")
        if samples < 1:
            raise RecordingError(f"{samples} samples per data record; must be at least 1")
    except RecordingError as error:
        raise error.within(stream=stream) from None
    gain = (high - low) / (top - bottom)
    unit = _text(fields["dimension"])
    return EdfSignal(label, unit, gain, low - bottom * gain, samples, first), gain == 0


_ENDS = ("minimum", "maximum")


def _series(
    path: Path, header: EdfHeader, timeline: Timeline, findings: list[Finding]
) -> list[Series]:
    """One series per number of samples in a record."""
    made = [channel(one.label, one.unit) for one in header.signals]
    channels = distinct([one for one, _ in made], findings)
    result = []
    for samples in dict.fromkeys(one.samples for one in header.signals):
        group = [i for i, one in enumerate(header.signals) if one.samples == samples]
        factors = np.array([made[i][1] for i in group])
        gains = np.array([header.signals[i].gain for i in group]) * factors
        offsets = np.array([header.signals[i].offset for i in group]) * factors
        records = Records(path, header, [header.signals[i].first for i in group], samples)
        result.append(
            Series(
                linear(records, gains, offsets),
                samples / header.seconds,
                tuple(channels[i] for i in group),
                _pieces(header, timeline, samples),
            )
        )
    return result


def _pieces(header: EdfHeader, timeline: Timeline, samples: int) -> tuple[Piece, ...]:
    starts = timeline.pieces or ((timeline.start, 0),)
    stops = [record for _, record in starts[1:]] + [header.records]
    return tuple(
        Piece(start, record * samples, stop * samples)
        for (start, record), stop in zip(starts, stops, strict=True)
    )


def _constant(header: EdfHeader) -> Finding:
    names = ", ".join(header.constant[:8])
    return Finding(
        "scale",
        f"{names}: physical minimum and maximum are the same, so that every value is too",
        "correct the header, or leave the channels out",
        channels=header.constant,
    )


def _subject(patient: str, plus: bool) -> str:
    """The patient's code; of EDF+ the first word, "X" where it is not known."""
    words = patient.split()
    if not words or words[0] == "X":
        return ""
    return words[0] if plus else patient


def _start(date: str, time: str) -> str:
    found = re.fullmatch(r"(\d\d)\.(\d\d)\.(\d\d)(\d\d)\.(\d\d)\.(\d\d)", date + time)
    if found is None:
        return ""
    day, month, year, *clock = found.groups()
    century = "19" if int(year) >= 85 else "20"
    return f"{century}{year}-{month}-{day}T{':'.join(clock)}"


def _text(field: bytes) -> str:
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError:
        text = field.decode("latin-1")
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _integer(field: bytes, what: str) -> int:
    text = _text(field)
    if not _INTEGER.fullmatch(text) or not text.isascii():
        raise RecordingError(f"{what} is {text!r}; must be a whole number")
    return int(text)


def _number(field: bytes, what: str) -> float:
    text = _text(field)
    value = float(text) if _NUMBER.fullmatch(text) and text.isascii() else math.nan
    if not math.isfinite(value):
        raise RecordingError(f"{what} is {text!r}; must be a number")
    return value


def _matches(magic: bytes, suffix: str) -> Callable[[Path, bytes], bool]:
    def matches(path: Path, head: bytes) -> bool:
        if path.is_dir():
            return bids.holds(path, suffix)
        return head.startswith(magic)

    return matches


for _name, _magic in (("edf", EDF_MAGIC), ("bdf", BDF_MAGIC)):
    register(
        Format(
            _name,
            (f".{_name}",),
            _matches(_magic, f".{_name}"),
            open_edf,
            title=_name.upper(),
            options=EdfOptions,
            one_file=True,
        )
    )

"""Data records of EDF and BDF: samples by slice, annotations with their times, trigger codes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recording.errors import RecordingError
from recording.readers.eeg import Marker
from recording.signals import FileArray

# Of longer records only the asked samples are read, of shorter ones all channels at once.
WHOLE_BYTES = 2**20
NARROW, NARROW_BYTES = 8, 2**16
_RUN_BYTES = 8 * 2**20
_TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14(.*)", re.DOTALL)


@dataclass(frozen=True)
class Layout:
    """How data records lie in a file: `records` of `seconds` and `record_bytes` from byte `size`.

    `sample_bytes` is 2 or 3; `discontinuous` whether time may pass between records.
    """

    size: int
    records: int
    seconds: float
    record_bytes: int
    sample_bytes: int
    discontinuous: bool


class Records:
    """Digital values of signals with the same rate: (time, channel) int32."""

    def __init__(self, path: Path, header: Layout, firsts: Sequence[int], samples: int) -> None:
        self.width = header.sample_bytes
        self.firsts, self.samples = list(firsts), samples
        self.shape = (header.records * samples, len(firsts))
        self.dtype = np.dtype(np.int32)
        self.bytes = FileArray(
            path, np.dtype(np.uint8), (header.records * header.record_bytes,), offset=header.size
        )
        self.record_bytes = header.record_bytes
        # Of a few channels among many, the others' bytes are not read.
        asked = len(self.firsts) * samples * self.width
        self.narrow = header.record_bytes > max(NARROW * asked, NARROW_BYTES)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("a slice of a file takes no step")
        values = np.empty((max(0, stop - start), len(self.firsts)), np.int32)
        per_run = max(1, _RUN_BYTES // self.record_bytes)
        record = start // self.samples
        while record * self.samples < stop:
            last = min(record + per_run, -(-stop // self.samples))
            low, high = max(start, record * self.samples), min(stop, last * self.samples)
            values[low - start : high - start] = self._run(record, last, low, high)
            record = last
        return values

    def _run(self, record: int, last: int, low: int, high: int) -> np.ndarray:
        """Samples [low, high) that lie in records [record, last)."""
        if self.narrow:
            parts = [
                self._of_record(
                    one, max(low, one * self.samples), min(high, (one + 1) * self.samples)
                )
                for one in range(record, last)
            ]
            return np.concatenate(parts)
        if self.record_bytes > WHOLE_BYTES and last == record + 1:
            return self._of_record(record, low, high)
        raw = self.bytes[record * self.record_bytes : last * self.record_bytes]
        raw = raw.reshape(last - record, self.record_bytes)
        span = self.samples * self.width
        columns = [self._digital(raw[:, first : first + span]) for first in self.firsts]
        shift = record * self.samples
        return np.stack(columns, axis=1)[low - shift : high - shift]

    def _of_record(self, record: int, low: int, high: int) -> np.ndarray:
        """Samples [low, high) of one record, read channel by channel."""
        inside, count = low - record * self.samples, high - low
        return np.stack(
            [
                self._digital(self._at(record, first + inside * self.width, count))
                for first in self.firsts
            ],
            axis=1,
        )

    def _at(self, record: int, byte: int, count: int) -> np.ndarray:
        at = record * self.record_bytes + byte
        return self.bytes[at : at + count * self.width]

    def _digital(self, raw: np.ndarray) -> np.ndarray:
        raw = np.ascontiguousarray(raw)
        if self.width == 2:
            return raw.reshape(-1).view("<i2").astype(np.int32)
        parts = raw.reshape(-1, 3)
        # Into the upper three bytes, so that the shift back extends the sign.
        whole = np.zeros((len(parts), 4), np.uint8)
        whole[:, 1:] = parts
        return whole.view("<i4")[:, 0] >> 8


@dataclass(frozen=True)
class Timeline:
    """Start of the first record in seconds, pieces (start, first record), and the annotations."""

    start: float
    pieces: tuple[tuple[float, int], ...]
    markers: tuple[Marker, ...]


def read_timeline(path: Path, header: Layout, columns: Sequence[tuple[int, int]]) -> Timeline:
    """Times of the records and annotations from the annotation signals (first byte, bytes).

    Raises RecordingError: an annotation that cannot be read, a record without a time, records that
    go back, or a continuous file whose records do not follow one another.
    """
    markers: list[Marker] = []
    pieces: list[tuple[float, int]] = []
    expected = 0.0
    # Writers round the onset; a gap is at least a hundredth of a record.
    slack = max(1e-6, header.seconds / 100)
    for record, parts in enumerate(_annotations(path, header, columns)):
        onset: float | None = None
        for number, part in enumerate(parts):
            for at, duration, labels in _tals(part, record, expected):
                if onset is None and number == 0:
                    onset = at
                markers += [Marker(at, duration, label) for label in labels]
        if onset is None:
            raise RecordingError(f"data record {record} states no time", at=expected)
        if record == 0:
            pieces.append((onset, 0))
        elif abs(onset - expected) > slack:
            _check_gap(header, record, onset, expected)
            pieces.append((onset, record))
        # Counted from the piece's start, so that rounded onsets do not add up.
        start, first = pieces[-1]
        expected = start + (record + 1 - first) * header.seconds
    return Timeline(pieces[0][0], tuple(pieces), tuple(markers))


def _check_gap(header: Layout, record: int, onset: float, expected: float) -> None:
    if onset < expected:
        raise RecordingError(
            f"data record {record} starts at {onset:.6g} s, before the one in front of it ends",
            at=expected,
        )
    if not header.discontinuous:
        raise RecordingError(
            f"data record {record} starts at {onset:.6g} s, by the rate at {expected:.6g} s: the "
            "clocks disagree; a file with gaps must say +D in its header",
            at=expected,
        )


def read_status(path: Path, header: Layout, first: int, samples: int, rate: float) -> list[Marker]:
    """Trigger codes of a BDF status signal: its lower 16 bits where they change to non-zero."""
    signal = Records(path, header, [first], samples)
    return changes(
        ((signal[at : at + 2**18][:, 0] & 0xFFFF) for at in range(0, len(signal), 2**18)), rate
    )


def changes(blocks: Iterator[np.ndarray], rate: float) -> list[Marker]:
    """Markers where consecutive codes change to another one than 0; the label is the code."""
    markers, before, at = [], None, 0
    for codes in blocks:
        previous = np.concatenate([codes[:1] if before is None else [before], codes[:-1]])
        for index in np.flatnonzero((codes != previous) & (codes != 0)):
            markers.append(Marker((at + int(index)) / rate, 0.0, str(int(codes[index]))))
        before, at = codes[-1], at + len(codes)
    return markers


def _annotations(
    path: Path, header: Layout, columns: Sequence[tuple[int, int]]
) -> Iterator[list[bytes]]:
    """The annotation signals' bytes, record by record."""
    with path.open("rb") as file:
        for record in range(header.records):
            parts = []
            for first, count in columns:
                file.seek(header.size + record * header.record_bytes + first)
                parts.append(file.read(count))
            yield parts


def _tals(part: bytes, record: int, near: float) -> Iterator[tuple[float, float, list[str]]]:
    """Time-stamped lists of one annotation signal: onset, duration, labels."""
    for text in part.split(b"\x00"):
        if not text:
            continue
        found = _TAL.fullmatch(text)
        if found is None or not text.endswith(b"\x14"):
            raise RecordingError(
                f"annotation {text[:40]!r} of data record {record} cannot be read; must be a time, "
                "a text and their separators",
                at=near,
            )
        labels = [label for label in found[3].split(b"\x14") if label]
        try:
            decoded = [label.decode("utf-8") for label in labels]
        except UnicodeDecodeError:
            decoded = [label.decode("latin-1") for label in labels]
        yield float(found[1]), float(found[2] or 0), decoded

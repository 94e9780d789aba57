"""BrainVision: a text header (.vhdr), binary samples and a text file of markers beside it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recording.contract import Channel, Finding, Recording, Series
from recording.errors import RecordingError
from recording.readers import Format, beside, bids, register
from recording.readers.eeg import MOST_SEGMENTS, Contents, EegOptions, Marker, assemble
from recording.readers.eeg_channels import channel, distinct, linear
from recording.signals import FileArray, Signal

_MAGIC = re.compile(rb"(\xef\xbb\xbf)?Brain ?Vision (V-Amp )?Data (Exchange )?Header File", re.I)
_TEXT_BYTES = 64 * 2**20
_TYPES = {"INT_16": "i2", "UINT_16": "u2", "INT_32": "i4", "IEEE_FLOAT_32": "f4"}
# The format has positions on a unit sphere; this is the radius in m that they are given here.
_RADIUS = 0.085
Sections = dict[str, dict[str, str]]


@dataclass(frozen=True)
class BrainVisionHeader:
    """What the header says; `gains` bring the file's numbers to the channels' units."""

    channels: tuple[Channel, ...]
    gains: np.ndarray
    rate: float
    data: Path
    markers: Path | None
    dtype: np.dtype
    order: str
    points: int | None
    segment: int


def open_brainvision(path: Path, options: EegOptions) -> Recording:
    """Open a header, the files that belong to it, or a folder with one; raises RecordingError."""
    if path.is_dir():
        path = bids.sole_file(path, (".vhdr",))
    header_path = path if path.suffix.lower() in (".vhdr", ".ahdr") else _beside(path)
    header = read_header(header_path or path)
    values = _values(header)
    findings: list[Finding] = []
    series = Series(values, header.rate, distinct(header.channels, findings))
    markers, start = read_markers(header, len(values))
    if header.segment:
        segments = range(0, len(values), header.segment)
        if len(segments) > MOST_SEGMENTS:
            raise RecordingError(
                f"SegmentDataPoints is {header.segment}: {len(segments)} segments are more than "
                f"{MOST_SEGMENTS}"
            )
        markers += [Marker(at / header.rate, 0.0, "New Segment/") for at in segments]
    found = Contents([series], markers, facts={"start": start} if start else {}, findings=findings)
    if any(one.position for one in header.channels):
        found.findings.append(
            Finding(
                "position",
                f"positions are on a unit sphere; taken as {_RADIUS * 1000:g} mm in radius",
                "give an electrodes.tsv where the head's true size matters",
                level="note",
            )
        )
    return assemble(header_path or path, "brainvision", found, options)


def read_header(path: Path) -> BrainVisionHeader:
    """The header's contents; raises RecordingError naming the key that is wrong."""
    sections = _sections(path)
    common = _section(sections, "Common Infos")
    form = common.get("dataformat", "BINARY").upper()
    if form != "BINARY":
        raise RecordingError(f"DataFormat is {form}; must be BINARY: export the samples as binary")
    if common.get("datatype", "TIMEDOMAIN").upper() != "TIMEDOMAIN":
        raise RecordingError("DataType must be TIMEDOMAIN")
    orientation = common.get("dataorientation", "MULTIPLEXED").upper()
    if orientation not in ("MULTIPLEXED", "VECTORIZED"):
        raise RecordingError(
            f"DataOrientation is {orientation!r}; must be MULTIPLEXED or VECTORIZED"
        )
    binary = _section(sections, "Binary Infos")
    kind = binary.get("binaryformat", "INT_16").upper()
    if kind not in _TYPES:
        raise RecordingError(f"BinaryFormat is {kind!r}; must be one of {', '.join(_TYPES)}")
    big = binary.get("usebigendianorder", "NO").upper() == "YES"
    interval = _number(common, "SamplingInterval")
    if interval <= 0:
        raise RecordingError(f"SamplingInterval is {interval:g} µs; must be above 0")
    count = _integer(common, "NumberOfChannels")
    channels, gains = _channels(sections, count)
    return BrainVisionHeader(
        channels,
        gains,
        1e6 / interval,
        _file(path, common.get("datafile", ""), "DataFile"),
        _file(path, common["markerfile"], "MarkerFile") if common.get("markerfile") else None,
        np.dtype((">" if big else "<") + _TYPES[kind]),
        "C" if orientation == "MULTIPLEXED" else "F",
        _integer(common, "DataPoints") if "datapoints" in common else None,
        _integer(common, "SegmentDataPoints") if common.get("segmentdatapoints") else 0,
    )


def read_markers(header: BrainVisionHeader, samples: int) -> tuple[list[Marker], str]:
    """Markers in seconds from the first sample, and the date of the first segment ("" if none).

    Raises RecordingError: a marker that cannot be read or that lies outside the samples.
    """
    if header.markers is None:
        return [], ""
    name = header.markers.name
    entries = _sections(header.markers).get("marker infos", {})
    markers, start = [], ""
    for key, value in entries.items():
        fields = [part.replace("\\1", ",") for part in value.split(",")]
        numbers = [part.strip() for part in fields[2:4]]
        if not re.fullmatch(r"mk\d+", key) or len(numbers) < 1 or not _digits(*numbers):
            raise RecordingError(
                f"{key}={value[:60]!r}; must be type, description, position, size", file=name
            )
        position, size = int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 1
        if not 1 <= position <= samples:
            raise RecordingError(
                f"marker {key} is at sample {position}; there are {samples}",
                file=name,
                at=(position - 1) / header.rate,
            )
        if fields[0] == "New Segment" and not start and len(fields) > 5:
            start = _date(fields[5].strip())
        duration = size / header.rate if size > 1 else 0.0
        label = "/".join(part for part in fields[:2] if part)
        markers.append(Marker((position - 1) / header.rate, duration, label or "marker"))
    return markers, start


def _values(header: BrainVisionHeader) -> Signal:
    size = header.data.stat().st_size
    step = len(header.channels) * header.dtype.itemsize
    samples, rest = divmod(size, step)
    name = header.data.name
    if rest or samples == 0:
        raise RecordingError(
            f"{size} bytes are no whole number of samples of {len(header.channels)} channels "
            f"({step} bytes each): it is truncated, or the header's number of channels is wrong",
            file=name,
            at=samples / header.rate,
        )
    if header.points is not None and header.points != samples:
        raise RecordingError(
            f"holds {samples} samples; the header says {header.points}: it is truncated, or the "
            "header's number of channels is wrong",
            file=name,
        )
    shape = (samples, len(header.channels))
    raw = FileArray(header.data, header.dtype, shape, order=header.order)
    return linear(raw, header.gains)


def _channels(sections: Sections, count: int) -> tuple[tuple[Channel, ...], np.ndarray]:
    entries = _section(sections, "Channel Infos")
    wanted = [f"ch{number}" for number in range(1, len(entries) + 1)]
    if count != len(entries) or sorted(entries) != sorted(wanted):
        raise RecordingError(
            f"NumberOfChannels is {count}; [Channel Infos] has {len(entries)} entries, "
            "which must be Ch1 to the last"
        )
    if count < 1:
        raise RecordingError("has no channels")
    places = sections.get("coordinates", {})
    channels, gains = [], []
    for key in wanted:
        name, _, resolution, unit, *_ = [*entries[key].split(","), "", "", ""]
        made, factor = channel(name.replace("\\1", ",").strip(), unit.strip() or "µV")
        value = _parse(resolution, f"{key}: resolution") if resolution.strip() else 1.0
        if value == 0:
            raise RecordingError("resolution is 0", stream=made.name)
        position = _position(places.get(key, ""), key)
        channels.append(Channel(made.name, unit=made.unit, position=position))
        gains.append(value * factor)
    return tuple(channels), np.array(gains)


def _position(text: str, key: str) -> tuple[float, float, float] | None:
    """x to the right, y to the nose, z up, in m, from radius, theta and phi in degrees."""
    parts = text.split(",")
    if len(parts) < 3:
        return None
    radius, theta, phi = (_parse(part, f"coordinates of {key}") for part in parts[:3])
    if radius == 0:
        return None
    theta, phi, radius = math.radians(theta), math.radians(phi), radius * _RADIUS
    return (
        radius * math.sin(theta) * math.cos(phi),
        radius * math.sin(theta) * math.sin(phi),
        radius * math.cos(theta),
    )


def _sections(path: Path) -> Sections:
    """Keys in lower case, by section in lower case, up to the free text of [Comment]."""
    if path.stat().st_size > _TEXT_BYTES:
        raise RecordingError(f"is above {_TEXT_BYTES // 2**20} MB of text", file=path.name)
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    sections: Sections = {}
    current: dict[str, str] | None = None
    for number, line in enumerate(text.splitlines()[1:], start=2):
        line = line.strip("\r\n\0 \t")
        if not line or line.startswith(";"):
            continue
        if line.startswith("[") and line.endswith("]"):
            title = line[1:-1].strip().lower()
            if title == "comment":
                break
            current = sections.setdefault(title, {})
            continue
        key, equals, value = line.partition("=")
        key = key.strip().lower()
        if current is None or not equals or key in current:
            why = "is there twice" if current is not None and equals else "has no section or no ="
            raise RecordingError(f"line {number}: {line[:60]!r} {why}", file=path.name)
        current[key] = value
    return sections


def _section(sections: Sections, title: str) -> dict[str, str]:
    if title.lower() not in sections:
        raise RecordingError(f"has no section [{title}]")
    return {key: value for key, value in sections[title.lower()].items()}


def _file(header: Path, name: str, key: str) -> Path:
    """The named file beside the header; raises RecordingError where it is elsewhere or missing."""
    name = name.strip().replace("$b", header.stem)
    if not name:
        raise RecordingError(f"{key} is not given")
    if name in (".", "..") or re.search(r"[/\\:\0]", name):
        raise RecordingError(f"{key} is {name!r}; must be a file in the header's own folder")
    path = header.with_name(name)
    if not path.is_file():
        raise RecordingError(f"{key} is {name!r}; there is no such file beside the header")
    return path


def _number(section: dict[str, str], key: str) -> float:
    return _parse(section.get(key.lower(), ""), key)


def _parse(text: str, what: str) -> float:
    try:
        value = float(text.strip())
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecordingError(f"{what} is {text.strip()!r}; must be a number")
    return value


def _integer(section: dict[str, str], key: str) -> int:
    text = section.get(key.lower(), "").strip()
    if not _digits(text):
        raise RecordingError(f"{key} is {text!r}; must be a whole number")
    return int(text)


def _digits(*texts: str) -> bool:
    return all(re.fullmatch(r"[0-9]{1,15}", text) for text in texts)


def _date(text: str) -> str:
    found = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d{6})", text)
    if found is None or text.startswith("0000"):
        return ""
    year, month, day, hour, minute, second, micro = found.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}.{micro}"


def _beside(path: Path) -> Path | None:
    header = path.with_suffix(".vhdr")
    return header if header.is_file() else None


def _matches(path: Path, head: bytes) -> bool:
    if path.is_dir():
        return bids.holds(path, ".vhdr")
    if _MAGIC.match(head):
        return True
    return path.suffix.lower() in (".eeg", ".vmrk", ".dat") and _beside(path) is not None


register(
    Format(
        "brainvision",
        (".vhdr", ".eeg", ".vmrk"),
        _matches,
        open_brainvision,
        title="BrainVision",
        options=EegOptions,
        belongs=beside(".eeg", ".vmrk", ".dat", main=".vhdr"),
    )
)

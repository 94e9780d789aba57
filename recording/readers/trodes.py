"""Positions tracked by Trodes: `.videoPositionTracking`, a text header, then records of fields."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from recording.contract import Channel, Finding, Recording, Samples
from recording.errors import RecordingError
from recording.readers import Format, Options, register

BEGIN, END = b"<Start settings>", b"<End settings>"
HEADER_BYTES = 2**16
TYPES = {
    "int8": "<i1", "uint8": "<u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4",
    "uint32": "<u4", "int64": "<i8", "uint64": "<u8", "single": "<f4", "double": "<f8",
}  # fmt: skip
AXES = {"xloc": "x", "yloc": "y", "xloc2": "x2", "yloc2": "y2"}


def matches(path: Path, head: bytes) -> bool:
    """Whether a file is a position track of Trodes."""
    return head.startswith(BEGIN) and (
        path.suffix.lower() == ".videopositiontracking" or b"<xloc " in head
    )


def read(path: Path, options: Options) -> Recording:
    """Open a position track: "behavior" with x, y in px, in m where the header has a scale.

    Raises RecordingError for a header that does not say the clock rate and the fields, records that
    are cut off, and times that go back.
    """
    settings, dtype, offset = _header(path)
    rate = _number(settings.get("clockrate", ""), "clockrate")
    if rate <= 0:
        raise RecordingError(f"clockrate is {rate:g}; must be above 0")
    size = path.stat().st_size - offset
    count, rest = divmod(size, dtype.itemsize)
    if count == 0:
        raise RecordingError("holds no records")
    records = np.fromfile(path, dtype, count=count, offset=offset)
    ticks = records["time"]
    if rest:
        raise RecordingError(
            f"ends within a record: {rest} of {dtype.itemsize} bytes",
            stream="behavior",
            at=float(ticks[-1] / rate),
        )
    names = [name for name in AXES if name in (dtype.names or ())]
    values = np.stack([records[name].astype(np.float64) for name in names], axis=1)
    findings: list[Finding] = []
    if {"xloc2", "yloc2"} <= set(names) and not values[:, names.index("xloc2") :].any():
        names, values = names[:2], values[:, :2]
        findings.append(
            Finding(
                "flat",
                "x2 and y2 are 0 throughout (one light was tracked) and left out",
                "none needed",
                stream="behavior",
                channels=("x2", "y2"),
                level="note",
            )
        )
    times, values = _distinct(ticks, values, rate, findings)
    findings += _lost(times, values, tuple(AXES[name] for name in names))
    unit, scale = "px", _scale(settings.get("pixel scale", ""))
    if scale:
        unit, values = "m", values / scale / 100
    channels = tuple(Channel(AXES[name], "behavior", unit) for name in names)
    return Recording(
        source=path.name,
        format="trodes",
        session=options.session or path.stem,
        modalities={"behavior": Samples(times, values, channels)},
        subject=options.subject or "",
        site=options.site or "",
        findings=tuple(findings),
        facts={name: value for name, value in settings.items() if name != "Fields"},
    )


def _header(path: Path) -> tuple[dict[str, str], np.dtype, int]:
    """Settings by name, the dtype of a record, and where the records begin."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    end = head.find(END)
    if not head.startswith(BEGIN) or end < 0:
        raise RecordingError(f"its header must run from {BEGIN.decode()} to {END.decode()}")
    offset = end + len(END) + (2 if head[end + len(END) :].startswith(b"\r\n") else 1)
    settings = {}
    for line in head[len(BEGIN) : end].decode("ascii", "replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            settings[name.strip()] = value.strip()
    fields = re.findall(r"<(\w+) ([^<>]*)>", settings.get("Fields", ""))
    names = [name for name, _ in fields]
    if not {"time", "xloc", "yloc"} <= set(names) or len(set(names)) != len(names):
        raise RecordingError(f"its fields must be time, xloc and yloc; they are {names}")
    for name, kind in fields:
        if kind not in TYPES:
            raise RecordingError(f"field {name!r} is {kind!r}; must be one of {', '.join(TYPES)}")
    return settings, np.dtype([(name, TYPES[kind]) for name, kind in fields]), offset


def _distinct(
    ticks: np.ndarray, values: np.ndarray, rate: float, findings: list[Finding]
) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and values without a record that repeats the stamp of the one before it.

    The first of the two is kept where both say the same place, to a pixel; where they do not,
    nothing says which one is right.
    """
    times = ticks.astype(np.float64) / rate
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        raise RecordingError(f"time of record {bad[0]} is not finite", stream="behavior")
    steps = np.diff(times)
    if (falls := np.flatnonzero(steps < 0)).size:
        at = int(falls[0])
        raise RecordingError(
            f"record {at + 1} is {-steps[at]:.6g} s before record {at}; times must not go back",
            stream="behavior",
            at=float(times[at + 1]),
        )
    same = np.flatnonzero(steps == 0)
    if not same.size:
        return times, values
    apart = np.abs(values[same + 1] - values[same]).max(axis=1)
    if (apart > 1).any():
        at = int(same[apart > 1][0])
        raise RecordingError(
            f"records {at} and {at + 1} have the same time and places {apart.max():g} px apart",
            stream="behavior",
            at=float(times[at]),
        )
    pairs = ", ".join(f"{at} and {at + 1}" for at in same[:5])
    findings.append(
        Finding(
            "duplicate",
            f"{len(same)} repeated time stamps (records {pairs}); of each pair, which agree to a "
            "pixel, the first is read",
            "none needed",
            stream="behavior",
            times=tuple(times[same][:10].tolist()),
        )
    )
    return np.delete(times, same + 1), np.delete(values, same + 1, axis=0)


def _lost(times: np.ndarray, values: np.ndarray, names: tuple[str, ...]) -> list[Finding]:
    findings = []
    for first in range(0, len(names), 2):
        pair = names[first : first + 2]
        lost = np.flatnonzero((values[:, first : first + 2] == 0).all(axis=1))
        if lost.size:
            mask = {"step": "mask", "channels": list(pair), "value": 0}
            findings.append(
                Finding(
                    "lost",
                    f"{len(lost)} of {len(times)} positions are (0, 0): the light was lost",
                    f"mask them: {{step: mask, channels: [{', '.join(pair)}], value: 0}}",
                    stream="behavior",
                    times=tuple(times[lost[:10]].tolist()),
                    channels=pair,
                    steps=(mask,),
                )
            )
    return findings


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise RecordingError(f"{name} is {text!r} in the header; must be a number")
    return value


def _scale(text: str) -> float:
    """Pixels per cm, 0 where the header has none."""
    found = re.fullmatch(r"([\d.]+) *pix/cm", text)
    return _number(found[1], "pixel scale") if found else 0.0


register(
    Format(
        name="trodes",
        title="Trodes position track",
        suffixes=(".videoPositionTracking",),
        matches=matches,
        open=read,
        one_file=True,
    )
)

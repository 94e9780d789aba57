"""Raw binary: `x.bin`, `.dat` or `.raw`, numbers and nothing else, beside them what they are.

The sidecar is `x.json`, `x.yaml` or `x.yml`, or the whole name with that ending (`x.bin.json`), in
the same folder. The same fields may be given as reader options instead, or to replace some of them.

    dtype       int8, uint8, int16, uint16, int32, float32 or float64              required
    channels    how many, or a list of names, or a list of
                {name, type, unit, gain, position: [x, y, z] in m}, name alone required   required
    rate        Hz                                                                 required
    endianness  "<" (little, as left out) or ">" (big)
    layout      time_channel (as left out: all channels of a sample together) or
                channel_time (channel after channel)
    offset      bytes of a header to leave out, 0 if left out
    gain        stored numbers times gain are in `unit`: one number, or one per channel
    unit        of the product: V, mV, µV … are given as µV; left out where it is not known
    type        of all channels that do not say it themselves: eeg, ecog, lfp …; "other" if left out
    segments    [{first, start}, …]: stretches that do not follow one another: the number of the
                first sample and its time in seconds (left out: where the one before ends)
    subject, session, site      names

A complete example, `day1.json` beside `day1.bin`:

    {"dtype": "int16", "channels": ["C3", "Cz", "C4"], "rate": 1000, "gain": 0.1, "unit": "µV",
     "type": "eeg", "subject": "s01"}

The file must hold a whole number of samples. Nothing but its size is read when it is opened.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from recording.contract import Channel, Finding, Piece, Recording, Series
from recording.errors import RecordingError
from recording.readers import Format, Options, register
from recording.readers.checked_values import Checked, scaled, stated_unit
from recording.signals import FileArray, Signal

SUFFIXES = (".bin", ".dat", ".raw")
ENDINGS = (".json", ".yaml", ".yml")
MOST_CHANNELS = 10**5
LEAST_GAIN = 1e-25
_SIDECAR_BYTES = 2**22
_REQUIRED = ("dtype", "channels", "rate")

# Strict: no text for a number.
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=0)]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BinaryChannel(_Fields):
    """One channel of a raw binary file; what is left out holds as said for all of them."""

    name: str
    type: str | None = None
    unit: str | None = None
    gain: Finite | None = None
    position: tuple[Finite, Finite, Finite] | None = None


class Segment(_Fields):
    """A stretch of consecutive samples: number of the first, its time in seconds."""

    first: Whole
    start: Finite | None = None


class BinaryOptions(Options):
    """The sidecar's fields, as options: each replaces what the sidecar says."""

    dtype: Literal["int8", "uint8", "int16", "uint16", "int32", "float32", "float64"] | None = None
    channels: tuple[BinaryChannel, ...] | None = None
    rate: Annotated[Finite, Field(gt=0)] | None = None
    endianness: Literal["<", ">"] | None = None
    layout: Literal["time_channel", "channel_time"] | None = None
    offset: Whole | None = None
    gain: Finite | tuple[Finite, ...] | None = None
    unit: str | None = None
    type: str | None = None
    segments: tuple[Segment, ...] | None = None

    @field_validator("channels", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A count as channels named by their numbers, a name as a channel."""
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= MOST_CHANNELS:
                raise ValueError(f"is {value}; must be 1 to {MOST_CHANNELS}")
            return [{"name": str(index)} for index in range(value)]
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= MOST_CHANNELS:
            raise ValueError(f"must be a count, or a list of 1 to {MOST_CHANNELS} channels")
        named = [{"name": item} if isinstance(item, str) else item for item in value]
        for index, item in enumerate(named):
            if not isinstance(item, (Mapping, BinaryChannel)):
                raise ValueError(f"entry {index} is {item!r:.40}; must be a name or {{name: …}}")
        return named


def open_binary(path: Path, options: BinaryOptions) -> Recording:
    """A raw binary file as a recording, by its sidecar and the options; raises RecordingError."""
    if not path.is_file():
        raise RecordingError("is no file")
    sidecar = find_sidecar(path)
    stated = BinaryOptions() if sidecar is None else read_sidecar(sidecar)
    fields, replaced = _merge(stated, options)
    missing = [name for name in _REQUIRED if getattr(fields, name) is None]
    if missing:
        where = f"{sidecar.name} lacks" if sidecar else f"no {path.stem}.json beside it says its"
        raise RecordingError(
            f"{where} {', '.join(missing)}: write "
            '{"dtype": "int16", "channels": 32, "rate": 1000} there, or give reader options'
        )
    findings: tuple[Finding, ...] = ()
    if replaced:
        findings = (
            Finding(
                "clock" if "rate" in replaced else "scale",
                f"options replace what {sidecar.name if sidecar else ''} says: "
                f"{', '.join(replaced)}",
                "leave out the options (reader) if the sidecar is right",
                stream="neural",
                level="note",
            ),
        )
    return Recording(
        source=path.name,
        format="binary",
        session=fields.session or path.stem,
        modalities={"neural": _series(path, fields)},
        subject=fields.subject or "",
        site=fields.site or "",
        findings=findings,
        facts={"sidecar": sidecar.name} if sidecar else {},
    )


def find_sidecar(path: Path) -> Path | None:
    """The file that describes a raw binary file, None where there is none.

    Raises RecordingError where there are several.
    """
    names = [path.stem + ending for ending in ENDINGS] + [path.name + ending for ending in ENDINGS]
    found = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if len(found) > 1:
        raise RecordingError(
            f"several files say what it is: {', '.join(one.name for one in found)}; keep one"
        )
    return found[0] if found else None


def read_sidecar(path: Path) -> BinaryOptions:
    """The fields of a sidecar; raises RecordingError naming its file and key."""
    try:
        if path.stat().st_size > _SIDECAR_BYTES:
            raise ValueError(f"is larger than {_SIDECAR_BYTES} bytes")
        table = _parse(path.read_text("utf-8-sig"), path.suffix)
        if not isinstance(table, dict):
            raise ValueError('must be a table of fields, {"dtype": …}')
        return BinaryOptions.model_validate(table)
    except ValidationError as error:
        details = error.errors()[0]
        # Which of several types pydantic tried is no part of the key.
        parts = [str(part) for part in details["loc"]]
        key = ".".join(part for part in parts if part != "float" and "[" not in part)
        fields = ", ".join(BinaryOptions.model_fields)
        extra = f"; fields: {fields}" if details["type"] == "extra_forbidden" else ""
        text = details["msg"].removeprefix("Value error, ")
        raise RecordingError(f"{key}: {text}{extra}", file=path.name) from None
    except (ValueError, TypeError, RecursionError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise RecordingError(f"cannot be read: {lines[0]}", file=path.name) from None


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text, object_pairs_hook=_once)
    import yaml

    try:
        # A few aliases of aliases stand for more values than any memory holds.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("aliases (*name) are not taken; write the values out")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", "; ")) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key is there twice")
    return table


def _merge(stated: BinaryOptions, given: BinaryOptions) -> tuple[BinaryOptions, list[str]]:
    """The sidecar's fields with those of the options, and which of them differ."""
    changes = {
        name: value
        for name in BinaryOptions.model_fields
        if (value := getattr(given, name)) is not None
    }
    replaced = [name for name in changes if getattr(stated, name) not in (None, changes[name])]
    return stated.model_copy(update=changes), replaced


def _series(path: Path, fields: BinaryOptions) -> Series:
    assert fields.dtype is not None
    assert fields.channels is not None
    assert fields.rate is not None
    dtype = np.dtype(fields.dtype).newbyteorder(fields.endianness or "<")
    count = len(fields.channels)
    samples = _samples(path, fields.offset or 0, dtype.itemsize * count, fields.rate)
    channels, factors = _channels(fields)
    rate = fields.rate
    pieces = _pieces(fields.segments or (), samples, rate)
    raw: Signal = FileArray(
        path,
        dtype,
        (samples, count),
        offset=fields.offset or 0,
        order="F" if fields.layout == "channel_time" else "C",
    )
    names = [channel.name for channel in channels]

    def seconds(sample: int) -> float:
        own = next(piece for piece in reversed(pieces) if piece.first <= sample)
        return own.start + (sample - own.first) / rate

    if dtype.kind == "f":
        raw = Checked(raw, names, seconds, file=path.name, factor=max(map(abs, factors)))
    return Series(scaled(raw, factors), rate, channels, pieces)


def _samples(path: Path, offset: int, sample: int, rate: float) -> int:
    """How many samples of so many bytes the file holds; raises RecordingError for a part of one."""
    there = path.stat().st_size - offset
    samples, over = divmod(there, sample)
    if over and there > 0:
        raise RecordingError(
            f"{there} bytes{f' after the offset of {offset}' if offset else ''} are {samples} "
            f"samples of {sample} bytes and {over} bytes more: it is cut off, or dtype, "
            "channels or offset are wrong",
            stream="neural",
            at=samples / rate,
        )
    if samples < 1:
        raise RecordingError(
            f"{path.stat().st_size} bytes hold no sample of {sample} bytes after an offset of "
            f"{offset}",
            stream="neural",
        )
    return samples


def _channels(fields: BinaryOptions) -> tuple[tuple[Channel, ...], list[float]]:
    """The channels, and what the stored numbers of each are multiplied by."""
    assert fields.channels is not None
    gains = fields.gain if fields.gain is not None else 1.0
    if not isinstance(gains, tuple):
        gains = (gains,) * len(fields.channels)
    if len(gains) != len(fields.channels):
        raise RecordingError(f"gain: {len(gains)} numbers for {len(fields.channels)} channels")
    channels, factors = [], []
    for entry, common in zip(fields.channels, gains, strict=True):
        type = entry.type or fields.type or "other"
        stated = fields.unit if entry.unit is None else entry.unit
        unit, factor = stated_unit(stated or "", type, stream=entry.name)
        gain = common if entry.gain is None else entry.gain
        if not LEAST_GAIN < abs(gain) < 1 / LEAST_GAIN:
            raise RecordingError(
                f"gain is {gain:g}; must be another number than 0, of float32", stream=entry.name
            )
        channels.append(Channel(entry.name, type, unit, entry.position))
        factors.append(gain * factor)
    return tuple(channels), factors


def _pieces(segments: tuple[Segment, ...], samples: int, rate: float) -> tuple[Piece, ...]:
    firsts = [segment.first for segment in segments] or [0]
    if firsts[0] != 0 or firsts != sorted(set(firsts)) or firsts[-1] >= samples:
        raise RecordingError(
            f"segments: first samples {firsts[:10]}; must begin with 0 and rise, below {samples}",
            stream="neural",
        )
    pieces: list[Piece] = []
    for index, (first, stop) in enumerate(itertools.pairwise([*firsts, samples])):
        end = pieces[-1].start + len(pieces[-1]) / rate if pieces else -math.inf
        start = segments[index].start if segments else None
        start = (end if pieces else 0.0) if start is None else start
        if start < end - 0.5 / rate:
            raise RecordingError(
                f"segments.{index}: starts at {start:.6g} s, but the one before runs to "
                f"{end:.6g} s; segments must not overlap",
                stream="neural",
                at=start,
            )
        pieces.append(Piece(start, first, stop))
    return tuple(pieces)


def _matches(path: Path, head: bytes) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


register(
    Format(
        "binary",
        SUFFIXES,
        _matches,
        open_binary,
        extra="recordings",
        title="raw binary",
        options=BinaryOptions,
        rank=90,
    )
)

"""Trials as text: the `.ts` files of the UEA archive, sktime and aeon.

Lines with `#` are comments, those with `@` say what is there; behind `@data` every line is a trial:
channels between `:`, samples between `,`, the class last. Trials follow one another on the clock:
each begins where the one before ends. The numbers are read once, when the file is opened.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Literal

import numpy as np
from pydantic import Field

from recording.contract import Channel, Events, Finding, Piece, Recording, Series
from recording.errors import RecordingError
from recording.readers import Format, Options, register
from recording.readers.checked_values import Spool, scaled, stated_unit

_LINE_BYTES = 2**24
_HEADER_BYTES = 2**20
_COMMENT_BYTES = 2**16  # of which the rate is looked for
MOST_TRIALS = 10**6
_LOWERED = re.compile(r"down-?\s?sampled\s+(?:at|to)\s+(\d+(?:\.\d+)?)\s*Hz", re.IGNORECASE)
_RATE = re.compile(
    r"sampl(?:ing|e)\s+(?:rate|frequency)\s*(?:of|is|was|:|=)?\s*(\d+(?:\.\d+)?)\s*(?:Hz|S/s)",
    re.IGNORECASE,
)
_NAMES = re.compile(r"channels[^()]{0,80}order:?\s*\(([^()]{1,10000})\)", re.IGNORECASE)


class TrialTextOptions(Options):
    """Options of `.ts` files, which state neither channel names nor units, and seldom a rate.

    `layout` is "restored" for sets whose axes were mixed up when they were made, see `restored`;
    the channels that come back are the first of `channel_names`.
    """

    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    unit: str | None = None
    type: str = "other"
    channel_names: tuple[str, ...] | None = None
    layout: Literal["archived", "restored"] = "archived"


@dataclass
class _Header:
    """What the lines in front of `@data` say; None and empty where they say nothing."""

    comments: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    line: int = 0  # of `@data`

    def flag(self, name: str) -> bool:
        return self.fields.get(name, "false").lower() == "true"

    def number(self, *names: str) -> int | None:
        text = next((self.fields[name] for name in names if name in self.fields), None)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or int(text[:9]) == 0 or len(text) > 9:
            raise RecordingError(f"@{names[0]} is {text[:40]!r}; must be a number above 0")
        return int(text)

    @property
    def classes(self) -> tuple[str, ...]:
        words = self.fields.get("classlabel", "").split() or ["false"]
        if words[0].lower() != "true":
            return ()
        if len(words) == 1 or len(set(words)) != len(words):
            raise RecordingError("@classLabel true: must name every class, each once")
        return tuple(words[1:])


def open_trial_text(path: Path, options: TrialTextOptions) -> Recording:
    """A `.ts` file as a recording: a piece and a trial per line; raises RecordingError."""
    if path.is_dir():
        files = sorted(one.name for one in path.glob("*.ts"))
        raise RecordingError(
            f"holds several sets: {', '.join(files[:6])}; name one of these files, and train and "
            "test parts as two sessions"
        )
    with path.open("rb") as file:
        lines = _lines(file)
        header = _read_header(lines)
        rate, findings = _rate(header, options)
        with Spool() as spool:
            stored, lengths, kinds = _read_trials(lines, header, rate, options.layout, spool)
            values, channels = spool.signal(), spool.columns
    names, origin = _channel_names(header, options, stored)
    names = names[:channels]
    unit, factor = stated_unit(options.unit or "", options.type, stream="neural")
    firsts = np.cumsum([0, *lengths])
    pieces = tuple(
        Piece(float(first / rate), int(first), int(stop))
        for first, stop in itertools.pairwise(firsts)
    )
    return Recording(
        source=path.name,
        format="trial_text",
        session=options.session or path.stem,
        modalities={
            "neural": Series(
                scaled(values, (factor,) * channels),
                rate,
                tuple(Channel(name, options.type, unit) for name in names),
                pieces,
            )
        },
        trials=Events(
            firsts[:-1] / rate,
            np.array(kinds, np.int64),
            header.classes or ("trial",),
            np.array(lengths) / rate,
        ),
        subject=options.subject or "",
        site=options.site or "",
        findings=findings,
        facts={"problem": header.fields.get("problemname", ""), "channel names from": origin},
    )


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Numbers, from 1, and texts of the lines; raises RecordingError for an endless one."""
    number = 0
    while line := file.readline(_LINE_BYTES):
        number += 1
        if len(line) == _LINE_BYTES:
            raise RecordingError(f"line {number} is longer than {_LINE_BYTES} bytes")
        yield number, line.decode("latin-1").strip()


def _read_header(lines: Iterator[tuple[int, str]]) -> _Header:
    header, size = _Header(), 0
    comments: list[str] = []
    for number, line in lines:
        size += len(line)
        if size > _HEADER_BYTES or (line and line[0] not in "#@"):
            raise RecordingError(
                f"line {number}: {line[:40]!r} in front of @data; must begin with # or @"
            )
        if line.startswith("#"):
            comments.append(line[1:])
        elif line.lower() == "@data":
            header.comments = " ".join(comments)[:_COMMENT_BYTES]
            _check_header(header)
            return header
        elif line:
            name, _, value = line[1:].partition(" ")
            header.fields[name.lower()] = value.strip()
    raise RecordingError("has no line @data")


def _check_header(header: _Header) -> None:
    if header.flag("timestamps"):
        raise RecordingError("@timeStamps true: samples with times of their own are not read")
    if header.flag("targetlabel"):
        raise RecordingError("@targetLabel true: numbers to predict are not read, only classes")
    if header.flag("univariate") and header.number("dimensions", "dimension") not in (None, 1):
        raise RecordingError("@univariate true, but @dimensions is not 1")


def _rate(header: _Header, options: TrialTextOptions) -> tuple[float, tuple[Finding, ...]]:
    """The rate in Hz: the option, else what the comments say, where they say one thing."""
    if options.rate is not None:
        return options.rate, ()
    for pattern in (_LOWERED, _RATE):
        found = {float(match[1]): match[0] for match in pattern.finditer(header.comments)}
        if len(found) == 1 and (rate := next(iter(found))) > 0:
            return rate, (
                Finding(
                    "clock",
                    f"{rate:g} Hz is from a comment in the file: {found[rate]!r}",
                    f"say it yourself: reader.rate: {rate:g}",
                    stream="neural",
                    level="note",
                ),
            )
    raise RecordingError(
        "its rate in Hz is not in the file: give rate, --option rate=HZ (reader.rate)"
    )


def _channel_names(
    header: _Header, options: TrialTextOptions, channels: int
) -> tuple[tuple[str, ...], str]:
    """The channels' names and where they are from: the option, a list in the comments, numbers."""
    if options.channel_names is not None:
        if len(options.channel_names) != channels:
            raise RecordingError(
                f"channel_names: {len(options.channel_names)} names for {channels} channels"
            )
        return options.channel_names, "the options"
    for match in _NAMES.finditer(header.comments):
        names = tuple(name.strip() for name in match[1].split(","))
        if len(set(names)) == channels == len(names) and all(names):
            return names, "a comment in the file"
    return tuple(str(index + 1) for index in range(channels)), "their numbers"


def _read_trials(
    lines: Iterator[tuple[int, str]], header: _Header, rate: float, layout: str, spool: Spool
) -> tuple[int, list[int], list[int]]:
    """Channels of the file, length and class number of every trial; samples go into the spool."""
    channels = 1 if header.flag("univariate") else header.number("dimensions", "dimension")
    equal = header.fields.get("equallength", "true").lower() == "true"
    length = header.number("serieslength") if equal else None
    lengths: list[int] = []
    kinds: list[int] = []
    for number, line in lines:
        if not line or line.startswith("#"):
            continue
        start = spool.rows / rate
        try:
            trial, kind = _read_trial(line, header, start, rate)
            found = f"{trial.shape[1]} channels"
            if trial.shape[1] != (channels or trial.shape[1]):
                raise RecordingError(f"{found}; must be {channels}", at=start)
            if len(trial) != (length or len(trial)):
                raise RecordingError(f"{len(trial)} samples; must be {length}", at=start)
            if len(lengths) == MOST_TRIALS:
                raise RecordingError(f"more than {MOST_TRIALS} trials")
            values = restored(trial, start) if layout == "restored" else trial
        except RecordingError as error:
            raise RecordingError(
                f"line {number}: {error.problem}", stream=error.stream or "neural", at=error.at
            ) from None
        channels, length = trial.shape[1], len(trial) if equal else None
        spool.add(values)
        lengths.append(len(trial))
        kinds.append(kind)
    if not lengths:
        raise RecordingError("no trial stands behind @data")
    assert channels is not None
    return channels, lengths, kinds


def restored(trial: np.ndarray, start: float = 0.0) -> np.ndarray:
    """The channels that a trial holds whole, where its axes were mixed up: (time, channel).

    In such a trial (time, channel) channel k + 1 is channel k shifted by as many samples as there
    are channels: all are stretches of one stream, in which the first recorded channels stand
    behind one another, each of `time` samples; the others are lost. Raises RecordingError, at
    `start` s, for a trial that is not one stream.
    """
    steps, channels = trial.shape
    if channels > steps or (trial[channels:, :-1] != trial[:-channels, 1:]).any():
        raise RecordingError(
            "layout restored: its channels are not stretches of one stream; give layout: archived",
            at=start,
        )
    stream = np.concatenate([trial[:channels, :-1].T.reshape(-1), trial[:, -1]])
    whole = len(stream) // steps
    return stream[: whole * steps].reshape(whole, steps).T.copy()


def _read_trial(line: str, header: _Header, start: float, rate: float) -> tuple[np.ndarray, int]:
    """Samples (time, channel) float32 and class number of a line."""
    texts, kind = line.split(":"), 0
    if header.classes:
        label = texts.pop().strip()
        if label not in header.classes:
            raise RecordingError(
                f"its class is {label[:40]!r}; must be one of {', '.join(header.classes[:10])}",
                at=start,
            )
        kind = header.classes.index(label)
    missing = header.flag("missing")
    columns = [
        _numbers(text, f"channel {index + 1}", missing, start, rate)
        for index, text in enumerate(texts)
    ]
    if not columns:
        raise RecordingError("holds no channel", at=start)
    for index, column in enumerate(columns):
        if len(column) != len(columns[0]):
            raise RecordingError(
                f"channel {index + 1} has {len(column)} samples, channel 1 has {len(columns[0])}",
                at=start,
            )
    return np.stack(columns, axis=1), kind


def _numbers(text: str, stream: str, missing: bool, start: float, rate: float) -> np.ndarray:
    """The numbers of a channel (time,) float32; "?" or NaN is a missing one, where said so."""
    words = text.split(",")
    try:
        if "_" in text:
            raise ValueError
        values = np.array(words, np.float64)
    except ValueError:
        values = np.array([_number(word, missing) for word in words])
    bad = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max))
    for at in bad.tolist():
        word = words[at].strip()
        if not (missing and word.lower() in ("?", "nan")):
            hint = "; @missing is false" if word.lower() in ("?", "nan") else ""
            raise RecordingError(
                f"{stream}, sample {at + 1}: {word[:40]!r} is no number of float32{hint}",
                stream=stream,
                at=start + at / rate,
            )
    return values.astype(np.float32)


def _number(word: str, missing: bool) -> float:
    """A number, NaN where it is none: the caller says which."""
    try:
        return float("nan" if "_" in word else word)
    except ValueError:
        return float("nan")


def _matches(path: Path, head: bytes) -> bool:
    if path.is_dir():
        return any(path.glob("*_TRAIN.ts"))
    return path.suffix.lower() == ".ts" and head.lstrip()[:1] in (b"#", b"@")


register(
    Format(
        "trial_text",
        (".ts",),
        _matches,
        open_trial_text,
        title="UEA .ts text",
        options=TrialTextOptions,
        one_file=True,
    )
)

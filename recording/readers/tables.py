"""Tables: CSV and TSV with a line of column names, and Parquet; a row is a sample.

Every column of numbers is a neural channel, but for a column of time (`time`, `time_s`, `time_ms`,
`timestamp`, `t`), for those that the option `behavior` names, and for those that `ignore` names.
Time stamps must be regular; a gap begins another piece. Without them the option `rate` is needed.
Values are kept as float32. A text file is read once, when it is opened, in memory up to 512 MB and
in a temporary file beyond; a Parquet file by row groups, as they are asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from recording.clocks import clock
from recording.contract import Channel, Finding, Modality, Piece, Recording, Series
from recording.errors import RecordingError
from recording.readers import Format, Options, register
from recording.readers.checked_values import Spool, scaled, stated_unit
from recording.readers.text_table import CellError, TextTable, open_text
from recording.readers.unit_names import microvolts
from recording.signals import Pointwise, Signal

MOST_COLUMNS = 10**5
_TIME_NAMES = re.compile(r"(?:time|timestamps?|t)(?:_(s|ms|us|µs|ns))?|(seconds)")
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_BRACKETS = re.compile(r"(.+?)\s*(?:\[([^\[\]]{1,20})\]|\(([^()]{1,20})\))")

Role = Literal["neural", "behavior", "time", "ignored"]


class TableOptions(Options):
    """Options of tables: which columns are what, and what a table does not say.

    time: the column of time stamps, where its name is another; channel_names: names of all columns,
    instead of those in the file.
    """

    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    time: str | None = None
    behavior: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    unit: str | None = None
    type: str = "other"
    channel_names: tuple[str, ...] | None = None


class TextOptions(TableOptions):
    """Options of tables in text: what lies between cells, decimal comma, a second line of units."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] = "."
    units_row: bool = False


@dataclass(frozen=True)
class Column:
    """A column: its name without a unit in brackets, its unit, what it is."""

    name: str
    unit: str
    role: Role


def open_csv(path: Path, options: TextOptions) -> Recording:
    """A CSV or TSV file as a recording; raises RecordingError naming line, column and time."""
    table, cells = open_text(path, options.delimiter, options.decimal)
    header = 1
    if all(map(_is_number, cells)):
        if options.channel_names is None:
            raise RecordingError(
                "line 1 holds numbers; must name the columns, or give reader.channel_names"
            )
        header = 0
    columns = read_columns(cells, options)
    if options.units_row:
        header += 1
        columns = _with_units(table, columns, header, options)
    with Spool() as values, Spool(np.float64) as times:
        _read(table, columns, header, options, values, times)
        if not values.rows:
            raise RecordingError("has column names and no rows")
        stamps = times.signal() if times.rows else None
        recording = assemble(path, "csv", options, columns, values.signal(), stamps)
    if table.encoding != "latin-1":
        return recording
    finding = Finding(
        "encoding",
        "is no valid UTF-8; it was read as Latin-1",
        "save it as UTF-8 if names or units look wrong",
        level="note",
    )
    return replace(recording, findings=(*recording.findings, finding))


def read_columns(names: list[str], options: TableOptions) -> tuple[Column, ...]:
    """What each column is, from its name and the options; raises RecordingError."""
    given = options.channel_names
    if given is not None and len(given) != len(names):
        raise RecordingError(f"channel_names: {len(given)} names for {len(names)} columns")
    names = list(given) if given is not None else names
    if len(names) > MOST_COLUMNS:
        raise RecordingError(f"{len(names)} columns are more than {MOST_COLUMNS}")
    for patterns, key in ((options.behavior, "behavior"), (options.ignore, "ignore")):
        for pattern in patterns:
            if not any(_matches(name, pattern) for name in names):
                raise RecordingError(f"{key}: no column {pattern!r}; there are: {_list(names)}")
    columns = tuple(_column(index, name, options) for index, name in enumerate(names))
    times = [column.name for column in columns if column.role == "time"]
    if len(times) > 1:
        raise RecordingError(
            f"columns {_list(times)} are all of time: name one by reader.time, leave the others "
            "out by reader.ignore"
        )
    if options.time is not None and not times:
        raise RecordingError(f"time: no column {options.time!r}; there are: {_list(names)}")
    used = Counter(column.name for column in columns if column.role != "ignored")
    if twice := [name for name, count in used.items() if count > 1]:
        raise RecordingError(f"two columns are called {twice[0]!r}; names must differ")
    if not {column.role for column in columns} & {"neural", "behavior"}:
        raise RecordingError(f"no column is a channel; there are: {_list(names)}")
    return columns


def assemble(
    path: Path,
    format: str,
    options: TableOptions,
    columns: tuple[Column, ...],
    values: Signal,
    times: Signal | None,
) -> Recording:
    """The recording of a table.

    `values` (row, column of a channel) are its neural and behavior columns in order, `times`
    (row, 1) its stamps in seconds, None where it has no column of time.
    """
    rate, pieces, findings = _clock(options, len(values), times)
    modalities: dict[str, Modality] = {}
    channels = [column for column in columns if column.role in ("neural", "behavior")]
    for role in ("neural", "behavior"):
        indices = [index for index, column in enumerate(channels) if column.role == role]
        if indices:
            chosen = [channels[index] for index in indices]
            modalities[role] = _series(values, indices, chosen, options, rate, pieces)
    ignored = [column.name for column in columns if column.role == "ignored"]
    return Recording(
        source=path.name,
        format=format,
        session=options.session or path.stem,
        modalities=modalities,
        subject=options.subject or "",
        site=options.site or "",
        findings=findings,
        facts={"columns left out": ", ".join(ignored)} if ignored else {},
    )


def seconds(column: Column) -> float:
    """What a number in a column of time is multiplied by to be in seconds."""
    if column.unit not in _SECONDS:
        raise RecordingError(
            f"unit {column.unit!r} of the column of time is not known; must be s, ms, us or ns",
            stream=column.name,
        )
    return _SECONDS[column.unit]


def check_values(
    values: np.ndarray, columns: list[Column], first: int, times: np.ndarray | None
) -> None:
    """Raise RecordingError at the first infinite value of rows (row, channel).

    `first` is the line of the first of them, `times` theirs in seconds, where known.
    """
    with np.errstate(invalid="ignore"):
        bad = np.abs(values) > np.finfo(np.float32).max
    if bad.any():
        row, place = (int(index) for index in np.argwhere(bad)[0])
        raise RecordingError(
            f"line {first + row}, column {columns[place].name!r}: {values[row, place]} is infinite "
            "or beyond float32; an empty cell is a missing value",
            stream=columns[place].name,
            at=None if times is None else float(times[row]),
        )


def _read(
    table: TextTable,
    columns: tuple[Column, ...],
    header: int,
    options: TableOptions,
    values: Spool,
    times: Spool,
) -> None:
    """Parse all rows into the two spools: of channels, and of times in seconds."""
    names = [column.name for column in columns]
    used = [i for i, column in enumerate(columns) if column.role in ("neural", "behavior")]
    chosen = [columns[index] for index in used]
    clocks = [index for index, column in enumerate(columns) if column.role == "time"]
    factor = seconds(columns[clocks[0]]) if clocks else 1.0
    for first, lines in table.rows(header):
        stamps = None
        try:
            if clocks:
                stamps = table.numbers(first, lines, clocks, names)[:, 0] * factor
                times.add(stamps[:, np.newaxis])
            block = table.numbers(first, lines, used, names)
        except CellError as error:
            at = None
            if stamps is not None:
                at = float(stamps[error.line - first])
            elif options.rate is not None and not clocks:
                at = (error.line - header - 1) / options.rate
            raise RecordingError(error.problem, stream=error.stream, at=at) from None
        if stamps is None and options.rate is not None:
            stamps = np.arange(first - header - 1, first - header - 1 + len(block)) / options.rate
        if len(block) != len(lines):
            raise RecordingError(f"line {first} and below: a quoted cell runs over several lines")
        check_values(block, chosen, first, stamps)
        values.add(block)


def _clock(
    options: TableOptions, rows: int, times: Signal | None
) -> tuple[float, tuple[Piece, ...], tuple[Finding, ...]]:
    """Rate in Hz and pieces, from the option or the stamps; raises RecordingError."""
    if times is None:
        if options.rate is None:
            raise RecordingError(
                "has no column of time, nor a rate: give rate, --option rate=HZ (reader.rate)"
            )
        return options.rate, (Piece(0.0, 0, rows),), ()
    found = clock(times, stream="neural")
    if not found.regular:
        off = f"one is {found.deviation * 1e3:.4g} ms off its place"
        if not found.pieces:
            off = "more than 1 % of its time stamps are more than one step behind the one before"
        raise RecordingError(
            f"its time stamps are not regular: {off} at {found.rate:.6g} Hz; must be steady "
            "between gaps, or leave the column out (reader.ignore) and give reader.rate",
            stream="neural",
            at=found.worst,
        )
    rate = options.rate or found.rate
    if abs(rate / found.rate - 1) > 1e-3:
        raise RecordingError(
            f"clocks disagree: reader.rate says {rate:g} Hz, its time stamps {found.rate:g} Hz; "
            "leave out one of both",
            stream="neural",
        )
    return rate, found.pieces, found.findings("neural")


def _series(
    values: Signal,
    indices: list[int],
    columns: list[Column],
    options: TableOptions,
    rate: float,
    pieces: tuple[Piece, ...],
) -> Series:
    channels, factors = [], []
    for column in columns:
        behavior = column.role == "behavior"
        kind = "behavior" if behavior else options.type
        stated = column.unit or ("" if behavior else options.unit or "")
        unit, factor = stated_unit(stated, kind, stream=column.name)
        channels.append(Channel(column.name, kind, unit))
        factors.append(factor)
    if indices != list(range(values.shape[1])):
        values = Pointwise(values, lambda block: block[:, indices], (len(indices),))
    return Series(scaled(values, factors), rate, tuple(channels), pieces)


def _column(index: int, text: str, options: TableOptions) -> Column:
    if any(_matches(text, pattern) for pattern in options.ignore):
        return Column(text, "", "ignored")
    name, unit = _split_unit(text)
    if not name or name.startswith("__index_level_"):
        raise RecordingError(
            f"column {index + 1} has no name: name it, or leave it out: reader.ignore: ['{text}']"
        )
    timed = _TIME_NAMES.fullmatch(name.lower())
    behavior = any(_matches(text, pattern) for pattern in options.behavior)
    if options.time in (text, name) or (options.time is None and timed and not behavior):
        return Column(name, unit.lower() or (timed and timed[1]) or "s", "time")
    return Column(name, unit, "behavior" if behavior else "neural")


def _split_unit(text: str) -> tuple[str, str]:
    """ "Fz [µV]" as name and unit; round brackets only around what is a unit."""
    found = _BRACKETS.fullmatch(text.strip())
    if found is None:
        return text.strip(), ""
    unit = (found[2] or found[3]).strip()
    if found[3] and microvolts(unit) is None and unit not in _SECONDS:
        return text.strip(), ""
    return found[1], unit


def _with_units(
    table: TextTable, columns: tuple[Column, ...], line: int, options: TextOptions
) -> tuple[Column, ...]:
    """The columns with the units of a line of their own."""
    first, lines = next(table.rows(line - 1), (line, [""]))
    units = table.cells(lines[0], first)
    if len(units) != len(columns):
        raise RecordingError(f"line {line} has {len(units)} units for {len(columns)} columns")
    if all(map(_is_number, units)):
        raise RecordingError(f"line {line} holds numbers; units_row says it holds units")
    units = [unit.strip("[]() ") for unit in units]
    return tuple(
        replace(column, unit=unit.lower() if column.role == "time" else unit)
        for column, unit in zip(columns, units, strict=True)
    )


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _list(names: list[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (" …" if len(names) > 20 else "")


def _is_text_table(path: Path, head: bytes) -> bool:
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv")


register(
    Format(
        "csv",
        (".csv", ".tsv"),
        _is_text_table,
        open_csv,
        title="text table",
        options=TextOptions,
        rank=50,
        one_file=True,
    )
)

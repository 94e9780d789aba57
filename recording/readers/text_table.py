"""Rows of numbers in a text file, parsed block by block: delimiter, header, encoding, numbers."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recording.errors import RecordingError

BLOCK_BYTES = 4 * 2**20
_LINE_BYTES = 2**24
# Cells that stand for a value that is not there.
MISSING = ("", "nan", "na", "n/a", "null", "none")
_DATE = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?|\d{1,2}[./]\d{1,2}[./]\d{4}|\d+:\d\d")


@dataclass
class TextTable:
    """A text file as a table: its first row, what cells lie between, how it is encoded.

    `encoding` becomes "latin-1" where the bytes read so far are not UTF-8.
    """

    path: Path
    delimiter: str
    decimal: str = "."
    encoding: str = "utf-8-sig"

    def rows(self, skip: int) -> Iterator[tuple[int, list[str]]]:
        """Blocks of lines with the number, from 1, of the first; `skip` lines are left out.

        Raises RecordingError for an endless line, and for an empty one that others follow.
        """
        number, empty = 0, 0
        for data in self._blocks():
            first = number + 1
            texts = [text.rstrip("\r") for text in self._decode(data).split("\n")]
            if not texts[-1]:
                texts.pop()  # behind the last end of line is no line
            number += len(texts)
            left = max(0, min(len(texts), skip - first + 1))
            texts, first = texts[left:], first + left
            filled = [index for index, text in enumerate(texts) if text.strip()]
            if filled and (empty or filled[-1] + 1 != len(filled)):
                gap = next((i for i, text in enumerate(texts) if not text.strip()), 0)
                raise RecordingError(f"line {empty or first + gap} is empty, others follow it")
            if not empty and len(filled) < len(texts):
                empty = first + len(filled)
            if filled:
                yield first, texts[: len(filled)]

    def _blocks(self) -> Iterator[bytes]:
        """Blocks of whole lines."""
        rest = b""
        with self.path.open("rb") as file:
            while data := file.read(BLOCK_BYTES):
                data = rest + data
                cut = data.rfind(b"\n") + 1
                if len(data) - cut > _LINE_BYTES:
                    raise RecordingError(f"a line is longer than {_LINE_BYTES} bytes")
                rest = data[cut:]
                if cut:
                    yield data[:cut]
        if rest:
            yield rest

    def _decode(self, data: bytes) -> str:
        try:
            return data.decode(self.encoding)
        except UnicodeDecodeError:
            self.encoding = "latin-1"
            return data.decode(self.encoding)

    def cells(self, line: str, number: int) -> list[str]:
        """The cells of one line, without the blanks around them."""
        return [cell.strip() for cell in next(self._parse([line], number))[1]]

    def _parse(self, lines: Sequence[str], first: int) -> Iterator[tuple[int, list[str]]]:
        number = first
        try:
            for row in csv.reader(lines, delimiter=self.delimiter, strict=True):
                yield number, row
                number += 1
        except csv.Error as error:
            raise RecordingError(f"line {number}: {error}") from None

    def numbers(
        self, first: int, lines: list[str], columns: Sequence[int], names: Sequence[str]
    ) -> np.ndarray:
        """The numbers of some columns, (row, column) float64, NaN where a cell is empty.

        `names` are those of all columns. Raises RecordingError naming line and column of the first
        cell that holds text, and of a line with another number of cells.
        """
        if self.decimal == ",":
            lines = [line.replace(",", ".") for line in lines]
        count = len(names) - 1
        plain = all('"' not in line and line.count(self.delimiter) == count for line in lines)
        if plain and columns:
            try:
                return np.loadtxt(
                    lines, delimiter=self.delimiter, comments=None, ndmin=2, usecols=columns
                )
            except ValueError:
                pass  # an empty cell, or text: below it is seen which
        values = np.empty((len(lines), len(columns)))
        rows = 0
        for number, row in self._parse(lines, first):
            if len(row) != len(names):
                raise RecordingError(
                    f"line {number} has {len(row)} cells, the first line {len(names)}; "
                    "must be as many"
                )
            for place, column in enumerate(columns):
                values[rows, place] = self._number(row[column], number, names[column])
            rows += 1
        return values[:rows]

    def _number(self, cell: str, line: int, column: str) -> float:
        cell = cell.strip()
        if cell.lower() in MISSING:
            return float("nan")
        try:
            if "_" in cell:
                raise ValueError
            return float(cell)
        except ValueError:
            raise CellError(cell, line, column) from None


class CellError(RecordingError):
    """A cell with text where a number must be."""

    def __init__(self, cell: str, line: int, column: str) -> None:
        hint = f"leave the column out (reader.ignore: [{column}]) or mend the file"
        if _DATE.match(cell):
            hint = (
                "dates and times of day are not read: give seconds as numbers, or leave the column "
                f"out (reader.ignore: [{column}]) and give reader.rate"
            )
        elif re.fullmatch(r"[-+]?\d+,\d+", cell):
            hint = 'for a decimal comma give reader.decimal: ","'
        self.line = line
        super().__init__(
            f"line {line}, column {column!r}: {cell[:40]!r} is text in numbers; {hint}",
            stream=column,
        )


def open_text(path: Path, delimiter: str | None, decimal: str) -> tuple[TextTable, list[str]]:
    """A text file and its first line's cells; the delimiter is found where None is given.

    Raises RecordingError for UTF-16, NUL bytes and an empty first line.
    """
    with path.open("rb") as file:
        data = file.readline(_LINE_BYTES)
    if len(data) == _LINE_BYTES:
        raise RecordingError(f"line 1 is longer than {_LINE_BYTES} bytes")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data:
        raise RecordingError("is no text in UTF-8 (UTF-16, or no text at all); save it as UTF-8")
    table = TextTable(path, delimiter or ",", decimal)
    line = table._decode(data).strip("\r\n")
    if not line.strip():
        raise RecordingError("line 1 is empty; must name the columns")
    if delimiter is None:
        counts = {mark: line.count(mark) for mark in ("\t", ";", ",", "|")}
        table.delimiter = max(counts, key=counts.__getitem__) if any(counts.values()) else ","
    if table.delimiter == decimal:
        raise RecordingError("delimiter and decimal are both a comma; must differ")
    return table, table.cells(line, 1)

"""Tables of numbers in text, of strangers: bounded, and told by line and column what is wrong."""

from __future__ import annotations

import csv

import numpy as np

from trainer.data.errors import DataError

MOST_REGIONS = 4096
MOST_LETTERS = 2**20  # of one line


def text_table(data: bytes, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The numbers of a text file and its labels, () where it has none.

    Cells lie between commas, semicolons, tabs or blanks; a header and a first column of names are
    found by not being numbers. Raises DataError naming line and column.
    """
    lines = _lines(data, where)
    first = _cells(*lines[0], where)
    header: list[str] = []
    if len(lines) > 1 and first[1:] and not any(map(_is_number, first[1:])):
        header, lines = first, lines[1:]
        first = _cells(*lines[0], where)
    named = not _is_number(first[0])
    values = np.empty((len(lines), len(first) - named))
    labels: list[str] = []
    for place, (line, number) in enumerate(lines):
        cells = _cells(line, number, where)
        if len(cells) != len(first):
            raise DataError(f"{where}: line {number} has {len(cells)} cells, others {len(first)}")
        if named:
            labels.append(cells[0])
        for column, cell in enumerate(cells[named:]):
            found = _number(cell)
            if found is None:
                raise DataError(
                    f"{where}: line {number}, column {column + named + 1} is {cell[:40]!r}; must "
                    "be a number"
                )
            values[place, column] = found
    columns = header[named:] if len(header) == len(first) else header
    if len(columns) == len(labels):
        for column_name, row_name in zip(columns, labels, strict=True):
            if column_name != row_name:
                raise DataError(
                    f"{where}: column {column_name!r} stands where the rows have {row_name!r}; "
                    "rows and columns must be in one order"
                )
    return values, tuple(labels or columns)


def _lines(data: bytes, where: str) -> list[tuple[str, int]]:
    """Lines that are not blank, and their numbers from 1; bounded before they are cut apart."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} is no UTF-8 text") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Blank lines between the rows are let pass, ten thousands of them are not.
    if text.count("\n") > 4 * MOST_REGIONS:
        raise DataError(
            f"{where}: {text.count(chr(10))} lines; at most {MOST_REGIONS} regions are read"
        )
    lines = [(line, n) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{where}: is empty")
    if len(lines) > MOST_REGIONS + 1:
        raise DataError(f"{where}: {len(lines)} lines; at most {MOST_REGIONS} regions are read")
    return lines


def _cells(line: str, number: int, where: str) -> list[str]:
    """The cells of a line, at most MOST_REGIONS and one of them."""
    if len(line) > MOST_LETTERS:
        raise DataError(f"{where}: line {number} has {len(line)} letters; at most {MOST_LETTERS}")
    delimiter = next((each for each in ",;\t" if each in line), None)
    try:
        cells = line.split() if delimiter is None else next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{where}: line {number}: {error}") from None
    if len(cells) > MOST_REGIONS + 1:
        raise DataError(
            f"{where}: line {number} has {len(cells)} cells; at most {MOST_REGIONS} regions are "
            "read"
        )
    return [cell.strip() for cell in cells]


def _number(cell: str) -> float | None:
    try:
        # Python takes 1_000 for a number; a table does not.
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _is_number(cell: str) -> bool:
    return _number(cell) is not None

"""Parquet files, read by row groups as they are asked for; see `tables` for what columns are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recording.contract import Recording
from recording.errors import RecordingError
from recording.readers import Format, register
from recording.readers.checked_values import Checked, Spool
from recording.readers.tables import TableOptions, assemble, read_columns, seconds

_GROUP_BYTES = 2**29


def open_parquet(path: Path, options: TableOptions) -> Recording:
    """A Parquet file as a recording; raises RecordingError naming the column."""
    import pyarrow.parquet

    with _reading():
        file = pyarrow.parquet.ParquetFile(path)
        schema, rows = file.schema_arrow, file.metadata.num_rows
    columns = read_columns(list(schema.names), options)
    if rows == 0:
        raise RecordingError("has column names and no rows")
    for index, column in enumerate(columns):
        if column.role != "ignored":
            _check_type(schema.field(index))
    used = [index for index, column in enumerate(columns) if column.role in ("neural", "behavior")]
    names = [columns[index].name for index in used]
    group = RowGroups(file, path.name, [schema.names[index] for index in used], rows)
    times = None
    clocks = [index for index, column in enumerate(columns) if column.role == "time"]
    if clocks:
        factor = seconds(columns[clocks[0]])
        stamps = RowGroups(file, path.name, [schema.names[clocks[0]]], rows, np.float64)
        with Spool(np.float64) as spool:
            for number in range(stamps.groups):
                spool.add(stamps.group(number) * factor)
            times = spool.signal()

    def place(row: int) -> float:
        if times is not None:
            return float(times[row : row + 1][0, 0])
        return row / (options.rate or 1.0)

    return assemble(
        path, "parquet", options, columns, Checked(group, names, place, file=path.name), times
    )


class RowGroups:
    """Columns of a Parquet file as a signal (row, column); the last row group read is kept."""

    def __init__(
        self,
        file: Any,
        source: str,
        columns: list[str],
        rows: int,
        dtype: np.dtype | type = np.float32,
    ) -> None:
        self.file, self.source, self.columns = file, source, columns
        self.shape, self.dtype = (rows, len(columns)), np.dtype(dtype)
        self.groups = file.metadata.num_row_groups
        sizes = [file.metadata.row_group(number).num_rows for number in range(self.groups)]
        if min(sizes, default=0) < 0 or sum(sizes) != rows:
            raise RecordingError(f"its row groups hold {sum(sizes)} rows, {rows} are stated")
        if max(sizes) * len(columns) * 8 > _GROUP_BYTES:
            raise RecordingError(
                f"a row group of {max(sizes)} rows is too large; write smaller ones "
                "(row_group_size)"
            )
        self._stops = np.cumsum(sizes)
        self._kept: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError("a slice of a file takes no step")
        parts = [np.empty((0, self.shape[1]), self.dtype)]
        while start < stop:
            number = int(np.searchsorted(self._stops, start, side="right"))
            values = self.group(number)
            begin = int(self._stops[number]) - len(values)
            part = values[start - begin : stop - begin]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts)

    def group(self, number: int) -> np.ndarray:
        """The rows of one row group (row, column), NaN where a value is missing."""
        if self._kept is not None and self._kept[0] == number:
            return self._kept[1]
        import pyarrow

        before = int(self._stops[number - 1]) if number else 0
        values = np.empty((int(self._stops[number]) - before, self.shape[1]), self.dtype)
        with _reading(self.source):
            table = self.file.read_row_group(number, columns=self.columns, use_threads=False)
            for index, name in enumerate(self.columns):
                column = table.column(name).cast(pyarrow.float64()).to_numpy()
                if len(column) != len(values):
                    raise RecordingError(
                        f"row group {number} has {len(column)} rows of {len(values)}", stream=name
                    )
                with np.errstate(over="ignore"):  # what is beyond float32 is refused as infinite
                    values[:, index] = column
        self._kept = (number, values)
        return values


@contextmanager
def _reading(file: str = "") -> Iterator[None]:
    """What pyarrow raises on a damaged file becomes a RecordingError."""
    import pyarrow

    try:
        yield
    except RecordingError as error:
        raise error.within(file=file) from None
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, KeyError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise RecordingError(f"cannot be read as Parquet: {lines[0]}", file=file) from None


def _check_type(field: Any) -> None:
    import pyarrow.types as types

    kind = field.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return
    what = "dates and times of day are" if types.is_temporal(kind) else f"{kind} is"
    raise RecordingError(
        f"column {field.name!r}: {what} not read; must be numbers: leave it out (reader.ignore: "
        f"[{field.name}])",
        stream=field.name,
    )


def _matches(path: Path, head: bytes) -> bool:
    return path.is_file() and (head.startswith(b"PAR1") or path.suffix.lower() == ".parquet")


register(
    Format(
        "parquet",
        (".parquet",),
        _matches,
        open_parquet,
        extra="parquet",
        title="Parquet",
        options=TableOptions,
        one_file=True,
    )
)

"""Writing a table of predictions, block by block: CSV, NPZ, Parquet; whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from recording.errors import RecordingError
from recording.prediction_table import Columns

Writer = Callable[[Path, Iterable[Columns]], int]


def writer(path: Path) -> Writer:
    """What writes a file of this suffix, and returns the number of rows.

    CSV holds numbers in the shortest text that reads back as the same float; NPZ one array per
    column; Parquet a row group per block. Raises RecordingError for another suffix.
    """
    try:
        return _WRITERS[path.suffix]
    except KeyError:
        raise RecordingError(f"--output {path}: must end in {', '.join(_WRITERS)}") from None


def write_csv(path: Path, blocks: Iterable[Columns]) -> int:
    """Write a CSV with a header line; the number of rows."""
    with _beside(path) as file:
        return csv_rows(file, blocks)


def csv_rows(file: BinaryIO, blocks: Iterable[Columns]) -> int:
    """Write the header line and the rows to an open file; the number of rows."""
    rows = 0
    for number, columns in enumerate(blocks):
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        if number == 0:
            table.writerow(columns)
        table.writerows(zip(*(_texts(values) for values in columns.values()), strict=True))
        file.write(text.getvalue().encode())
        rows += len(next(iter(columns.values())))
    return rows


def write_npz(path: Path, blocks: Iterable[Columns]) -> int:
    """Write an uncompressed NPZ of equal bytes for equal columns; the number of rows."""
    from artifact.arrays import encode_npz

    parts = list(blocks)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # An NPZ without pickles has no text: class names travel as their UTF-8 bytes.
    arrays = {name: _plain(values) for name, values in joined.items()}
    with _beside(path) as file:
        file.write(encode_npz(arrays))
    return len(next(iter(joined.values())))


def write_parquet(path: Path, blocks: Iterable[Columns]) -> int:
    """Write a Parquet file; the number of rows. Raises RecordingError without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise RecordingError(
            f"--output {path}: Parquet needs the Python package {error.name!r}: run "
            "`uv sync --extra parquet` (or `pip install 'axonnx[parquet]'`)"
        ) from None
    rows = 0
    with _beside(path) as file:
        sink = None
        for columns in blocks:
            part = pyarrow.table({name: pyarrow.array(v) for name, v in columns.items()})
            sink = sink or pyarrow.parquet.ParquetWriter(file, part.schema, compression="zstd")
            sink.write_table(part)
            rows += part.num_rows
        if sink is not None:
            sink.close()
    return rows


def _texts(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "f":
        # str of a numpy float is the shortest text that reads back as the same number.
        return [str(value) for value in values]
    return [str(value) for value in values.tolist()]


def _plain(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "U":
        return values
    width = max(1, *(len(str(value).encode()) for value in values))
    padded = [str(value).encode().ljust(width, b"\0") for value in values]
    return np.frombuffer(b"".join(padded), np.uint8).reshape(len(values), width)


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place once everything is on the disk."""
    partial = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


_WRITERS: dict[str, Writer] = {".csv": write_csv, ".npz": write_npz, ".parquet": write_parquet}

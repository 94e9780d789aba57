"""Writing a table of predictions, block by block: CSV, NPZ, Parquet; whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

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
    """Write an uncompressed NPZ of equal bytes for equal columns; the number of rows.

    `prediction` (row, column) float32 holds the answers, `names` (column,) what they are of; the
    other columns are arrays of their own. No member is a pickle.
    """
    parts = list(blocks)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    answers = {name: values for name, values in joined.items() if values.dtype == np.float32}
    arrays = {name: values for name, values in joined.items() if name not in answers}
    arrays["prediction"] = np.stack(list(answers.values()), axis=1)
    arrays["names"] = np.array(list(answers))
    with _beside(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as to:
                npy.write_array(to, values, allow_pickle=False)
    return len(arrays["prediction"])


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

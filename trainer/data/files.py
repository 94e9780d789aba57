"""Arrays in `.npy` and `.npz` files: mapped where possible, checked, written deterministically."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from recording.array_files import find_array
from recording.errors import RecordingError
from trainer.data.errors import DataError
from trainer.data.windows import CHUNK_BYTES

_EPOCH = (1980, 1, 1, 0, 0, 0)


def open_array(path: Path, *, key: str | None = None) -> np.ndarray:
    """The array of a `.npy`, or the member `key` of a `.npz` (left out: the only one).

    `.npy` and uncompressed `.npz` members are memory-mapped, read-only. Raises DataError for a
    missing, damaged, empty or non-numeric file and for object arrays (pickles are never read).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        stored = find_array(path, key)
        return stored.read() if stored.offset is None else stored.map()
    except RecordingError as error:
        raise DataError(str(error.within(file=path))) from None


def check_finite(array: np.ndarray, where: str, axes: Sequence[str]) -> None:
    """Raise DataError naming the first value that is not a finite float32, by named axes."""
    rows = max(1, CHUNK_BYTES // max(1, array[:1].size * 8))
    for start in range(0, len(array), rows):
        chunk = array[start : start + rows]
        with np.errstate(over="ignore"):
            finite = np.isfinite(chunk.astype(np.float32, copy=False))
        if finite.all():
            continue
        at = np.argwhere(~finite)[0]
        value = chunk[tuple(at)]
        at[0] += start
        place = ", ".join(f"{axis} {index}" for axis, index in zip(axes, at, strict=True))
        problem = "is beyond float32" if np.isfinite(value) else "must be finite"
        raise DataError(f"{where}: {place}: {value} {problem}; mend or leave out the channel")


def write_npz(path: Path, key: str, shape: tuple[int, ...], chunks: Iterable[np.ndarray]) -> str:
    """Write one float32 array, given in chunks of rows, as an uncompressed `.npz`; its sha256.

    Fixed time stamp and mode: equal values give equal bytes. Raises DataError if the chunks do
    not fill the shape. The caller renames: an exception leaves a partial file at `path`.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    info = zipfile.ZipInfo(f"{key}.npy", _EPOCH)
    info.compress_type = zipfile.ZIP_STORED
    info.create_system = 3
    info.external_attr = 0o644 << 16
    rows = 0
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w") as archive, archive.open(info, "w", force_zip64=True) as to:
            npy.write_array_header_1_0(to, header)
            for chunk in chunks:
                to.write(np.ascontiguousarray(chunk, "<f4").data)
                rows += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if rows != shape[0]:
        raise DataError(f"{path.name}: {rows} rows written for shape {shape}")
    return file_digest(path)


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Arrays in `.npy` and `.npz` files: mapped where possible, no pickles, deterministic writing."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from trainer.data.errors import DataError
from trainer.data.windows import CHUNK_BYTES

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# What zipfile, zlib and numpy raise over bytes that are not what they say.
_DAMAGE = (
    ValueError,
    TypeError,
    SyntaxError,
    OSError,
    EOFError,
    RuntimeError,
    OverflowError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    tokenize.TokenError,
)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def open_array(path: Path, *, key: str | None = None) -> np.ndarray:
    """The array of a `.npy`, or the member `key` of a `.npz` (left out: the only one).

    `.npy` and uncompressed `.npz` members are memory-mapped, read-only. Raises DataError for a
    missing, damaged, empty or non-numeric file and for object arrays (pickles are never read).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic.startswith(b"PK"):
                array = _open_npz(path, file, key)
            elif magic.startswith(npy.MAGIC_PREFIX[:4]):
                array = _map_npy(path, file, str(path))
            else:
                raise DataError(f"{path}: neither a .npy nor a .npz file")
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged: {error}") from None
    return array


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


def _open_npz(path: Path, file: IO[bytes], key: str | None) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        if not members:
            raise DataError(f"{path}: holds no array")
        if key is None and len(members) > 1:
            raise DataError(f"{path}: name one array by `key`: {', '.join(sorted(members))}")
        name = next(iter(members)) if key is None else key
        if name not in members:
            raise DataError(f"{path}: no array {name!r}; there are: {', '.join(sorted(members))}")
        info, where = members[name], f"{path}: {name}"
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            # The local header repeats the name and has extra fields of its own length.
            file.seek(info.header_offset)
            local = struct.unpack("<4s22xHH", file.read(30))
            if local[0] != b"PK\x03\x04":
                raise DataError(f"{where}: damaged: no local header")
            start = info.header_offset + 30 + local[1] + local[2]
            file.seek(start)
            return _map_npy(path, file, where, end=start + info.file_size)
        with archive.open(info) as member:
            shape, _, dtype = _read_header(member, where)
            need = member.tell() + dtype.itemsize * math.prod(shape)
        if need != info.file_size:
            raise DataError(f"{where}: damaged: {need} bytes stated, {info.file_size} there")
        with archive.open(info) as member:
            return npy.read_array(member, allow_pickle=False)


def _map_npy(path: Path, file: IO[bytes], where: str, end: int | None = None) -> np.ndarray:
    """Map the array whose header starts here; it must end at byte `end` (the file's end)."""
    shape, fortran, dtype = _read_header(file, where)
    start = file.tell()
    need = start + dtype.itemsize * math.prod(shape)
    if need != (end or path.stat().st_size):
        raise DataError(
            f"{where}: damaged: {need} bytes stated, {end or path.stat().st_size} there"
        )
    array: np.ndarray = np.memmap(
        path, dtype=dtype, mode="r", offset=start, shape=shape, order="F" if fortran else "C"
    )
    return array


def _read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise DataError(f"{where}: npy format {version} is not numeric data of numpy's 1.0 or 2.0")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects (a pickle); must be a numeric array")
    if dtype.kind not in "fiu":
        raise DataError(f"{where}: dtype {dtype} is not a real number")
    if 0 in shape:
        raise DataError(f"{where}: shape {shape} is empty")
    return shape, fortran, dtype

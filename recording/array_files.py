"""Arrays in `.npy` and `.npz` files: where their numbers lie, and reading them without pickles."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from recording.errors import RecordingError
from recording.signals import BLOCK_BYTES, FileArray

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# What zipfile, zlib and numpy raise over bytes that are not what they say.
_DAMAGE = (
    ValueError,
    TypeError,
    SyntaxError,
    OSError,
    EOFError,
    MemoryError,
    RuntimeError,
    OverflowError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    tokenize.TokenError,
)
# Deflate shrinks nothing further than this: a member that states more is no archive but a trap.
_DEFLATE_RATIO = 1040
# Kinds of dtype, by numpy's letters.
NUMBERS, TEXT = "fiu", "US"


@dataclass(frozen=True)
class StoredArray:
    """One array of a file and where its numbers lie.

    `shape` as stated, `order` "C" or "F"; `offset` is the byte of the first number in the file,
    None where the member `member` of an archive is compressed.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    order: str
    offset: int | None
    member: str = ""

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return self.dtype.itemsize * math.prod(self.shape)

    def map(self) -> np.memmap:
        """The numbers, memory-mapped, read-only; only where they are not compressed."""
        if self.offset is None:
            raise TypeError(f"{self.name} is compressed; read() it")
        return np.memmap(
            self.path,
            dtype=self.dtype,
            mode="r",
            offset=self.offset,
            shape=self.shape,
            order="F" if self.order == "F" else "C",
        )

    def signal(self, shape: tuple[int, ...] | None = None, order: str | None = None) -> FileArray:
        """The numbers, not compressed, by slice, as another shape and order where given."""
        if self.offset is None:
            raise TypeError(f"{self.name} is compressed; read() it")
        return FileArray(
            self.path,
            self.dtype,
            shape or self.shape,
            offset=self.offset,
            order=order or self.order,
        )

    def read(self) -> np.ndarray:
        """The whole array in memory; raises RecordingError where the file is damaged."""
        try:
            with self._open() as file:
                _read_header(file, self.name, kinds=NUMBERS + TEXT)
                flat = np.empty(math.prod(self.shape), self.dtype)
                _fill(file, flat, self.name)
        except RecordingError:
            raise
        except _DAMAGE as error:
            raise _damaged(error, self.name) from None
        return flat.reshape(self.shape, order="F" if self.order == "F" else "C")

    def stream(self) -> Iterator[np.ndarray]:
        """Consecutive blocks of the first axis, of some 16 MB; order "C" only.

        Raises RecordingError where the file is damaged, as far as it was read.
        """
        row = math.prod(self.shape[1:])
        rows = max(1, BLOCK_BYTES // (row * self.dtype.itemsize))
        try:
            with self._open() as file:
                _read_header(file, self.name)
                for start in range(0, self.shape[0], rows):
                    count = min(rows, self.shape[0] - start)
                    block = np.empty((count, *self.shape[1:]), self.dtype)
                    _fill(file, block, self.name)
                    yield block
        except RecordingError:
            raise
        except _DAMAGE as error:
            raise _damaged(error, self.name) from None

    def _open(self) -> IO[bytes]:
        """The file or member at the beginning of its header."""
        if not self.member:
            return self.path.open("rb")
        # The archive may go: an open member keeps the file that it reads from.
        return zipfile.ZipFile(self.path).open(self.member)


def array_names(path: Path) -> tuple[str, ...]:
    """The names of the arrays of a `.npz` file in its order; one, "", of a `.npy` file.

    Raises RecordingError where it is damaged or neither of both.
    """
    with _open_archive(path) as (file, members):
        del file
        return ("",) if members is None else tuple(members)


def find_array(path: Path, key: str | None = None, *, kinds: str = NUMBERS) -> StoredArray:
    """The array of a `.npy`, or the member `key` of a `.npz` (left out: the only one).

    Reads headers alone. Raises RecordingError for a file that is damaged or neither of both, a key
    that is not there, pickles, empty arrays and dtypes of another kind than `kinds`.
    """
    with _open_archive(path) as (file, members):
        if members is None:
            return _find_npy(path, file, "", "", path.stat().st_size, kinds)
        if key is None and len(members) > 1:
            raise RecordingError(f"name one array by `key`: {', '.join(sorted(members))}")
        name = next(iter(members)) if key is None else key
        if name not in members:
            raise RecordingError(f"no array {name!r}; there are: {', '.join(sorted(members))}")
        return _find_member(path, file, name, members[name], kinds)


@contextmanager
def _open_archive(path: Path) -> Iterator[tuple[IO[bytes], dict[str, zipfile.ZipInfo] | None]]:
    """The file and its members, None of a `.npy`; what goes wrong is a RecordingError."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic.startswith(b"PK"):
                yield file, _members(file)
            elif magic.startswith(npy.MAGIC_PREFIX[:4]):
                yield file, None
            else:
                raise RecordingError("neither a .npy nor a .npz file")
    except RecordingError:
        raise
    except _DAMAGE as error:
        raise _damaged(error, "") from None


def _members(file: IO[bytes]) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(file) as archive:
        members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
    if not members:
        raise RecordingError("holds no array")
    return members


def _find_member(
    path: Path, file: IO[bytes], name: str, info: zipfile.ZipInfo, kinds: str
) -> StoredArray:
    if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
        # The local header repeats the name and has extra fields of its own length.
        file.seek(info.header_offset)
        local = struct.unpack("<4s22xHH", file.read(30))
        if local[0] != b"PK\x03\x04":
            raise RecordingError("damaged: no local header", stream=name)
        start = info.header_offset + 30 + local[1] + local[2]
        file.seek(start)
        return _find_npy(path, file, name, info.filename, start + info.file_size, kinds)
    if info.file_size > _DEFLATE_RATIO * max(1, info.compress_size):
        raise RecordingError(
            f"damaged: {info.compress_size} bytes cannot hold the {info.file_size} stated",
            stream=name,
        )
    with zipfile.ZipFile(file) as archive, archive.open(info) as member:
        shape, fortran, dtype = _read_header(member, name, kinds=kinds)
        need = member.tell() + dtype.itemsize * math.prod(shape)
    if need != info.file_size:
        raise RecordingError(f"damaged: {need} bytes stated, {info.file_size} there", stream=name)
    return StoredArray(path, name, shape, dtype, "F" if fortran else "C", None, info.filename)


def _find_npy(
    path: Path, file: IO[bytes], name: str, member: str, end: int, kinds: str
) -> StoredArray:
    """The array whose header starts here; it must end at byte `end`, inside the file."""
    shape, fortran, dtype = _read_header(file, name, kinds=kinds)
    start = file.tell()
    need = start + dtype.itemsize * math.prod(shape)
    there = min(end, path.stat().st_size)
    if need != end or there != end:
        raise RecordingError(f"damaged: {need} bytes stated, {there} there", stream=name)
    return StoredArray(path, name, shape, dtype, "F" if fortran else "C", start, member)


def _read_header(
    file: IO[bytes], name: str, *, kinds: str = NUMBERS
) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise RecordingError(
            f"npy format {version} is not numeric data of numpy's 1.0 or 2.0", stream=name
        )
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise RecordingError(
            "holds Python objects (a pickle); must be a numeric array", stream=name
        )
    if dtype.kind not in kinds:
        raise RecordingError(f"dtype {dtype} is not a real number", stream=name)
    if any(size < 1 for size in shape) or dtype.itemsize == 0:
        raise RecordingError(f"shape {shape} is empty", stream=name)
    return shape, fortran, dtype


def _fill(file: IO[bytes], array: np.ndarray, name: str) -> None:
    """Fill a contiguous array with the file's next bytes."""
    view = array.reshape(-1).view(np.uint8).data
    while view:
        data = file.read(min(len(view), BLOCK_BYTES))
        if not data:
            raise RecordingError(f"damaged: ends {len(view)} bytes early", stream=name)
        view[: len(data)] = data
        view = view[len(data) :]


def _damaged(error: BaseException, name: str) -> RecordingError:
    text = str(error).splitlines()
    return RecordingError(f"damaged: {text[0] if text else type(error).__name__}", stream=name)

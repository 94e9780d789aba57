"""Arrays as `.npy` and `.npz` bytes: deterministic to write, strict and bounded to read.

`numpy.load` guesses the kind of a file, inflates archives of any size and ignores trailing bytes;
what comes from outside is read here instead. No pickle is ever read.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from artifact.errors import InputError

Array = npt.NDArray[np.generic]
MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 4096
MAX_RANK = 8
MAX_MEMBERS = 64
MAX_BYTES = 1 << 30
DESCRIPTIONS = {
    "|b1": "bool",
    "|u1": "uint8",
    "|i1": "int8",
    "<i2": "int16",
    "<i4": "int32",
    "<i8": "int64",
    "<f2": "float16",
    "<f4": "float32",
    "<f8": "float64",
}
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_ITEM = re.compile(
    r"'(descr|fortran_order|shape)' *: *('[^']{0,20}'|True|False|\([0-9, ]{0,200}\))"
)
_SHAPE = re.compile(r"\(\)|\( ?[0-9]{1,18}(, ?[0-9]{1,18})*,? ?\)")
_NO_SPACE = str.maketrans("", "", " \n")
_END_RECORD, _END_RECORD_BYTES = b"PK\x05\x06", 22
DIRECTORY_TAIL = _END_RECORD_BYTES + 20
_DIRECTORY_ENTRY_BYTES = 1024


def encode_npy(array: Array) -> bytes:
    """`array` as `.npy` bytes: version 1.0, little-endian, C order."""
    plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return _npy_head(plain.dtype.str, array.shape) + plain.tobytes()


@lru_cache(maxsize=256)
def _npy_head(descr: str, shape: tuple[int, ...]) -> bytes:
    """Magic, version 1.0 and header of a `.npy` in C order."""
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def encode_npz(arrays: Mapping[str, Array]) -> bytes:
    """`arrays` as `.npz` bytes: sorted names, stored, one fixed time stamp."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, encode_npy(arrays[name]))
    return stream.getvalue()


def decode_npy(data: bytes | memoryview, field: str | None = None) -> Array:
    """The array in `.npy` bytes, without a copy where the order allows it.

    Raises InputError (with `field`) for anything but a little-endian array of numbers or booleans
    whose bytes fill the data exactly.
    """
    view = memoryview(data)
    where = f"{field}: " if field else ""
    text, offset = _header(view, where, field)
    parsed = _parse(text)
    if parsed is None:
        raise InputError(f"{where}.npy header is malformed, or of a structured type", field)
    descr, order, shape = parsed
    if descr not in DESCRIPTIONS:
        hint = "; send little-endian" if descr[:1] == ">" else ""
        known = ", ".join(DESCRIPTIONS)
        raise InputError(f"{where}.npy type {descr!r} is not one of {known}{hint}", field)
    if order not in ("True", "False") or shape is None:
        raise InputError(f"{where}.npy header has no proper shape and order", field)
    dtype = np.dtype(descr)
    wanted = math.prod(shape) * dtype.itemsize
    if len(view) - offset != wanted:
        raise InputError(
            f"{where}.npy of shape {shape} and type {descr} needs {wanted} bytes after its header, "
            f"has {len(view) - offset}",
            field,
        )
    flat = np.frombuffer(view[offset:], dtype)
    if dtype == np.bool_ and flat.view(np.uint8).max(initial=0) > 1:
        raise InputError(f"{where}.npy booleans must be bytes 0 or 1", field)
    array: Array = flat.reshape(shape, order="F" if order == "True" else "C")
    return array


def decode_npz(
    data: bytes, *, max_members: int = MAX_MEMBERS, max_bytes: int = MAX_BYTES
) -> dict[str, Array]:
    """The arrays in `.npz` bytes by name; members and inflated bytes are bounded.

    Raises InputError for anything but a zip of `.npy` members with distinct names.
    """
    if problem := crowded(data[-DIRECTORY_TAIL:], max_members):
        raise InputError(f".npz: {problem}")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f".npz: not a zip ({error})") from None
    infos = archive.infolist()
    if len(infos) > max_members:
        raise InputError(f".npz: {len(infos)} members; at most {max_members} are read")
    arrays: dict[str, Array] = {}
    left = max_bytes
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename or "/" in name or not name or name in arrays:
            raise InputError(f".npz: member {info.filename!r}; distinct NAME.npy are wanted")
        member = _inflate(archive, info, left)
        left -= len(member)
        arrays[name] = decode_npy(member, name)
    return arrays


def crowded(tail: bytes, members: int) -> str:
    """What is wrong with a zip whose last `DIRECTORY_TAIL` bytes are `tail`; nothing, if it fits.

    The standard library reads the whole table of members before anything can be counted; here a
    table larger than so few members need is told from its end record alone.
    """
    end, locator = tail[-_END_RECORD_BYTES:], tail[:-_END_RECORD_BYTES]
    if len(end) < _END_RECORD_BYTES or end[:4] != _END_RECORD or end[20:] != b"\0\0":
        return "not a zip, or cut short, or with a comment at its end"
    size = int.from_bytes(end[12:16], "little")
    if locator[:4] == b"PK\x06\x07" or size > members * _DIRECTORY_ENTRY_BYTES:
        return f"holds more than the {members} members it may"
    return ""


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    if info.flag_bits & 1:
        raise InputError(f".npz: member {info.filename!r} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f".npz: member {info.filename!r} is neither stored nor deflated")
    if info.file_size > limit:
        raise InputError(f".npz: inflates to more than the {limit} bytes that are left")
    try:
        with archive.open(info) as stream:
            data = stream.read(info.file_size + 1)
    except Exception as error:  # zlib, struct and zipfile each raise their own on damaged members
        kind = type(error).__name__
        raise InputError(f".npz: member {info.filename!r} is damaged ({kind})") from None
    if len(data) != info.file_size:
        raise InputError(f".npz: member {info.filename!r} is not as long as it says")
    return data


def _header(view: memoryview, where: str, field: str | None) -> tuple[bytes, int]:
    """The header's text, and the offset of the data."""
    if bytes(view[:6]) != MAGIC or len(view) < 12:
        raise InputError(f"{where}no .npy data (they begin with \\x93NUMPY)", field)
    width = {1: 2, 2: 4, 3: 4}.get(view[6])
    if width is None:
        raise InputError(f"{where}.npy version {view[6]} is not 1, 2 or 3", field)
    size = int.from_bytes(view[8 : 8 + width], "little")
    offset = 8 + width + size
    if size > MAX_HEADER_BYTES or offset > len(view):
        raise InputError(f"{where}.npy header of {size} bytes is cut short or too long", field)
    return bytes(view[8 + width : offset]), offset


@lru_cache(maxsize=256)
def _parse(header: bytes) -> tuple[str, str, tuple[int, ...] | None] | None:
    """Type, order and shape in a header; None where it is malformed, no shape where that is."""
    text = header.decode("latin-1")
    items = _ITEM.findall(text)
    table = dict(items)
    rest = _ITEM.sub("", text).translate(_NO_SPACE)
    if len(items) != 3 or len(table) != 3 or rest not in ("{,,}", "{,,,}"):
        return None
    return table["descr"].strip("'"), table["fortran_order"], _shape(table["shape"])


def _shape(text: str) -> tuple[int, ...] | None:
    """The sizes in a header's tuple; None for what is no shape, or more than an array can have."""
    if not _SHAPE.fullmatch(text):
        return None
    sizes = tuple(int(size) for size in re.findall("[0-9]+", text))
    if len(sizes) > MAX_RANK or math.prod(max(1, size) for size in sizes) >= 1 << 59:
        return None
    return sizes

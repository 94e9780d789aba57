"""Shared libraries read from their bytes: the machine they are for, the glibc they need."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

X86_64 = 62
MACHINES = {3: "32-bit x86", 40: "32-bit ARM", 183: "ARM64", 243: "RISC-V", X86_64: "x86-64"}
STARTS = (
    (b"\xcf\xfa\xed\xfe", "macOS"),
    (b"\xca\xfe\xba\xbe", "macOS"),
    (b"\xce\xfa\xed\xfe", "macOS"),
    (b"MZ", "Windows"),
)
NEEDED_VERSIONS = 0x6FFFFFFE  # type of the section .gnu.version_r
MAX_ENTRIES = 4096
Version = tuple[int, ...]


@dataclass(frozen=True)
class Library:
    """A shared library: what it is for ("x86-64", "macOS", …), the newest glibc that it names.

    `glibc` is () where it names none, or is for another machine.
    """

    target: str
    glibc: Version = ()


def read(data: bytes) -> Library:
    """Read a library. Raises ValueError where the bytes are none, or are cut short."""
    for start, name in STARTS:
        if data.startswith(start):
            return Library(name)
    if not data.startswith(b"\x7fELF"):
        raise ValueError("is no shared library")
    try:
        (machine,) = struct.unpack_from("<H", data, 18)
        if machine != X86_64 or data[4] != 2:
            return Library(MACHINES.get(machine, f"machine {machine}"))
        versions = [_version(name) for name in _needed(data) if name.startswith(b"GLIBC_")]
    except (struct.error, IndexError, OverflowError):
        raise ValueError("is a shared library cut short") from None
    return Library("x86-64", max(versions, default=()))


def _version(name: bytes) -> Version:
    parts = name.removeprefix(b"GLIBC_").split(b".")
    return tuple(int(part) for part in parts if part.isdigit())


def _needed(data: bytes) -> Iterator[bytes]:
    """Names of the symbol versions that an ELF file of 64 bits needs of other libraries."""
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQII", data, table + i * size) for i in range(count)]
    for _, kind, _, _, start, length, link, _ in sections:
        if kind != NEEDED_VERSIONS:
            continue
        if start + length > len(data) or link >= count:
            raise IndexError(start)
        names = sections[link][4]
        for place in _chain(data, start, 12):
            (first,) = struct.unpack_from("<I", data, place + 8)
            for entry in _chain(data, place + first, 12):
                (name,) = struct.unpack_from("<I", data, entry + 8)
                end = data.index(b"\0", names + name) if names + name < len(data) else len(data)
                yield data[names + name : end]


def _chain(data: bytes, place: int, where: int) -> Iterator[int]:
    """Places of a linked list whose step to the next, 0 at the end, lies `where` bytes on."""
    for _ in range(MAX_ENTRIES):
        yield place
        (step,) = struct.unpack_from("<I", data, place + where)
        if not step:
            return
        place += step

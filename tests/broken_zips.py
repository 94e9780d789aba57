"""Ways to break a zip: bytes of members and of the archive itself."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

HEAD = "import os\n\nimport numpy as np\n\nHERE = os.path.dirname(os.path.abspath(__file__))\n"
ANSWER = "return X[..., 0]"


def entry(
    predict: str = ANSWER, *, load: str = "pass", top: str = "", name: str = "Model"
) -> dict[str, bytes]:
    """A `model.py` that needs numpy alone and answers with feature 0, as the organisers' trivial
    submission does, but for the given lines.
    """
    body = "\n".join(f"        {line}" for line in predict.splitlines())
    text = (
        f"{HEAD}{top}\n\nclass {name}:\n    def __init__(self, monkey_name):\n"
        f"        self.name = monkey_name\n\n    def load(self):\n        {load}\n\n"
        f"    def predict(self, X):\n{body}\n"
    )
    return {"model.py": text.encode()}


def pack(files: Mapping[str, bytes], path: Path, *, links: tuple[str, ...] = ()) -> Path:
    """A zip of `files`; those in `links` are symbolic links to their bytes."""
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            kind = stat.S_IFLNK if name in links else stat.S_IFREG
            info.external_attr = (kind | 0o644) << 16
            out.writestr(info, data)
    return path


def twice(files: Mapping[str, bytes], path: Path) -> Path:
    """A zip that holds the first of `files` two times."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as out:
        warnings.simplefilter("ignore")  # duplicate names, on purpose
        for name, data in [*files.items(), next(iter(files.items()))]:
            out.writestr(name, data)
    return path


def damaged(files: Mapping[str, bytes], path: Path) -> Path:
    """A zip with one byte of its first member flipped."""
    data = bytearray(pack(files, path).read_bytes())
    data[data.index(b"import numpy")] ^= 1
    path.write_bytes(data)
    return path


def truncated(files: Mapping[str, bytes], path: Path) -> Path:
    """The first half of a zip."""
    data = pack(files, path).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def encrypted(files: Mapping[str, bytes], path: Path) -> Path:
    """A zip whose members say that they are encrypted."""
    data = bytearray(pack(files, path).read_bytes())
    for sign, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        found = data.find(sign)
        while found >= 0:
            data[found + place] |= 1
            found = data.find(sign, found + 4)
    path.write_bytes(data)
    return path


def bomb(files: Mapping[str, bytes], path: Path) -> Path:
    """A zip of a few megabytes that unpacks to more than a gigabyte."""
    pack(files, path)
    info = zipfile.ZipInfo("weights.bin")
    info.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "a") as out, out.open(info, "w", force_zip64=True) as member:
        for _ in range(1100):
            member.write(bytes(1 << 20))
    return path


def weights(*, cut: bool = False) -> bytes:
    """An `.npz` of weights; half of it with `cut`."""
    stream = io.BytesIO()
    np.savez(stream, scale=np.ones(64, np.float32))
    data = stream.getvalue()
    return data[: len(data) // 2] if cut else data


def library(*, machine: int = 62, glibc: bytes = b"GLIBC_2.2.5") -> bytes:
    """The part of an ELF file that says what it is for: header, .gnu.version_r and its names."""
    names = b"\0libc.so.6\0" + glibc + b"\0"
    needed = struct.pack("<HHIII", 1, 1, 1, 16, 0) + struct.pack("<IHHII", 0, 0, 2, 11, 0)
    places = 64, 64 + len(names)
    table = places[1] + len(needed)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, table, 0, 64, 56, 0, 64, 3, 0)
    section = "<IIQQQQIIQQ"
    sections = bytes(64)
    sections += struct.pack(section, 0, 3, 0, 0, places[0], len(names), 0, 0, 1, 0)
    sections += struct.pack(section, 0, 0x6FFFFFFE, 0, 0, places[1], len(needed), 1, 1, 1, 0)
    return header + names + needed + sections


def onnx_with_external_data() -> bytes:
    """An ONNX file of one tensor, `w`, whose values lie in `model.onnx.data`."""
    location = _field(1, b"location") + _field(2, b"model.onnx.data")
    tensor = b"\x08\x02\x10\x01" + _field(8, b"w") + _field(13, location) + b"\x70\x01"
    graph = _field(2, b"g") + _field(5, tensor)
    return b"\x08\x0a" + _field(7, graph) + _field(8, b"\x10\x14")


def _field(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data

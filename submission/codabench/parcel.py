"""The zip that is to be sent: its name and size checked, its bytes hashed, its contents named."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submission import archive
from submission.codabench.answers import plain
from submission.errors import ArchiveError, ConfigError

# Storage keeps 35 signs of a name; with the hash among them the platform's list tells whether these
# very bytes have been submitted.
STEM = 22
DIGITS = 12
CONTENTS = "submission.json"
MAX_CONTENTS = 1 << 20


@dataclass(frozen=True)
class Parcel:
    """A zip: where it lies, `name` on the platform, size in bytes, hash, what it says of itself."""

    path: Path
    name: str
    size: int
    sha256: str
    md5: str
    challenge: str
    artifacts: dict[str, str]


def read_parcel(path: Path) -> Parcel:
    """Look at the zip at `path`; raises ConfigError or ArchiveError for one that is not taken."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    size = path.stat().st_size
    if found := archive.name_problems(path):
        raise ArchiveError(f"{path.name}: {'; '.join(found)}")
    if size > archive.MAX_BYTES:
        raise ArchiveError(f"{path}: {size} bytes; uploads over {archive.MAX_BYTES} hang")
    if not zipfile.is_zipfile(path):
        raise ArchiveError(f"{path}: is no zip; build one with `axonnx submission build`")
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    contents = _contents(path)
    name = _name(path.stem, sha256.hexdigest())
    return Parcel(path, name, size, sha256.hexdigest(), md5.hexdigest(), *contents)


def _name(stem: str, sha256: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem)[:STEM].strip(".-") or "submission"
    return f"{safe}-{sha256[:DIGITS]}.zip"


def _contents(path: Path) -> tuple[str, dict[str, str]]:
    """Challenge and artifact ids that the zip's own description names; anyone may have written it.

    A zip need not have one: then nothing is known of it.
    """
    try:
        with zipfile.ZipFile(path) as zipped, zipped.open(CONTENTS) as file:
            value: Any = json.loads(file.read(MAX_CONTENTS))
        named = dict(list(value["artifacts"].items())[:64])
        artifacts = {plain(key, 64): plain(entry, 80) for key, entry in named.items()}
        return plain(value["challenge"], 80), artifacts
    except Exception:  # a foreign zip fails in many ways, each its own type
        return "", {}

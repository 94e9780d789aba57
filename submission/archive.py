"""The zip itself: what CodaBench makes of its names, and what of it breaks there."""

from __future__ import annotations

import re
import stat
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from submission.errors import ConfigError

MAX_NAME = 64
MAX_BYTES = 1 << 30
LITTER = re.compile(r"(^|/)(__MACOSX|__pycache__|\.DS_Store|Thumbs\.db)(/|$)|\.py[co]$")
NUMPY = re.compile(r"(^|/)numpy/__init__\.py$")


def check_name(path: Path) -> None:
    """Raise ConfigError where CodaBench's form would refuse a zip of that name."""
    if len(path.name) > MAX_NAME or path.suffix != ".zip":
        raise ConfigError(
            f"{path.name}: CodaBench takes names that end in .zip, of at most {MAX_NAME} characters"
        )


def problems(path: Path, entries: Sequence[str]) -> list[str]:
    """Everything wrong with the archive at `path`, in words; empty when CodaBench will take it.

    `entries` are the files that must lie at its root.
    """
    found = _name_and_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            total = sum(info.file_size for info in infos)
            if total > MAX_BYTES:
                found.append(f"unpacks to {total} bytes; at most {MAX_BYTES} are accepted")
            else:
                found += _contents(archive)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        return [*found, f"is no zip that can be read ({error})"]
    return found + _members(infos, entries)


def _name_and_size(path: Path) -> list[str]:
    found = []
    if path.suffix != ".zip":
        found.append(f"is called {path.name}; CodaBench's form takes names that end in .zip")
    if len(path.name) > MAX_NAME:
        found.append(f"has a name of {len(path.name)} characters; at most {MAX_NAME} are taken")
    if path.stat().st_size > MAX_BYTES:
        found.append(f"is {path.stat().st_size} bytes; uploads over {MAX_BYTES} hang")
    return found


def _contents(archive: zipfile.ZipFile) -> list[str]:
    """Damage: every member is read once and compared with its checksum."""
    try:
        damaged = archive.testzip()
    except Exception as error:  # encrypted, an unknown method, a broken stream: each its own type
        return [f"cannot be unpacked ({type(error).__name__}: {error})"]
    return [] if damaged is None else [f"is damaged: {damaged} does not match its checksum"]


def _members(infos: list[zipfile.ZipInfo], entries: Sequence[str]) -> list[str]:
    names = [info.filename for info in infos]
    return [
        *_layout(names, entries),
        *(f"{info.filename} is a link; extraction turns it into text" for info in _links(infos)),
        *(f"{name!r} leaves the folder it is unpacked to" for name in names if _leaves(name)),
        *(f"{name} occurs {n} times" for name, n in Counter(names).items() if n > 1),
        *(f"{name} does not belong in a submission" for name in names if LITTER.search(name)),
        *(f"{name}: do not ship numpy, the image has it" for name in names if NUMPY.search(name)),
    ]


def _layout(names: list[str], entries: Sequence[str]) -> list[str]:
    """What is missing from the root, or must not lie there."""
    found = []
    tops = {name.split("/", 1)[0] for name in names if not LITTER.search(name)}
    missing = [entry for entry in entries if entry not in names]
    top = next(iter(tops), "")
    if missing and len(tops) == 1 and all(f"{top}/{entry}" in names for entry in missing):
        found.append(
            f"has a top folder {top}/; CodaBench looks for {missing[0]} at the root: rebuild with "
            "`axonnx submission build`, or zip the folder from inside"
        )
    elif not entries and names and len(tops) == 1 and top not in names:
        found.append(
            f"has a top folder {top}/; CodaBench looks for everything at the root: zip the folder "
            "from inside, or rebuild with `axonnx submission build`"
        )
    elif missing:
        found.append(f"has no {', '.join(missing)} at its root")
    for name in ("metadata", "metadata.yaml"):
        if name in names:
            found.append(
                f"holds {name} at its root; CodaBench takes it for a command file, and without a "
                "command nothing of the submission is run or copied"
            )
    return found


def _links(infos: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    return [info for info in infos if stat.S_ISLNK(info.external_attr >> 16)]


def _leaves(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\\" in name

"""The zip itself: what CodaBench makes of its names, and what of it breaks there."""

from __future__ import annotations

import difflib
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml

from submission.errors import ConfigError

MAX_NAME = 64
MAX_BYTES = 1 << 30
MAX_FILES = 100_000
MAX_PART = 255  # bytes of a folder's or file's name on the worker's disk
MAX_LISTED = 5
METADATA = ("metadata.yaml", "metadata")
MAX_METADATA = 1 << 20
REBUILD = "rebuild with `axonnx submission build`"
LITTER = re.compile(
    r"(^|/)(__MACOSX|__pycache__|\.DS_Store|Thumbs\.db|desktop\.ini|\.git|\.ipynb_checkpoints)(/|$)"
    r"|\.py[co]$"
)
NUMPY = re.compile(r"(^|/)numpy/__init__\.py$")
SECRET = re.compile(
    r"(^|/)(\.env(\.\w+)?|\.netrc|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|\.git-credentials"
    r"|\.aws/credentials|\.docker/config\.json|kaggle\.json)$"
)
KEY_FILE = re.compile(r"\.(pem|key|ppk|p8|txt|cfg|ini|json|ya?ml)$|(^|/)[^/.]+$")
KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|PuTTY-User-Key-File")
MAX_KEY_FILE = 1 << 16
# Names by the first bytes of a file, for what is called .zip and is none.
FORMATS = (
    (b"\x1f\x8b", "a gzip file (.tar.gz)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xfd7zXZ", "an xz file"),
    (b"BZh", "a bzip2 file"),
)


def check_name(path: Path) -> None:
    """Raise ConfigError where CodaBench's form would refuse a zip of that name."""
    if found := name_problems(path):
        raise ConfigError(f"{path.name}: {'; '.join(found)}")


def name_problems(path: Path) -> list[str]:
    """What CodaBench's form has against the name of a zip, in words."""
    found = []
    if path.suffix != ".zip":
        found.append(f"is called {path.name}; CodaBench's form takes names that end in .zip")
    if len(path.name) > MAX_NAME:
        found.append(f"has a name of {len(path.name)} characters; at most {MAX_NAME} are taken")
    return found


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
            elif len(infos) > MAX_FILES:
                found.append(f"holds {len(infos)} files; at most {MAX_FILES} are accepted")
            else:
                found += [*_damage(archive), *_inside(archive)]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        return [*found, _unreadable(path, error)]
    return found + _members(infos, entries)


def _name_and_size(path: Path) -> list[str]:
    found = name_problems(path)
    if path.stat().st_size > MAX_BYTES:
        found.append(f"is {path.stat().st_size} bytes; uploads over {MAX_BYTES} hang")
    return found


def _unreadable(path: Path, error: Exception) -> str:
    """Why a file is no zip, as far as its first bytes tell."""
    with open(path, "rb") as stream:
        start = stream.read(512)
    if not start:
        return f"is an empty file: {REBUILD}"
    for sign, name in FORMATS:
        if start.startswith(sign):
            return f"is {name}, not a zip; CodaBench reads zips alone"
    if start[257:262] == b"ustar":
        return "is a tar archive, not a zip; CodaBench reads zips alone"
    if start.startswith(b"PK\x03\x04"):
        return f"is cut short: the list of files at its end is missing ({error}); {REBUILD}"
    return f"is no zip that can be read ({error})"


def _damage(archive: zipfile.ZipFile) -> list[str]:
    """Every member is read once and compared with its checksum."""
    locked = [info.filename for info in archive.infolist() if info.flag_bits & 1]
    if locked:
        return [f"is encrypted: {_some(locked)}; CodaBench knows no password: zip without one"]
    try:
        damaged = archive.testzip()
    except NotImplementedError as error:
        return [f"is compressed in a way that Python does not read ({error}); zip with deflate"]
    except Exception as error:  # a broken stream: each method has its own type
        return [f"is damaged: cannot be unpacked ({type(error).__name__}: {error}); {REBUILD}"]
    if damaged is None:
        return []
    return [f"is damaged: {damaged} does not match its checksum; copy it again, or {REBUILD}"]


def _inside(archive: zipfile.ZipFile) -> list[str]:
    """What the bytes of some members tell: command files and private keys."""
    found = []
    for info in archive.infolist():
        name = plain(info.filename)
        try:
            if name in METADATA and info.file_size <= MAX_METADATA:
                found.append(_metadata(name, archive.read(info)))
            if _holds_key(archive, info):
                found.append(f"{name} holds a private key: take it out, and make a new one")
        except Exception:  # `_damage` has said so
            continue
    return found


def _metadata(name: str, data: bytes) -> str:
    text = f"holds {name} at its root, which CodaBench takes for a command file: "
    try:
        content = yaml.safe_load(data.decode())
    except (yaml.YAMLError, ValueError, RecursionError):
        content = None
    command = content.get("command") if isinstance(content, dict) else None
    if command:
        return (
            f"{text}it runs {str(command)[:60]!r} beside the challenge's program, and copies "
            "nothing to the output; leave it out"
        )
    return (
        f"{text}it names no command, so nothing of the submission is run or copied to the "
        "output; give it another name"
    )


def _holds_key(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    if info.is_dir() or info.file_size > MAX_KEY_FILE or not KEY_FILE.search(info.filename):
        return False
    return KEY.search(archive.read(info)) is not None


def _members(infos: list[zipfile.ZipInfo], entries: Sequence[str]) -> list[str]:
    names = [plain(info.filename) for info in infos]
    files = {plain(info.filename) for info in infos if not info.is_dir()}
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    long = [name for name in names if any(len(p.encode()) > MAX_PART for p in name.split("/"))]
    wanted = [
        *(_layout(sorted(files), entries)),
        *(f"{info.filename} is a link; extraction turns it into text" for info in _links(infos)),
        *(f"{name!r} leaves the folder it is unpacked to" for name in names if _leaves(name)),
        *(f"{name} occurs {n} times" for name, n in Counter(names).items() if n > 1),
        *(f"{name} is a file and a folder at once" for name in sorted(files & folders)),
        *(f"{name[:60]}… has a name over {MAX_PART} bytes" for name in long),
        *(f"{name}: do not ship numpy, the image has it" for name in names if NUMPY.search(name)),
        *(
            f"{name} looks like a password or key: take it out, and change it; organisers see "
            "submissions, and they may be made public"
            for name in names
            if SECRET.search(name)
        ),
    ]
    return [*wanted, *_litter(names)]


def plain(name: str) -> str:
    """The name of a member as extraction takes it: "./model.py" is "model.py"."""
    return re.sub(r"^(\./)+", "", name)


def _litter(names: Sequence[str]) -> list[str]:
    found = [name for name in names if LITTER.search(name)]
    verb = "does" if len(found) == 1 else "do"
    return [f"{_some(found)} {verb} not belong in a submission"] if found else []


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def _layout(names: Sequence[str], entries: Sequence[str]) -> list[str]:
    """What is missing from the root."""
    tops = {name.split("/", 1)[0] for name in names if not LITTER.search(name)}
    missing = [entry for entry in entries if entry not in names]
    top = next(iter(tops), "")
    if not tops:
        return ["holds no file"]
    if missing and len(tops) == 1 and all(f"{top}/{entry}" in names for entry in missing):
        return [
            f"has a top folder {top}/; CodaBench looks for {missing[0]} at the root: {REBUILD}, "
            "or zip the folder from inside"
        ]
    if not entries and len(tops) == 1 and top not in names:
        inside = [name.removeprefix(f"{top}/") for name in names if name.count("/") == 1]
        entry = next((name for name in inside if name.endswith(".py")), "everything")
        return [
            f"has a top folder {top}/; CodaBench looks for {entry} at the root: {REBUILD}, or "
            "zip the folder from inside"
        ]
    return [f"has no {_some(missing)} at its root{_nearest(missing[0], names)}"] if missing else []


def _nearest(wanted: str, names: Sequence[str]) -> str:
    """Where a missing file may have been meant to be."""
    inside = [name for name in names if name.endswith(f"/{wanted}")]
    root = {name.lower(): name for name in names if "/" not in name}
    near = difflib.get_close_matches(wanted.lower(), root, 1, 0.75)
    if inside:
        return f"; it holds {inside[0]}: move it to the root"
    return f"; it holds {root[near[0]]}: rename it" if near else ""


def _links(infos: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    return [info for info in infos if stat.S_ISLNK(info.external_attr >> 16)]


def _leaves(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\\" in name

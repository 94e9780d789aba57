"""Files into a job's folder and out of it: zips, folders, and what a program left behind."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from submission.errors import ArchiveError, ConfigError, RunError

MAX_BYTES = 64 << 30
MAX_FILES = 1_000_000
MAX_DEPTH = 100  # folders within folders
BROKEN = (zipfile.BadZipFile, OSError, EOFError, zlib.error, RuntimeError, ValueError)


class BadZipError(Exception):
    """A file that Python's ZipFile cannot unpack."""


@dataclass(frozen=True)
class Copied:
    """How many files were copied, and what was left out because it is no plain file."""

    files: int
    left_out: tuple[str, ...]


def unpack(path: Path, folder: Path) -> int:
    """Unpack a zip into a new folder as the worker does (`ZipFile.extractall`); number of files.

    Modes are dropped, and no top folder is stripped. Raises BadZipError where the worker would
    fail, ArchiveError for a hostile zip: names that leave the folder, links, more than MAX_BYTES.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _refuse_hostile(path, infos)
            archive.extractall(folder)
    except ArchiveError:
        raise
    except BROKEN as error:
        raise BadZipError(f"{type(error).__name__}: {error}") from None
    return sum(not info.is_dir() for info in infos)


def _refuse_hostile(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    total = sum(info.file_size for info in infos)
    if total > MAX_BYTES or len(infos) > MAX_FILES:
        raise ArchiveError(
            f"{path}: unpacks to {len(infos)} files of {total} bytes; at most {MAX_FILES} files "
            f"of {MAX_BYTES} bytes are unpacked here"
        )
    for info in infos:
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArchiveError(
                f"{path}: {info.filename} is a link, which extraction turns into text; "
                "zip the file itself"
            )
        if leaves(info.filename):
            raise ArchiveError(f"{path}: {info.filename!r} leaves the folder it is unpacked to")


def leaves(name: str) -> bool:
    """Whether a member of that name would be written outside the folder, on any system."""
    parts = re.split(r"[/\\]", name)
    return name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name


def copy_given(source: Path, target: Path) -> Copied:
    """Copy a folder of the user's as zipping it from inside and unpacking it would.

    Modes are dropped, links to files become files. Raises ConfigError for what no zip can hold.
    """
    files = 0
    for path, inside in _walk(source):
        kind = _mode(path, follow=True)
        if path.is_symlink() and stat.S_ISDIR(kind):
            raise ConfigError(f"{path}: is a link to a folder, which a zip leaves empty; copy it")
        if stat.S_ISDIR(kind):
            (target / inside).mkdir(parents=True, exist_ok=True)
        elif stat.S_ISREG(kind):
            shutil.copyfile(path, _place(target, inside))
            files += 1
        else:
            raise ConfigError(f"{path}: is neither a file nor a folder")
    target.mkdir(parents=True, exist_ok=True)
    return Copied(files, ())


def copy_left(source: Path, target: Path) -> Copied:
    """Copy what a program left in a folder; links and special files stay behind.

    Raises RunError where that is more than MAX_BYTES or half of the free disk (a sparse file grows
    to its length), nested deeper than MAX_DEPTH, or cannot be read.
    """
    files, total, left_out = 0, 0, []
    most = min(MAX_BYTES, shutil.disk_usage(source).free // 2)
    open_up(source)
    for path, inside in _walk(source):
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            open_up(path)
            (target / inside).mkdir(parents=True, exist_ok=True)
            continue
        if not stat.S_ISREG(info.st_mode):
            left_out.append(inside)
            continue
        files, total = files + 1, total + info.st_size
        if total > most or files > MAX_FILES:
            raise RunError(
                f"the {source.name} folder holds over {MAX_FILES} files or {most} bytes, more than "
                "is kept here"
            )
        try:
            open_up(path)
            shutil.copyfile(path, _place(target, inside), follow_symlinks=False)
        except OSError as error:
            raise RunError(f"{path}: cannot be copied: {error}") from None
    target.mkdir(parents=True, exist_ok=True)
    return Copied(files, tuple(left_out))


def read_left(path: Path, limit: int) -> bytes | None:
    """The bytes of a file that a program left; None where there is no plain file.

    Raises RunError when it is longer than `limit` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        if info.st_size > limit:
            raise RunError(f"{path.name}: is {info.st_size} bytes long; at most {limit} are read")
        return file.read(limit)


@contextlib.contextmanager
def workplace(prefix: str) -> Iterator[Path]:
    """A new temporary folder, removed in the end whatever programs left in it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder, also where a program took rights away or nested thousands of folders.

    Every folder inside is moved to the top first, so that no path grows long. What cannot be
    removed stays.
    """
    top, token, count = str(folder), secrets.token_hex(8), 0
    left = [top]
    while left:
        place = left.pop()
        with contextlib.suppress(OSError):
            os.chmod(place, 0o700)
            with os.scandir(place) as found:
                entries = list(found)
            for entry in entries:
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)
                        continue
                    count += 1
                    os.chmod(entry.path, 0o700)  # a folder that is moved must be writable
                    os.rename(entry.path, moved := os.path.join(top, f"{token}-{count}"))
                    left.append(moved)
            if place != top:
                os.rmdir(place)
    with contextlib.suppress(OSError):
        os.rmdir(top)


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Folders before what is in them, sorted; links are not entered.

    Raises RunError beyond MAX_DEPTH.
    """
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in (*folders, *sorted(files)):
            path = Path(root, name)
            inside = path.relative_to(folder)
            if len(inside.parts) > MAX_DEPTH:
                raise RunError(f"the {folder.name} folder holds over {MAX_DEPTH} nested folders")
            yield path, inside.as_posix()


def _mode(path: Path, *, follow: bool) -> int:
    try:
        return path.stat(follow_symlinks=follow).st_mode
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _place(target: Path, inside: str) -> Path:
    place = target / inside
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def open_up(path: Path) -> None:
    """Give the owner back the rights that a program may have taken from its own files."""
    mode = path.lstat().st_mode
    wanted = 0o700 if stat.S_ISDIR(mode) else 0o400
    if mode & wanted != wanted and os.geteuid() == path.lstat().st_uid:
        path.chmod(stat.S_IMODE(mode) | wanted)

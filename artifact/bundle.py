"""Writing, reading and verifying an artifact: a folder, or the zip of one.

Writing is deterministic and atomic (write beside, fsync, rename). Reading takes a hostile folder or
archive for granted: it follows no link, leaves its folder under no name, bounds every size before
it allocates, and hands out the very bytes whose hashes it checked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from artifact import arrays
from artifact.errors import (
    ArchiveError,
    ArtifactError,
    HashMismatchError,
    LinkError,
    ManifestError,
    MissingFileError,
    SizeLimitError,
    UnknownFileError,
)
from artifact.manifest import FileEntry, Manifest

MANIFEST = "manifest.json"
MODEL = "model.onnx"
CONFIG = "config.yaml"
GOLDEN = "golden.npz"
CARD = "README.md"
REQUIRED = (MODEL, CONFIG, GOLDEN, CARD)
MAX_MANIFEST_BYTES = 4 << 20
MAX_TOTAL_BYTES = (2 << 30) - 1
MAX_FILES = 64
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundle:
    """A verified artifact in memory: its manifest, its files' bytes, its identity."""

    manifest: Manifest
    files: Mapping[str, bytes]
    id: str


def read(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify the artifact at `path`, a folder or a zip.

    Raises the errors of `artifact.errors` for a missing, unknown, linked, oversized or altered file
    and for a malformed manifest.
    """
    source = Path(path)
    members = _members(source)
    try:
        return _verify(members)
    except ArtifactError as error:
        error.args = (f"{source}: {error}",)
        raise


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest alone, nothing of it verified: enough to find an artifact by its name."""
    members = _members(Path(path))
    try:
        if MANIFEST not in members:
            raise MissingFileError(f"{path}: no {MANIFEST}, so this is no artifact")
        raw = _read_bounded(members[MANIFEST], MANIFEST, MAX_MANIFEST_BYTES)
        return Manifest.from_json(raw)
    finally:
        for stream in members.values():
            stream.close()


def _members(source: Path) -> dict[str, IO[bytes]]:
    """The open files of a folder or zip, by name."""
    if source.is_dir():
        if not os.path.lexists(source / MANIFEST):
            inside = source / "artifact"
            hint = f"; did you mean {inside}?" if (inside / MANIFEST).is_file() else ""
            raise MissingFileError(f"{source}: no {MANIFEST}, so this is no artifact{hint}")
        return _folder_members(source)
    if source.is_file():
        return _zip_members(source)
    raise MissingFileError(f"{source}: no such artifact (a folder or a zip is wanted)")


def write(
    destination: str | os.PathLike[str],
    manifest: Manifest,
    files: Mapping[str, bytes],
    *,
    overwrite: bool = False,
) -> Path:
    """Write an artifact folder and return its path; `manifest.files` is filled in here.

    The folder appears whole or not at all. Raises FileExistsError where `destination` exists and
    `overwrite` is not given, ValueError where a required file is not among `files`.
    """
    target = Path(destination)
    if missing := [name for name in REQUIRED if name not in files]:
        raise ValueError(f"an artifact needs {', '.join(missing)}")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists")
    entries = tuple(
        FileEntry(name, len(files[name]), hashlib.sha256(files[name]).hexdigest())
        for name in sorted(files)
    )
    contents = dict(files)
    contents[MANIFEST] = replace(manifest, files=entries).to_json()
    Manifest.from_json(contents[MANIFEST])
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    beside = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    beside.mkdir()
    for name, data in contents.items():
        _write_synced(beside / name, data)
    _sync_folder(beside)
    if target.exists():
        old = target.with_name(f"{target.name}.tmp-{os.getpid()}-old")
        os.rename(target, old)
        os.rename(beside, target)
        shutil.rmtree(old)
    else:
        os.rename(beside, target)
    _sync_folder(target.parent)
    return target


def write_file(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write one file atomically: beside, fsync, rename."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    _write_synced(beside, data)
    os.replace(beside, target)
    _sync_folder(target.parent)
    return target


def write_zip(
    files: Mapping[str, bytes | Path], destination: str | os.PathLike[str], *, level: int = 6
) -> Path:
    """Write a zip whose bytes depend on names and contents alone; atomic.

    `files` maps member names (with `/`) to bytes or to a file to read. Members are sorted, their
    time is 1980-01-01, their mode 0644; `level` 0 stores, 1 to 9 deflates.
    """
    target = Path(destination)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    method = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    with open(beside, "wb") as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, _ZIP_TIME)
                entry.create_system = 3
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                source = files[name]
                data = source if isinstance(source, bytes) else source.read_bytes()
                archive.writestr(entry, data, compress_type=method, compresslevel=level or None)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, target)
    _sync_folder(target.parent)
    return target


def source_digest(package: str | os.PathLike[str]) -> str:
    """sha256 over the names and contents of a package's Python sources, in hex."""
    root = Path(package)
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def _remove_leftovers(target: Path) -> None:
    """Remove what this process, and those that no longer run, left beside `target`."""
    for leftover in target.parent.glob(f"{target.name}.tmp-*"):
        owner = leftover.name.rsplit(".tmp-", 1)[1].split("-")[0]
        if owner == str(os.getpid()) or not _runs(owner):
            shutil.rmtree(leftover, ignore_errors=True)


def _runs(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _verify(members: dict[str, IO[bytes]]) -> Bundle:
    try:
        if MANIFEST not in members:
            raise MissingFileError(f"{MANIFEST}: missing, so this is no artifact")
        raw = _read_bounded(members[MANIFEST], MANIFEST, MAX_MANIFEST_BYTES)
        manifest = Manifest.from_json(raw)
        if manifest.to_json() != raw:
            raise ManifestError(f"{MANIFEST}: not in canonical form; was it edited by hand?")
        entries = {entry.name: entry for entry in manifest.files}
        named = {MANIFEST, *entries, *REQUIRED}
        if missing := sorted(named - set(members)):
            raise MissingFileError(f"{', '.join(missing)}: missing")
        if unknown := sorted(set(members) - {MANIFEST, *entries}):
            raise UnknownFileError(f"{', '.join(unknown)}: not in the manifest")
        if sum(entry.size for entry in entries.values()) > MAX_TOTAL_BYTES:
            raise SizeLimitError(f"files of more than {MAX_TOTAL_BYTES} bytes in all")
        files = {name: _read_entry(members[name], entry) for name, entry in entries.items()}
    finally:
        for stream in members.values():
            stream.close()
    return Bundle(manifest, files, hashlib.sha256(raw).hexdigest())


def _read_entry(stream: IO[bytes], entry: FileEntry) -> bytes:
    data = _read_bounded(stream, entry.name, entry.size)
    if len(data) != entry.size:
        raise HashMismatchError(
            f"{entry.name}: holds {len(data)} bytes, the manifest says {entry.size}"
        )
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise HashMismatchError(f"{entry.name}: its sha256 is not the manifest's")
    return data


def _read_bounded(stream: IO[bytes], name: str, limit: int) -> bytes:
    try:
        data = stream.read(limit + 1)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ArchiveError(f"{name}: cannot be read ({error})") from None
    except Exception as error:  # zlib and bz2 raise their own errors on damaged streams
        raise ArchiveError(f"{name}: damaged ({type(error).__name__})") from None
    if len(data) > limit:
        kind = SizeLimitError if name == MANIFEST else HashMismatchError
        raise kind(f"{name}: holds more than the {limit} bytes it may")
    return data


def _folder_members(folder: Path) -> dict[str, IO[bytes]]:
    names = sorted(os.listdir(folder))
    if len(names) > MAX_FILES:
        raise SizeLimitError(f"{folder}: {len(names)} files; at most {MAX_FILES} are read")
    members: dict[str, IO[bytes]] = {}
    try:
        for name in names:
            members[name] = _open_plain(folder / name)
    except BaseException:
        for stream in members.values():
            stream.close()
        raise
    return members


def _open_plain(path: Path) -> IO[bytes]:
    """Open a regular file that is no link and has no second name."""
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "not a plain file"
        raise LinkError(f"{path.parent}: {path.name} is {kind}")
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    stream = os.fdopen(descriptor, "rb")
    if os.fstat(descriptor).st_nlink > 1:
        stream.close()
        raise LinkError(f"{path.parent}: {path.name} has a second name (hard link); copy it")
    return stream


def _zip_members(path: Path) -> dict[str, IO[bytes]]:
    with open(path, "rb") as stream:
        stream.seek(-min(arrays.DIRECTORY_TAIL, path.stat().st_size), os.SEEK_END)
        problem = arrays.crowded(stream.read(), MAX_FILES)
    if problem:
        raise ArchiveError(f"{path}: neither a folder nor a zip of an artifact ({problem})")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ArchiveError(f"{path}: neither a folder nor a zip ({error})") from None
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise SizeLimitError(f"{path}: {len(infos)} members; at most {MAX_FILES} are read")
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise ArchiveError(f"{path}: a member name occurs twice")
    members: dict[str, IO[bytes]] = {}
    for info in infos:
        _check_member(path, info)
        try:
            members[info.filename] = archive.open(info)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
            raise ArchiveError(f"{path}: {info.filename} cannot be read ({error})") from None
    return members


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise LinkError(f"{path}: {name} is a link or not a plain file")
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise ArchiveError(f"{path}: member {name!r}; an artifact's zip has files at its root only")
    if info.file_size > MAX_TOTAL_BYTES:
        raise SizeLimitError(f"{path}: {name} is larger than {MAX_TOTAL_BYTES} bytes")


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def members(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every file of a bundle, the manifest included, sorted by name."""
    everything = {**bundle.files, MANIFEST: bundle.manifest.to_json()}
    yield from sorted(everything.items())

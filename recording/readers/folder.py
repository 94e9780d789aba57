"""A folder with the files of one session: what each of them holds, on one clock.

Files of formats that acquisition and analysis write (NWB, MATLAB, Trodes, EDF, …) come first. One
of a general format (arrays, tables, raw binary) is often a converted copy: it is read where it
gives something that the others do not. `files` names the files outright.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recording.clocks import check_clocks
from recording.contract import Events, Finding, Modality, Recording
from recording.errors import RecordingError
from recording.readers import FORMATS, Format, Options, register

# In the order in which they are asked.
GENERAL = ("npz", "npy", "parquet", "csv", "trial_text", "binary")
NOT_PLAIN = ("dataset_description.json", "manifest.json")
MOST_FILES = 200
HEAD_BYTES = 4096


class FolderOptions(Options):
    """`files` to read, all that are known where left out; `readers`: options by file name."""

    files: tuple[str, ...] | None = None
    readers: dict[str, dict[str, Any]] | None = None


@dataclass(frozen=True)
class _Part:
    """One file that was opened."""

    name: str
    recording: Recording


def matches(path: Path, head: bytes) -> bool:
    """Whether a path is a folder, neither BIDS nor an artifact, with a file of a known format."""
    if not path.is_dir() or any((path / name).exists() for name in NOT_PLAIN):
        return False
    return any(map(_stands_alone, _files(path)))


def read(path: Path, options: FolderOptions) -> Recording:
    """Open every file of a session.

    Raises RecordingError where two give the same modality, clocks have no moment in common, or a
    file that must be read cannot be.
    """
    parts, findings = _open_all(path, options)
    modalities: dict[str, Modality] = {}
    owner: dict[str, str] = {}
    for part in parts:
        for name, modality in part.recording.modalities.items():
            if name in modalities:
                raise RecordingError(
                    f"{owner[name]} and {part.name} both give {name!r}; name the files to read in "
                    f"the option `files`, such as files: [{owner[name]}]",
                    stream=name,
                )
            modalities[name], owner[name] = modality, part.name
    try:
        check_clocks(modalities)
    except RecordingError as error:
        raise RecordingError(
            f"{error.problem} (files {', '.join(part.name for part in parts)})",
            stream=error.stream,
            at=error.at,
        ) from None
    recordings = [part.recording for part in parts]
    return Recording(
        source=path.name,
        format="folder",
        session=options.session or path.resolve().name,
        modalities=modalities,
        markers=_joined([one.markers for one in recordings]),
        trials=_joined([one.trials for one in recordings]),
        subject=options.subject or _one([one.subject for one in recordings], "subjects"),
        site=options.site or _one([one.site for one in recordings], "sites"),
        findings=(*findings, *(finding for one in recordings for finding in one.findings)),
        facts={
            f"{part.name}: {name}": value
            for part in parts
            for name, value in part.recording.facts.items()
        }
        | {"files": ", ".join(part.name for part in parts)},
    )


def _open_all(path: Path, options: FolderOptions) -> tuple[list[_Part], list[Finding]]:
    readers = options.readers or {}
    if options.files is not None:
        files = [_inside(path, name) for name in options.files]
        unknown = [file.name for file in files if _format(file) is None]
        if unknown:
            raise RecordingError(f"{unknown[0]!r} is of no known format")
    else:
        files = [file for file in _files(path) if _stands_alone(file)]
        if len(files) > MOST_FILES:
            raise RecordingError(
                f"holds {len(files)} files of known formats, more than {MOST_FILES}; name those of "
                "one session in the option `files`"
            )
    if not files:
        raise RecordingError("holds no file of a known format")
    if strange := sorted(set(readers) - {file.name for file in files}):
        raise RecordingError(
            f"option `readers`: {strange[0]!r} is not among the files that are read"
        )
    # General formats last: they add to the others.
    files.sort(key=lambda file: (_generality(file), file.name))
    parts: list[_Part] = []
    findings: list[Finding] = []
    for file in files:
        named = options.files is not None or file.name in readers
        spare = bool(parts) and not named and _generality(file) > 0
        try:
            recording = _open(file, readers.get(file.name, {}))
        except RecordingError as error:
            if not spare:
                raise RecordingError(
                    error.problem, file=file.name, stream=error.stream, at=error.at
                ) from None
            findings.append(_left_out(file.name, f"it cannot be read as it is ({error.problem})"))
            continue
        twice = {
            name: part.name
            for part in parts
            for name in part.recording.modalities
            if name in recording.modalities
        }
        if spare and twice:
            name, other = next(iter(twice.items()))
            findings.append(_left_out(file.name, f"{other} gives {name!r} already"))
        else:
            parts.append(_Part(file.name, recording))
    return parts, findings


def _left_out(name: str, why: str) -> Finding:
    return Finding(
        "files",
        f"{name} is left out: {why}",
        f"to read it, name it in the reader's option: files: [{name}, …]",
        stream=name,
        level="note",
    )


def _open(file: Path, values: Mapping[str, Any]) -> Recording:
    from recording.opening import open_recording

    return open_recording(file, values)


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder by its name; raises RecordingError for a path that leads elsewhere."""
    file = folder / name
    if Path(name).name != name or not file.is_file() or file.is_symlink():
        have = ", ".join(one.name for one in _files(folder))
        raise RecordingError(f"option `files`: no file {name!r} in the folder; there is {have}")
    return file


def _files(folder: Path) -> list[Path]:
    """Plain files of the folder itself, without hidden ones and links, in order of name."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and not file.is_symlink() and not file.name.startswith(".")
    )


def _format(file: Path) -> Format | None:
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    if not head:
        return None
    return next((one for one in FORMATS.values() if one.matches(file, head)), None)


def _stands_alone(file: Path) -> bool:
    """Whether a file is of a known format and no part of another one, which brings it along."""
    found = _format(file)
    return found is not None and not (found.belongs is not None and found.belongs(file))


def _generality(file: Path) -> int:
    """0 for a format of acquisition or analysis, more for one that says less about its content."""
    found = _format(file)
    return GENERAL.index(found.name) + 1 if found is not None and found.name in GENERAL else 0


def _joined(every: list[Events | None]) -> Events | None:
    """Events of all files in one order; None where no file has any."""
    found = [one for one in every if one is not None and len(one)]
    if len(found) < 2:
        return found[0] if found else None
    names = tuple(dict.fromkeys(name for one in found for name in one.names))
    kinds = np.concatenate(
        [np.array([names.index(name) for name in one.names])[one.kinds] for one in found]
    )
    times = np.concatenate([one.times for one in found])
    stops = np.concatenate([one.stops for one in found])
    order = np.argsort(times, kind="stable")
    return Events(times[order], kinds[order].astype(np.int64), names, (stops - times)[order])


def _one(values: list[str], what: str) -> str:
    stated = sorted({value for value in values if value})
    if len(stated) > 1:
        raise RecordingError(
            f"its files are of different {what}, {' and '.join(stated)}; a folder is one session"
        )
    return stated[0] if stated else ""


register(
    Format(
        name="folder",
        title="folder of files",
        suffixes=("a folder of them",),
        matches=matches,
        open=read,
        options=FolderOptions,
        rank=60,
    )
)

"""BIDS: what a file's name says, what its sidecars say, and which file of a folder is meant."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recording.contract import Finding
from recording.errors import RecordingError
from recording.readers.unit_names import metres

SIDECAR_BYTES = 10 * 2**20
_DATATYPES = ("eeg", "ieeg", "meg", "nirs")
# Of a plain folder with such files each is a part of one session: the format `folder` reads them.
_OTHERS = (
    ".nwb", ".mat", ".npz", ".npy", ".csv", ".parquet", ".h5", ".hdf5", ".videopositiontracking",
)  # fmt: skip
# Whatever of these a folder holds is a recording of its own.
_RECORDINGS = (".set", ".vhdr", ".edf", ".bdf", ".fif")
_PART = re.compile(r"(.+)-(\d+)\.fif|(.+_split-)(\d+)(_.+\.fif)", re.IGNORECASE)
_DEPTH, _ENTRIES = 6, 20_000
TYPES = {
    "EEG": "eeg",
    "ECOG": "ecog",
    "SEEG": "seeg",
    "DBS": "lfp",
    "LFP": "lfp",
    "EOG": "eog",
    "HEOG": "eog",
    "VEOG": "eog",
    "ECG": "ecg",
    "EMG": "emg",
    "REF": "reference",
    "TRIG": "stimulus",
    "MEGMAG": "meg",
    "MEGGRADAXIAL": "meg",
    "MEGGRADPLANAR": "meg",
    "NIRSCWAMPLITUDE": "fnirs",
}


@dataclass
class Sidecars:
    """What the files beside a recording say; empty where there are none."""

    channels: dict[str, dict[str, str]] = field(default_factory=dict)
    positions: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    rate: float | None = None
    rate_file: str = ""

    def type(self, name: str) -> str | None:
        """The channel's type, None where nothing states it."""
        stated = self._cell(name, "type").upper()
        return TYPES.get(stated, "other") if stated else None

    def unit(self, name: str) -> str:
        """The channel's unit, "" where nothing states it."""
        return self._cell(name, "units")

    @property
    def misc(self) -> tuple[str, ...]:
        """Channels of type MISC."""
        return tuple(n for n in self.channels if self._cell(n, "type").upper() == "MISC")

    def status_findings(self, names: Sequence[str]) -> list[Finding]:
        """Channels that are marked bad, and those that channels.tsv has no row for."""
        if not self.channels:
            return []
        findings = []
        bad = [name for name in names if self._cell(name, "status").lower() == "bad"]
        if bad:
            why = "; ".join(
                f"{name}: {text}"
                for name in bad
                if (text := self._cell(name, "status_description"))
            )
            findings.append(
                Finding(
                    "bad",
                    f"{', '.join(bad)}: marked bad in channels.tsv{f' ({why})' if why else ''}",
                    f"leave them out: {{step: drop, names: [{', '.join(bad)}]}}",
                    "neural",
                    channels=tuple(bad),
                    steps=({"step": "drop", "names": [literal(name) for name in bad]},),
                )
            )
        missing = [name for name in names if name not in self.channels]
        if missing:
            findings.append(
                Finding(
                    "type",
                    f"channels.tsv has no row for {', '.join(missing[:8])}",
                    "correct the names there: what it says of them is not known",
                    "neural",
                    channels=tuple(missing),
                )
            )
        return findings

    def check_rate(self, rate: float) -> None:
        """Raise RecordingError where a sidecar states another rate, in Hz, than the file."""
        if self.rate is not None and not math.isclose(self.rate, rate, rel_tol=1e-3):
            raise RecordingError(
                f"the clocks disagree: the file says {rate:g} Hz, {self.rate_file} "
                f"{self.rate:g} Hz; correct the one that is wrong"
            )

    def _cell(self, name: str, column: str) -> str:
        value = self.channels.get(name, {}).get(column, "").strip()
        return "" if value.lower() == "n/a" else value


def entities(name: str) -> dict[str, str]:
    """Entities of a BIDS name: {"sub": "01", "ses": "1", …}; none where it is not one."""
    if not name.startswith("sub-"):
        return {}
    return dict(re.findall(r"(?:^|_)([A-Za-z]+)-([A-Za-z0-9]+)", name))


def session_name(path: Path) -> str:
    """What a file's session is called: the name, of BIDS all its entities, without its suffix.

    So two runs of a session, and the same session of two subjects, have names of their own.
    """
    stem = path.name.split(".")[0]
    if not entities(path.name):
        return stem
    parts = [part for part in stem.split("_") if "-" in part and not part.startswith("split-")]
    return "_".join(parts)


def sole_file(folder: Path, suffixes: tuple[str, ...]) -> Path:
    """The one recording below a folder, with one of these suffixes.

    Raises RecordingError where there are several, of whatever format, or none.
    """
    found = [path for path in files_below(folder, _RECORDINGS) if not is_later_part(path)]
    if len(found) == 1 and found[0].name.lower().endswith(suffixes):
        return found[0]
    if len(found) < 2:
        raise RecordingError(f"holds no file {' or '.join(suffixes)}", file=folder.name)
    names = ", ".join(path.relative_to(folder).as_posix() for path in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise RecordingError(
        f"holds {len(found)} recordings: {names}{more}; name one of these files, or several as a "
        f"list of paths, such as {folder.name}/{found[0].relative_to(folder).as_posix()}",
        file=folder.name,
    )


def is_later_part(path: Path) -> bool:
    """Whether a FIF file goes on with what one beside it begins: x-1.fif, …_split-02_meg.fif."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return False
    if found[1] is not None:
        return path.with_name(f"{found[1]}.fif").is_file()
    first = f"{found[3]}{1:0{len(found[4])}d}{found[5]}"
    return int(found[4]) > 1 and path.with_name(first).is_file()


def holds(folder: Path, suffix: str) -> bool:
    """Whether a folder is one of recordings with this suffix: BIDS, or with no other data."""
    found = files_below(folder, (suffix,))
    if not found:
        return False
    if (folder / "dataset_description.json").is_file() or entities(found[0].name):
        return True
    return not any(file.suffix.lower() in _OTHERS for file in folder.iterdir())


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with these suffixes below a folder, sorted; derived and hidden folders left out."""
    found: list[Path] = []
    entries = 0
    for place, folders, files in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(
            name
            for name in folders
            if depth < _DEPTH
            and not name.startswith(".")
            and name not in ("derivatives", "sourcedata", "code", "stimuli")
        )
        entries += len(files)
        if entries > _ENTRIES:
            raise RecordingError(
                f"holds more than {_ENTRIES} files; name the one to read", file=folder.name
            )
        found += [Path(place, name) for name in files if name.lower().endswith(suffixes)]
    return sorted(found)


def sidecars(path: Path) -> Sidecars:
    """What the sidecars of a recording say; raises RecordingError where one cannot be read."""
    result = Sidecars()
    if table := _find(path, "channels.tsv"):
        rows = _table(table)
        if any("name" not in row for row in rows):
            raise RecordingError("has no column `name`", file=table.name)
        result.channels = {row["name"]: row for row in rows}
    _positions(path, result)
    for suffix in ("eeg.json", "ieeg.json", "meg.json"):
        if file := _find(path, suffix):
            _facts(file, result)
    return result


def _facts(file: Path, result: Sidecars) -> None:
    content = _json(file)
    line = content.get("PowerLineFrequency")
    if isinstance(line, (int, float)) and not isinstance(line, bool) and 0 < line < 1000:
        result.facts["line_frequency"] = f"{line:g}"
    for key, name in (("iEEGReference", "reference"), ("EEGReference", "reference")):
        if isinstance(text := content.get(key), str) and text.lower() not in ("", "n/a"):
            result.facts[name] = text[:200]
    if isinstance(text := content.get("TaskName"), str) and text:
        result.facts["task"] = text[:200]
    rate = content.get("SamplingFrequency")
    if isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 < rate < 1e9:
        result.rate, result.rate_file = float(rate), file.name


def _positions(path: Path, result: Sidecars) -> None:
    table = _find(path, "electrodes.tsv", extra=("space", "acq"))
    if table is None:
        return
    system = _find(path, "coordsystem.json", extra=("space", "acq"))
    units = [
        value
        for key, value in (_json(system) if system else {}).items()
        if key.endswith("CoordinateUnits") and isinstance(value, str)
    ]
    factor = metres(units[0]) if units else None
    if factor is None:
        said = f"in {units[0]!r}" if units else "without a unit"
        result.findings.append(
            Finding(
                "position",
                f"{table.name} gives positions {said}; they are left out",
                "state m, cm or mm in *_coordsystem.json",
                level="note",
            )
        )
        return
    for number, row in enumerate(_table(table), start=2):
        cells = [row.get(axis, "").strip() for axis in "xyz"]
        if any(cell.lower() in ("", "n/a", "nan") for cell in cells):
            continue
        try:
            x, y, z = (float(cell) * factor for cell in cells)
        except ValueError:
            raise RecordingError(
                f"line {number}: position {', '.join(cells)} is not three numbers", file=table.name
            ) from None
        if all(map(math.isfinite, (x, y, z))):
            result.positions[row.get("name", "")] = (x, y, z)


def _find(path: Path, suffix: str, extra: tuple[str, ...] = ()) -> Path | None:
    """The most specific sidecar of this kind, in the file's folder or those above it."""
    own = entities(path.name)
    if not own:
        beside = path.with_name(f"{path.name.split('.')[0]}_{suffix}")
        return beside if beside.is_file() else None
    folder = path.parent.absolute()
    for _ in range(4):
        fits = []
        for candidate in sorted(folder.glob(f"*{suffix}")):
            stem = candidate.name[: -len(suffix)]
            if stem and not stem.endswith("_"):
                continue
            theirs = dict(re.findall(r"(?:^|_)([A-Za-z]+)-([A-Za-z0-9]+)", stem))
            if all(own.get(key) == value for key, value in theirs.items() if key not in extra):
                fits.append((-len(theirs), candidate.name, candidate))
        if fits:
            return min(fits)[2]
        # Upwards inside a BIDS tree alone: to session, subject and the data set itself.
        if folder.name not in _DATATYPES and not folder.name.startswith(("ses-", "sub-")):
            break
        folder = folder.parent
    return None


def _text(file: Path) -> str:
    if file.stat().st_size > SIDECAR_BYTES:
        raise RecordingError(f"is above {SIDECAR_BYTES // 2**20} MB", file=file.name)
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordingError(f"is not UTF-8 text (byte {error.start})", file=file.name) from None


def _table(file: Path) -> list[dict[str, str]]:
    try:
        lines = list(csv.reader(io.StringIO(_text(file)), delimiter="\t", quoting=csv.QUOTE_NONE))
    except csv.Error as error:
        raise RecordingError(f"is not a table: {error}", file=file.name) from None
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    if not lines:
        return []
    head = [cell.strip() for cell in lines[0]]
    return [dict(zip(head, line, strict=False)) for line in lines[1:]]


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(file))
    except (ValueError, RecursionError):
        raise RecordingError("is not JSON", file=file.name) from None
    return content if isinstance(content, dict) else {}


def literal(name: str) -> str:
    """The name as a pattern that matches nothing but itself."""
    return re.sub(r"([\[*?])", r"[\1]", name)

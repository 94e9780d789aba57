"""What was scored here: a JSON line for each run, its statistics beside, so that runs compare.

No path enters a record: the zip is known by its name and sha256, the data by theirs.
"""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from artifact.arrays import decode_npz, encode_npz
from artifact.bundle import write_file
from artifact.errors import ArtifactError
from submission.errors import ConfigError
from submission.scoring.intervals import Statistics

MAX_SETS = 4096
DEFAULT = Path("runs/submissions/scores.jsonl")


class Recorded(BaseModel):
    """A column: its score and interval (None: not known), and what was drawn for that."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    score: float | None = None
    low: float | None = None
    high: float | None = None
    drawn: str = ""


class Record(BaseModel):
    """One run; `statistics` is a file beside the record, "" where there is none."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    time: str
    zip: str
    sha256: str
    challenge: str
    artifacts: dict[str, str] = {}
    data: str
    place: str = ""
    columns: dict[str, Recorded]
    statistics: str = ""


def now() -> str:
    """The time, for a record."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(path: Path, record: Record, statistics: Statistics | None) -> None:
    """Add a record to the file at `path`; on the disk on return, statistics first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if statistics is not None:
        write_file(path.parent / record.statistics, encode_npz(dict(statistics)))
    line = (record.model_dump_json() + "\n").encode()
    with path.open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            line = b"\n" + line  # an earlier writer was killed within its line
        file.write(line)
        os.fsync(file.fileno())


def statistics_name(sha256: str, data: str) -> str:
    """The file of the statistics of a zip on some data."""
    return f"{sha256[:16]}-{data[:8]}.npz"


def records(path: Path) -> list[Record]:
    """Every record in the file, the last at the end; lines that cannot be read are passed over."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(Record.model_validate_json(line))
        except ValidationError:  # the line of a writer that was killed
            continue
    return found


def last(
    path: Path,
    *,
    challenge: str,
    data: str | None = None,
    sha256: str | None = None,
    other: str = "",
) -> Record | None:
    """The last record of that challenge, of these data and that zip where named, not of `other`."""
    for record in reversed(records(path)):
        if record.challenge != challenge or record.sha256 == other:
            continue
        if data in (None, record.data) and sha256 in (None, record.sha256):
            return record
    return None


def read_record(path: Path) -> Record:
    """A record in a file of its own; raises ConfigError."""
    try:
        return Record.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: is no record of a score ({reason}); `axonnx submission score ZIP --output "
            "DIR` writes one as DIR/record.json"
        ) from None


def read_statistics(record: Record, folder: Path) -> Statistics | None:
    """The statistics of a record that lies in `folder`; None where they are gone or damaged."""
    name = record.statistics
    if not name or Path(name).name != name:
        return None
    try:
        arrays = decode_npz((folder / name).read_bytes(), max_members=MAX_SETS)
    except (OSError, ArtifactError):
        return None
    return {key: np.asarray(array, np.float64) for key, array in arrays.items()}

"""What was uploaded, step by step: one JSON line per step, on the disk before the next is taken.

Lines of one `upload` lie over each other, the later winning, so a file that ends anywhere, even in
the middle of a line, tells how far an upload came. No token, password or signed URL enters it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from submission.errors import ConfigError

DEFAULT = Path("runs/submissions/records.jsonl")


class Change(BaseModel):
    """One status and when it was first seen."""

    time: str
    status: str


class Upload(BaseModel):
    """All that is recorded of one upload; None or False for what has not happened."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    upload: str
    time: str = ""  # of the last step
    started: str = ""
    site: str = ""
    file: str = ""
    name: str = ""  # what the platform calls the file
    bytes: int | None = None
    sha256: str = ""
    challenge: str = ""
    artifacts: dict[str, str] = {}
    competition: int | None = None
    competition_title: str = ""
    phase: int | None = None
    phase_name: str = ""
    key: str | None = None  # of the data set
    uploaded: bool = False
    completed: bool = False
    after: int | None = None  # the newest submission before this one was sent
    submission: int | None = None
    status: str = ""
    status_details: str = ""
    statuses: tuple[Change, ...] = ()
    final: bool = False  # nothing more will change: the scores are read
    scores: dict[str, str] = {}
    children: dict[str, dict[str, Any]] = {}
    leaderboard: bool = False
    fetched: str = ""


class Records:
    """The file of records at `path`; it and its folder appear with the first line."""

    def __init__(self, path: Path = DEFAULT) -> None:
        self.path = path

    def append(self, upload: str, step: str, **values: Any) -> None:
        """Add a line that says `step` and `values` of `upload`; on the disk on return."""
        entry = {"upload": upload, "step": step, "time": _now(), **values}
        line = json.dumps(entry, ensure_ascii=False, sort_keys=False, allow_nan=False) + "\n"
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+", buffering=0) as file, _locked(file.fileno()):
            if file.tell() and _last_byte(file.fileno(), file.tell()) != b"\n":
                line = "\n" + line  # an earlier writer was killed within its line
            data = line.encode("utf-8", "replace")
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        if new:
            _sync_folder(self.path.parent)

    def start(self, **values: Any) -> str:
        """Begin a new upload; its name."""
        upload = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self.append(upload, "started", started=_now(), **values)
        return upload

    def uploads(self) -> list[Upload]:
        """Every upload, the last begun at the end; lines that cannot be read are passed over."""
        merged: dict[str, dict[str, Any]] = {}
        for entry in self._entries():
            if entry.get("step") == "checked" or not isinstance(entry.get("upload"), str):
                continue
            state = merged.setdefault(entry["upload"], {"statuses": []})
            if entry.get("step") == "status" and entry.get("status") != state.get("status"):
                state["statuses"].append({"time": entry.get("time"), "status": entry["status"]})
            state.update({key: value for key, value in entry.items() if key != "statuses"})
        found = []
        for state in merged.values():
            try:
                found.append(Upload.model_validate(state))
            except ValidationError:
                continue
        return found

    def last(self, site: str, sha256: str, competition: int, phase: int) -> Upload | None:
        """The latest upload of these bytes to this phase."""
        wanted = (site, sha256, competition, phase)
        for entry in reversed(self.uploads()):
            if (entry.site, entry.sha256, entry.competition, entry.phase) == wanted:
                return entry
        return None

    def of(self, site: str, submission: int) -> Upload | None:
        """The record of a submission."""
        for entry in reversed(self.uploads()):
            if (entry.site, entry.submission) == (site, submission):
                return entry
        return None

    def name_of(self, site: str, submission: int) -> str:
        """The upload's name for `append`; a new one for a submission that came another way."""
        known = self.of(site, submission)
        host = site.partition("://")[2]  # sites count by themselves
        return f"submission-{submission}-{host}" if known is None else known.upload

    def add_check(self, sha256: str, passed: bool) -> None:
        """Note that `axonnx submission check` judged a zip with this hash."""
        self.append("check-" + sha256[:16], "checked", checked=sha256, passed=passed)

    def checked(self, sha256: str) -> bool | None:
        """The latest verdict on a zip with this hash; None when it was never checked."""
        verdict = None
        for entry in self._entries():
            if entry.get("step") == "checked" and entry.get("checked") == sha256:
                verdict = entry.get("passed") is True
        return verdict

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the records for one upload; raises ConfigError while another one holds them."""
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(self.path.name + ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"{self.path}: another upload is under way with these records; wait for it, "
                    "or name others with --records"
                ) from None
            yield

    def _entries(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # the line of a writer that was killed
                continue
            if isinstance(entry, dict):
                yield entry


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _last_byte(descriptor: int, size: int) -> bytes:
    return os.pread(descriptor, 1, size - 1)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

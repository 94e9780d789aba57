"""One of a submission's two jobs: its folder filled, its programs run side by side and judged."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from submission.worker.commands import NoCommandError, Plan, plan
from submission.worker.engines import Engine, Mount, Running
from submission.worker.transfer import BadZipError, Copied, copy_given, copy_left, open_up, unpack

Kind = Literal["program", "ingestion"]
JobName = Literal["prediction", "scoring"]
TURN_SECONDS = 0.05
RUNS_BESIDE: tuple[tuple[str, Kind], ...] = (
    ("program", "program"),
    ("ingestion_program", "ingestion"),
)


@dataclass(frozen=True)
class ProgramRun:
    """One program of a job.

    `exit_status` is None when the time limit ended it, 128 + n for signal n. `peak_bytes` is the
    most memory it was seen to hold, `out_of_memory` whether the engine's cap ended it.
    """

    kind: Kind
    command: str
    exit_status: int | None
    seconds: float
    peak_bytes: int | None
    stdout: Path
    stderr: Path
    out_of_memory: bool = False


@dataclass(frozen=True)
class Job:
    """One of the two jobs: its folder, its output, and in plain words what the rules did."""

    name: JobName
    folder: Path
    output: Path
    runs: tuple[ProgramRun, ...]
    notes: tuple[str, ...]


class JobFailedError(Exception):
    """The submission fails; the text is the platform's."""


@dataclass
class JobFolder:
    """A job under way.

    `parts` are unpacked to the names below its folder; `late`: the task runs ingestion during
    scoring only; `time_limit` is in seconds.
    """

    name: JobName
    folder: Path
    parts: Mapping[str, Path | None]
    engine: Engine
    late: bool
    time_limit: float
    runs: list[ProgramRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """The folder that both programs see as `/app/output`."""
        return self.folder / "output"

    @property
    def begun(self) -> bool:
        """Whether anything was unpacked."""
        return self.folder.exists()

    def job(self) -> Job:
        """What it has come to."""
        return Job(self.name, self.folder, self.output, tuple(self.runs), tuple(self.notes))

    def unpack(self) -> None:
        """Fill the fresh folder (compute_worker.py, prepare)."""
        self.folder.mkdir()
        for inside, path in self.parts.items():
            if path is None:
                continue
            target = self.folder / inside
            try:
                if inside == "input/res":
                    self._note_left_out(copy_left(path, target))
                elif path.is_dir():
                    copy_given(path, target)
                else:
                    unpack(path, target)
            except BadZipError as error:
                self.notes.append(f"{path.name} cannot be unpacked: {error}")
                raise JobFailedError("Bad or empty zip file") from None

    def _note_left_out(self, copied: Copied) -> None:
        if copied.left_out:
            names = ", ".join(copied.left_out[:5])
            self.notes.append(f"left out, being links or no files: {names}")

    def run(self) -> None:
        """Start what is to run, wait for all of it, judge by the exit status.

        compute_worker.py, start: one clock for both programs; the scoring job alone looks at an
        exit status, and only at the program's.
        """
        plans, broken = [], False
        for name, kind in RUNS_BESIDE:
            try:
                if ready := self._plan(name, kind):
                    plans.append(ready)
            except NoCommandError as error:
                self.notes.append(f"{_called(self.name, kind)}: {error}")
                broken = broken or kind == "program"
        self._run_all(plans)
        if self.output.is_dir():
            open_up(self.output)  # for an owner who is not root
        status = next((run.exit_status for run in self.runs if run.kind == "program"), None)
        if self.name == "scoring" and (broken or status not in (0, None)):
            raise JobFailedError("Child task failed or non-zero return code")

    def _plan(self, name: str, kind: Kind) -> tuple[Kind, Plan] | None:
        """What of a program folder runs; without metadata its files are the output.

        compute_worker.py, _run_program_directory.
        """
        folder = self.folder / name
        if not folder.is_dir():
            if name == "ingestion_program" and self.name == "prediction" and not self.late:
                self.notes.append("the task has no ingestion program")
            return None
        found = plan(folder, kind, scoring=self.name == "scoring", late=self.late)
        called = _called(self.name, kind)
        if found.command is not None:
            return kind, found
        if found.metadata is None:
            copied = copy_left(folder, self.output)
            self.notes.append(
                f"{called} has no metadata: its {copied.files} files were copied to the output, "
                "none of them was run"
            )
        else:
            self.notes.append(
                f"{called} has a file {found.metadata} without a command: nothing of it was run, "
                "and nothing was copied to the output"
            )
        return None

    def _run_all(self, plans: list[tuple[Kind, Plan]]) -> None:
        started: dict[Kind, tuple[Plan, Running, float]] = {}
        mounts = {kind: self._mounts(kind) for kind, _ in plans}
        deadline = time.monotonic() + self.time_limit
        try:
            for kind, chosen in plans:
                begin = time.monotonic()
                files = (self._log(kind, "stdout"), self._log(kind, "stderr"))
                running = self.engine.start(chosen.words, mounts[kind], *files)
                started[kind] = chosen, running, begin
            self._wait(started, deadline)
        finally:
            for _, running, _ in started.values():
                running.kill()

    def _wait(self, started: dict[Kind, tuple[Plan, Running, float]], deadline: float) -> None:
        pending = dict(started)
        while pending:
            left = deadline - time.monotonic()
            turn = left if len(pending) == 1 else min(left, TURN_SECONDS)
            for kind, (chosen, running, begin) in list(pending.items()):
                status = running.wait(turn)
                if status is not None:
                    self._record(kind, chosen, running, status, time.monotonic() - begin)
                    del pending[kind]
            if pending and time.monotonic() >= deadline:
                for kind, (chosen, running, begin) in pending.items():
                    running.kill()
                    self._record(kind, chosen, running, None, time.monotonic() - begin)
                limit = f"{self.time_limit:.10g}"
                raise JobFailedError(f"Execution Time Limit exceeded. Limit was {limit} seconds")

    def _record(
        self, kind: Kind, chosen: Plan, running: Running, status: int | None, seconds: float
    ) -> None:
        called, memory = _called(self.name, kind), running.out_of_memory
        run = ProgramRun(
            kind=kind,
            command=chosen.command or "",
            exit_status=status,
            seconds=seconds,
            peak_bytes=running.peak_bytes,
            stdout=self._log(kind, "stdout"),
            stderr=self._log(kind, "stderr"),
            out_of_memory=memory,
        )
        self.runs.append(run)
        if status is None:
            self.notes.append(f"{called} was still running at the time limit")
        elif memory:
            self.notes.append(f"{called} was ended for holding more memory than the cap")
        elif status and (self.name == "prediction" or kind == "ingestion"):
            self.notes.append(
                f"{called} ended with status {status}, which CodaBench ignores: see "
                f"{run.stderr.name}"
            )
        elif status:
            self.notes.append(f"{called} ended with status {status}: see {run.stderr.name}")

    def _log(self, kind: Kind, stream: str) -> Path:
        return self.folder / f"{kind}_{stream}.txt"

    def _mounts(self, kind: Kind) -> list[Mount]:
        """compute_worker.py, _run_program_directory: the volumes of a container."""
        scoring = self.name == "scoring"
        own = "ingestion_program" if kind == "ingestion" else "program"
        places = {"/app/program": own, "/app/output": "output"}
        if kind == "ingestion":
            places["/app/ingested_program"] = "input/res" if self.late and scoring else "program"
        if scoring:
            places |= {"/app/input": "input", "/app/shared": "shared"}
        if self.parts["input_data"] is not None:
            places["/app/input_data"] = "input_data"
        for name in places.values():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        given = [Mount(self.folder / name, place, True) for place, name in places.items()]
        return [*given, Mount(self.folder.parent / "data", "/app/data", False)]

    def close(self) -> None:
        """Write the worker's own `metadata` into the output (compute_worker.py, push_output)."""
        program = next((run for run in self.runs if run.kind == "program"), None)
        ingestion = next((run for run in self.runs if run.kind == "ingestion"), None)
        timed = program or ingestion
        content = {
            "exitCode": program.exit_status if program else None,
            "elapsedTime": timed.seconds if timed else None,
            "ingestionExitCode": ingestion.exit_status if ingestion else None,
            "ingestionElapsedTime": ingestion.seconds if ingestion else None,
        }
        with contextlib.suppress(FileExistsError):
            self.output.mkdir()
        path = self.output / "metadata"
        if os.path.lexists(path):
            raise JobFailedError("Error, the output directory already contains a metadata file.")
        path.write_text(yaml.safe_dump(content))


def _called(job: JobName, kind: Kind) -> str:
    if kind == "ingestion":
        return "the ingestion program"
    return "the submission" if job == "prediction" else "the scoring program"

"""How long a submission takes and what memory it holds, on one core, in the process engine.

The challenge's own ingestion program runs on made-up rows, as in the prediction job.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifact import Bundle
from artifact.arrays import encode_npz
from submission.challenges import Arrays, Definition, TestSet, template
from submission.checking.probes import probes
from submission.checking.trial import Place
from submission.errors import RunError
from submission.programs import INGESTION, ingestion_program, write_files
from submission.worker.engines import Mount

COLD_RUNS = 3
SINGLES = 20
ROWS = 64  # where a test set's number is not known
MOST_BYTES = 1 << 28  # of a made-up input file
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Rate:
    """A call with so many rows, in seconds; `rows` 1 is the median of several calls."""

    set: str
    subject: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class Timing:
    """One Python, one core; times in seconds.

    `cold_start` lasts from the start of the process until the first model is loaded, the best of a
    few: the end of the process is in it too. `cold_cpu` is the part in which the core worked for
    it, `packages` what the image's own packages beside numpy take of it (0: there are none).
    `projected` is the prediction job over the whole test set; None where its rows are unknown.
    """

    python: str
    onnxruntime: str | None
    cold_start: float
    cold_cpu: float
    packages: float
    imported: float
    loaded: Mapping[str, float]
    rates: tuple[Rate, ...]
    peak_bytes: int
    projected: float | None


@dataclass(frozen=True)
class _Measured:
    """One run: what `pinned.py` noted, what ingestion did."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    facts: Mapping[str, Any]

    @property
    def calls(self) -> list[dict[str, Any]]:
        return list(self.facts["calls"])

    @property
    def around(self) -> float:
        """Seconds that were no prediction."""
        return self.seconds - sum(float(call["seconds"]) for call in self.calls)


def time_place(
    definition: Definition,
    bundles: Mapping[str, Bundle],
    program: Path,
    place: Place,
    work: Path,
    notify: Notify = lambda text: None,
) -> Timing:
    """Time the unpacked zip `program` in one place; `work` is a folder to be made.

    Raises RunError where the program fails, ConfigError where no rows can be made up.
    """
    first = max(definition.subjects, key=lambda name: _weight(bundles.get(name)))
    runs: list[_Measured] = []

    def run(what: str, sets: Sequence[tuple[TestSet, int]]) -> _Measured:
        notify(f"{place.label}, one core: {what}")
        inputs = {e.name: _rows(definition, e.subject, bundles, n) for e, n in sets}
        folder = work / f"run{len(runs)}"
        runs.append(_run(definition, [e for e, _ in sets], inputs, program, place, folder))
        shutil.rmtree(folder)
        return runs[-1]

    cold = [
        run(f"cold start, {n + 1} of {COLD_RUNS}", [_single(first, 0)]) for n in range(COLD_RUNS)
    ]
    best = min(cold, key=lambda measured: measured.around)
    singles = [_single(name, n) for name in definition.subjects for n in range(SINGLES + 1)]
    alone = run("rows one by one", singles)
    whole = run("the test set", [(e, _count(definition, e, bundles)) for e in definition.sets])
    rates = [*_medians(definition, alone), *_rates(definition, whole)]
    return Timing(
        python=place.python or "",
        onnxruntime=best.facts.get("versions", {}).get("onnxruntime"),
        cold_start=best.around,
        cold_cpu=best.cpu_seconds - (best.seconds - best.around),
        packages=_packages(definition, place, work / "packages"),
        imported=best.facts["seconds"].get("import", 0.0),
        loaded={
            name.removeprefix("load "): seconds
            for name, seconds in whole.facts["seconds"].items()
            if name.startswith("load ")
        },
        rates=tuple(rates),
        peak_bytes=max(whole.peak_bytes, alone.peak_bytes),
        projected=_projected(definition, whole),
    )


def _single(subject: str, number: int) -> tuple[TestSet, int]:
    name = f"{subject}-{number}"
    return TestSet(name, subject, f"{name}.npz", f"{name}.predictions.npz", ""), 1


def _medians(definition: Definition, alone: _Measured) -> list[Rate]:
    """Of the calls with one row, without the first, which prepares."""
    seconds: dict[str, list[float]] = {name: [] for name in definition.subjects}
    for call in alone.calls:
        seconds[call["name"].rpartition("-")[0]].append(float(call["seconds"]))
    return [Rate("", name, 1, statistics.median(each[1:])) for name, each in seconds.items()]


def _rates(definition: Definition, whole: _Measured) -> list[Rate]:
    subjects = {entry.name: entry.subject for entry in definition.sets}
    return [
        Rate(call["name"], subjects[call["name"]], int(call["rows"]), float(call["seconds"]))
        for call in whole.calls
    ]


def _projected(definition: Definition, whole: _Measured) -> float | None:
    """All of the run, with each prediction for as many rows as the platform's file has."""
    rows = {entry.name: entry.rows for entry in definition.sets}
    total = whole.around
    for call in whole.calls:
        wanted = rows[call["name"]]
        if wanted is None:
            return None
        total += float(call["seconds"]) * wanted / int(call["rows"])
    return total


def _run(
    definition: Definition,
    sets: Sequence[TestSet],
    inputs: Mapping[str, Arrays],
    program: Path,
    place: Place,
    work: Path,
) -> _Measured:
    """The prediction job's ingestion, pinned to one core, in the fresh folder `work`."""
    folders = {name: work / name for name in ("program", "input_data", "output", "shared")}
    # As the worker does: the submission's files are in the output, no bytecode of theirs yet.
    shutil.copytree(program, folders["output"])
    files = ingestion_program(definition, sets)
    assert files is not None
    write_files(folders["program"], {**files, "pinned.py": template("pinned.py")})
    data = {entry.input: encode_npz(dict(inputs[entry.name])) for entry in sets}
    write_files(folders["input_data"], data)
    folders["shared"].mkdir()
    mounts = [Mount(path, f"/app/{name}", True) for name, path in folders.items()]
    mounts.append(Mount(program, "/app/ingested_program", False))
    note = _pinned(place, mounts, INGESTION.split()[1:], work, definition.limits.seconds)
    facts = json.loads((folders["output"] / "ingestion.json").read_bytes())
    return _Measured(note["seconds"], note["cpu_seconds"], note["peak_bytes"], facts)


def _pinned(
    place: Place, mounts: Sequence[Mount], words: Sequence[str], work: Path, limit: float
) -> dict[str, Any]:
    """Run a script with its arguments on one core: what `pinned.py` noted in `work/shared`."""
    words = ["python3", "/app/program/pinned.py", "/app/shared/note.json", *words]
    errors = work / "stderr.txt"
    running = place.engine.start(words, mounts, work / "stdout.txt", errors)
    try:
        status = running.wait(limit)
    finally:
        running.kill()
    if status != 0:
        end = "ran out of time" if status is None else f"ended with status {status}"
        text = errors.read_text("utf-8", errors="replace").strip()[-1500:]
        raise RunError(f"{place.label}: the submission {end}:\n{text}")
    note: dict[str, Any] = json.loads((work / "shared" / "note.json").read_bytes())
    return note


def _packages(definition: Definition, place: Place, work: Path) -> float:
    """Seconds until a process has the image's packages; 0 where that is numpy alone."""
    names = _names(definition)
    if not names:
        return 0.0
    lines = [f"try: import {name}\nexcept ImportError: pass\n" for name in names]
    files = {"packages.py": "".join(lines).encode(), "pinned.py": template("pinned.py")}
    write_files(work / "program", files)
    (work / "shared").mkdir()
    mounts = [Mount(work / name, f"/app/{name}", True) for name in ("program", "shared")]
    words = ["/app/program/packages.py"]
    turns = [_pinned(place, mounts, words, work, definition.limits.seconds) for _ in range(2)]
    return float(min(note["seconds"] for note in turns))


def _names(definition: Definition) -> list[str]:
    """What is imported of the image's packages, beside numpy."""
    names = (text.partition("==")[0].partition("[")[0] for text in definition.image.packages)
    return sorted({name.replace("-", "_") for name in names} - {"numpy"})


def _weight(bundle: Bundle | None) -> int:
    return len(bundle.files["model.onnx"]) if bundle else 0


def _rows(
    definition: Definition, subject: str, bundles: Mapping[str, Bundle], count: int
) -> dict[str, np.ndarray[Any, Any]]:
    """`count` made-up rows of a subject, as its input files hold them."""
    found = {
        probe.name: probe.arrays for probe in probes(definition, subject, bundles.get(subject))
    }
    arrays = found["random7"]
    return {key: np.resize(value, (count, *value.shape[1:])) for key, value in arrays.items()}


def _count(definition: Definition, entry: TestSet, bundles: Mapping[str, Bundle]) -> int:
    """Rows to measure a set with: its own number, where that fits into memory."""
    row = sum(array.nbytes for array in _rows(definition, entry.subject, bundles, 1).values())
    return max(1, min(entry.rows or ROWS, MOST_BYTES // max(row, 1)))

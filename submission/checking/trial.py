"""One run of a submission under the platform's rules, and what it left: scores, answers, facts."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import artifact
from artifact.arrays import encode_npz
from submission import predictions
from submission.challenges import Arrays, Definition, TestSet
from submission.contents import Contents
from submission.errors import ConfigError, RunError
from submission.worker import sandbox
from submission.worker.engines import DockerEngine, Engine, Mount, ProcessEngine
from submission.worker.run import Outcome, Task, run_task
from submission.worker.transfer import read_left

EngineName = Literal["docker", "process"]
Answers = Mapping[str, Arrays]  # set name -> arrays by their keys in a file
MAX_FACTS = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where a submission is run: what to call it in a report, the engine, its Python if known."""

    label: str
    engine: Engine
    python: str | None


@dataclass(frozen=True)
class Trial:
    """What one run left: the platform's outcome, what ingestion noted, the predictions.

    `problem` is why the predictions cannot be read, "" when they can.
    """

    outcome: Outcome
    facts: Mapping[str, Any]
    answers: Answers
    problem: str

    @property
    def seconds(self) -> float:
        """Of the slowest container of the prediction job; 0 where nothing ran."""
        runs = self.outcome.prediction.runs if self.outcome.prediction else ()
        return max((run.seconds for run in runs), default=0.0)

    @property
    def peak_bytes(self) -> int:
        """Largest memory of a container of the prediction job; 0 where it is not known."""
        runs = self.outcome.prediction.runs if self.outcome.prediction else ()
        return max((run.peak_bytes or 0 for run in runs), default=0)


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a submission as the worker does; `folder`."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def places(
    definition: Definition,
    contents: Contents | None,
    engine: EngineName,
    *,
    pythons: Sequence[str] = (),
    image: str | None = None,
    memory: int | None = None,
) -> tuple[list[Place], list[str]]:
    """Where to run a submission, and the Python versions for which nothing was found.

    With the engine "process" that is every interpreter in `pythons` (paths or versions); left out,
    each one that the zip has a runtime for. With "docker" it is `image`; left out, the stand-in
    that docker/codabench.Dockerfile makes. Raises ConfigError when a wanted one cannot be had.
    """
    if engine == "docker":
        chosen = image or f"axonnx-codabench:{definition.name}"
        return [Place("docker", DockerEngine(chosen, memory), None)], []
    carried = [entry.python for entry in contents.runtimes.values()] if contents else []
    default = carried or [definition.image.python or f"{sys.version_info[0]}.{sys.version_info[1]}"]
    found, missing = [], []
    for name in pythons or default:
        python = Path(name) if os.sep in name else sandbox.find_python(name)
        if python is not None:
            found.append(sandbox.environment(python, definition.image.packages))
        elif pythons:
            raise ConfigError(f"--python {name}: no such interpreter here")
        else:
            missing.append(name)
    return [
        Place(f"Python {entry.version}", ProcessEngine(entry, memory), entry.version)
        for entry in dict.fromkeys(found)
    ], missing


def best_place(
    definition: Definition,
    contents: Contents | None,
    engine: EngineName,
    *,
    python: str | None = None,
    image: str | None = None,
    memory: int | None = None,
) -> Place:
    """Of `places`: the wanted interpreter, else that of the image, else any the zip runs on.

    Raises ConfigError where there is none.
    """
    pythons = [python] if python else []
    found, missing = places(
        definition, contents, engine, pythons=pythons, image=image, memory=memory
    )
    if not found:
        raise ConfigError(
            f"no interpreter for this zip here; it runs on Python {', '.join(missing)}"
        )
    return next((place for place in found if place.python == definition.image.python), found[0])


def run(
    definition: Definition,
    sets: Sequence[TestSet],
    task: Task,
    submission: Path,
    engine: Engine,
    work: Path,
) -> Trial:
    """Run the zip `submission` through both jobs of `task` in the fresh folder `work`."""
    outcome = run_task(task, submission, engine, work)
    if outcome.prediction is None:
        return Trial(outcome, {}, {}, outcome.details)
    output = outcome.prediction.output
    try:
        return Trial(outcome, _facts(output), predictions.read(definition, sets, output), "")
    except RunError as error:
        return Trial(outcome, _facts(output), {}, str(error))


def _facts(output: Path) -> Mapping[str, Any]:
    """`ingestion.json`, which a submission may have overwritten; empty where it is none."""
    try:
        value = json.loads(read_left(output / "ingestion.json", MAX_FACTS) or b"")
    except (RunError, OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def run_reference(
    definition: Definition,
    sets: Sequence[TestSet],
    inputs: Mapping[str, Arrays],
    program: Path,
    contents: Contents,
    place: Place,
    work: Path,
    limit: float,
) -> Answers:
    """What the zip's artifacts answer through this installation's `artifact`, without its entry.

    `program` is the unpacked zip, whose runtime is used. Raises RunError when that fails.
    """
    folders = {name: work / name for name in ("program", "input", "output")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    package = Path(artifact.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, folders["program"] / "artifact", ignore=ignored)
    manifests = {
        name: artifact.read(program / "artifacts" / entry.folder).manifest
        for name, entry in contents.artifacts.items()
    }
    for entry in sets:
        arrays = definition.to_model(inputs[entry.name], manifests[entry.subject])
        (folders["input"] / f"{entry.name}.npz").write_bytes(encode_npz(arrays))
    plan = [[entry.name, contents.artifacts[entry.subject].folder] for entry in sets]
    (folders["program"] / "plan.json").write_text(json.dumps(plan), "utf-8")
    text = resources.files("submission").joinpath("templates", "reference.py.template")
    (folders["program"] / "reference.py").write_bytes(text.read_bytes())
    _finish(place, folders, program, work, limit)
    answers = {}
    for entry in sets:
        answer = predictions.read_arrays(folders["output"] / f"{entry.name}.npz", left=True)
        answers[entry.name] = definition.from_model(answer, manifests[entry.subject])
    return answers


def _finish(
    place: Place, folders: Mapping[str, Path], program: Path, work: Path, limit: float
) -> None:
    mounts = [
        Mount(folders["program"], "/app/program", False),
        Mount(folders["input"], "/app/input_data", False),
        Mount(folders["output"], "/app/output", True),
        Mount(program, "/app/ingested_program", False),
    ]
    errors = work / "stderr.txt"
    words = ["python3", "/app/program/reference.py", "/app/program", "/app/ingested_program"]
    words += ["/app/input_data", "/app/output"]
    running = place.engine.start(words, mounts, work / "stdout.txt", errors)
    try:
        status = running.wait(limit)
    finally:
        running.kill()
    if status != 0:
        end = "ran out of time" if status is None else f"ended with status {status}"
        text = errors.read_text("utf-8", errors="replace")[-3000:]
        raise RunError(f"the zip's artifacts alone: {end}:\n{text}")

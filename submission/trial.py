"""One run of an unpacked submission: laid out as on CodaBench, sandboxed, its answers read."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import artifact
from artifact.arrays import Array, decode_npz
from artifact.errors import ArtifactError
from submission import sandbox
from submission.challenges import TestSet, from_file
from submission.contents import Contents, plan
from submission.errors import ConfigError, RunError
from submission.sandbox import Interpreter

MAX_FILE_BYTES = 8 << 30
Answers = dict[str, dict[str, Array]]  # set name -> output name -> array


@dataclass(frozen=True)
class Trial:
    """Seconds of the whole process, what it says of itself, its answers."""

    seconds: float
    report: Mapping[str, Any]
    answers: Answers


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a submission as the worker does; `folder`."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def interpreters(contents: Contents, wanted: Sequence[str]) -> tuple[list[Interpreter], list[str]]:
    """Environments to run in, and the versions for which no interpreter was found.

    `wanted` holds paths or versions; empty, it is every Python that the zip has a runtime for. An
    interpreter that is named twice is there once.
    Raises ConfigError when a wanted one cannot be had.
    """
    found, missing = [], []
    for name in wanted or [facts["python"] for facts in contents.runtimes.values()]:
        is_path = os.sep in name
        python = Path(name) if is_path else sandbox.find_python(name)
        if python is not None:
            found.append(sandbox.environment(python))
        elif wanted:
            raise ConfigError(f"--python {name}: no such interpreter here")
        else:
            missing.append(name)
    return list(dict.fromkeys(found)), missing


def data_sets(contents: Contents, folder: Path) -> tuple[list[TestSet], list[str]]:
    """The challenge's files in `folder`, inputs as absolute paths, and the names not there.

    Raises ConfigError where the folder holds none of them.
    """
    present, absent = [], []
    for entry in contents.sets:
        path = folder.resolve() / entry.input
        if path.is_file():
            present.append(TestSet(entry.name, entry.subject, str(path), entry.output))
        else:
            absent.append(entry.input)
    if not present:
        raise ConfigError(f"{folder}: holds none of {', '.join(absent)}")
    return present, absent


def read_arrays(contents: Contents, path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Arrays of one of the challenge's files under `names`; raises RunError naming the file."""
    try:
        arrays = decode_npz(path.read_bytes(), max_bytes=MAX_FILE_BYTES)
        return from_file(contents.challenge.call, arrays, names)
    except (ArtifactError, OSError) as error:
        raise RunError(f"{path.name}: {error}") from None
    except KeyError as error:
        raise RunError(f"{path.name}: holds no array {error}") from None


def run_submission(
    program: Path,
    contents: Contents,
    interpreter: Interpreter,
    sets: Sequence[TestSet],
    work: Path,
    limit: float,
) -> Trial:
    """Run the submission on `sets` in a fresh folder `work`; raises RunError when it fails."""
    ingested, output = work / "ingested_program", work / "output"
    shutil.copytree(program, ingested)
    shutil.copytree(program, output)
    inputs = work / "input_data"
    inputs.mkdir()
    words = [str(ingested), str(inputs), str(output)]
    words += [str(_write_plan(contents, sets, work)), str(work / "report.json")]
    script = _script("drive.py.template", work)
    seconds = sandbox.run(interpreter, script, *words, folder=work, limit=limit)
    if not (work / "report.json").is_file():
        raise RunError("ended before every set was predicted: does model.py call exit()?")
    report = json.loads((work / "report.json").read_text("utf-8"))
    return Trial(seconds, report, _answers(program, contents, sets, output))


def run_reference(
    program: Path,
    contents: Contents,
    interpreter: Interpreter,
    sets: Sequence[TestSet],
    work: Path,
    limit: float,
) -> Answers:
    """What the artifacts answer through this installation's `artifact` and the zip's runtime."""
    package = work / "package"
    shutil.copytree(
        Path(artifact.__file__).parent,
        package / "artifact",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    output = work / "output"
    output.mkdir()
    abi = "cp" + interpreter.version.replace(".", "")
    paths = os.pathsep.join([str(package), str(program / "vendor" / abi)])
    words = [paths, str(program / "artifacts"), str(work), str(output)]
    words.append(str(_write_plan(contents, sets, work)))
    script = _script("reference.py.template", work)
    sandbox.run(interpreter, script, *words, folder=work, limit=limit)
    return _answers(program, contents, sets, output)


def _write_plan(contents: Contents, sets: Sequence[TestSet], work: Path) -> Path:
    path = work / "plan.json"
    path.write_text(json.dumps(plan(contents.challenge, tuple(sets))), "utf-8")
    return path


def _script(name: str, work: Path) -> Path:
    path = work / name.removesuffix(".template")
    path.write_bytes(resources.files("submission").joinpath("templates", name).read_bytes())
    return path


def _answers(program: Path, contents: Contents, sets: Sequence[TestSet], output: Path) -> Answers:
    manifests = {
        name: artifact.read(program / "artifacts" / name).manifest for name in contents.artifacts
    }
    return {
        entry.name: read_arrays(
            contents,
            output / entry.output,
            [spec.name for spec in manifests[entry.subject].outputs],
        )
        for entry in sets
    }

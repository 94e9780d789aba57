"""`axonnx submission predict`: prediction files in the challenge's layout, from the zip itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import artifact
from artifact.arrays import encode_npz
from artifact.bundle import write_file
from submission import archive, contents, judge, trial
from submission.challenges import to_file
from submission.contents import Contents
from submission.errors import ArchiveError, ConfigError, RunError
from submission.sandbox import Interpreter


@dataclass(frozen=True)
class Predicted:
    """One written file: the set, its path, how many rows it answers."""

    set: str
    path: Path
    rows: int


def predict(
    path: Path,
    *,
    data: Path,
    output: Path,
    time_limit: float | None = None,
    python: str | None = None,
    notify: Callable[[str], None] = lambda text: None,
) -> list[Predicted]:
    """Run the submission on the challenge's files in `data` and write its predictions to `output`.

    It runs in the sandbox of `check`, with the Python of the challenge's image where there is one.
    Nothing is written unless every answer has the right shape, dtype and finite values.
    Raises ArchiveError, ConfigError, RunError.
    """
    if found := archive.problems(path):
        raise ArchiveError(f"{path}: {'; '.join(found)}")
    with tempfile.TemporaryDirectory(prefix="axonnx-predict-") as name:
        work = Path(name)
        program = trial.unpack(path, work / "program")
        stated = contents.read(program)
        sets, absent = trial.data_sets(stated, data)
        for file in absent:
            notify(f"skipped: {data} holds no {file}")
        interpreter = _interpreter(stated, python)
        notify(f"running with Python {interpreter.version}")
        limit = time_limit or stated.challenge.time_limit
        run = trial.run_submission(program, stated, interpreter, sets, work / "run", limit)
        files = {}
        for entry in sets:
            manifest = artifact.read(program / "artifacts" / entry.subject).manifest
            _, shapes = stated.challenge.row_shapes(stated.settings, entry.subject, manifest)
            inputs = trial.read_arrays(
                stated, Path(entry.input), [spec.name for spec in manifest.inputs]
            )
            rows, answer = len(next(iter(inputs.values()))), run.answers[entry.name]
            if found := judge.answer_problems(answer, manifest, shapes, rows):
                raise RunError(f"{entry.name}: {'; '.join(found)}")
            files[entry] = (encode_npz(to_file(stated.challenge.call, answer)), rows)
    return [
        Predicted(entry.name, write_file(output / entry.output, content), rows)
        for entry, (content, rows) in files.items()
    ]


def _interpreter(stated: Contents, python: str | None) -> Interpreter:
    """The wanted interpreter, else that of the image, else any the zip has a runtime for."""
    wanted: Sequence[str] = [python] if python else []
    found, _ = trial.interpreters(stated, wanted)
    if not found:
        versions = ", ".join(facts["python"] for facts in stated.runtimes.values())
        raise ConfigError(f"no interpreter for this zip here; it runs on Python {versions}")
    return next((i for i in found if i.version == stated.challenge.image_python), found[0])

"""`axonnx submission predict`: prediction files in the challenge's layout, from the zip itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel

import artifact
from artifact.bundle import write_file
from submission import archive, predictions
from submission.challenges import Array, Challenge, Definition, Tensor, TestSet
from submission.checking import explain, judge, trial
from submission.checking.case import stated_definition
from submission.checking.trial import EngineName
from submission.contents import Contents
from submission.errors import ArchiveError, ConfigError, RunError
from submission.programs import write_task
from submission.worker.transfer import workplace


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
    challenge: tuple[Challenge, BaseModel] | None = None,
    time_limit: float | None = None,
    engine: EngineName = "process",
    python: str | None = None,
    image: str | None = None,
    memory: int | None = None,
    notify: Callable[[str], None] = lambda text: None,
) -> list[Predicted]:
    """Run the submission on the challenge's files in `data` and write its predictions to `output`.

    It runs in the prediction job of `check`, with the Python of the challenge's image where there
    is one. Nothing is written unless every answer has the right shape, dtype and finite values.
    Raises ArchiveError, ConfigError, RunError.
    """
    if found := archive.problems(path, ()):
        raise ArchiveError(f"{path}: {'; '.join(found)}")
    with workplace("axonnx-predict-") as work:
        program = trial.unpack(path, work / "unpacked")
        stated, definition = stated_definition(program, challenge)
        if definition.kind == "result":
            raise ConfigError(f"{path}: holds predictions already; `axonnx submission score` it")
        definition, absent = present(definition, data)
        for file in absent:
            notify(f"skipped: {data} holds no {file}")
        place = trial.best_place(
            definition, stated, engine, python=python, image=image, memory=memory
        )
        notify(f"running with {place.label}")
        inputs = {e.name: predictions.read_arrays(data / e.input) for e in definition.sets}
        none: dict[str, dict[str, Array]] = {entry.name: {} for entry in definition.sets}
        task = write_task(definition, definition.sets, inputs, none, work / "task", time_limit)
        # There are no answers here, so the scoring job fails; its outcome is of no interest.
        run = trial.run(definition, definition.sets, task, path, place.engine, work / "run")
        if run.problem or explain.crashed(run):
            raise RunError("\n  ".join(explain.causes(run, definition, program)))
        rows = {entry: len(next(iter(inputs[entry.name].values()))) for entry in definition.sets}
        wrong = [
            f"{entry.name}: {text}"
            for entry in definition.sets
            for text in judge.answer_problems(
                run.answers[entry.name], _outputs(definition, entry, stated, program), rows[entry]
            )
        ]
        if wrong:
            raise RunError("; ".join(wrong))
        files = predictions.encode(definition, run.answers)
    return [
        Predicted(entry.name, write_file(output / entry.output, files[entry.output]), rows[entry])
        for entry in definition.sets
    ]


def present(definition: Definition, data: Path) -> tuple[Definition, list[str]]:
    """The challenge with those sets whose input lies in `data`, and the names that do not.

    Raises ConfigError where the folder holds none of them.
    """
    found = tuple(e for e in definition.sets if (data / e.input).is_file())
    absent = [e.input for e in definition.sets if e not in found]
    if not found:
        raise ConfigError(f"{data}: holds none of {', '.join(absent)}")
    return replace(definition, sets=found), absent


def _outputs(
    definition: Definition, entry: TestSet, stated: Contents | None, program: Path
) -> Mapping[str, Tensor] | None:
    manifest = None
    if stated is not None and definition.kind == "code":
        folder = program / "artifacts" / stated.artifacts[entry.subject].folder
        manifest = artifact.read(folder).manifest
    contract = definition.contract(entry.subject, manifest)
    return (contract.outputs or None) if contract else None

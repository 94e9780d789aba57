"""One submission to be checked: what it says of itself, its inputs, and right answers to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from pydantic import BaseModel

import artifact
from artifact import Bundle
from artifact.errors import ArtifactError
from submission import contents, predictions
from submission.challenges import Array, Arrays, Challenge, Definition, Tensor, TestSet
from submission.checking import judge
from submission.checking.findings import Report
from submission.checking.probes import EXTREME, probes
from submission.checking.trial import Answers
from submission.contents import Contents
from submission.errors import ConfigError, RunError
from submission.programs import write_task
from submission.worker.run import Task

DEFAULT_ROWS = 16
MOST_ROWS = 256  # of made-up rows in a set, however many the platform's file has
FEW = (1, 2, 7)


@dataclass(frozen=True)
class Case:
    """Everything about one unpacked submission that the runs need."""

    path: Path
    program: Path
    definition: Definition
    contents: Contents | None
    bundles: Mapping[str, Bundle]
    inputs: Mapping[str, Arrays]  # set name -> arrays of its input file
    here: Answers | None
    work: Path
    limit: float

    def outputs(self, entry: TestSet) -> Mapping[str, Tensor] | None:
        """The arrays of one set's predictions; None where nothing says what they must be."""
        bundle = self.bundles.get(entry.subject)
        contract = self.definition.contract(entry.subject, bundle.manifest if bundle else None)
        return (contract.outputs or None) if contract else None

    def rows(self, entry: TestSet) -> int:
        """How many rows of one set are asked for."""
        return count(self.inputs[entry.name])


def stated_definition(
    program: Path, challenge: tuple[Challenge, BaseModel] | None
) -> tuple[Contents | None, Definition]:
    """What an unpacked zip says of itself, and its challenge: the given one where it says nothing.

    Raises ArchiveError where neither is there, ConfigError where they disagree.
    """
    if challenge is None or (program / contents.FILE).is_file():
        stated = contents.read(program)
        if challenge is not None and stated.challenge.name != challenge[0].name:
            raise ConfigError(
                f"--challenge {challenge[0].name}: the zip was built for {stated.challenge.name}"
            )
        if challenge is not None and challenge[1].model_fields_set:
            _same_settings(stated, challenge[1])
        return stated, stated.definition
    chosen, settings = challenge
    definition = chosen.definition(settings, ())
    if not definition.sets:
        raise ConfigError(
            f"challenge {chosen.name}: has no test set, and a zip that `build` did not write names "
            "none; write them under challenge.data in a YAML file, and name it with --config"
        )
    return None, definition


def _same_settings(stated: Contents, given: BaseModel) -> None:
    """Raise ConfigError where a zip was built with other settings than are given now."""
    own, other = (value.model_dump(mode="json") for value in (stated.settings, given))
    differing = [key for key in other if own.get(key) != other[key]]
    if differing:
        raise ConfigError(
            f"--config: the zip was built with another {', '.join(differing)}; it is checked as it "
            "was built: leave out --config, or build it anew"
        )


def open_case(
    report: Report,
    path: Path,
    program: Path,
    definition: Definition,
    stated: Contents | None,
    bundles: Mapping[str, Bundle],
    data: Path | None,
    work: Path,
    time_limit: float | None,
) -> Case:
    """The case with its inputs: predictions of a result submission, files of `data`, made-up rows.

    What is wrong with them is reported.
    """
    inputs: dict[str, Arrays] = {}
    if definition.kind == "result":
        inputs |= _submitted(report, definition, program)
    else:
        for entry in definition.sets:
            file = data / entry.input if data else None
            if file is not None and file.is_file():
                inputs[entry.name] = predictions.read_arrays(file)
                continue
            if data is not None:
                report.add("skipped", f"data: {data} holds no {entry.input}; rows are made up")
            inputs[entry.name] = _made_up(definition, entry, bundles.get(entry.subject))
    here = _answers_here(report, definition, stated, bundles, inputs, program)
    limit = time_limit or definition.limits.seconds
    return Case(path, program, definition, stated, bundles, inputs, here, work, limit)


def _submitted(report: Report, definition: Definition, program: Path) -> Answers:
    """Predictions of a result submission; what cannot be read or scored is reported."""
    try:
        found = predictions.read(definition, definition.sets, program, strict=True)
    except RunError as error:
        report.add("failed", str(error))
        return {}
    for entry in definition.sets:
        contract = definition.contract(entry.subject, None)
        rows = entry.rows or count(found[entry.name])
        wanted = (contract.outputs or None) if contract else None
        for text in judge.answer_problems(found[entry.name], wanted, rows):
            report.add("failed", f"{entry.output}: {entry.name}: {text}")
    return found


def _made_up(definition: Definition, entry: TestSet, bundle: Bundle | None) -> dict[str, Array]:
    """Rows of every probe, stacked, then repeated to as many as the platform's file has."""
    found = [
        probe.arrays for probe in probes(definition, entry.subject, bundle) if probe.name != EXTREME
    ]
    stacked = {key: np.concatenate([arrays[key] for arrays in found]) for key in found[0]}
    rows = min(entry.rows or DEFAULT_ROWS, MOST_ROWS)
    rows = max(rows, definition.fewest + max(FEW) - 1)
    return {
        key: np.resize(array, (max(rows, len(array)), *array.shape[1:]))
        for key, array in stacked.items()
    }


def _answers_here(
    report: Report,
    definition: Definition,
    stated: Contents | None,
    bundles: Mapping[str, Bundle],
    inputs: Mapping[str, Arrays],
    program: Path,
) -> Answers | None:
    """`Model.predict` of every set in this very process; None where there is no artifact."""
    if not bundles or stated is None:
        return None
    try:
        return _answers(definition, stated, inputs, program)
    except ArtifactError as error:
        report.add("warning", f"onnxruntime {onnxruntime.__version__} here: {error}")
        return None


def _answers(
    definition: Definition, stated: Contents, inputs: Mapping[str, Arrays], program: Path
) -> Answers:
    folders = {name: entry.folder for name, entry in stated.artifacts.items()}
    models = {name: artifact.load(program / "artifacts" / folders[name]) for name in folders}
    found = {}
    for entry in definition.sets:
        model = models[entry.subject]
        answer = model.predict(definition.to_model(inputs[entry.name], model.manifest))
        found[entry.name] = definition.from_model(answer, model.manifest)
    return found


def task_of(case: Case, inputs: Mapping[str, Arrays], folder: Path) -> Task:
    """A task with these inputs, and with made-up answers to score by."""
    references = {}
    for entry in case.definition.sets:
        right: Arrays
        rows, outputs = count(inputs[entry.name]), case.outputs(entry)
        if case.definition.kind == "result" or (case.here is None and outputs is None):
            right = inputs[entry.name]
        elif case.here is not None:
            right = {
                key: np.resize(a, (rows, *a.shape[1:])) for key, a in case.here[entry.name].items()
            }
        else:
            right = _any_answer(outputs or {}, rows)
        references[entry.name] = case.definition.truth(right)
    return write_task(case.definition, case.definition.sets, inputs, references, folder, case.limit)


def _any_answer(outputs: Mapping[str, Tensor], rows: int) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    return {
        key: generator.normal(size=(rows, *(size or 4 for size in tensor.shape)))
        for key, tensor in outputs.items()
    }


def few_rows(case: Case, entry: TestSet, rows: int) -> Arrays:
    """The first rows of a set, then the extreme ones of made-up inputs."""
    few = {key: array[:rows] for key, array in case.inputs[entry.name].items()}
    found = probes(case.definition, entry.subject, case.bundles.get(entry.subject))
    (extreme,) = (probe.arrays for probe in found if probe.name == EXTREME)
    return {key: np.concatenate([array, extreme[key]]) for key, array in few.items()}


def count(arrays: Arrays) -> int:
    """How many rows the arrays of a file have."""
    return len(next(iter(arrays.values())))

"""`axonnx submission check`: prove a zip under CodaBench's own rules before it is uploaded."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from pydantic import BaseModel

import artifact
from artifact import Bundle
from artifact.errors import ArtifactError
from submission import archive, contents, explain, inspection, judge, predictions, trial
from submission.challenges import Array, Arrays, Challenge, Definition, Tensor, TestSet
from submission.contents import Contents
from submission.errors import ArchiveError, ConfigError, RunError
from submission.findings import Finding, Report, Row
from submission.probes import EXTREME, probes
from submission.programs import write_task
from submission.trial import Answers, EngineName, Place, Trial
from submission.worker import Task

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
        return len(next(iter(self.inputs[entry.name].values())))


def check(
    path: Path,
    *,
    challenge: tuple[Challenge, BaseModel] | None = None,
    data: Path | None = None,
    time_limit: float | None = None,
    engine: EngineName = "process",
    pythons: Sequence[str] = (),
    image: str | None = None,
    memory: int | None = None,
    notify: Callable[[Finding], None] = lambda finding: None,
) -> Report:
    """Check the submission at `path`; on made-up inputs, or on the challenge's files in `data`.

    `challenge` is for a zip that `build` did not write. `pythons` are interpreters (paths or
    versions) for the engine "process"; left out, every Python that the zip carries a runtime for
    and that is installed here. `memory` is the cap in bytes. Raises ConfigError for a wrong
    argument; what is wrong with the zip is in the report.
    """
    report = Report(notify)
    if found := archive.problems(path, ()):
        for text in found:
            report.add("failed", f"archive: {text}")
        return report
    with tempfile.TemporaryDirectory(prefix="axonnx-check-") as name:
        work = Path(name)
        program = trial.unpack(path, work / "unpacked")
        try:
            stated, definition = stated_definition(program, challenge)
        except ArchiveError as error:
            report.add("failed", f"contents: {error}")
            return report
        entries = _entries(definition)
        if found := archive.problems(path, entries):
            for text in found:
                report.add("failed", f"archive: {text}")
            return report
        listed = f", {', '.join(entries[:3])} at the root" if entries else ""
        report.add("ok", f"archive: {_size(path)}{listed}, nothing that misleads")
        bundles = _inspect(report, program, stated, definition)
        if not report.passed:
            return report
        case = _case(report, path, program, definition, stated, bundles, data, work, time_limit)
        places, missing = trial.places(
            definition, stated, engine, pythons=pythons, image=image, memory=memory
        )
        for version in missing:
            report.add(
                "skipped",
                f"Python {version}: no interpreter here, so its runtime was not run; "
                "name one with --python PATH",
            )
        if not places:
            report.add("failed", "nothing was run: no interpreter here fits the zip's runtimes")
        for number, place in enumerate(places):
            report.add("ok", f"{place.label}: {place.engine.describe()}")
            _check_place(report, case, place, work / f"place{number}")
    return report


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
        return stated, stated.definition
    chosen, settings = challenge
    return None, chosen.definition(settings, ())


def _entries(definition: Definition) -> tuple[str, ...]:
    if definition.kind == "result":
        return tuple(dict.fromkeys(entry.output for entry in definition.sets))
    # An ONNX file may have any name; `inspect_graph` finds it.
    return () if definition.kind == "graph" else (definition.entry,)


def _inspect(
    report: Report, program: Path, stated: Contents | None, definition: Definition
) -> dict[str, Bundle]:
    """Everything that shows without running it; the verified artifacts by subject."""
    if definition.kind == "graph":
        inspection.inspect_graph(report, program, definition)
    if definition.kind != "code":
        return {}
    inspection.inspect_entry(report, program, definition)
    inspection.inspect_requirements(report, program, definition)
    inspection.inspect_binaries(report, program, definition)
    if stated is None:
        report.add("skipped", "artifacts: the zip was not built by `axonnx submission build`")
        return {}
    inspection.inspect_package(report, program)
    inspection.inspect_runtimes(report, program, stated, definition)
    return inspection.inspect_artifacts(report, program, stated, definition)


def _case(
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
        found = predictions.read(definition, definition.sets, program)
    except RunError as error:
        report.add("failed", str(error))
        return {}
    for entry in definition.sets:
        contract = definition.contract(entry.subject, None)
        rows = entry.rows or len(next(iter(found[entry.name].values())))
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


def _task(case: Case, inputs: Mapping[str, Arrays], folder: Path) -> Task:
    """A task with these inputs, and with made-up answers to score by."""
    references = {}
    for entry in case.definition.sets:
        right: Arrays
        rows, outputs = len(next(iter(inputs[entry.name].values()))), case.outputs(entry)
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


def _check_place(report: Report, case: Case, place: Place, work: Path) -> None:
    """Both jobs twice, once more with few rows, and the artifacts without the entry."""
    if case.definition.kind == "result" and not report.passed:
        return
    sets, task = case.definition.sets, _task(case, case.inputs, work / "task")
    arguments = (case.definition, sets, task, case.path, place.engine)
    first = trial.run(*arguments, work / "run1")
    if first.outcome.status == "Failed" or first.problem:
        found = [
            f"{entry.name}: {text}"
            for entry in case.definition.sets
            if entry.name in first.answers
            for text in judge.answer_problems(
                first.answers[entry.name], case.outputs(entry), case.rows(entry)
            )
        ]
        text = "\n  ".join([*found, *explain.causes(first, case.definition, case.program)])
        report.add("failed", f"{place.label}: {text}")
        return
    second = trial.run(*arguments, work / "run2")
    _report_run(report, case, place, first, second)
    wrong = _compare(case, first, second)
    if case.definition.kind != "result":
        wrong += _check_few(case, place, first, work)
    try:
        wrong += _check_reference(report, case, place, first, work)
    except RunError as error:
        wrong.append(("", str(error)))
    for name, text in dict.fromkeys(wrong):
        report.add("failed", f"{place.label}: {name}: {text}" if name else f"{place.label}: {text}")
    report.rows += _rows_of(case, place, first, {name for name, _ in wrong})
    if not wrong:
        report.add("ok", f"{place.label}: {len(sets)} sets, shape, dtype and values right")


def _rows_of(case: Case, place: Place, run: Trial, wrong: Collection[str]) -> list[Row]:
    """A row of the report's table for each set."""
    calls = run.facts.get("calls")
    seconds = {
        call.get("name"): float(call["seconds"])
        for call in (calls if isinstance(calls, list) else [])
        if isinstance(call, dict) and isinstance(call.get("seconds"), float)
    }
    return [
        Row(
            place.label,
            entry.name,
            case.rows(entry),
            seconds.get(entry.name, 0.0),
            entry.name not in wrong,
        )
        for entry in case.definition.sets
    ]


def _report_run(report: Report, case: Case, place: Place, first: Trial, second: Trial) -> None:
    slowest = max(first.seconds, second.seconds)
    memory = f", {first.peak_bytes / 1e6:.0f} MB" if first.peak_bytes else ""
    scores = ", ".join(f"{key} {value:.6g}" for key, value in first.outcome.scores.items())
    report.add(
        "warning" if slowest > case.limit / 2 else "ok",
        f"{place.label}: Finished twice, {slowest:.1f} s of {case.limit:g} s{memory}; scored "
        f"against made-up answers: {scores}",
    )
    if missing := first.outcome.missing_columns:
        report.add("failed", f"{place.label}: the leaderboard lacks {', '.join(missing)}")
    if case.contents is None or not first.facts or case.definition.kind != "code":
        return
    modules = first.facts.get("modules")
    for name in ("artifact", "onnxruntime"):
        file = modules.get(name) if isinstance(modules, dict) else None
        if not str(file).startswith(("/app/output/", "/app/ingested_program/")):
            found = f"was imported from {file}" if file else "was not imported at all"
            report.add("failed", f"{place.label}: {name} {found}, not from the zip")
        else:
            report.add("ok", f"{place.label}: {name} was imported from the zip")


Wrong = list[tuple[str, str]]  # name of a set ("" for all of them), what is wrong


def _compare(case: Case, first: Trial, second: Trial) -> Wrong:
    """What is wrong with the answers of two runs."""
    wrong = []
    for entry in case.definition.sets:
        answer, rows = first.answers[entry.name], case.rows(entry)
        if case.definition.kind == "result":
            rows = entry.rows or rows
        found = judge.answer_problems(answer, case.outputs(entry), rows)
        if where := judge.difference(answer, second.answers.get(entry.name, {})):
            found.append(f"two runs differ: {where}")
        wrong += [(entry.name, text) for text in found]
    return wrong


def _check_few(case: Case, place: Place, first: Trial, work: Path) -> Wrong:
    """A few rows answer as they do among many, and extreme ones with finite values."""
    sets, inputs, counts = case.definition.sets, {}, {}
    for number, entry in enumerate(case.definition.sets):
        counts[entry.name] = FEW[number % len(FEW)]
        inputs[entry.name] = _few(case, entry, counts[entry.name])
    task = _task(case, inputs, work / "few")
    few = trial.run(case.definition, sets, task, case.path, place.engine, work / "run3")
    # Rows of a million are there to be answered, not to be scored: the scores are of no interest.
    if few.problem:
        text = "; ".join(explain.causes(few, case.definition, case.program))
        return [("", f"with few and with extreme rows: {text}")]
    # The platform runs a graph of its own accord, in batches that no artifact's certificate covers.
    exact = case.contents is not None and case.definition.kind == "code"
    wrong: Wrong = []
    for entry in sets:
        answer, rows = few.answers[entry.name], _rows(inputs[entry.name])
        if found := judge.answer_problems(answer, case.outputs(entry), rows):
            wrong += [(entry.name, f"with extreme rows: {text}") for text in found]
            continue
        count = counts[entry.name]
        alone = {key: array[:count] for key, array in answer.items()}
        whole = {key: array[:count] for key, array in first.answers[entry.name].items()}
        where = judge.difference(alone, whole)
        if where and (exact or judge.gap(alone, whole) > 1e-3 * max(1.0, judge.largest(whole))):
            wrong.append((entry.name, f"{count} rows alone are answered otherwise: {where}"))
    return wrong


def _few(case: Case, entry: TestSet, count: int) -> Arrays:
    """The first rows of a set, then the extreme ones of made-up inputs."""
    few = {key: array[:count] for key, array in case.inputs[entry.name].items()}
    found = probes(case.definition, entry.subject, case.bundles.get(entry.subject))
    (extreme,) = (probe.arrays for probe in found if probe.name == EXTREME)
    return {key: np.concatenate([array, extreme[key]]) for key, array in few.items()}


def _rows(answer: Arrays) -> int:
    return len(next(iter(answer.values())))


def _check_reference(report: Report, case: Case, place: Place, first: Trial, work: Path) -> Wrong:
    """Every bit equal to `Model.predict`: on the zip's runtime, and here where it is the same."""
    if case.contents is None or case.definition.kind != "code":
        return []
    sets = case.definition.sets
    direct = trial.run_reference(
        case.definition, sets, case.inputs, case.program, case.contents, place,
        work / "reference", case.limit,
    )  # fmt: skip
    versions = first.facts.get("versions")
    version = versions.get("onnxruntime") if isinstance(versions, dict) else None
    same = case.here is not None and version == onnxruntime.__version__
    wrong: Wrong = []
    for entry in sets:
        for what, other in (
            ("Model.predict on the zip's runtime", direct),
            ("Model.predict here", case.here if same else None),
        ):
            where = other and judge.difference(first.answers[entry.name], other[entry.name])
            wrong += [(entry.name, f"it differs from {what}: {where}")] if where else []
    if wrong:
        return wrong
    where = "in a fresh process and here" if same else "in a fresh process"
    report.add(
        "ok",
        f"{place.label}: every bit equal in two runs and to Model.predict {where} "
        f"(onnxruntime {version})",
    )
    if case.here is not None and not same:
        widest = max(judge.gap(first.answers[e.name], case.here[e.name]) for e in sets)
        report.add(
            "ok", f"{place.label}: onnxruntime {onnxruntime.__version__} here is {widest:.3g} away"
        )
    return []


def _size(path: Path) -> str:
    with zipfile.ZipFile(path) as archive_file:
        unpacked = sum(info.file_size for info in archive_file.infolist())
        count = len(archive_file.infolist())
    return f"{count} files, {path.stat().st_size / 1e6:.1f} MB ({unpacked / 1e6:.1f} MB unpacked)"

"""`axonnx submission check`: prove a zip under CodaBench's own rules before it is uploaded."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import onnxruntime
from pydantic import BaseModel

from artifact import Bundle
from submission import archive
from submission.challenges import Challenge, Definition
from submission.checking import explain, inspection, judge, trial
from submission.checking.case import (
    FEW,
    Case,
    count,
    few_rows,
    open_case,
    stated_definition,
    task_of,
)
from submission.checking.findings import Finding, Report, Row
from submission.checking.trial import Answers, EngineName, Place, Trial
from submission.contents import Contents
from submission.errors import ArchiveError, RunError
from submission.worker.process import NOT_ISOLATED
from submission.worker.transfer import workplace

Wrong = list[tuple[str, str]]  # name of a set ("" for all of them), what is wrong


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
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Check the submission at `path`; on made-up inputs, or on the challenge's files in `data`.

    `challenge` is for a zip that `build` did not write. `pythons` are interpreters (paths or
    versions) for the engine "process"; left out, every Python that the zip carries a runtime for
    and that is installed here. `memory` is the cap in bytes. `progress` hears what is going on.
    Raises ConfigError for a wrong
    argument; what is wrong with the zip is in the report.
    """
    report = Report(notify)
    if found := archive.problems(path, ()):
        for text in found:
            report.add("failed", f"archive: {text}")
        return report
    with workplace("axonnx-check-") as work:
        program = trial.unpack(path, work / "unpacked")
        try:
            stated, definition = stated_definition(program, challenge)
        except ArchiveError as error:
            hint = "; or name its challenge with --challenge" if challenge is None else ""
            report.add("failed", f"contents: {error}{hint}")
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
        case = open_case(report, path, program, definition, stated, bundles, data, work, time_limit)
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
            text = place.engine.describe()
            report.add("warning" if NOT_ISOLATED in text else "ok", f"{place.label}: {text}")
            try:
                _check_place(report, case, place, work / f"place{number}", progress)
            except RunError as error:
                report.add("failed", f"{place.label}: {error}")
    return report


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
    if stated is None:
        inspection.inspect_modules(report, program, definition)
        inspection.inspect_binaries(report, program, definition)
        report.add("skipped", "artifacts: the zip was not built by `axonnx submission build`")
        return {}
    verified = ("artifacts", *(f"vendor/{abi}" for abi in stated.runtimes))
    inspection.inspect_binaries(report, program, definition, verified)
    inspection.inspect_package(report, program)
    inspection.inspect_runtimes(report, program, stated, definition)
    return inspection.inspect_artifacts(report, program, stated, definition)


def _check_place(
    report: Report, case: Case, place: Place, work: Path, progress: Callable[[str], None]
) -> None:
    """Both jobs twice, once more with few rows, and the artifacts without the entry."""
    if case.definition.kind == "result" and not report.passed:
        return
    sets, task = case.definition.sets, task_of(case, case.inputs, work / "task")
    arguments = (case.definition, sets, task, case.path, place.engine)
    progress(f"{place.label}: run 1 of 3, at most {case.limit:g} s for each job")
    first = trial.run(*arguments, work / "run1")
    if first.outcome.status == "Failed" or first.problem or explain.crashed(first):
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
    progress(f"{place.label}: run 2 of 3, {first.seconds:.1f} s the last time")
    second = trial.run(*arguments, work / "run2")
    if second.outcome.status == "Failed" or second.problem or explain.crashed(second):
        text = "\n  ".join(explain.causes(second, case.definition, case.program))
        report.add("failed", f"{place.label}: a second run failed, the first did not: {text}")
        return
    _report_run(report, case, place, first, second)
    wrong = _compare(case, first, second)
    if not _unfit(case, first):  # what is no answer at all differs from everything
        progress(f"{place.label}: run 3 of 3, few rows and extreme ones; then the artifact alone")
        if case.definition.kind != "result":
            wrong += _check_few(case, place, first, work)
        try:
            wrong += _check_reference(report, case, place, first, work)
        except RunError as error:
            wrong.append(("", str(error)))
    for text in _grouped(wrong):
        report.add("failed", f"{place.label}: {text}")
    report.rows += _rows_of(case, place, first, {name for name, _ in wrong})
    if not wrong:
        many = "1 set" if len(sets) == 1 else f"{len(sets)} sets"
        report.add("ok", f"{place.label}: {many}, shape, dtype and values right")


def _unfit(case: Case, run: Trial) -> bool:
    """Whether an answer has the wrong names, shape, dtype, or values that are not finite."""
    return any(
        judge.answer_problems(run.answers[entry.name], case.outputs(entry), case.rows(entry))
        for entry in case.definition.sets
    )


def _grouped(wrong: Wrong) -> list[str]:
    """A line for each thing that is wrong, with the sets it is wrong with."""
    named: dict[str, list[str]] = {}
    for name, text in dict.fromkeys(wrong):
        named.setdefault(text, []).append(name)
    lines = []
    for text, names in named.items():
        shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        lines.append(f"{shown}: {text}" if shown else text)
    return lines


def _rows_of(case: Case, place: Place, run: Trial, wrong: Collection[str]) -> list[Row]:
    """A row of the report's table for each set."""
    calls = run.facts.get("calls")
    seconds = {
        call["name"]: float(call["seconds"])
        for call in (calls if isinstance(calls, list) else [])
        if isinstance(call, dict)
        and isinstance(call.get("name"), str)
        and isinstance(call.get("seconds"), float)
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
    odd = (*explain.late_end(first), *explain.noise(first))
    for text in (*odd, *explain.units(first, case.definition, case.inputs)):
        report.add("warning", f"{place.label}: {text}")
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
        inputs[entry.name] = few_rows(case, entry, counts[entry.name])
    task = task_of(case, inputs, work / "few")
    few = trial.run(case.definition, sets, task, case.path, place.engine, work / "run3")
    # Rows of a million are there to be answered, not to be scored: the scores are of no interest.
    if few.problem:
        text = "; ".join(explain.causes(few, case.definition, case.program))
        return [("", f"with few and with extreme rows: {text}")]
    # The platform runs a graph of its own accord, in batches that no artifact's certificate covers.
    exact = case.contents is not None and case.definition.kind == "code"
    wrong: Wrong = []
    for entry in sets:
        answer, rows = few.answers[entry.name], count(inputs[entry.name])
        if found := judge.answer_problems(answer, case.outputs(entry), rows):
            wrong += [(entry.name, f"with extreme rows: {text}") for text in found]
            continue
        few_of = counts[entry.name]
        alone = {key: array[:few_of] for key, array in answer.items()}
        whole = {key: array[:few_of] for key, array in first.answers[entry.name].items()}
        where = judge.difference(alone, whole)
        if where and (exact or judge.gap(alone, whole) > 1e-3 * max(1.0, judge.largest(whole))):
            wrong.append((entry.name, f"{few_of} rows alone are answered otherwise: {where}"))
    return wrong


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
        _report_gap(report, case, place, {e.name: first.answers[e.name] for e in sets}, case.here)
    return []


def _report_gap(report: Report, case: Case, place: Place, answers: Answers, here: Answers) -> None:
    """How far another version's answers are from this one's, beside what the manifests allow."""
    widest = max(judge.gap(answers[name], here[name]) for name in here)
    bounds = [
        float(bound)
        for bundle in case.bundles.values()
        for bound in bundle.manifest.determinism["golden_bound"].values()
    ]
    inside = widest <= min(bounds)
    text = "inside" if inside else "golden rows were inside, these rows are above"
    report.add(
        "ok" if inside else "warning",
        f"{place.label}: onnxruntime {onnxruntime.__version__} here is {widest:.3g} away, {text} "
        f"the manifest's bound of {min(bounds):.3g}",
    )


def _size(path: Path) -> str:
    with zipfile.ZipFile(path) as archive_file:
        unpacked = sum(info.file_size for info in archive_file.infolist())
        count = len(archive_file.infolist())
    many = "1 file" if count == 1 else f"{count} files"
    return f"{many}, {path.stat().st_size / 1e6:.1f} MB ({unpacked / 1e6:.1f} MB unpacked)"

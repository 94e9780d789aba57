"""`axonnx submission check`: prove a zip under CodaBench's own rules before it is uploaded."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnxruntime

import artifact
from artifact import Bundle
from artifact.arrays import Array, encode_npz
from artifact.errors import ArtifactError
from submission import archive, contents, judge, sandbox, trial
from submission.build import normalized, package_files
from submission.challenges import TestSet, to_file
from submission.contents import Contents
from submission.errors import ArchiveError, RunError
from submission.probes import probes
from submission.sandbox import Interpreter
from submission.trial import Answers
from submission.wheels import table, tree_digest

Status = Literal["ok", "warning", "skipped", "failed"]
HINTS = {
    "ModuleNotFoundError": "the image has numpy; what else model.py imports, the zip must carry",
    "FileNotFoundError": "find files by __file__: the working folder is not the submission's",
    "ran out of time": "CodaBench would stop it: Execution Time Limit exceeded",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: Status
    text: str


@dataclass(frozen=True)
class Row:
    """One predicted set in one interpreter; `equal` is about every comparison made."""

    python: str
    set: str
    rows: int
    seconds: float
    equal: bool


@dataclass
class Report:
    """Findings and predicted sets, in order; `notify` hears each finding as it is made."""

    notify: Callable[[Finding], None] = lambda finding: None
    findings: list[Finding] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(finding.status != "failed" for finding in self.findings)

    def add(self, status: Status, text: str) -> None:
        """Record one finding."""
        self.findings.append(Finding(status, text))
        self.notify(self.findings[-1])


@dataclass(frozen=True)
class Case:
    """Everything about one unpacked submission that the runs need."""

    program: Path
    contents: Contents
    bundles: dict[str, Bundle]
    sets: list[TestSet]
    work: Path
    limit: float


def check(
    path: Path,
    *,
    data: Path | None = None,
    time_limit: float | None = None,
    pythons: Sequence[str] = (),
    notify: Callable[[Finding], None] = lambda finding: None,
) -> Report:
    """Check the submission at `path`; on made-up inputs, and on the challenge's files in `data`.

    `pythons` are interpreters (paths or versions) to run it with; left out, every Python that the
    zip carries a runtime for and that is installed here. Raises ConfigError for a wrong argument;
    what is wrong with the zip is in the report.
    """
    report = Report(notify)
    if found := archive.problems(path):
        for text in found:
            report.add("failed", f"archive: {text}")
        return report
    report.add("ok", f"archive: {_size(path)}, {archive.ENTRY} at the root, nothing that misleads")
    with tempfile.TemporaryDirectory(prefix="axonnx-check-") as name:
        work = Path(name)
        program = trial.unpack(path, work / "program")
        try:
            stated = contents.read(program)
        except ArchiveError as error:
            report.add("failed", f"contents: {error}")
            return report
        bundles = _check_artifacts(report, program, stated)
        _check_package(report, program)
        _check_runtimes(report, program, stated)
        if not report.passed:
            return report
        sets = _write_probes(stated, bundles, work / "probes")
        if data is not None:
            present, absent = trial.data_sets(stated, data)
            sets = sorted([*sets, *present], key=lambda entry: list(bundles).index(entry.subject))
            for file in absent:
                report.add("skipped", f"data: {data} holds no {file}")
        limit = time_limit or stated.challenge.time_limit
        case = Case(program, stated, bundles, sets, work, limit)
        _check_behaviour(report, case, pythons)
    return report


def _check_artifacts(report: Report, program: Path, stated: Contents) -> dict[str, Bundle]:
    bundles = {}
    for name, identity in stated.artifacts.items():
        where = f"artifacts/{name}"
        try:
            bundle = artifact.read(program / "artifacts" / name)
        except ArtifactError as error:
            text = str(error).removeprefix(f"{program / 'artifacts' / name}: ")
            report.add("failed", f"{where}: {text}; build the zip again from the artifact")
            continue
        found = stated.challenge.problems(stated.settings, name, bundle.manifest)
        if bundle.id != identity:
            found.append(f"is not the artifact that the zip was built from ({identity[:12]}…)")
        for text in found:
            report.add("failed", f"{where}: {text}")
        if normalized(bundle):
            report.add(
                "warning",
                f"{where}: ANSWERS IN NORMALIZED UNITS. CodaBench scores raw units; expect "
                "mean(mean²+std²). Train or import it with output_units: raw",
            )
        if not found:
            report.add("ok", f"{where}: {bundle.manifest.model}, id {bundle.id[:12]}…, verified")
            bundles[name] = bundle
    return bundles


def _check_package(report: Report, program: Path) -> None:
    carried = _files(program / "artifact")
    installed = {n.removeprefix("artifact/"): d for n, d in package_files().items()}
    differing = sorted(
        name for name in {*carried, *installed} if carried.get(name) != installed.get(name)
    )
    if differing:
        report.add(
            "failed",
            f"artifact/: {', '.join(differing)} is not what this installation has; "
            "build the zip again",
        )
    else:
        report.add("ok", "artifact/: the package of this installation, verbatim")


def _check_runtimes(report: Report, program: Path, stated: Contents) -> None:
    trusted = {(wheel.abi, wheel.onnxruntime): wheel.tree_sha256 for wheel in table()}
    for abi, facts in stated.runtimes.items():
        version = facts["onnxruntime"]
        where = f"vendor/{abi}: onnxruntime {version} for Python {facts['python']}"
        files = _files(program / "vendor" / abi)
        if not files:
            report.add("failed", f"{where} is missing; build the zip again")
        elif tree_digest(files) != trusted.get((abi, version)):
            report.add("failed", f"{where} is not the published one; build the zip again")
        else:
            report.add("ok", f"{where}, as published")
    image = stated.challenge.image_python
    if image and image not in {facts["python"] for facts in stated.runtimes.values()}:
        report.add(
            "warning",
            f"vendor/: the image of {stated.challenge.name} has Python {image}, and the zip has no "
            f"runtime for it; build with --python {image}",
        )


def _write_probes(stated: Contents, bundles: dict[str, Bundle], folder: Path) -> list[TestSet]:
    folder.mkdir()
    sets = []
    for subject, bundle in bundles.items():
        for probe in probes(stated.challenge, stated.settings, subject, bundle):
            name = f"{subject}-{probe.name}"
            path = folder / f"{name}.npz"
            path.write_bytes(encode_npz(to_file(stated.challenge.call, probe.arrays)))
            sets.append(TestSet(name, subject, str(path), f"{name}.predictions.npz"))
    return sets


def _check_behaviour(report: Report, case: Case, pythons: Sequence[str]) -> None:
    found, missing = trial.interpreters(case.contents, pythons)
    for version in missing:
        report.add(
            "skipped",
            f"Python {version}: no interpreter here, so its runtime was not run; "
            "name one with --python PATH",
        )
    if not found:
        report.add(
            "failed", "nothing was run: there is no interpreter that the zip has a runtime for"
        )
        return
    if sandbox.network_off() is None:
        report.add(
            "warning", "network: this system lets us take it away from no program; it was ON"
        )
    here = _answers_here(report, case)
    for interpreter in found:
        try:
            _check_run(report, case, interpreter, here)
        except RunError as error:
            hints = [hint for sign, hint in HINTS.items() if sign in str(error)]
            text = "\n  ".join([f"Python {interpreter.version}: {error}", *hints])
            report.add("failed", text)


def _answers_here(report: Report, case: Case) -> Answers | None:
    """`Model.predict` of every set in this very process."""
    try:
        folder = case.program / "artifacts"
        models = {name: artifact.load(folder / name) for name in case.bundles}
        return {
            entry.name: dict(models[entry.subject].predict(_inputs(case, entry)))
            for entry in case.sets
        }
    except ArtifactError as error:
        report.add("warning", f"onnxruntime {onnxruntime.__version__} here: {error}")
        return None


def _inputs(case: Case, entry: TestSet) -> dict[str, Array]:
    specs = case.bundles[entry.subject].manifest.inputs
    return trial.read_arrays(case.contents, Path(entry.input), [spec.name for spec in specs])


def _check_run(report: Report, case: Case, interpreter: Interpreter, here: Answers | None) -> None:
    label = f"Python {interpreter.version}"
    folder = case.work / interpreter.path.parent.parent.name
    arguments = (case.program, case.contents, interpreter, case.sets)
    first, second = (
        trial.run_submission(*arguments, folder / f"run{i}", case.limit) for i in (1, 2)
    )
    slowest = max(first.seconds, second.seconds)
    network = "without network" if sandbox.network_off() else "with network"
    report.add(
        "warning" if slowest > case.limit / 2 else "ok",
        f"{label}: ran twice {network}, {slowest:.1f} s of {case.limit:g} s, "
        f"{first.report['peak_bytes'] / 1e6:.0f} MB",
    )
    _check_imports(report, label, first, folder / "run1" / "output")
    direct = trial.run_reference(*arguments, folder / "reference", case.limit)
    version = first.report["versions"]["onnxruntime"]
    same_version = here is not None and version == onnxruntime.__version__
    wrong: list[str] = []
    for entry, call in zip(case.sets, first.report["calls"], strict=True):
        answer = first.answers[entry.name]
        rows = len(next(iter(_inputs(case, entry).values())))
        found = _problems(case, entry, answer, rows)
        for what, other in (
            ("two runs differ", second.answers),
            ("it differs from Model.predict on the zip's runtime", direct),
            ("it differs from Model.predict here", here if same_version and here else None),
        ):
            where = other and judge.difference(answer, other[entry.name])
            found += [f"{what}: {where}"] if where else []
        wrong += [f"{label}: {entry.name}: {text}" for text in found]
        report.rows.append(Row(interpreter.version, entry.name, rows, call["seconds"], not found))
    for text in wrong:
        report.add("failed", text)
    if not wrong:
        report.add("ok", f"{label}: {len(case.sets)} sets, shape, dtype and values right")
        places = "in a fresh process and here" if same_version else "in a fresh process"
        report.add(
            "ok",
            f"{label}: every bit equal in two runs and to Model.predict {places} "
            f"(onnxruntime {version})",
        )
        if here is not None and not same_version:
            widest = max(judge.gap(first.answers[name], here[name]) for name in here)
            report.add(
                "ok", f"{label}: onnxruntime {onnxruntime.__version__} here is {widest:.3g} away"
            )


def _check_imports(report: Report, label: str, run: trial.Trial, output: Path) -> None:
    for name in ("artifact", "onnxruntime"):
        file = run.report["modules"][name]
        inside = file is not None and output.resolve() in Path(file).resolve().parents
        if not inside:
            place = f"was imported from {file}" if file else "was not imported at all"
            report.add("failed", f"{label}: {name} {place}, not from the zip")
        else:
            report.add("ok", f"{label}: {name} was imported from the zip")


def _problems(case: Case, entry: TestSet, answer: dict[str, Array], rows: int) -> list[str]:
    manifest = case.bundles[entry.subject].manifest
    _, shapes = case.contents.challenge.row_shapes(case.contents.settings, entry.subject, manifest)
    return judge.answer_problems(answer, manifest, shapes, rows)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _size(path: Path) -> str:
    with zipfile.ZipFile(path) as archive_file:
        unpacked = sum(info.file_size for info in archive_file.infolist())
        count = len(archive_file.infolist())
    return f"{count} files, {path.stat().st_size / 1e6:.1f} MB ({unpacked / 1e6:.1f} MB unpacked)"

"""`axonnx submission check --bundle`: a zip under the programs and data of a competition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from submission import archive
from submission.bundle import competition_check
from submission.checking.findings import Finding, Report
from submission.scoring.row import Score
from submission.scoring.score import score


def check_bundle(
    path: Path,
    bundle: Path,
    task: int = 0,
    *,
    notify: Callable[[Finding], None] = lambda finding: None,
    progress: Callable[[str], None] = lambda text: None,
    **running: Any,
) -> Report:
    """Check the submission at `path` with task `task` of a bundle: both jobs, twice.

    `running` are the keyword arguments of `score` that say where it runs. Raises ConfigError for a
    wrong argument; what is wrong is in the report.
    """
    report = Report(notify)
    for finding in competition_check.findings(bundle):
        report.add(finding.status, f"bundle: {finding.text}")
    for text in archive.problems(path, ()):
        report.add("failed", f"archive: {text}")
    if not report.passed:
        return report
    scores = []
    for number in (1, 2):
        progress(f"run {number} of 2")
        found = score(path, bundle=bundle, task=task, **running)
        if found.status != "Finished":
            report.add("failed", f"{found.place}: " + "\n  ".join(found.causes))
            return report
        scores.append(found)
    _compare(report, *scores)
    return report


def _compare(report: Report, first: Score, second: Score) -> None:
    row = ", ".join(
        f"{entry.column.key} {'n/a' if entry.score is None else format(entry.score, '.6g')}"
        for entry in first.columns
    )
    report.add("ok", f"{first.place}: Finished twice: {row}")
    for note in first.notes:
        report.add("warning", f"{first.place}: {note}")
    differing = [
        one.column.key
        for one, other in zip(first.columns, second.columns, strict=True)
        if one.score != other.score
    ]
    if differing:
        report.add("failed", f"{first.place}: two runs score differently: {', '.join(differing)}")

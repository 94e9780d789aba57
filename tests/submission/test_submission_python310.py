from __future__ import annotations

from pathlib import Path

import pytest
from submission_helpers import Artifacts, configuration, python_or_skip

from submission.build import build
from submission.checking.check import check

pytestmark = pytest.mark.slow


def test_zip_for_python_3_10_runs_there_with_onnxruntime_1_23_2(
    artifacts: Artifacts, tmp_path: Path
):
    python = python_or_skip("3.10")
    config = configuration(artifacts, tmp_path / "submission.zip", python=("3.10", "3.11"))
    report = check(build(config).path, pythons=[str(python), "3.11"])
    assert report.passed, report.findings
    texts = [finding.text for finding in report.findings]
    assert any(
        text.startswith("Python 3.10: every bit equal") and "(onnxruntime 1.23.2)" in text
        for text in texts
    )
    assert any(text.startswith("Python 3.11: every bit equal") for text in texts)
    assert {row.place for row in report.rows} == {"Python 3.10", "Python 3.11"}
    assert not [finding for finding in report.findings if finding.status == "warning"]


def test_one_onnxruntime_for_every_python(artifacts: Artifacts, tmp_path: Path):
    config = configuration(artifacts, tmp_path / "submission.zip", onnxruntime="1.23.2")
    report = check(build(config).path, pythons=["3.11"])
    assert report.passed, report.findings
    assert any(
        text.startswith("vendor/cp311: onnxruntime 1.23.2 for Python 3.11, as published")
        for text in (finding.text for finding in report.findings)
    )
    assert any("onnxruntime 1.31.1 here is" in finding.text for finding in report.findings)

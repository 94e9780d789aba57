from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from broken_submissions import CASES, COMMAND, DOCUMENT, HEADER, Case, first, row, said, shown
from broken_submissions import engine as engine_of
from broken_submissions import task as task_of
from broken_submissions import write as write_case
from emulated_worker import emulator_or_skip
from submission_helpers import Artifacts, configuration

from submission.build import build
from submission.worker import sandbox

DRIFTED = f"docs/broken_submissions.md is not what is printed; regenerate it: {COMMAND}"
STILL = [case for case in CASES if case.still and case.kind != "built"]
EMULATED = ("nested", "result-metadata", "link", "absolute", "load", "exit", "endless", "shape")
EMULATED = (*EMULATED, "write-metadata", "float64")


def named(cases: Sequence[Case]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.fixture(scope="module")
def table() -> dict[str, str]:
    """Lines of the document by the name of the case."""
    lines = DOCUMENT.read_text("utf-8").removeprefix(HEADER).splitlines()
    return {case.name: line for case, line in zip(CASES, lines, strict=True)}


@pytest.fixture(scope="module")
def normalized_zip(
    artifacts: Artifacts, runtime_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("built") / "normalized.zip"
    models = {"affi": artifacts.affi, "beignet": artifacts.normalized}
    return build(configuration(artifacts, output, models=models)).path


def test_document_begins_with_what_it_is_and_has_a_line_for_each_case(table: dict[str, str]):
    assert DOCUMENT.read_text("utf-8").startswith(HEADER), DRIFTED
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        assert table[case.name].startswith(f"| {case.wrong} | "), DRIFTED


@pytest.mark.parametrize("case", named(STILL))
def test_what_is_refused_before_it_runs(case: Case, table: dict[str, str], tmp_path: Path):
    path = write_case(case, tmp_path, tmp_path, tmp_path)
    line = first(case, said(case, path, tmp_path))
    assert line.startswith("✗ ")
    assert table[case.name].endswith(row(case, "", line).rpartition(" | ✗ ")[2]), DRIFTED


@pytest.mark.slow
@pytest.mark.parametrize("case", named(CASES))
def test_document_is_what_both_commands_say(
    case: Case, table: dict[str, str], small_zip: Path, normalized_zip: Path, tmp_path: Path
):
    path = write_case(case, tmp_path, small_zip, normalized_zip)
    platform = case.platform or shown(case, path, tmp_path)
    assert row(case, platform, first(case, said(case, path, tmp_path))) == table[case.name], DRIFTED


@pytest.fixture(scope="module")
def emulator(shared_data: Path) -> Path:
    """The independent emulation of CodaBench's worker, which lies beside the recordings."""
    return emulator_or_skip(shared_data)


@pytest.mark.slow
@pytest.mark.parametrize("case", named([case for case in CASES if case.name in EMULATED]))
def test_independent_emulation_shows_the_same(
    case: Case, table: dict[str, str], emulator: Path, tmp_path: Path
):
    path = write_case(case, tmp_path, tmp_path, tmp_path)
    task = task_of(case, tmp_path / "task")
    found = sandbox.find_python("3.11")
    assert found is not None
    parts = {
        "ingestion": task.ingestion_program,
        "scoring": task.scoring_program,
        "input": task.input_data,
        "ref": task.reference_data,
    }
    words = [word for key, part in parts.items() if part for word in (f"--{key}", str(part))]
    words += ["--submission", str(path), "--work", str(tmp_path / "work"), "--json"]
    words += ["--time-limit", f"{case.seconds:.0f}", "--engine", "unshare"]
    words += ["--path", str(sandbox.environment(found).path.parent)]
    done = subprocess.run([sys.executable, str(emulator), *words], capture_output=True, text=True)
    report = json.loads(done.stdout)
    shown_here = table[case.name].split(" | ")[1]
    assert report["status"][-1] == shown_here.split(":")[0]
    if not case.platform:
        assert report.get("status_details", "").startswith(shown_here.partition(": ")[2])


def test_engine_of_the_table_is_shut_away():
    if sandbox.network_off() is None:
        pytest.skip("this system lets us take the network away from no program")
    assert "no network" in engine_of(CASES[0]).describe()

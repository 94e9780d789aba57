from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from codabench_competition import check_outcome, words, write_competition
from emulated_worker import emulator_or_skip
from submission_helpers import Artifacts, with_predict

from submission.worker import sandbox

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def worker(shared_data: Path) -> Path:
    """The independent emulation of CodaBench's worker, which lies beside the recordings."""
    return emulator_or_skip(shared_data)


def run(worker: Path, arguments: list[str]) -> dict[str, object]:
    found = sandbox.find_python("3.11")
    assert found is not None
    bin_folder = sandbox.environment(found).path.parent
    command = [sys.executable, str(worker), *arguments, "--engine", "unshare"]
    done = subprocess.run([*command, "--path", str(bin_folder)], capture_output=True, text=True)
    return json.loads(done.stdout)


def test_zip_runs_in_the_emulated_worker_bit_for_bit(
    worker: Path, small_zip: Path, artifacts: Artifacts, tmp_path: Path
):
    competition = write_competition(tmp_path / "competition")
    report = run(worker, words(competition, small_zip, tmp_path / "work"))
    check_outcome(report, competition, {"affi": artifacts.affi, "beignet": artifacts.beignet})
    assert all(np.isfinite(value) for value in report["scores"].values())


def test_comparison_finds_one_flipped_bit(
    worker: Path, small_zip: Path, artifacts: Artifacts, tmp_path: Path
):
    competition = write_competition(tmp_path / "competition", windows=3)
    body = "answer.view(np.uint32)[-1, -1, -1] ^= np.uint32(1)\nreturn answer"
    bent = with_predict(small_zip, tmp_path / "bent.zip", body)
    report = run(worker, words(competition, bent, tmp_path / "work"))
    with pytest.raises(AssertionError):
        check_outcome(report, competition, {"affi": artifacts.affi})
    assert report["status"][-1] == "Finished"

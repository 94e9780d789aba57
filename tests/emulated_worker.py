"""An independent emulation of CodaBench's worker, run on a task of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from submission.worker.run import Task


def emulator_or_skip(shared_data: Path) -> Path:
    """The emulation, which lies beside the recordings; skips the test where it cannot be used."""
    path = shared_data.parent / "tools" / "codabench-worker"
    if not path.is_file():
        pytest.skip(f"no emulated worker at {path}")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("its engine `unshare` needs root and unshare")
    return path


def emulate(
    emulator: Path, task: Task, submission: Path, columns: Sequence[str], python: Path, work: Path
) -> dict[str, Any]:
    """What the emulation reports of a zip, its programs run by `python`.

    Skips the test where the emulation is not there or cannot be used.
    """
    if not emulator.is_file() or os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip(f"no {emulator}, or neither root nor unshare")
    parts = {
        "ingestion": task.ingestion_program,
        "scoring": task.scoring_program,
        "input": task.input_data,
        "ref": task.reference_data,
    }
    words = [word for key, path in parts.items() if path for word in (f"--{key}", str(path))]
    words += ["--submission", str(submission), "--leaderboard", ",".join(columns), "--json"]
    words += ["--engine", "unshare", "--path", str(python.parent), "--work", str(work)]
    done = subprocess.run([sys.executable, str(emulator), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report

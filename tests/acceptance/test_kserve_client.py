"""KServe's own Python package: its client infers here, its classes take the manifests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from server_process import ROOT, running
from small_artifacts import write_forecaster

import artifact

pytestmark = pytest.mark.slow
KSERVE = "kserve==0.21.0"
FOLDER = ROOT / "docker" / "kubernetes" / "kserve"


def kserve_side(*words: object) -> str:
    """Run tests/kserve_side.py in an environment of its own that has kserve."""
    uv = [sys.executable, "-m", "uv", "run", "--quiet", "--no-project", "--isolated"]
    python = ["--python", "3.11", "--with", KSERVE, "python", "-W", "ignore"]
    script = ROOT / "tests" / "kserve_side.py"
    done = subprocess.run(
        [*uv, *python, script, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_client_infers(tmp_path: Path) -> None:
    model = artifact.load(path := write_forecaster(tmp_path / "artifact"))
    rows = np.random.default_rng(5).normal(0, 3, (5, 20, 4, 9)).astype(np.float32)
    rows[0, :10, 0] = np.float32(1e-40)  # subnormal
    rows[1, :10, 0] = np.nextafter(np.float32(1), np.float32(2))
    np.savez(tmp_path / "inputs.npz", neural=rows)
    expected = model.predict({"neural": rows})["forecast"]
    with running(tmp_path, path) as server:
        said = json.loads(kserve_side("infer", server.url, model.manifest.name, tmp_path))
    assert (said["live"], said["ready"], said["model"]) == (True, True, True)
    assert said["stranger"] is False
    for sent in (True, False):
        for wanted in (None, True, False):
            case = f"{sent}-{wanted}"
            with np.load(tmp_path / f"{case}.npz") as answer:
                got = answer["forecast"]
            assert got.dtype == expected.dtype
            assert got.shape == expected.shape
            assert got.tobytes() == expected.tobytes(), case
            assert said[case]["id"] == case
            assert said[case]["model"] == model.manifest.name
            assert said[case]["artifact"] == model.id
            assert said[case]["binary"] is bool(wanted)
    assert said["error"].startswith("HTTPStatusError: ")
    assert "400" in said["error"]
    assert "neural" in said["error"]


def test_its_classes_take_the_manifests(tmp_path: Path) -> None:
    files = [FOLDER / "serving-runtime.yaml", FOLDER / "inference-service.yaml"]
    assert kserve_side("manifests", *files) == ""
    wrong = tmp_path / "wrong.yaml"
    text = files[0].read_text()
    wrong.write_text(text.replace("autoSelect: true", "autoSelekt: true"))
    complaints = kserve_side("manifests", wrong)
    assert "V1alpha1SupportedModelFormat has no field 'autoSelekt'" in complaints
    wrong.write_text(files[1].read_text().replace("minReplicas: 2", "minReplicas: two"))
    assert "minReplicas: 'two' is no int" in kserve_side("manifests", wrong)

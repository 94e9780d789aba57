"""Other distributions and other architectures: nothing of `submission` knows of them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from server_process import running

import artifact
from artifact.arrays import decode_npz, encode_npz
from submission.wheels import uv_command

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
NPZ = "application/x-npz"
CONFIG = {
    "data": {
        "name": "array",
        "path": "recording.npy",
        "rate": 250,
        "window": 20,
        "observed": 10,
        "stride": {"train": 2, "validation": 2, "test": 10},
    },
    "training": {"epochs": 1, "threads": 1},
}


def axonnx(*words: object, cwd: Path, path: Path | None = None) -> str:
    command = [sys.executable, ROOT / "axonnx.py", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else None
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def recording(tmp_path: Path) -> np.ndarray:
    """Four channels that wander, as `recording.npy`."""
    values = np.random.default_rng(3).normal(size=(1500, 4)).cumsum(axis=0).astype(np.float32)
    np.save(tmp_path / "recording.npy", values)
    return values


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder that the package of the tests is installed to."""
    target = tmp_path / "site"
    package = ROOT / "tests" / "plugin_package"
    words = ["pip", "install", "--target", str(target), "--no-deps", "--python", sys.executable]
    done = subprocess.run(
        [uv_command(), *words, str(package)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return target


def test_a_package_adds_a_model_and_a_challenge(
    plugin: Path, recording: np.ndarray, tmp_path: Path
) -> None:
    config = {**CONFIG, "model": {"name": "moving_average", "steps": 4}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    axonnx("train", "run.yaml", "--output", "run", cwd=tmp_path, path=plugin)
    folder = tmp_path / "run" / "artifact"
    model = artifact.load(folder)
    windows = recording[:200].reshape(10, 20, 4, 1)
    want = model.predict({"neural": windows})["forecast"]

    with running(tmp_path, folder) as server:
        headers = {"Content-Type": NPZ, "Accept": NPZ}
        body = encode_npz({"neural": windows})
        answer = server.client.post("/predict", content=body, headers=headers)
        assert decode_npz(answer.content)["forecast"].tobytes() == want.tobytes()

    (tmp_path / "submission.yaml").write_text(
        yaml.safe_dump(
            {
                "challenge": {"name": "next_steps"},
                "models": {"main": str(folder)},
                "python": ["3.11"],
                "output": "submission.zip",
            }
        )
    )
    axonnx("submission", "build", "submission.yaml", cwd=tmp_path, path=plugin)
    with zipfile.ZipFile(tmp_path / "submission.zip") as built:
        assert {"forecaster.py", "submission.json"} <= set(built.namelist())
    said = axonnx("submission", "check", "submission.zip", cwd=tmp_path, path=plugin)
    assert "absolute_error" in said
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "windows.npz").write_bytes(encode_npz({"arr_0": windows}))
    words = ("submission.zip", "--data", "data", "--output", "out")
    axonnx("submission", "predict", *words, cwd=tmp_path, path=plugin)
    zipped = decode_npz((tmp_path / "out" / "forecast.npz").read_bytes())["arr_0"]
    assert zipped.tobytes() == want.tobytes()


def test_another_architecture_is_one_line(recording: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "submission.yaml").write_text(
        yaml.safe_dump(
            {
                "challenge": {"name": "neural_forecasting", "channels": {"mine": 4}, "features": 1},
                "models": {"mine": "run/artifact"},
                "python": ["3.11"],
                "output": "submission.zip",
            }
        )
    )
    identities = []
    for name in ("gru", "patchformer"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "recording.npy").symlink_to(tmp_path / "recording.npy")
        (folder / "submission.yaml").symlink_to(tmp_path / "submission.yaml")
        config = {**CONFIG, "model": {"name": name}}
        (folder / "run.yaml").write_text(yaml.safe_dump(config))
        axonnx("train", "run.yaml", "--output", "run", cwd=folder)
        axonnx("submission", "build", "submission.yaml", "--no-report", cwd=folder)
        assert "passed" in axonnx("submission", "check", "submission.zip", cwd=folder)
        identities.append(artifact.read(folder / "run" / "artifact").id)
    assert len(set(identities)) == 2

"""On an NVIDIA GPU: CUDA is really used, answers repeat, and never depend on who else called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_artifacts import STEPS, write_decoder, write_forecaster

import artifact
from artifact.batching import PADDED_ROWS

pytestmark = pytest.mark.gpu
ROOT = Path(artifact.__file__).parent.parent


def windows(rows: int, channels: int = 4) -> np.ndarray:
    values = np.random.default_rng(rows).normal(100, 50, (rows, STEPS, channels, 9))
    return values.astype(np.float32)


def test_cuda_is_used_and_close_to_the_cpu(tmp_path: Path) -> None:
    folder = write_forecaster(tmp_path / "artifact")
    gpu, cpu = artifact.load(folder, provider="cuda"), artifact.load(folder)
    assert gpu.providers[0] == "CUDAExecutionProvider"
    assert artifact.load(folder, provider="auto").providers == gpu.providers
    x = windows(33)
    got, want = (model.predict({"neural": x})["forecast"] for model in (gpu, cpu))
    assert np.abs(got - want).max() <= gpu.golden.bound["forecast"]


@pytest.mark.parametrize("rows", [1, 5, PADDED_ROWS, 20])
def test_a_row_has_the_same_bytes_alone_and_in_company(tmp_path: Path, rows: int) -> None:
    model = artifact.load(write_decoder(tmp_path / "artifact"), provider="cuda")
    index = np.arange(rows) % 4
    inputs = {name: values[index] for name, values in model.golden_inputs.items()}
    together = model.predict(inputs)["probability"]
    for row in range(rows):
        one = {name: values[row : row + 1] for name, values in inputs.items()}
        assert model.predict(one)["probability"].tobytes() == together[row].tobytes()


def test_fresh_processes_give_the_same_bytes(tmp_path: Path) -> None:
    folder = write_forecaster(tmp_path / "artifact")
    np.save(tmp_path / "x.npy", windows(20))
    answers = set()
    for name in ("a.npy", "b.npy", "c.npy"):
        words = ["predict", folder, "x.npy", "--output", name, "--provider", "cuda"]
        subprocess.run([sys.executable, ROOT / "axonnx.py", *words], cwd=tmp_path, check=True)
        answers.add((tmp_path / name).read_bytes())
    assert len(answers) == 1

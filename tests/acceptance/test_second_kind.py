"""Two inputs and a mask in, probabilities out: nothing on the path assumes one tensor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from server_process import running

import artifact
from artifact.arrays import decode_npz, encode_npz
from trainer.data import load_dataset

ROOT = Path(__file__).resolve().parents[2]
NPZ = "application/x-npz"


def axonnx(*words: object, cwd: Path) -> None:
    command = [sys.executable, ROOT / "axonnx.py", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_decoder_is_trained_served_and_submitted_with_the_same_bytes(tmp_path: Path) -> None:
    short = ("--training.epochs", 3, "--training.threads", 1)
    axonnx("train", ROOT / "configs/decoding.yaml", *short, "--output", "run", cwd=tmp_path)
    folder = tmp_path / "run" / "artifact"
    model = artifact.load(folder)
    assert [spec.name for spec in model.manifest.inputs] == ["neural", "behavior", "behavior_mask"]
    assert model.manifest.metrics["test_accuracy"] > 0.5  # three classes, chance 1/3

    trials = load_dataset({"name": "synthetic_decoding"}).test.batch(slice(0, 64)).inputs
    wild = {name: values[:4].copy() for name, values in trials.items()}
    wild["neural"] *= np.float32(1e6)
    wild["behavior_mask"][:] = False
    inputs = {name: np.concatenate([trials[name], wild[name]]) for name in trials}
    want = model.predict(inputs)["probability"]
    assert want.shape == (len(inputs["neural"]), 3)

    with running(tmp_path, folder) as server:
        headers = {"Content-Type": NPZ, "Accept": NPZ}
        answer = server.client.post("/predict", content=encode_npz(inputs), headers=headers)
        assert answer.headers["X-Artifact-Id"] == model.id
        assert decode_npz(answer.content)["probability"].tobytes() == want.tobytes()
        few = {name: values[:5].tolist() for name, values in inputs.items()}
        listed = server.client.post("/predict", json={"inputs": few}).json()["outputs"]
        assert np.array(listed["probability"], np.float32).tobytes() == want[:5].tobytes()

    config = {
        "challenge": {"name": "generic"},
        "models": {"decoder": str(folder)},
        "python": ["3.11"],
        "output": "submission.zip",
    }
    (tmp_path / "submission.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "decoder.npz").write_bytes(encode_npz(inputs))
    axonnx("submission", "build", "submission.yaml", "--no-report", cwd=tmp_path)
    axonnx("submission", "check", "submission.zip", "--data", "data", cwd=tmp_path)
    words = ("--data", "data", "--output", "out")
    axonnx("submission", "predict", "submission.zip", *words, cwd=tmp_path)
    zipped = decode_npz((tmp_path / "out" / "decoder.predictions.npz").read_bytes())
    assert zipped["probability"].tobytes() == want.tobytes()

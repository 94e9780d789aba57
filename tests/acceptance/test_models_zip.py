"""Every registered forecast model from a zip, in a process of its own: format and bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from contexts import forecast_context, neural, randomize

import artifact
from artifact.arrays import decode_npz, encode_npz
from trainer.export import About, synthetic_rows, write_artifact
from trainer.models import MODELS, build_model

ROOT = Path(__file__).resolve().parents[2]
# An ensemble has no members unless it is given some: see test_ensemble.
NAMES = [name for name in MODELS.names() if name != "ensemble"]
FORECAST = [name for name in NAMES if "forecast" in MODELS.get(name).tasks]
CHANNELS = (1, 61, 89, 239)
BATCHES = (1, 7)
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def export(name: str, channels: int, folder: Path) -> Path:
    """The artifact of a module with random weights, challenge windows in."""
    context = forecast_context(channels, features=9)
    torch.manual_seed(0)
    module = randomize(build_model({"name": name}, context))
    about = About(
        name=name,
        version="1",
        config={"name": name, "model": {"name": name}},
        metrics={},
        data={"name": "random", "description": "", "synthetic": True, "rate_hz": None},
        data_fingerprint="0" * 64,
        seed=0,
        golden="synthetic",
    )
    return write_artifact(module, context, about, synthetic_rows(context, 32, 0), 2, folder)


def submission(*words: object, cwd: Path) -> None:
    command = [sys.executable, ROOT / "axonnx.py", "submission", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_forecast_model_answers_from_the_zip_as_here(channels: int, tmp_path: Path) -> None:
    context = forecast_context(channels, features=9)
    folders = {name: export(name, channels, tmp_path / name) for name in FORECAST}
    names = {f"{name}_{rows}": name for name in FORECAST for rows in BATCHES}
    config = {
        "challenge": {"name": "generic"},
        "models": {each: str(folders[name]) for each, name in names.items()},
        "python": [PYTHON],
        "output": "submission.zip",
    }
    (tmp_path / "submission.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "data").mkdir()
    inputs = {each: neural(context, int(each.rpartition("_")[2])).numpy() for each in names}
    for each, values in inputs.items():
        (tmp_path / "data" / f"{each}.npz").write_bytes(encode_npz({"neural": values}))
    submission("build", "submission.yaml", "--no-report", cwd=tmp_path)
    words = ("--data", "data", "--output", "out")
    submission("predict", "submission.zip", *words, cwd=tmp_path)
    for each, name in names.items():
        answer = decode_npz((tmp_path / "out" / f"{each}.predictions.npz").read_bytes())["forecast"]
        assert answer.shape == (len(inputs[each]), 20, channels)
        assert answer.dtype == np.float32
        assert np.isfinite(answer).all()
        want = artifact.load(folders[name]).predict({"neural": inputs[each]})["forecast"]
        assert answer.tobytes() == want.tobytes()

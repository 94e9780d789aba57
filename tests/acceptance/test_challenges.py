"""Every challenge from artifact to score, in its published layout, in every engine."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from challenge_artifacts import DIM, STEPS, write_encoder, write_seer
from eeg_regressors import write_regressor
from small_artifacts import write_decoder, write_forecaster
from submission_helpers import python_or_skip
from torch_environment import environment_or_skip

from artifact.arrays import encode_npz
from submission.challenges import get, names

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
GENERATOR = np.random.default_rng(7)
EPISODES = {"s07e01a": 30, "s07e01b": 27}
SUBJECTS = ("sub-01", "sub-02", "sub-03", "sub-05")
CHANNELS = {"affi": 239, "beignet": 89}
FORECASTS = (
    ("affi", "test_data_affi"),
    ("affi", "test_data_affi_2024-03-20_private"),
    ("beignet", "test_data_beignet"),
    ("beignet", "test_data_beignet_2022-06-01_private"),
    ("beignet", "test_data_beignet_2022-06-02_private"),
)
Case = dict[str, Any]  # the submission's YAML


def write(folder: Path, name: str, **arrays: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.npz").write_bytes(encode_npz(arrays))


def normal(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape).astype(np.float32)


def neural_forecasting(folder: Path) -> Case:
    """Both monkeys' channel counts; float32 windows whose hidden steps repeat the last seen."""
    models = {
        name: str(write_forecaster(folder / name, channels=count, name=f"published-{name}"))
        for name, count in CHANNELS.items()
    }
    for rows, (subject, name) in enumerate(FORECASTS, 3):
        whole = 100 + 40 * normal(rows, 20, CHANNELS[subject], 9)
        masked = whole.copy()
        masked[:, 10:] = masked[:, 9:10]
        write(folder / "data" / "reference_data", name, arr_0=whole)
        write(folder / "data" / "input_data", f"{name}_masked", arr_0=masked)
    return {"models": models}


def eeg2025(folder: Path) -> Case:
    """Windows of 129 channels and 200 samples; one artifact for both challenges."""
    for name in ("challenge_1", "challenge_2"):
        write(folder / "data" / "input_data", name, arr_0=normal(9, 129, 200))
        write(folder / "data" / "reference_data", name, arr_0=normal(9, 1))
    return {"artifact": str(write_regressor(folder / "regressor", channels=129, samples=200))}


def algonauts2025(folder: Path) -> Case:
    """A thousand parcels of four subjects; predictions are made here."""
    for episode, rows in EPISODES.items():
        write(folder / "data" / "input_data", episode, stimulus=normal(rows, STEPS, DIM))
        for subject in SUBJECTS:
            reference = normal(rows, 1000)
            write(folder / "data" / "reference_data", f"{subject}_{episode}", arr_0=reference)
    return {
        "challenge": {
            "name": "algonauts2025",
            "target_samples": {subject: dict(EPISODES) for subject in SUBJECTS},
        },
        "artifact": str(write_encoder(folder / "encoder", parcels=1000)),
        "data": str(folder / "data" / "input_data"),
    }


def mouse_vs_ai(folder: Path) -> Case:
    """Grey frames of 86 by 155; the submission is the graph."""
    for name in ("one", "two"):
        frames = GENERATOR.random((200, 1, 86, 155)).astype(np.float16)
        write(folder / "data" / "input_data", name, arr_0=frames)
        spikes = GENERATOR.poisson(1.0, (200, 7)).astype(np.float32)
        write(folder / "data" / "reference_data", name, spikes=spikes)
    return {
        "challenge": {"name": "mouse_vs_ai", "recordings": ["one", "two"]},
        "models": {"main": str(write_seer(folder / "seer"))},
    }


def generic(folder: Path) -> Case:
    """Two modalities and a mask by name."""
    inputs = {
        "neural": normal(8, 20, 6, 1),
        "behavior": normal(8, 20, 2),
        "behavior_mask": GENERATOR.random((8, 20)) < 0.5,
    }
    write(folder / "data" / "input_data", "decoder", **inputs)
    write(folder / "data" / "reference_data", "decoder", probability=normal(8, 3))
    return {"models": {"decoder": str(write_decoder(folder / "decoder"))}}


CASES: dict[str, Callable[[Path], Case]] = {
    "neural_forecasting": neural_forecasting,
    "eeg2025": eeg2025,
    "algonauts2025": algonauts2025,
    "mouse_vs_ai": mouse_vs_ai,
    "generic": generic,
}
CODE = ("neural_forecasting", "eeg2025", "generic")  # the zip holds a program that is called
LAST_COLUMN = {
    "neural_forecasting": "total_MSR",
    "eeg2025": "overall",
    "algonauts2025": "mean",
    "mouse_vs_ai": "mean",
    "generic": "mse",
}


def axonnx(*words: object, cwd: Path) -> str:
    command = [sys.executable, ROOT / "axonnx.py", "submission", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(name: str, folder: Path) -> tuple[Path, list[str]]:
    """The zip of a challenge, built twice with the same bytes, and how a command is told of it."""
    config = {"challenge": {"name": name}, "python": ["3.10", "3.11"], **CASES[name](folder)}
    (folder / "submission.yaml").write_text(yaml.safe_dump(config))
    for output in ("first.zip", "second.zip"):
        axonnx("build", "submission.yaml", "--no-report", "--output", output, cwd=folder)
    assert (folder / "first.zip").read_bytes() == (folder / "second.zip").read_bytes()
    told = ["--config", "submission.yaml"] if name == "algonauts2025" else []
    return folder / "first.zip", told


def test_every_challenge_is_tested() -> None:
    assert set(CASES) == set(names())


@pytest.mark.parametrize("name", CASES)
def test_build_check_score_in_the_process_engine(name: str, tmp_path: Path) -> None:
    for version in ("3.10", "3.11"):
        python_or_skip(version)
    if name == "eeg2025":
        environment_or_skip(get(name).definition(get(name).settings(), ()).image)
    path, told = built(name, tmp_path)
    pythons = ("--python", "3.10", "--python", "3.11")
    said = axonnx("check", path, *told, *pythons, cwd=tmp_path)
    assert said.rstrip().endswith("passed")
    for version in ("3.10", "3.11"):
        assert f"✓ Python {version}: Finished twice" in said
    if name in CODE:
        assert said.count("every bit equal in two runs and to Model.predict") == 2
        assert "in a fresh process and here" in said
        assert re.search(
            r"Python 3.10: onnxruntime \S+ here is \S+ away, inside the manifest", said
        )
    row = axonnx("score", path, *told, "--data", "data", "--json", cwd=tmp_path)
    assert f'"{LAST_COLUMN[name]}"' in row
    table = axonnx("score", path, *told, "--data", "data", cwd=tmp_path)
    assert table.startswith(f"Finished: {name}")


@pytest.mark.docker
@pytest.mark.parametrize("name", CASES)
def test_check_and_score_in_the_docker_engine(name: str, tmp_path: Path) -> None:
    image = f"axonnx-codabench:{name}"
    words = ["docker", "build", "--quiet", "--network", "host", "--tag", image]
    words += ["--build-arg", f"CHALLENGE={name}", "--file", "docker/codabench.Dockerfile", "."]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    path, told = built(name, tmp_path)
    said = axonnx("check", path, *told, "--engine", "docker", cwd=tmp_path)
    assert said.rstrip().endswith("passed")
    assert "✓ docker: Finished twice" in said
    if name in CODE:
        assert "in a fresh process and here" in said
    words = ["score", path, *told, "--data", "data", "--json"]
    scored = {
        engine: axonnx(*words, "--engine", engine, cwd=tmp_path) for engine in ("docker", "process")
    }
    for text in scored.values():
        assert f'"{LAST_COLUMN[name]}"' in text

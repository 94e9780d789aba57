"""Real recordings: file, HTTP, submission and data set give the same bytes for the same windows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from server_process import running

import artifact
from artifact.arrays import decode_npy, decode_npz, encode_npy, encode_npz
from recording.opening import open_recording
from trainer.config import load_config
from trainer.data import Dataset, load_dataset

ROOT = Path(__file__).resolve().parents[2]
NPY = "application/x-npy"
EEG = {
    "name": "recording",
    "path": "${AXONNX_DATA}/eeg_eeglab/eeglab_data.set",
    "preparation": [
        {"step": "segment", "first": 89, "length": 385},
        {"step": "filter", "low": 0.5, "high": 40.0, "order": 2},  # outside the graph
        {"step": "declare", "unit": "µV"},
        {"step": "select", "names": ["F*", "C*", "P*", "O*"]},
        {"step": "clip", "around": "median", "by": 100.0},
    ],
    "window": 20,
    "split": {"by": "segment"},
}
GRIP = {
    "name": "recording",
    "path": "${AXONNX_DATA}/gripforce",
    "task": "decode",
    "preparation": [
        {"step": "declare", "unit": "µV", "factor": 1e-6},
        {"step": "bands", "edges": [4, 12, 35, 90, 200], "smoothing": 0.5, "potential": False},
        {"step": "resample", "rate": 10.0},
        {"step": "align", "gap": 0.2},
    ],
    "window": 5,
    "stride": {"train": 1, "validation": 1, "test": 1},
    "split": {"by": "time", "train": 0.6, "validation": 0.15, "test": 0.25},
}
SHORT = {"max_steps": 12, "epochs": 1, "device": "cpu", "threads": 1}
RUNS: dict[str, dict[str, Any]] = {
    "linear": {"data": EEG, "model": {"name": "linear"}, "training": SHORT},
    "patchformer": {"data": EEG, "model": {"name": "patchformer"}, "training": SHORT},
    "readout": {"data": GRIP, "model": {"name": "linear_readout"}, "training": SHORT},
}


def axonnx(*words: object, cwd: Path, **environment: str) -> str:
    """Run one command as a user does; its output."""
    done = subprocess.run(
        [sys.executable, ROOT / "axonnx.py", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train(folder: Path, name: str, **environment: str) -> Path:
    """The run folder of one of `RUNS`, trained in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(RUNS[name]))
    axonnx("train", f"{name}.yaml", "--output", "run", cwd=folder, **environment)
    return folder / "run"


def answers_in(path: Path) -> np.ndarray:
    """The predicted numbers of a table, (row, output) float32."""
    with np.load(path) as table:  # its names are text, which an artifact's arrays never are
        return np.asarray(table["prediction"])


def as_table(answer: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Answers (batch, …) as the rows of a table of predictions: of a forecast what is ahead."""
    if answer.ndim == 3:
        answer = answer[:, dataset.test.observed :]
    return answer.reshape(-1, answer.shape[-1])


def submitted(folder: Path, model: Path, windows: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a submission of the artifact answers, run by the worker on this machine."""
    config = {
        "challenge": {"name": "generic"},
        "models": {"mine": str(model)},
        "python": ["3.11"],
        "output": "submission.zip",
    }
    (folder / "submission.yaml").write_text(yaml.safe_dump(config))
    (folder / "data").mkdir()
    (folder / "data" / "mine.npz").write_bytes(encode_npz(dict(windows)))
    axonnx("submission", "build", "submission.yaml", "--no-report", cwd=folder)
    words = ("--data", "data", "--output", "out")
    axonnx("submission", "predict", "submission.zip", *words, cwd=folder)
    (answer,) = decode_npz((folder / "out" / "mine.predictions.npz").read_bytes()).values()
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_file_http_submission_and_data_set_give_the_same_bytes(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    run = train(tmp_path, name)
    file = shared_data / RUNS[name]["data"]["path"].removeprefix("${AXONNX_DATA}/")
    model = artifact.load(run / "artifact")
    dataset = load_dataset(load_config(run / "config.yaml", []).data)
    inputs = dataset.test.outside().batch(slice(None)).inputs
    (windows,) = inputs.values()
    (want,) = model.predict(inputs).values()
    assert np.isfinite(want).all()
    assert want.std() > 0

    plan = model.manifest.provenance["data"]["plan"]
    first = open_recording(file).neural
    if name != "readout":
        # The graph selects and clips: what goes in are the file's own channels.
        assert plan["graph_steps"] == 3
        assert model.manifest.inputs[0].shape[2] == len(first.channels) == windows.shape[2]
        assert want.shape[2] < len(first.channels)
        assert [channel["name"] for channel in plan["channels"]] == list(first.names)

    part = ("--part", "test", "--output")
    axonnx("predict", "run/artifact", file, *part, "file.npz", cwd=tmp_path)
    tables = {"file": answers_in(tmp_path / "file.npz")}
    with running(tmp_path, run / "artifact") as server:
        axonnx("call", server.url, file, *part, "http.npz", cwd=tmp_path)
        headers = {"Content-Type": NPY, "Accept": NPY}
        posted = server.client.post("/predict", content=encode_npy(windows), headers=headers)
        assert posted.headers["X-Artifact-Id"] == model.id
    tables["file over HTTP"] = answers_in(tmp_path / "http.npz")
    tables["windows over HTTP"] = as_table(decode_npy(posted.content), dataset)
    tables["submission"] = as_table(submitted(tmp_path, run / "artifact", inputs), dataset)
    rows = as_table(want, dataset)
    for way, table in tables.items():
        assert (table.dtype, table.shape) == (rows.dtype, rows.shape), way
        assert table.tobytes() == rows.tobytes(), way
    assert (tmp_path / "file.npz").read_bytes() == (tmp_path / "http.npz").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_trainings_in_two_folders_give_the_same_artifact(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    source = RUNS[name]["data"]["path"].removeprefix("${AXONNX_DATA}/").split("/")[0]
    elsewhere = tmp_path / "a" / "deeper" / "data"
    shutil.copytree(shared_data / source, elsewhere / source)
    first = train(tmp_path / "one", name)
    second = train(tmp_path / "a" / "deeper", name, AXONNX_DATA=str(elsewhere))
    found = [
        {path.name: path.read_bytes() for path in sorted((run / "artifact").iterdir())}
        for run in (first, second)
    ]
    assert found[0].keys() == found[1].keys()
    for file, content in found[0].items():
        assert content == found[1][file], file
        assert str(tmp_path).encode() not in content, file
        assert str(shared_data).encode() not in content, file

"""What a user gets who installed only some of the extras: environments that hold nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_artifacts import write_forecaster

ROOT = Path(__file__).resolve().parents[2]


def install(folder: Path, extras: str) -> Path:
    """The `axonnx` command of a fresh environment with these extras."""
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [*uv, "pip", "install", "--quiet", "--python", python, f"{ROOT}{extras}"],
        check=True,
        cwd=ROOT,
    )
    return folder / "bin" / "axonnx"


def run(command: Path, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False
    )


TRAINER = (
    *("train", "prepare", "runs", "evaluate", "export", "models", "datasets", "import-legacy"),
    "quickstart",
)


@pytest.mark.slow
def test_with_serve_alone(tmp_path: Path) -> None:
    axonnx = install(tmp_path / "environment", "[serve]")
    for word in ("serve", "verify", "inspect", "predict"):
        done = run(axonnx, word, "somewhere", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "--extra cpu" in done.stderr
        assert "Traceback" not in done.stderr
    config = tmp_path / "run.yaml"
    config.write_text("model:\n  name: gru\n")
    for word in TRAINER:
        done = run(axonnx, word, config, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert f"`axonnx {word}`" in done.stderr
        assert "uv sync --extra trainer --extra cpu" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_with_serve_and_cpu(tmp_path: Path) -> None:
    axonnx = install(tmp_path / "environment", "[serve,cpu]")
    folder = write_forecaster(tmp_path / "artifact")
    done = run(axonnx, "verify", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run(axonnx, "serve", "--help", cwd=tmp_path).returncode == 0
    done = run(axonnx, "submission", "check", "x.zip", cwd=tmp_path)
    assert done.returncode == 2
    assert "uv sync --extra submission --extra cpu" in done.stderr
    done = run(axonnx, "train", "x.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "uv sync --extra trainer --extra cpu" in done.stderr
    listing = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "list", "--python", tmp_path / "environment"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "torch" not in listing


@pytest.mark.slow
def test_with_nothing(tmp_path: Path) -> None:
    axonnx = install(tmp_path / "environment", "")
    assert run(axonnx, "--help", cwd=tmp_path).returncode == 0
    for word in ("verify", "serve", "submission", "train"):
        done = run(axonnx, word, "x", cwd=tmp_path)
        assert done.returncode == 2
        assert "uv sync --extra" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_with_trainer_and_cpu(tmp_path: Path) -> None:
    """Mistakes end with 2 and one line; what serves and submits is asked for before training."""
    axonnx = install(tmp_path / "environment", "[trainer,cpu]")
    (tmp_path / "bad.yaml").write_text("data: {name: synthetic\nmodel: [\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.yaml").write_text("data: {name: synthetic\n")
    (tmp_path / "damaged" / "metrics.jsonl").write_text("")
    artifact = write_forecaster(tmp_path / "artifact")
    mistakes = {
        "train bad.yaml --bogus": "--bogus",
        "train none.yaml": "none.yaml",
        "train bad.yaml": "bad.yaml:2",
        "evaluate artifact --bogus": "--bogus",
        "evaluate none": "none",
        f"evaluate {artifact} --config bad.yaml": "bad.yaml:2",
        "export damaged --bogus": "--bogus",
        "export none": "none",
        "export damaged": "config.yaml:",
        "prepare bad.yaml --bogus": "--bogus",
        "prepare none.yaml": "none.yaml",
        "prepare bad.yaml": "bad.yaml:2",
    }
    for words, expected in mistakes.items():
        done = run(axonnx, *words.split(), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), (words, done.stdout, done.stderr)
        assert expected in done.stderr, words
        assert "Traceback" not in done.stderr, words
        assert "--extra" not in done.stderr, words
    done = run(axonnx, "quickstart", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "fastapi, uvicorn, pydantic_settings, orjson, uv" in done.stderr
    assert "uv sync --extra trainer --extra cpu --extra serve --extra submission" in done.stderr
    assert not (tmp_path / "runs").exists()

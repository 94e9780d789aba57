from __future__ import annotations

import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from server_process import running

import artifact
import axonnx as axonnx_main
from artifact.arrays import decode_npz, encode_npz
from trainer import cli, pipeline
from trainer.config import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
data: {name: synthetic, channels: 3, samples: 600}
model: {name: gru, hidden_size: 4}
training: {epochs: 2, batch_size: 32, device: cpu, threads: 1}
"""
MAIN = "import sys; from trainer.cli import main; sys.exit(main(sys.argv[1:]))"
AXONNX = [sys.executable, "-c", MAIN]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "small.yaml").write_text(CONFIG)
    return Path("small.yaml")


def axonnx(*words: object) -> int:
    """Run a command in this process; argparse leaves by SystemExit, as for a user."""
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as left:
        return int(left.code or 0)


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_from_config_to_artifact_and_back(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """train, runs, export, evaluate: each finds what the one before has left."""
    assert axonnx("train", config, "--seed", "3", "--resume") == 0
    out = capsys.readouterr().out
    run = Path("runs/small")
    assert "runs/small holds nothing to continue: begun anew" in out
    for word in ("test", "mse_raw", "axonnx serve runs/small/artifact", "axonnx evaluate"):
        assert word in out
    assert out.count("epoch ") >= 3
    assert "axonnx submission build" in out
    found = files(run)
    for name in ("config.yaml", "metrics.jsonl", "loss.png", "forecast.png"):
        assert name in found
    assert b"seed: 3" in found["config.yaml"]
    assert found["loss.png"][:4] == found["forecast.png"][:4] == b"\x89PNG"

    assert axonnx("train", config, "--seed", "3") == 2
    assert "--resume" in capsys.readouterr().err
    assert files(run) == found

    assert axonnx("export", "small") == 0
    assert axonnx("export", "small", "--checkpoint", "last") == 0
    assert axonnx("export", "small", "--checkpoint", "last", "--output", "elsewhere/a") == 0
    last = {f"artifact-last/{name}": data for name, data in files(Path("elsewhere/a")).items()}
    assert files(run) == {**found, **last}
    capsys.readouterr()
    assert axonnx("export", "small", "--output", "elsewhere/a") == 2
    assert "elsewhere/a exists" in capsys.readouterr().err
    assert axonnx("runs", "list") == 0
    assert axonnx("runs", "show", "small") == 0
    assert axonnx("runs", "compare", "small", "runs/small") == 0
    assert Path("runs/compare.png").read_bytes()[:4] == b"\x89PNG"
    assert "hidden_size: 4" in capsys.readouterr().out

    assert axonnx("evaluate", run / "artifact") == 0
    assert "persistence" in capsys.readouterr().out
    report = json.loads((run / "evaluation" / "report.json").read_text())
    assert report["models"][0]["mse"] > 0


@pytest.mark.slow
def test_artifacts_do_not_know_where_they_were_made(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two working directories, two outputs, one config: equal files."""
    runs = []
    for name, output in (("here", "runs/x"), ("there/far", "y")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        path = os.path.relpath(tmp_path / config, folder)
        assert axonnx("train", path, "--output", output) == 0
        runs.append(files(folder / output))
    assert runs[0] == runs[1]
    assert "artifact/manifest.json" in runs[0]
    for data in runs[0].values():
        assert str(tmp_path).encode() not in data


@pytest.mark.slow
def test_two_processes_make_the_same_artifact(config: Path, tmp_path: Path) -> None:
    """Fresh processes, hash seeds and folders differ; the patchformer draws random numbers."""
    config.write_text(
        CONFIG.replace("{name: gru, hidden_size: 4}", "{name: patchformer, width: 8, heads: 2}")
    )
    runs = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [*AXONNX, "train", str(tmp_path / config), "--output", f"run{seed}"],
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        runs.append(files(folder / f"run{seed}"))
    assert runs[0] == runs[1]


def test_two_inputs_and_a_class_from_train_to_evaluation(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "configs" / "decoding.yaml").read_text()
    config.write_text(text.replace("epochs: 20", "epochs: 1"))
    assert axonnx("train", config, "--data.trials", "100", "--training.threads", "1") == 0
    assert axonnx("evaluate", "runs/small/artifact", "--output", "report") == 0
    assert "accuracy" in capsys.readouterr().out
    assert Path("report/report.png").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train"], "usage: axonnx train CONFIG"),
        (["train", "none.yaml"], "none.yaml: no such file"),
        (["train", "small.yaml", "--bogus", "1"], "--bogus"),
        (["train", "small.yaml", "--resume", "--overwrite"], "not allowed with"),
        (["train", "small.yaml", "--training.epochs"], "--training.epochs needs a value"),
        (["train", "small.yaml", "--training.epochs", "--resume"], "needs a value"),
        (["train", "small.yaml", "--training.epochs", "many"], "training.epochs"),
        (["train", "small.yaml", "--training.epoch", "3"], "epochs"),
        (["train", "small.yaml", "--model.name", "grue"], "did you mean"),
        (["train", "small.yaml", "--output", "small.yaml"], "is a file"),
        (["runs"], "usage: axonnx runs"),
        (["runs", "show", "none"], "no run 'none'"),
        (["runs", "compare"], "RUN"),
        (["export", "none"], "no run 'none'"),
        (["evaluate", "none"], "no such file or folder"),
        (["prepare", "none.yaml"], "no such file"),
        (["models", "grue"], "did you mean 'gru'?"),
        (["datasets", "uecog"], "valid: array"),
        (["import-legacy"], "--weights"),
        (["import-legacy", "--weights", "a", "--statistics", "b", "--output", "c"], "no such file"),
        (["quickstart", "--fast"], "--fast"),
    ],
)
def test_mistakes_exit_2_and_say_where(
    words: list[str], expected: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert axonnx(*words) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert not Path("runs").exists()


def test_bad_yaml_is_named_by_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CONFIG + "training: {}\n")
    assert axonnx("train", config) == 2
    assert "small.yaml:5" in capsys.readouterr().err


@pytest.mark.parametrize("word", sorted(cli.COMMANDS))
def test_every_command_has_help_with_an_example(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert axonnx(word, "--help") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"usage: axonnx {word}" in out
    assert f"example: axonnx {word}" in out


def test_models_and_datasets(capsys: pytest.CaptureFixture[str]) -> None:
    assert axonnx("models") == 0
    out = capsys.readouterr().out
    for name in ("gru", "linear", "patchformer", "persistence"):
        assert name in out
    assert axonnx("models", "gru") == 0
    out = capsys.readouterr().out
    for word in ("hidden_size", "integer", "256", "≥ 1", "normalized | raw"):
        assert word in out
    assert axonnx("datasets") == 0
    assert "uecog_goose" in capsys.readouterr().out
    assert axonnx("datasets", "array") == 0
    out = capsys.readouterr().out
    for word in ("(required)", "split.by", "session", "list of string", "stride.train"):
        assert word in out


@pytest.mark.parametrize(
    ("argv", "overrides", "rest"),
    [
        (["x.yaml", "--a.b", "1"], [("a.b", "1")], ["x.yaml"]),
        (["--a.b", "1", "x.yaml"], [("a.b", "1")], ["x.yaml"]),
        (["--a.b=-1", "--seed", "-3"], [("a.b", "-1"), ("seed", "-3")], []),
        (["x.yaml", "--output=a.b", "--resume"], [], ["x.yaml", "--output=a.b", "--resume"]),
        (["./x.y", "--output", "a.b"], [], ["./x.y", "--output", "a.b"]),
    ],
)
def test_overrides_are_told_from_flags(
    argv: list[str], overrides: list[tuple[str, str]], rest: list[str]
) -> None:
    assert cli.split_overrides(argv) == (overrides, rest)


def test_faults_of_the_program_are_not_hidden(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "train_and_export", broken)
    with pytest.raises(ZeroDivisionError):
        axonnx("train", config)


def test_a_package_without_metadata_is_no_missing_extra(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        version("no-such-distribution")

    monkeypatch.setattr(pipeline, "train_and_export", broken)
    with pytest.raises(RuntimeError, match="no-such-distribution"):
        axonnx_main.main(["train", str(config)])


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(config: Path, tmp_path: Path) -> None:
    """A real SIGINT; the printed command then finishes the run."""
    many = "100000"
    words = ["train", str(config), "--training.epochs", many, "--training.patience", many]
    process = subprocess.Popen(
        [*AXONNX, *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with SIGINT ignored, and so would this one be.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "runs" / "small" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    command = f"axonnx {' '.join(words)} --resume"
    assert err.strip().endswith(f"to go on: {command}")
    assert "Traceback" not in err


def test_the_resume_command_can_be_pasted(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train_and_export", stopped)
    words = ["train", str(config), "--model.hidden_size", " 4 ", "--output", "my runs/it's"]
    assert axonnx(*words) == 130
    said = capsys.readouterr().err.partition("to go on: ")[2]
    assert shlex.split(said) == ["axonnx", *words, "--resume"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x[/y]", "x[old]", "x:dog:", "it's here"])
def test_paths_are_printed_as_they_are(
    name: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert axonnx("runs", "list", "--root", name) == 0
    assert f"no runs below {name};" in capsys.readouterr().out
    run = Path(name.replace("/", "")) / name.replace("/", "")
    assert axonnx("train", config, "--training.epochs", 1, "--output", run) == 0
    assert f"  axonnx serve {shlex.quote(f'{run}/artifact')}\n" in capsys.readouterr().out
    for words in (("list",), ("show", run), ("compare", run)):
        assert axonnx("runs", *words, "--root", run.parent) == 0
        assert run.name in capsys.readouterr().out
    assert axonnx("evaluate", run / "artifact") == 0
    assert f"/{run}/evaluation/report.md" in capsys.readouterr().out


RUNS = [
    path
    for path in sorted((ROOT / "configs").glob("*.yaml"))
    if not path.stem.startswith(("simulate_", "fit_"))  # those of networks have other sections
]


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_every_config_is_whole(path: Path) -> None:
    asked_for = [("data.rate", "250")] if path.stem == "array" else []
    config = load_config(path, asked_for)
    assert config.name == path.stem
    assert config.model.get("output_units", "raw") == "raw"
    again = Path(path).read_text()
    assert f"configs/{path.name}" in again, "it says how to run it"


def test_the_rate_of_ones_own_recording_is_asked_for(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("mine.npy", np.zeros((800, 3)))
    assert axonnx("train", ROOT / "configs" / "array.yaml", "--data.path", "mine.npy") == 2
    assert "data.rate: is missing" in capsys.readouterr().err


def test_a_recording_of_ones_own_down_to_a_served_forecast(config: Path, tmp_path: Path) -> None:
    """configs/array.yaml with a file: channel count, unit and rate of the artifact, same bytes."""
    values = np.random.default_rng(0).normal(size=(800, 3)).cumsum(axis=0)
    np.save("mine.npy", values)
    words = ["--data.path", "mine.npy", "--data.unit", "mV", "--data.rate", "100"]
    assert axonnx("train", ROOT / "configs" / "array.yaml", *words, "--model.name", "linear") == 0
    folder = Path("runs/array/artifact")
    model = artifact.load(folder)
    assert model.manifest.outputs[0].unit == "mV"
    assert model.manifest.config["data"]["path"] == "mine.npy"
    assert model.manifest.provenance["data"]["rate_hz"] == 100
    assert model.manifest.metrics["test_mse"] > 0
    neural = np.stack([values[start : start + 20, :, None] for start in range(0, 640, 20)])
    neural = neural.astype(np.float32)
    want = model.predict({"neural": neural})["forecast"]
    with running(tmp_path, folder) as server:
        answer = server.client.post(
            "/predict",
            content=encode_npz({"neural": neural}),
            headers={"Content-Type": "application/x-npz", "Accept": "application/x-npz"},
        )
    assert answer.headers["X-Artifact-Id"] == model.id
    assert decode_npz(answer.content)["forecast"].tobytes() == want.tobytes()

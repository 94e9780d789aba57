"""`axonnx fit`: what it writes, that it goes on to the same bytes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from artifact.bundle import read_manifest
from trainer import cli, fitting_command
from trainer.fitting_config import FittedSimulation
from trainer.simulation_config import load_simulation

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("fit_*.yaml"))
# The decay of linear nodes: found in a few steps by any method.
SMALL = """
network:
  node: {name: linear, gamma: {value: -0.02, fit: true}}
  nodes: 3
simulation: {duration: 40, dt: 1.0, start: {x: 1.0}, engine: plain}
fit:
  target: {simulate: {node.gamma: [-0.05, -0.05, -0.05]}}
  objectives: [{name: rmse}]
  learning_rate: 0.005
  steps: 25
  restarts: 2
  spread: 0.01
  export: false
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "small.yaml").write_text(SMALL)
    return Path("small.yaml")


def axonnx(*words: object) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as left:
        return int(left.code or 0)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_writes_values_and_pictures_and_goes_on_to_the_same_bytes(config, capsys, monkeypatch):
    assert axonnx("fit", config) == 0
    out = capsys.readouterr().out
    assert "node.gamma" in out
    found = files(Path("runs/small"))
    assert set(found) == set(fitting_command.OWN) - {"artifact"}
    fitted = json.loads(found["fitted.json"])
    assert fitted["values"]["node.gamma"]["value"] == pytest.approx(-0.05, rel=0.02)
    assert fitted["values"]["node.gamma"]["start"] == pytest.approx(-0.02)
    rows = [json.loads(line) for line in found["history.jsonl"].splitlines()]
    assert [row["restart"] for row in rows] == [0] * 26 + [1] * 26
    assert fitted["loss"] == min(row["loss"] for row in rows)
    assert found["convergence.png"][:4] == found["comparison.png"][:4] == b"\x89PNG"

    # The folder is taken; the config it holds makes the same bytes.
    assert axonnx("fit", config) == 2
    assert "--resume continues it" in capsys.readouterr().err
    assert axonnx("fit", "runs/small/config.yaml", "--output", "again", "--resume") == 0
    assert "again holds nothing to continue: begun anew" in capsys.readouterr().out
    assert files(Path("again")) == found


STOPPED = {
    "cma_es": ("predict_many", 7, ("--fit.steps", "9", "--fit.population", "6")),
    "adam": ("predict", 40, ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", STOPPED)
def test_a_stopped_fit_is_resumed(method, config, capsys):
    name, calls, settings = STOPPED[method]
    words = ("fit", config, "--fit.method", method, *settings)
    assert axonnx(*words, "--output", "whole") == 0
    predict = getattr(fitting_command.Problem, name)
    count = 0

    def stopped(own, argument):
        nonlocal count
        count += 1
        if count == calls:
            raise KeyboardInterrupt
        return predict(own, argument)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting_command.Problem, name, stopped)
        assert axonnx(*words, "--output", "stopped") == 130
    assert "--output stopped --resume" in capsys.readouterr().err
    assert set(files(Path("stopped"))) == {"config.yaml", "checkpoint.safetensors"}
    assert axonnx(*words, "--output", "stopped", "--resume", "--seed", "1") == 2
    assert "differs from this config" in capsys.readouterr().err
    assert axonnx(*words, "--output", "stopped", "--resume") == 0
    assert files(Path("stopped")) == files(Path("whole"))
    assert axonnx(*words, "--output", "stopped", "--overwrite") == 0
    assert files(Path("stopped")) == files(Path("whole"))


MISTAKES = {
    "unknown key": (("--fit.stepz", "1"), "unknown key; did you mean 'steps'?"),
    "unknown method": (("--fit.method", "adamm"), "must be one of adam, "),
    "unknown objective": (("--fit.objectives.0.name", "rmsee"), "did you mean 'rmse'?"),
    "setting of another": (("--fit.objectives.0.segment", "9"), "belongs to objective psd"),
    "two targets": (("--fit.target.file", "a.npy"), "needs one of file, hcp and simulate"),
    "nothing to fit": (("--network.node.gamma", "-1"), "no parameter of the network is fitted"),
    "no such readout": (("--fit.readout", "z"), "fit.readout: no 'z'; one of x"),
    "no such rate": (("--fit.rates.node", "2"), "'node' matches no parameter"),
    "no such truth": (("--fit.target.simulate.gamma", "1"), "gamma"),
}


def test_dotted_names_are_overridden(config, capsys):
    words = ("--fit.target.simulate.node.gamma", "-0.03", "--fit.rates.node.gamma", "0.5")
    assert axonnx("fit", config, *words, "--fit.steps", "2") == 0
    resolved = load_simulation(Path("runs/small/config.yaml"), [], FittedSimulation)
    assert resolved.fit.target.simulate == {"node.gamma": -0.03}
    assert resolved.fit.rates == {"node.gamma": 0.5}
    assert "no spread: the best of 2 starts" in capsys.readouterr().out


def test_a_fit_that_leads_nowhere_says_so(config, capsys):
    words = ("--fit.learning_rate", "1e30", "--fit.restarts", "1")
    assert axonnx("fit", config, *words, "--fit.steps", "2") == 0
    out = capsys.readouterr().out
    assert "start 0: step 2: the trajectory explodes" in out
    assert "no evaluation was better than the start" in out


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_ends_with_2(case, config, capsys):
    words, expected = MISTAKES[case]
    assert axonnx("fit", config, *words) == 2
    assert expected in capsys.readouterr().err


FILES = {
    "not there": (None, "series.npy: cannot be read: No such file"),
    "no array": (b"no array", "series.npy: is no array of numbers"),
    "another shape": (np.ones((40, 2)), "fit.target has 2 nodes, the network 3"),
    "another length": (np.ones((30, 3)), "must have one shape"),
    "one axis": (np.ones(40), "must be (time, node)"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_target(case, config, capsys):
    content, expected = FILES[case]
    if isinstance(content, bytes):
        Path("series.npy").write_bytes(content)
    elif content is not None:
        np.save("series.npy", content)
    text = SMALL.replace("{simulate: {node.gamma: [-0.05, -0.05, -0.05]}}", "{file: series.npy}")
    config.write_text(text)
    assert axonnx("fit", config) == 2
    assert expected in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_held_out_target_that_does_not_fit_is_told_before_the_fit(config, capsys):
    np.save("series.npy", np.ones((30, 3)))
    assert axonnx("fit", config, "--fit.held_out.file", "series.npy") == 2
    assert "fit.held_out: rmse: prediction (1, 40, 3)" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_fit_to_a_file_that_has_changed_is_not_resumed(config, capsys):
    text = SMALL.replace("{simulate: {node.gamma: [-0.05, -0.05, -0.05]}}", "{file: series.npy}")
    config.write_text(text)
    np.save("series.npy", np.ones((40, 3)))
    assert axonnx("fit", config, "--fit.steps", "2") == 0
    np.save("series.npy", np.zeros((40, 3)))
    assert axonnx("fit", config, "--fit.steps", "2", "--resume") == 2
    assert "left by another fit (parameters, target, " in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["npy", "csv", "npz"])
def test_a_series_of_a_file_is_fitted(suffix, config):
    series = np.exp(-0.05 * np.arange(1, 41))[:, None] * np.ones(3)
    path = Path(f"series.{suffix}")
    if suffix == "npy":
        np.save(path, series)
    elif suffix == "npz":
        np.savez(path, bold=series)
    else:
        np.savetxt(path, series, delimiter=",")
    text = SMALL.replace("{simulate: {node.gamma: [-0.05, -0.05, -0.05]}}", f"{{file: {path}}}")
    config.write_text(text)
    assert axonnx("fit", config, "--fit.restarts", "1", "--fit.method", "nelder_mead") == 0
    fitted = json.loads(Path("runs/small/fitted.json").read_bytes())
    assert fitted["values"]["node.gamma"]["value"] == pytest.approx(-0.05, rel=0.02)


def test_folders_of_something_else_are_left_alone(config, capsys):
    assert axonnx("fit", config, "--output", ".", "--overwrite") == 2
    assert "small.yaml and is no fit" in capsys.readouterr().err
    assert axonnx("fit", config, "--output", config) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_of_the_repository_are_valid(path):
    config = load_simulation(path, [], FittedSimulation)
    again = FittedSimulation.model_validate_json(json.dumps(config.resolved()))
    assert again == config


@pytest.mark.slow
def test_an_artifact_of_the_fitted_network(config):
    path = next(path for path in CONFIGS if path.stem == "fit_hopf")
    assert axonnx("fit", path, "--output", "hopf", "--fit.restarts", "1") == 0
    fitted = json.loads(Path("hopf/fitted.json").read_bytes())
    assert fitted["values"]["node.a"]["value"] == pytest.approx(1.5, rel=0.01)
    manifest = read_manifest(Path("hopf/artifact"))
    assert manifest.task == "simulate"
    assert manifest.metrics == {}, "the loss of the fit is of no held-out data"

"""From a config of `axonnx simulate` to an artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import artifact
from trainer import cli
from trainer.simulation_config import SimulationConfig, build, build_network, load_simulation
from trainer.simulation_export import export_simulation, network_settings

TEXT = """
name: three
seed: 9
network:
  node: {name: hopf, a: {value: 0.2, transform: positive}}
  connectome: {name: example_connectome}
  coupling: {name: diffusive, k: 0.1}
  noise: [{name: gaussian, sigma: 0.05}]
  speed: 10.0
simulation:
  duration: 200
  dt: 0.5
  sample_every: 2
  transient: 30
  inputs: {x: 0.02}
  monitors: [x]
observation: [{name: bold, monitor: y, period: 40.0, transient: 40}]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SimulationConfig:
    path = tmp_path_factory.mktemp("configs") / "three.yaml"
    path.write_text(TEXT)
    return load_simulation(path, [])


def test_the_settings_are_those_of_the_config(config: SimulationConfig) -> None:
    network = build_network(config.network)
    settings = network_settings(config, network)
    assert settings.parameters == ("node.a", "coupling.k")
    assert (settings.dt, settings.sample_every, settings.monitors) == (0.5, 2, ("x",))
    assert settings.observed == "y"
    assert settings.bold is not None
    assert settings.bold.period == 40.0
    assert network_settings(config, network, parameters=()).parameters == ()


def test_an_artifact_goes_on_from_the_transient(config: SimulationConfig, tmp_path: Path) -> None:
    network, simulator = build(config)
    metrics = {"fc_correlation": 0.5}
    path = export_simulation(config, tmp_path / "three", network=network, metrics=metrics)
    model = artifact.load(path)
    assert (model.manifest.name, model.manifest.model) == ("three", "hopf")
    assert model.manifest.metrics == metrics
    assert [spec.name for spec in model.manifest.outputs] == ["x", "bold"]
    stimulus = np.zeros((1, 100, network.nodes), np.float32)
    answer = model.predict({"stimulus": stimulus, "seed": np.array([9])})
    with torch.no_grad():
        settled = simulator.run(30.0, inputs={"x": 0.02}, seed=9)
        settled = type(settled.state)(
            settled.state.carry, settled.state.history, 0, settled.state.seed, settled.state.dt
        )
        run = simulator.run(50.0, inputs={"x": 0.02}, state=settled, sample_every=2)
    wanted = run["x"].numpy()
    np.testing.assert_allclose(answer["x"], wanted, rtol=0, atol=1e-4 * wanted.std())
    assert answer["bold"].shape == (1, 1, network.nodes)


def test_the_command_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(
        "network: {node: {name: hopf}, nodes: 2, noise: [{name: gaussian}]}\n"
        "simulation: {duration: 50, dt: 0.5}\n"
    )
    place = tmp_path / "artifact"
    command = ["simulate", str(path), "--output", str(tmp_path / "run"), "--export", str(place)]
    assert cli.main(command) == 0
    assert f"axonnx serve {place}" in capsys.readouterr().out
    assert artifact.load(place).manifest.task == "simulate"
    content = (place / "manifest.json").read_bytes()
    assert cli.main([*command, "--seed", "3"]) == 2
    assert "choose another --export" in capsys.readouterr().err
    assert (place / "manifest.json").read_bytes() == content

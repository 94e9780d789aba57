"""What a simulation's file may say, what it builds, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainer.config_document import ConfigError
from trainer.dynamics import NODES
from trainer.parameter_config import settings_of
from trainer.simulation_config import (
    SimulationConfig,
    build,
    load_simulation,
    run_arguments,
)

GOOD = """
network:
  node: {name: hopf, a: {value: 0.5, transform: bounded, low: 0, high: 2}, w: [0.2, 0.3]}
  nodes: 2
  noise:
    - name: gaussian
      sigma: 0.01
simulation:
  duration: 20
  dt: 0.5
  start: {x: 0.1, y: [0.0, 0.2]}
  inputs: {x: [0.0, 0.1]}
"""


def load(folder: Path, text: str, *overrides: tuple[str, str]) -> SimulationConfig:
    path = folder / "two.yaml"
    path.write_text(text)
    return load_simulation(path, list(overrides))


def test_builds_what_it_says(tmp_path):
    config = load(tmp_path, GOOD, ("--seed", "3"), ("--network.noise.0.sigma", "0.02"))
    network, simulator = build(config)
    assert (config.name, config.seed, network.nodes) == ("two", 3, 2)
    assert list(network.fitted()) == ["node.a"]
    param = network.node.a
    assert (param.transform.name, param.transform.high) == ("bounded", 2.0)
    values = network.values()
    assert float(values["node.a"].detach()) == pytest.approx(0.5)
    assert values["node.w"].tolist() == pytest.approx([0.2, 0.3])
    assert (values["node.beta"], values["noise.0.sigma"]) == (1.0, 0.02)
    run = simulator.run(**run_arguments(config))
    assert run["x"].shape == (1, 40, 2)
    assert torch.equal(run["x"], simulator.run(**run_arguments(config))["x"])
    driven = load(tmp_path, GOOD, ("--simulation.inputs.x", "0.0"))
    other = build(driven)[1].run(**run_arguments(driven))["x"]
    assert not torch.equal(other[..., 1], run["x"][..., 1])


def test_reads_back_what_it_writes(tmp_path):
    config = load(tmp_path, GOOD)
    again = load(tmp_path, config.to_yaml())
    assert again == config
    assert again.network.node["beta"] == 1.0


@pytest.mark.parametrize("name", NODES.names())
def test_every_node_can_be_named(name, tmp_path):
    text = f"network: {{node: {{name: {name}}}}}\nsimulation: {{duration: 1}}"
    network, _ = build(load(tmp_path, text))
    assert not network.fitted()
    assert set(NODES.get(name).parameter_names()) <= set(settings_of(NODES, name).model_fields)


MISTAKES = {
    "unknown section": ("netwrok: {}", "two.yaml:13: netwrok: unknown key; did you mean 'network'"),
    "unknown node": (
        ("hopf", "hpof"),
        "two.yaml:3: network.node.name: no neural mass 'hpof' (did you mean 'hopf'?); valid: ",
    ),
    "no node": (("name: hopf, ", ""), "network.node.name: must be the name of a neural mass: one"),
    "unknown parameter": (
        ("w: [", "wr: ["),
        "two.yaml:3: network.node.wr: unknown key of neural mass hopf; did you mean 'w'?",
    ),
    "of another node": (
        ("w: [0.2, 0.3]", "J: 3.0"),
        "two.yaml:3: network.node.J: ",
    ),
    "text for a parameter": (
        ("w: [0.2, 0.3]", "w: fast"),
        'two.yaml:3: network.node.w: is "fast"; input should be a valid number',
    ),
    "true for a parameter": (
        ("w: [0.2, 0.3]", "w: true"),
        "two.yaml:3: network.node.w: is true; input should be a valid number",
    ),
    "text in a list": (
        ("w: [0.2, 0.3]", "w: [0.2, x]"),
        'two.yaml:3: network.node.w.1: is "x"; input should be a valid number',
    ),
    "key of a parameter": (
        ("low: 0,", "lo: 0,"),
        "two.yaml:3: network.node.a.lo: unknown key of a parameter; did you mean 'low'?",
    ),
    "no bounds": (("low: 0, high: 2", "low: 0"), "transform bounded needs low and high"),
    "outside": (("value: 0.5", "value: 2.5"), "value 2.5 is outside (0.0, 2.0), the range of bou"),
    "transform": (
        ("transform: bounded", "transform: bound"),
        "network.node.a.transform: is \"bound\"; input should be 'identity', 'positive', 'bounded'",
    ),
    "key of a noise": (
        ("sigma: 0.01", "sgma: 0.01"),
        "two.yaml:7: network.noise.0.sgma: unknown key of noise gaussian; did you mean 'sigma'?",
    ),
    "unknown noise": (("gaussian", "gauss"), "two.yaml:6: network.noise.0.name: no noise 'gauss'"),
    "no duration": (("duration: 20\n", "\n"), "two.yaml:8: simulation.duration: is missing"),
    "negative step": (("dt: 0.5", "dt: -1"), "two.yaml:10: simulation.dt: is -1; input should be"),
    "unknown run key": (
        ("dt: 0.5", "step: 0.5"),
        "two.yaml:10: simulation.step: unknown key; vali",
    ),
    "scheme": (
        ("dt: 0.5", "scheme: rk5"),
        'two.yaml:10: simulation.scheme: is "rk5"; must be one of euler, heun',
    ),
    "transient": (
        ("dt: 0.5", "transient: 20"),
        "two.yaml:10: simulation.transient: is 20; leaves nothing of a duration of 20 ms",
    ),
    "input": (("inputs: {x: [0.0, 0.1]}", "inputs: {x: no}"), "two.yaml:12: simulation.inputs.x: "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_by_file_line_and_key(case, tmp_path):
    change, expected = MISTAKES[case]
    text = GOOD + change if isinstance(change, str) else GOOD.replace(*change)
    assert text != GOOD
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert expected in str(caught.value)
    assert "two.yaml" in str(caught.value)


def test_an_override_that_names_nothing_is_refused(tmp_path):
    for key, text in (
        (
            "network.noise.1.sigma",
            "--network.noise.1.sigma: network.noise is a list of 1, numbered",
        ),
        ("network.nodes.x", "--network.nodes.x: network.nodes is 2, which holds no keys"),
    ):
        with pytest.raises(ConfigError, match=text):
            load(tmp_path, GOOD, (key, "1"))


def test_more_sections_are_a_subclass(tmp_path):
    from pydantic import BaseModel

    class Fit(BaseModel):
        model_config = SimulationConfig.model_config
        steps: int = 10

    class FitConfig(SimulationConfig):
        fit: Fit = Fit()

    path = tmp_path / "fit.yaml"
    path.write_text(GOOD + "fit: {stps: 3}\n")
    with pytest.raises(ConfigError, match=r"fit.yaml:13: fit.stps: .* did you mean 'steps'"):
        load_simulation(path, [], FitConfig)
    path.write_text(GOOD + "fit: {steps: 3}\n")
    assert load_simulation(path, [], FitConfig).fit.steps == 3


def test_a_connectome_with_weights_and_speed_to_fit(tmp_path):
    text = """
network:
  node: {name: hopf}
  connectome: {name: example_connectome}
  coupling: {name: diffusive, k: {value: 0.1, transform: positive}}
  speed: {value: 10.0, transform: positive, low: 1.0}
  interpolate: true
  weights: {transform: symmetric}
simulation: {duration: 10}
"""
    network, _ = build(load(tmp_path, text))
    assert sorted(network.fitted()) == ["coupling.k", "speed", "weights"]
    assert network.labels[0] == "left frontal"
    fixed, _ = build(load(tmp_path, text, ("network.weights", "null")))
    assert torch.equal(fixed.values()["weights"], network.values()["weights"].detach())
    mistake = text.replace("example_connectome", "example")
    with pytest.raises(ConfigError, match=r"two.yaml:4: network.connectome.name: no connectome"):
        load(tmp_path, mistake)
    with pytest.raises(ConfigError, match=r"network.connectome.subjects: belongs to connectome n"):
        load(tmp_path, text, ("network.connectome.subjects", "[a]"))
    bare = text.replace("  connectome: {name: example_connectome}\n", "")
    with pytest.raises(ValueError, match="weights: need a connectome"):
        build(load(tmp_path, bare))


def test_coupling_needs_somebody_to_couple_to(tmp_path):
    text = GOOD.replace("  nodes: 2\n", "  nodes: 2\n  coupling: {name: diffusive, k: 2.0}\n")
    config = load(tmp_path, text)
    assert config.network.coupling["k"] == 2.0
    with pytest.raises(ValueError, match="coupling: needs a connectome"):
        build(config)

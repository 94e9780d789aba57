"""The Wilson–Cowan family: published points, one naming of weights, variants that meet the base."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.dynamics import NODES, Network, Node, Simulator, Trajectory
from trainer.dynamics.node import State
from trainer.dynamics.nodes import (
    WilsonCowan,
    WilsonCowanAdaptive,
    WilsonCowanDelayed,
    WilsonCowanDivisive,
    WilsonCowanDivisiveInput,
    WilsonCowanLinear,
    WilsonCowanNoSaturation,
    WilsonCowanSimplified,
    WilsonCowanSymmetric,
    WilsonCowanThreePopulation,
)
from trainer.dynamics.nodes.wilson_cowan import response

FAMILY = [name for name in NODES.names() if name.startswith("wilson_cowan")]
ACTIVITY = st.floats(0, 1)
DRIVE = st.floats(-2, 6)


def point(*values: float) -> State:
    return tuple(torch.full((1, 1), each, dtype=torch.float64) for each in values)


def moved(node: Node, e: float, i: float, drive: float = 0.0) -> list[float]:
    """E' and I' where every other state and input is 0, lagged inputs as the states are."""
    state = point(e, i, *(0.0,) * (len(node.states) - 2))
    sent = dict(zip(node.states, state, strict=True))
    input = list(point(drive, *(0.0,) * (len(node.inputs) - 1)))
    for name, (source, _) in node.lags.items():
        input[node.inputs.index(name)] = sent[source]
    return [each.item() for each in node.derivative(state, tuple(input))[:2]]


def runs(node: Node, dt: float = 0.1, duration: float = 100, **rest: object) -> Trajectory:
    simulator = Simulator(Network(node), dt, scheme="euler", dtype=torch.float64)
    return simulator.run(duration, **({"start": {"E": 0.1, "I": 0.1}} | rest))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILY)
def test_silence_is_a_fixed_point(name: str) -> None:
    node = NODES.build({"name": name})
    state, input = point(*(0.0,) * len(node.states)), point(*(0.0,) * len(node.inputs))
    assert all(each.item() == 0 for each in node.derivative(state, input))


def test_a_driven_pair_ends_at_the_published_point() -> None:
    run = runs(WilsonCowan(), inputs={"E": 1.25})
    assert run["E"][0, -1, 0].item() == pytest.approx(0.486256, abs=1e-6)
    assert run["I"][0, -1, 0].item() == pytest.approx(0.259808, abs=1e-6)


def test_the_published_oscillating_pair_oscillates() -> None:
    node = WilsonCowan(
        w_ee=16.0, w_ei=12.0, w_ie=15.0, w_ii=3.0, a_e=1.3, theta_e=4.0, a_i=2.0, theta_i=3.7
    )
    swing = runs(node, dt=0.2, duration=150, transient=100, inputs={"E": 1.25})["E"]
    assert swing.max() - swing.min() > 0.1
    quiet = runs(node, dt=0.2, duration=150, transient=100)["E"]
    assert quiet.max() - quiet.min() < 1e-3


@pytest.mark.parametrize("name", FAMILY)
def test_weights_are_named_target_before_source(name: str) -> None:
    node = NODES.build({"name": name})
    named = {"e": "E", "i": "I", "m": "M"}
    weights = [each for each in node.parameter_names() if each.startswith("w_") and len(each) == 4]
    assert len(weights) in (0, 4, 9)
    for weight in weights:
        onto, source = named[weight[2]], named[weight[3]]
        value = torch.tensor(node.values()[weight], dtype=torch.float64, requires_grad=True)
        active = gradient(node.having({weight: value}), value, source, 0.3)
        # It moves its target alone, by the sign of its source, and nothing where that is silent.
        for state, slope in active.items():
            sign = 0 if state != onto else -1 if source == "I" else 1
            assert math.copysign(bool(slope), slope) == sign, (weight, state)
        silent = gradient(node.having({weight: value}), value, source, 0.0)
        assert set(silent.values()) == {0.0}, weight


def gradient(node: Node, value: Tensor, source: str, activity: float) -> dict[str, float]:
    """How E', I' (and M') move with a weight where `source` has this activity, the rest 0.4."""
    level = {"E": 0.4, "I": 0.4, "M": 0.4} | {source: activity}
    state = point(*(level.get(name, 0.0) for name in node.states))
    input = {name: point(1.0)[0] for name in node.inputs}
    input |= {name: point(level[sent])[0] for name, (sent, _) in node.lags.items()}
    slopes = node.derivative(state, tuple(input[name] for name in node.inputs))
    found = dict.fromkeys(level, 0.0)
    for name, slope in zip(node.states, slopes, strict=True):
        if name in level and slope.requires_grad:
            (given,) = torch.autograd.grad(slope.sum(), value, retain_graph=True)
            found[name] = given.item()
    return found


@pytest.mark.parametrize("name", FAMILY)
def test_excitation_drives_inhibition_more_than_it_is_inhibited(name: str) -> None:
    values = NODES.build({"name": name}).values()
    if "w_ie" in values:
        assert values["w_ie"] > values["w_ei"]


@given(ACTIVITY, ACTIVITY, DRIVE)
def test_variants_meet_the_base_where_their_extensions_vanish(
    e: float, i: float, drive: float
) -> None:
    base = moved(WilsonCowan(), e, i, drive)
    unsaturated = moved(WilsonCowan(r=0.0), e, i, drive)
    assert moved(WilsonCowanNoSaturation(), e, i, drive) == pytest.approx(unsaturated, abs=1e-12)
    assert moved(WilsonCowanDelayed(), e, i, drive) == base
    assert moved(WilsonCowanAdaptive(), e, i, drive) == base
    assert moved(WilsonCowanThreePopulation(), e, i, drive) == base
    alike = {"a_e": 1.1, "a_i": 1.1, "theta_e": 3.4, "theta_i": 3.4}
    same = moved(WilsonCowan(**alike), e, i, drive)
    assert moved(WilsonCowanSymmetric(), e, i, drive) == same
    shared = moved(WilsonCowan(w_ee=8.0, w_ie=8.0, w_ei=12.0, w_ii=12.0), e, i, drive)
    assert moved(WilsonCowanSimplified(), e, i, drive) == pytest.approx(shared, abs=1e-12)
    uninhibited = {"w_ei": 0.0, "w_ii": 0.0}
    excited = moved(WilsonCowan(w_ee=6.0, w_ie=6.5, **uninhibited), e, i, drive)
    for kind in (WilsonCowanDivisive, WilsonCowanDivisiveInput):
        assert moved(kind(**uninhibited), e, i, drive) == pytest.approx(excited, abs=1e-12)


def test_the_linear_variant_at_a_point_worked_by_hand() -> None:
    # [0.8·0.5 − 0.3·0.2 + 0.1]₊ = 0.44 and [0.5 − 0.17]₊ = 0.33
    wanted = [-0.5 + 0.5 * 0.44, -0.2 + 0.8 * 0.33]
    assert moved(WilsonCowanLinear(), 0.5, 0.2, 0.1) == pytest.approx(wanted)
    assert moved(WilsonCowanLinear(), 0.5, 0.2, -9.0)[0] == pytest.approx(-0.5)


def test_divisive_inhibition_divides() -> None:
    e, i, drive = 0.4, 0.3, 1.0

    def sigmoid(x: float, slope: float, threshold: float) -> float:
        return 1 / (1 + math.exp(-slope * (x - threshold))) - 1 / (1 + math.exp(slope * threshold))

    answer = sigmoid(6 * e + drive, 1.2, 2.8) / (1 + 2 * i)
    other = sigmoid(6.5 * e, 1.0, 4.0) / (1 + 5.5 * i)
    wanted = [-e + (1 - e) * answer, -i + (1 - i) * other]
    assert moved(WilsonCowanDivisive(), e, i, drive) == pytest.approx(wanted)
    answer = sigmoid(6 * e / (1 + 2 * i) + drive, 1.2, 2.8)
    other = sigmoid(6.5 * e / (1 + 5.5 * i), 1.0, 4.0)
    wanted = [-e + (1 - e) * answer, -i + (1 - i) * other]
    assert moved(WilsonCowanDivisiveInput(), e, i, drive) == pytest.approx(wanted)


def test_without_delay_the_delayed_model_is_the_base_step_by_step() -> None:
    drive = {"inputs": {"E": 1.25}, "duration": 20}
    base = runs(WilsonCowan(), **drive)
    none = runs(WilsonCowanDelayed(d_ee=0.0, d_ei=0.0, d_ie=0.0, d_ii=0.0), **drive)
    assert torch.equal(base["E"], none["E"])
    assert torch.equal(base["I"], none["I"])
    late = runs(WilsonCowanDelayed(), **drive)
    assert (late["E"] - base["E"]).abs().max() > 1e-3


def test_each_delay_holds_back_its_own_path() -> None:
    paths = {"d_ee": "E", "d_ei": "E", "d_ie": "I", "d_ii": "I"}
    none = dict.fromkeys(paths, 0.0)
    start = runs(WilsonCowanDelayed(**none), duration=0.2, inputs={"E": 1.25, "I": 2.0})
    for name, onto in paths.items():
        late = runs(
            WilsonCowanDelayed(**none | {name: 1.0}), duration=0.2, inputs={"E": 1.25, "I": 2.0}
        )
        # The first step moves E and I alike; the second feels the path, at its target alone.
        changed = {state for state in ("E", "I") if not torch.equal(late[state], start[state])}
        assert changed == {onto}, name


def test_adaptation_follows_activity_and_quiets_it() -> None:
    drive = {"inputs": {"E": 1.25}, "dt": 0.25, "duration": 150}
    tired = runs(WilsonCowanAdaptive(b_e=30.0, tau_ae=20.0), transient=100, **drive)
    held = runs(WilsonCowan(), transient=100, **drive)
    assert tired["E"].mean() < 0.8 * held["E"].mean()
    weak = runs(WilsonCowanAdaptive(tau_ae=10.0, tau_ai=10.0), **drive)
    end = {name: weak[name][0, -1, 0] for name in weak.values}
    torch.testing.assert_close(end["adaptation_e"], 0.1 * end["E"], rtol=1e-5, atol=0)
    torch.testing.assert_close(end["adaptation_i"], 0.08 * end["I"], rtol=1e-5, atol=0)


@settings(max_examples=20)
@given(st.floats(0.1, 3), st.floats(-1, 6), st.floats(-50, 50))
def test_the_sigmoid_is_zero_at_zero_and_rises_between_its_bounds(
    slope: float, threshold: float, current: float
) -> None:
    values = response(
        torch.tensor([0.0, current, current + 1.0], dtype=torch.float64), slope, threshold
    )
    nothing = 1 / (1 + math.exp(slope * threshold))
    assert values[0] == 0
    assert values[2] >= values[1]
    assert -nothing <= values[1] <= 1 - nothing

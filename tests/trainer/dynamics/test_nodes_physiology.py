"""Physiological neural masses against figures known from their equations and from publications."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.dynamics import Connectome, Diffusive, Network, Simulator, Trajectory
from trainer.dynamics.node import Node
from trainer.dynamics.nodes import (
    CoombesByrne,
    Epileptor,
    JansenRit,
    LarterBreakspear,
    MontbrioPazoRoxin,
    WongWangDecision,
    WongWangExcInh,
)
from trainer.dynamics.nodes.wong_wang import softened_rectifier


def ran(node: Node, duration: float, dt: float, **arguments: Any) -> Trajectory:
    """A run in float64 without a compiled kernel, which short runs need not wait for."""
    scheme = arguments.pop("scheme", "exponential_euler")
    simulator = Simulator(Network(node), dt, scheme=scheme, engine="replay", dtype=torch.float64)
    return simulator.run(duration, **arguments)


def slopes(node: Node, *state: float, **inputs: float) -> list[float]:
    def number(value: float) -> Tensor:
        return torch.full((1, 1), value, dtype=torch.float64)

    drive = tuple(number(inputs.get(name, 0.0)) for name in node.inputs)
    return [float(each) for each in node.derivative(tuple(map(number, state)), drive)]


def test_jansen_rit_has_the_amplitude_known_for_150_synapses() -> None:
    eeg = ran(
        JansenRit(c=150.0), 600.0, 0.1, inputs={"E": 0.22}, transient=200.0, monitors=("eeg",)
    )["eeg"][0, :, 0]
    assert float((eeg - eeg.mean()).square().mean().sqrt()) == pytest.approx(4.3312, abs=5e-4)


@pytest.mark.slow
def test_jansen_rit_has_an_alpha_rhythm() -> None:
    arguments = {"inputs": {"E": 0.22}, "transient": 400.0, "monitors": ("eeg",)}
    run = ran(JansenRit(), 4400.0, 0.1, **arguments)
    assert run.units["eeg"] == "mV"
    eeg = run["eeg"][0, :, 0].numpy()
    eeg = eeg - eeg.mean()
    power = np.abs(np.fft.rfft(eeg)) ** 2
    hertz = np.fft.rfftfreq(len(eeg), 1e-4)
    assert hertz[power.argmax()] == pytest.approx(10.75, abs=0.01)
    assert eeg.std() == pytest.approx(1.295, abs=2e-3)
    assert np.ptp(eeg) == pytest.approx(4.86, abs=0.01)


def test_jansen_rit_answers_a_short_excitation_as_its_kernel_does() -> None:
    """Without synapses, an impulse of rate makes E = a_e b_e t exp(−b_e t): peak a_e/e at 1/b_e."""
    kick = torch.zeros(1, 800, 1)
    kick[0, 0] = 40.0  # of 0.025 ms, so that the integral over time is 1
    arguments = {"inputs": {"E": kick}, "scheme": "euler", "monitors": ("E",)}
    potential = ran(JansenRit(c=0.0), 20.0, 0.025, **arguments)["E"][0, :, 0]
    assert float(potential.max()) == pytest.approx(3.25 / math.e, rel=2e-3)
    assert int(potential.argmax()) * 0.025 == pytest.approx(10.0, abs=0.05)


def test_jansen_rit_fires_at_half_its_highest_rate_at_the_threshold() -> None:
    node = JansenRit()
    assert float(node.rate(torch.tensor(6.0))) == pytest.approx(0.0025)
    assert float(node.rate(torch.tensor(1e4))) == pytest.approx(0.005)
    assert float(node.rate(torch.tensor(-1e4))) == 0.0


FIXED_POINTS = ((0.081134, -1.96162), (0.472980, -0.336494), (1.030597, -0.154430))


@pytest.mark.parametrize("point", FIXED_POINTS)
def test_montbrio_pazo_roxin_rests_at_its_three_fixed_points(point: tuple[float, float]) -> None:
    assert slopes(MontbrioPazoRoxin(), *point) == pytest.approx([0.0, 0.0], abs=1e-4)


def test_montbrio_pazo_roxin_keeps_low_or_high_activity() -> None:
    low, _, high = FIXED_POINTS
    start = {"r": torch.tensor([[0.0], [1.2]]), "v": torch.tensor([[-2.0], [0.0]])}
    run = ran(MontbrioPazoRoxin(), 40.0, 0.05, scheme="heun", start=start)
    for member, end in enumerate((low, high)):
        found = [float(run[name][member, -1, 0]) for name in ("r", "v")]
        assert found == pytest.approx(end, abs=2e-5)


@pytest.mark.parametrize("tau", [0.5, 20.0])
def test_montbrio_pazo_roxin_slows_down_with_its_time_constant(tau: float) -> None:
    """τ r and v over t/τ do not depend on τ."""
    r, v, drive = 0.3, -0.7, 0.4
    unit = slopes(MontbrioPazoRoxin(), r, v, v=drive)
    slow = slopes(MontbrioPazoRoxin(tau=tau), r / tau, v, v=drive)
    assert [slow[0] * tau * tau, slow[1] * tau] == pytest.approx(unit)


def test_coombes_byrne_without_synapses_is_a_lorentzian_of_theta_cells() -> None:
    """κ = 0: the state at rest, w = π r + i v, solves w² = η − iΔ."""
    root = np.sqrt(complex(2.0, -1.0))
    point = (root.real / math.pi, root.imag)
    assert slopes(CoombesByrne(kappa=0.0), *point) == pytest.approx([0.0, 0.0], abs=1e-12)


def test_coombes_byrne_at_rest_has_its_conductance_balanced() -> None:
    run = ran(CoombesByrne(), 30.0, 0.05, scheme="rk4")
    r, v = (float(run[name][0, -1, 0]) for name in ("r", "v"))
    assert slopes(CoombesByrne(), r, v) == pytest.approx([0.0, 0.0], abs=1e-9)
    assert r > 0
    conductance = math.pi * r
    assert 1 / math.pi + (2 * v - conductance) * r == pytest.approx(0, abs=1e-9)
    assert v * v - conductance**2 + 2 + (-4 - v) * conductance == pytest.approx(0, abs=1e-9)


def test_wong_wang_rests_at_three_hertz() -> None:
    run = ran(WongWangExcInh(), 2000.0, 2.0, monitors=("S_e", "S_i", "H_e", "H_i"))
    found = [float(run[name][0, -1, 0]) for name in ("S_e", "S_i", "H_e", "H_i")]
    assert found == pytest.approx([0.164757, 0.039218, 3.0773, 3.9218], abs=5e-5)
    assert (run.units["S_e"], run.units["H_e"]) == ("1", "Hz")


def test_wong_wang_scales_what_comes_from_other_nodes() -> None:
    node = WongWangExcInh()
    told = slopes(node, 0.1, 0.05, current_e=2.0 * 0.15 * 0.3)
    assert slopes(node, 0.1, 0.05, coupling=0.3) == pytest.approx(told, rel=1e-12)
    both = WongWangExcInh(lamda=1.0)
    told = slopes(both, 0.1, 0.05, current_e=0.09, current_i=0.09)
    assert slopes(both, 0.1, 0.05, coupling=0.3) == pytest.approx(told, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_transfer_is_smooth_where_its_formula_is_nothing_over_nothing(
    dtype: torch.dtype,
) -> None:
    x = torch.tensor([0.0, 1e-6, -1e-6, 0.0624, 0.0626, -0.0626], dtype=dtype, requires_grad=True)
    rate = softened_rectifier(x, 0.16)
    (slope,) = torch.autograd.grad(rate.sum(), x)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    assert rate[0].item() == pytest.approx(1 / 0.16, rel=tolerance)
    assert slope[0].item() == pytest.approx(0.5, rel=tolerance)
    told = x.detach() / 2 + 1 / 0.16 + 0.16 * x.detach().square() / 12
    torch.testing.assert_close(rate.detach(), told, rtol=tolerance, atol=0)
    told = 0.5 + 0.16 * x.detach() / 6 - 0.16**3 * x.detach() ** 3 / 180
    torch.testing.assert_close(slope, told, rtol=10 * tolerance, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_transfer_is_finite_far_from_its_threshold(dtype: torch.dtype) -> None:
    x = torch.tensor([-1e5, -600.0, 600.0, 1e5], dtype=dtype, requires_grad=True)
    rate = softened_rectifier(x, 0.16)
    (slope,) = torch.autograd.grad(rate.sum(), x)
    torch.testing.assert_close(rate.detach(), torch.relu(x.detach()), rtol=1e-6, atol=1e-30)
    torch.testing.assert_close(slope, (x.detach() > 0).to(dtype), rtol=1e-6, atol=1e-30)


def test_gradients_of_wong_wang_are_finite_at_its_threshold() -> None:
    """x_e at b_e/a_e exactly: what the inputs add up to is where the quotient is 0/0."""
    node = WongWangExcInh()
    current = torch.tensor([[125.0 / 310.0 - 0.382]], dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    given = (nothing, current, nothing)
    rate = node.rates((nothing, nothing), given)[0]
    (slope,) = torch.autograd.grad(rate.sum(), current)
    assert float(rate.detach()) == pytest.approx(1 / 0.16)
    assert float(slope) == pytest.approx(155.0)


def reached(rates: Tensor) -> list[int]:
    """Time in ms, with dt 1 ms, at which each member's rate (batch, time, 1) is first 15 Hz."""
    return [int((own >= 15).nonzero()[0]) for own in rates[..., 0]]


def test_the_population_with_the_coherent_stimulus_decides_first() -> None:
    coherence = torch.tensor([0.512, 0.128, 0.0, -0.512])[:, None, None]
    arguments = {"inputs": {"coherence": coherence}, "monitors": ("S1", "S2", "r1", "r2")}
    run = ran(WongWangDecision(), 100.0, 1.0, **arguments)
    first, second = reached(run["r1"]), reached(run["r2"])
    assert first[0] < first[1] < first[2] == second[2]
    assert second[0] > second[1] > second[2]
    torch.testing.assert_close(run["S1"][0], run["S2"][3], rtol=1e-9, atol=1e-12)


def test_with_strong_inhibition_one_population_is_left() -> None:
    node = WongWangDecision(j_12=0.2, j_21=0.2)
    coherence = torch.tensor([0.032, -0.032])[:, None, None]
    run = ran(node, 800.0, 1.0, inputs={"coherence": coherence}, monitors=("r1", "r2"))
    assert (run["r1"][:, -1, 0] > 50).tolist() == [True, False]
    assert (run["r2"][:, -1, 0] > 50).tolist() == [False, True]
    assert torch.minimum(run["r1"], run["r2"])[:, -1].max() == 0


def test_a_stimulus_of_nothing_and_its_rate_as_input_equal_the_parameter() -> None:
    told = slopes(WongWangDecision(), 0.2, 0.1, coherence=0.3)
    shown = slopes(WongWangDecision(mu_0=0.0), 0.2, 0.1, coherence=0.3, stimulus=30.0)
    assert shown == pytest.approx(told, rel=1e-12)


def test_open_synapses_of_a_decision_stay_between_none_and_all() -> None:
    strong = torch.tensor([[[1e4]], [[-1e4]]])
    run = ran(WongWangDecision(), 50.0, 1.0, scheme="euler", inputs={"current_1": strong})
    assert float(run["S1"].max()) == 1.0
    assert float(run["S1"].min()) == 0.0


def test_coupling_of_decisions_is_a_current_and_no_coherence() -> None:
    weights = np.array([[0.0, 1.0], [1.0, 0.0]])
    network = Network(WongWangDecision(), Connectome(weights), coupling=Diffusive(k=0.1))
    simulator = Simulator(network, 1.0, scheme="euler", engine="plain", dtype=torch.float64)
    start = {"S1": torch.tensor([[0.1, 0.3]])}
    coupled = simulator.run(1.0, start=start)
    current = torch.tensor([[[0.02, -0.02]]])
    single = Network(WongWangDecision(), nodes=2)
    told = Simulator(single, 1.0, scheme="euler", engine="plain", dtype=torch.float64)
    run = told.run(1.0, start=start, inputs={"current_1": current})
    for name in ("S1", "S2"):
        torch.testing.assert_close(coupled[name], run[name], rtol=1e-6, atol=1e-9)


def test_the_epileptor_seizes_again_and_again_where_it_is_excitable() -> None:
    node = Epileptor(x0=torch.tensor([[-1.6], [-2.4]]), r=0.01)
    arguments = {"scheme": "heun", "monitors": ("z",), "sample_every": 10, "transient": 300.0}
    z = ran(node, 900.0, 0.1, **arguments)["z"][..., 0].numpy()
    swings = np.ptp(z, axis=1)
    assert swings[0] > 1.5
    assert swings[1] < 0.02
    high = z[0] > z[0].mean()
    assert np.sum(high[1:] & ~high[:-1]) >= 2


def test_the_epileptor_has_its_branches() -> None:
    node = Epileptor()
    interictal = slopes(node, -1.0, 0.0, 3.0, 0.5, 0.0, 0.0)
    assert interictal == pytest.approx(
        [-3 + 3.1 + 4, -4.0, 0.00035 * (2.4 - 3), 0.5 - 0.125 + 0.45 + 0.15, 0.45, -0.001]
    )
    ictal = slopes(node, 0.5, 0.0, -1.0, -0.5, 0.0, 0.0)
    assert ictal[0] == pytest.approx(1 + 3.1 + (0.5 + 0.6 * 25) * 0.5)
    assert ictal[2] == pytest.approx(0.00035 * (8.4 + 0.1 + 1))
    assert ictal[4] == 0.0
    modified = slopes(Epileptor(modification=1.0), -0.5, 0.0, 3.0, 0.0, 0.0, 0.0)
    assert modified[2] == pytest.approx(0.00035 * (-1.6 + 1.5 - 3))


def test_the_field_potential_is_the_difference_of_the_epileptors_subsystems() -> None:
    run = ran(Epileptor(), 1.0, 0.1, monitors=("x1", "x2", "lfp"))
    torch.testing.assert_close(run["lfp"], run["x2"] - run["x1"])


def test_epileptors_are_coupled_only_where_they_are_told_to() -> None:
    alone = slopes(Epileptor(), -1.0, 0.0, 3.0, 0.5, 0.0, 0.0)
    deaf = slopes(Epileptor(), -1.0, 0.0, 3.0, 0.5, 0.0, 0.0, coupling_1=2.0, coupling_2=3.0)
    assert deaf == alone
    open_ = slopes(
        Epileptor(k_vf=0.5, k_s=-1.0, k_f=0.1),
        *(-1.0, 0.0, 3.0, 0.5, 0.0, 0.0),
        coupling_1=2.0,
        coupling_2=3.0,
    )
    assert np.subtract(open_, alone) == pytest.approx([1.0, 0, -0.0007, 0.3, 0, 0], abs=1e-12)


def test_larter_breakspear_rests_turns_or_wanders_with_the_width_of_its_threshold() -> None:
    """Runs that begin 1e-6 apart: where the node is chaotic they do not stay together."""
    node = LarterBreakspear(d_v=torch.tensor([0.5, 0.5, 0.57, 0.65, 0.65])[:, None])
    apart = 1e-6 * torch.tensor([0, 1, 0, 0, 1], dtype=torch.float64)[:, None]
    arguments = {"scheme": "heun", "start": {"V": 0.1 + apart}, "monitors": ("V",)}
    v = ran(node, 1500.0, 0.5, transient=700.0, **arguments)["V"][..., 0]
    swing = v.amax(dim=1) - v.amin(dim=1)
    assert swing[0] < 1e-3
    assert swing[2] > 0.1
    assert (v[0] - v[1]).abs().max() < 1e-4
    assert (v[3] - v[4]).abs().max() > 0.1


def test_larter_breakspear_shares_its_excitation_between_itself_and_others() -> None:
    """Other nodes that fire as the node itself does make c vanish from the equations."""
    state = (0.1, 0.2, 0.1)
    rate = float(LarterBreakspear().rate(torch.tensor(0.1, dtype=torch.float64)))
    for c in (0.0, 0.1, 0.7):
        told = slopes(LarterBreakspear(c=c), *state, coupling=rate)
        assert told == pytest.approx(slopes(LarterBreakspear(c=0.0), *state), rel=1e-9)

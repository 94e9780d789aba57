"""Wong–Wang models: an excitatory and an inhibitory population, and two that decide."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.dynamics.node import Node, State, Value, node, parameter

HZ, NA = "Hz", "nA"


def softened_rectifier(x: Tensor, d: float | Tensor) -> Tensor:
    """x/(1 − exp(−d x)), 1/d at x = 0; finite with its gradient at every x."""
    z = d * x
    near = z.abs() < 1e-2
    safe = torch.where(near, torch.ones_like(z), z)
    # For large −z the plain quotient is finite, but its gradient is ∞/∞.
    size = safe.abs()
    quotient = size * torch.exp(torch.clamp(safe, max=0.0)) / -torch.expm1(-size)
    square = z * z
    series = 1 + z / 2 + square / 12 - square * square / 720
    return torch.where(near, series, quotient) / d


@node("wong_wang_exc_inh")
class WongWangExcInh(Node):
    """Open synapses of an excitatory (NMDA) and an inhibitory (GABA) population.

    S_e' = −S_e/τ_e + γ_e (1 − S_e) H(a_e x_e − b_e; d_e),
    S_i' = −S_i/τ_i + γ_i H(a_i x_i − b_i; d_i),
    x_e = w_p J_n S_e − J_i S_i + w_e I_o + G J_n I_coupling + I_ext + I_current_e,
    x_i = J_n S_e − S_i + w_i I_o + λ G J_n I_coupling + I_current_i,
    H(x; d) = x/(1 − exp(−d x)).

    The outputs H_e and H_i are the rates in Hz without inputs. The input "coupling" is the sum of
    other nodes' S_e, which G scales; current_e and current_i are in nA.
    Source: Deco et al. 2014, J. Neurosci. 34:7886, after Wong and Wang 2006, ibid. 26:1314.
    """

    states = ("S_e", "S_i")
    inputs = ("coupling", "current_e", "current_i")
    start = {"S_e": 0.001, "S_i": 0.001}
    outputs = ("H_e", "H_i")
    state_units = {"H_e": HZ, "H_i": HZ}
    source = "Deco et al. 2014, J. Neurosci. 34:7886; Wong and Wang 2006, J. Neurosci. 26:1314"

    a_e: Value = parameter(310.0, "Hz/nA", "gain of the excitatory rate")
    b_e: Value = parameter(125.0, HZ, "threshold of the excitatory rate")
    d_e: Value = parameter(0.16, "s", "sharpness of the excitatory threshold")
    gamma_e: Value = parameter(0.000641, "1/(ms Hz)", "opening of excitatory synapses per rate")
    tau_e: Value = parameter(100.0, "ms", "decay of excitatory synapses")
    w_p: Value = parameter(1.4, "1", "weight of the local excitation of itself")
    w_e: Value = parameter(1.0, "1", "share of I_o that the excitatory population gets")
    a_i: Value = parameter(615.0, "Hz/nA", "gain of the inhibitory rate")
    b_i: Value = parameter(177.0, HZ, "threshold of the inhibitory rate")
    d_i: Value = parameter(0.087, "s", "sharpness of the inhibitory threshold")
    gamma_i: Value = parameter(0.001, "1/(ms Hz)", "opening of inhibitory synapses per rate")
    tau_i: Value = parameter(10.0, "ms", "decay of inhibitory synapses")
    w_i: Value = parameter(0.7, "1", "share of I_o that the inhibitory population gets")
    j_n: Value = parameter(0.15, NA, "current through excitatory synapses")
    j_i: Value = parameter(1.0, NA, "current through inhibitory synapses")
    i_o: Value = parameter(0.382, NA, "current from elsewhere")
    i_ext: Value = parameter(0.0, NA, "further current into the excitatory population")
    g: Value = parameter(2.0, "1", "global coupling")
    lamda: Value = parameter(
        0.0, "1", "share of the coupling that reaches the inhibitory population"
    )

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (S_e, S_i), input (coupling, current_e, current_i)."""
        s_e, s_i = state
        rate_e, rate_i = self.rates(state, input)
        return (
            self.gamma_e * (1 - s_e) * rate_e - s_e / self.tau_e,
            self.gamma_i * rate_i - s_i / self.tau_i,
        )

    def rates(self, state: State, input: State) -> State:
        """Rates in Hz of the excitatory and the inhibitory population."""
        s_e, s_i = state
        coupled = self.g * self.j_n * input[0]
        excited = self.w_p * self.j_n * s_e - self.j_i * s_i + self.w_e * self.i_o + self.i_ext
        inhibited = self.j_n * s_e - s_i + self.w_i * self.i_o
        x_e = excited + coupled + input[1]
        x_i = inhibited + self.lamda * coupled + input[2]
        return (
            softened_rectifier(self.a_e * x_e - self.b_e, self.d_e),
            softened_rectifier(self.a_i * x_i - self.b_i, self.d_i),
        )

    def output(self, name: str, state: State) -> Tensor:
        """See the class; the states or "H_e" or "H_i" in Hz."""
        if name in self.outputs:
            nothing = torch.zeros_like(state[0])
            return self.rates(state, (nothing,) * 3)[self.outputs.index(name)]
        return super().output(name, state)


@node("wong_wang_decision")
class WongWangDecision(Node):
    """Two populations that compete for a decision between two directions of motion.

    S1' = −S1/τ_s + γ (1 − S1) r1,  r1 = a [x1 − θ]₊,
    S2' = −S2/τ_s + γ (1 − S2) r2,  r2 = a [x2 − θ]₊,  [x]₊ = max(x, 0),
    x1 = J_11 S1 − J_12 S2 + J_ext (μ0 + I_stimulus) (1 + I_coherence) + I_0 + I_current_1,
    x2 = J_22 S2 − J_21 S1 + J_ext (μ0 + I_stimulus) (1 − I_coherence) + I_0 + I_current_2.

    S1 and S2, shares of open synapses, are kept in [0, 1]. The inputs current_1 and current_2 are
    in nA, and coupling enters the first of them unless told otherwise; "stimulus" is a rate in Hz
    beyond μ0, and "coherence", in [−1, 1], its share in favour of the first. The outputs r1 and r2
    are the rates in Hz that μ0 without inputs gives; who first fires at 15 Hz has decided. With the
    defaults the other one follows; with J_12 and J_21 of 0.2 it falls silent.
    Source: Wong and Wang 2006, J. Neurosci. 26:1314, reduced to two variables.
    """

    states = ("S1", "S2")
    inputs = ("current_1", "current_2", "stimulus", "coherence")
    start = {"S1": 0.0, "S2": 0.0}
    outputs = ("r1", "r2")
    limits = {"S1": (0.0, 1.0), "S2": (0.0, 1.0)}
    state_units = {"r1": HZ, "r2": HZ}
    source = "Wong and Wang 2006, J. Neurosci. 26:1314"

    tau_s: Value = parameter(100.0, "ms", "decay of synapses")
    gamma: Value = parameter(0.000641, "1/(ms Hz)", "opening of synapses per rate")
    a: Value = parameter(270.0, "Hz/nA", "gain of the rates")
    theta: Value = parameter(0.31, NA, "threshold of the rates")
    j_11: Value = parameter(0.2609, NA, "excitation of the first by itself")
    j_22: Value = parameter(0.2609, NA, "excitation of the second by itself")
    j_12: Value = parameter(0.0497, NA, "inhibition of the first by the second")
    j_21: Value = parameter(0.0497, NA, "inhibition of the second by the first")
    j_ext: Value = parameter(0.0002243, "nA/Hz", "current per rate of the stimulus")
    mu_0: Value = parameter(30.0, HZ, "rate of the stimulus")
    i_0: Value = parameter(0.3255, NA, "current from elsewhere")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (S1, S2), input (current_1, current_2, stimulus, coherence)."""
        s1, s2 = state
        r1, r2 = self.rates(state, input)
        return (
            self.gamma * (1 - s1) * r1 - s1 / self.tau_s,
            self.gamma * (1 - s2) * r2 - s2 / self.tau_s,
        )

    def rates(self, state: State, input: State) -> State:
        """Rates in Hz of the two populations."""
        s1, s2 = state
        current_1, current_2, stimulus, coherence = input
        shown = self.j_ext * (self.mu_0 + stimulus)
        x1 = self.j_11 * s1 - self.j_12 * s2 + shown * (1 + coherence) + self.i_0 + current_1
        x2 = self.j_22 * s2 - self.j_21 * s1 + shown * (1 - coherence) + self.i_0 + current_2
        return self.a * torch.relu(x1 - self.theta), self.a * torch.relu(x2 - self.theta)

    def output(self, name: str, state: State) -> Tensor:
        """See the class; the states or "r1" or "r2" in Hz."""
        if name in self.outputs:
            nothing = torch.zeros_like(state[0])
            return self.rates(state, (nothing,) * 4)[self.outputs.index(name)]
        return super().output(name, state)

"""Linear and threshold-linear rate models."""

from __future__ import annotations

import math

import torch

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("linear")
class Linear(Node):
    """One variable that decays and sums its input.

    x' = γ x + I_x.

    Of a constant input it becomes −I/γ; white noise of strength σ leaves it with the standard
    deviation σ/√(−2γ).
    Source: Galán 2008, PLoS ONE 3:e2148.
    """

    states = ("x",)
    inputs = ("x",)
    start = {"x": 0.01}
    source = "Galán 2008, PLoS ONE 3:e2148"

    gamma: Value = parameter(-10.0, "1/ms", "minus the rate of decay, below 0")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (x,)."""
        return (self.gamma * state[0] + input[0],)


@node("threshold_linear")
class ThresholdLinear(Node):
    """Rates of an excitatory and an inhibitory population that follow their rectified currents.

    τ_e E' = −E + β_e [I_E]₊,  τ_i I' = −I + β_i [I_I]₊,  [x]₊ = max(x, 0).

    E and I are rates in Hz, never below 0, and I_E and I_I currents in pA. The populations meet in
    the network alone: nothing inside a node connects them.
    Source: Chaudhuri et al. 2015, Neuron 88:419.
    """

    states = ("E", "I")
    inputs = ("E", "I")
    start = {"E": 0.0, "I": 0.0}
    limits = {"E": (0.0, math.inf), "I": (0.0, math.inf)}
    state_units = {"E": "Hz", "I": "Hz"}
    source = "Chaudhuri et al. 2015, Neuron 88:419"

    tau_e: Value = parameter(20.0, "ms", "time constant of E")
    tau_i: Value = parameter(10.0, "ms", "time constant of I")
    beta_e: Value = parameter(0.066, "Hz/pA", "gain of E")
    beta_i: Value = parameter(0.351, "Hz/pA", "gain of I")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I)."""
        e, i = state
        return (
            (self.beta_e * torch.relu(input[0]) - e) / self.tau_e,
            (self.beta_i * torch.relu(input[1]) - i) / self.tau_i,
        )

"""The Jansen–Rit cortical column."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.dynamics.node import Node, State, Value, node, parameter

MV, MV_PER_MS = "mV", "mV/ms"


@node("jansen_rit")
class JansenRit(Node):
    """A column of pyramidal cells, excitatory and inhibitory interneurons.

    M' = M_v,  E' = E_v,  I' = I_v,
    M_v' = a_e b_e S(E − I + I_M) − 2 b_e M_v − b_e² M,
    E_v' = a_e b_e (I_E + c a2 S(c a1 M)) − 2 b_e E_v − b_e² E,
    I_v' = a_i b_i c a4 S(c a3 M + I_I) − 2 b_i I_v − b_i² I,
    S(v) = s_max/(1 + exp(r (v0 − v))).

    E and I are the excitatory and inhibitory potentials of the pyramidal cells, M the one that they
    cause in the interneurons; the output "eeg" is E − I. Potentials are in mV, rates per ms: the
    input E is a rate, 0.22/ms is 220 Hz, and the inputs M and I are potentials. With the defaults
    and the input E = 0.22 the column has an alpha rhythm.
    Source: Jansen and Rit 1995, Biol. Cybern. 73:357.
    """

    states = ("M", "E", "I", "M_v", "E_v", "I_v")
    inputs = ("E", "M", "I")
    start = {"M": 0.0, "E": 0.0, "I": 0.0, "M_v": 0.0, "E_v": 0.0, "I_v": 0.0}
    outputs = ("eeg",)
    state_units = {
        **{"M": MV, "E": MV, "I": MV, "eeg": MV},
        **{"M_v": MV_PER_MS, "E_v": MV_PER_MS, "I_v": MV_PER_MS},
    }
    source = "Jansen and Rit 1995, Biol. Cybern. 73:357"

    a_e: Value = parameter(3.25, MV, "peak of an excitatory potential, times e")
    a_i: Value = parameter(22.0, MV, "peak of an inhibitory potential, times e")
    b_e: Value = parameter(0.1, "1/ms", "rate at which excitatory potentials decay")
    b_i: Value = parameter(0.05, "1/ms", "rate at which inhibitory potentials decay")
    c: Value = parameter(135.0, "1", "number of synapses")
    a1: Value = parameter(1.0, "1", "share of synapses, pyramidal to excitatory cells")
    a2: Value = parameter(0.8, "1", "share of synapses, excitatory to pyramidal cells")
    a3: Value = parameter(0.25, "1", "share of synapses, pyramidal to inhibitory cells")
    a4: Value = parameter(0.25, "1", "share of synapses, inhibitory to pyramidal cells")
    s_max: Value = parameter(0.005, "1/ms", "highest firing rate")
    v0: Value = parameter(6.0, MV, "potential of half the highest rate")
    r: Value = parameter(0.56, "1/mV", "slope of the firing rate")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (M, E, I, M_v, E_v, I_v)."""
        m, e, i, m_v, e_v, i_v = state
        rate_m = self.rate(e - i + input[1])
        rate_e = input[0] + self.c * self.a2 * self.rate(self.c * self.a1 * m)
        rate_i = self.c * self.a4 * self.rate(self.c * self.a3 * m + input[2])
        return (
            m_v,
            e_v,
            i_v,
            self.a_e * self.b_e * rate_m - 2 * self.b_e * m_v - self.b_e * self.b_e * m,
            self.a_e * self.b_e * rate_e - 2 * self.b_e * e_v - self.b_e * self.b_e * e,
            self.a_i * self.b_i * rate_i - 2 * self.b_i * i_v - self.b_i * self.b_i * i,
        )

    def rate(self, potential: Tensor) -> Tensor:
        """S of the class: firing rate in 1/ms at a potential in mV."""
        return self.s_max * torch.sigmoid(self.r * (potential - self.v0))

    def output(self, name: str, state: State) -> Tensor:
        """See the class; the states or "eeg" in mV."""
        return state[1] - state[2] if name == "eeg" else super().output(name, state)

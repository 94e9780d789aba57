"""The Larter–Breakspear model: ion channels of a column of cells."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.dynamics.node import Node, State, Value, node, parameter


def opened(x: Tensor, threshold: float | Tensor, width: float | Tensor) -> Tensor:
    """(1 + tanh((x − threshold)/width))/2: share of channels or cells that are active."""
    return 0.5 * (1 + torch.tanh((x - threshold) / width))


@node("larter_breakspear")
class LarterBreakspear(Node):
    """Potential V of pyramidal cells, open potassium channels W, inhibitory activity Z.

    V' = t (−(g_ca + r_nmda s) m_ca (V − v_ca) − g_k W (V − v_k) − g_l (V − v_l)
    − (g_na m_na + s) (V − v_na) − a_ie Z Q_z + a_ne I),
    W' = t φ (m_k − W)/τ_k,
    Z' = t b (a_ni I + a_ei V Q_v),
    s = a_ee ((1 − c) Q_v + c I_coupling),  I = i_ext + I_stimulus,  t = t_scale,
    m_ion = m(V; t_ion, d_ion),  Q_v = q_v_max m(V; v_t, d_v),  Q_z = q_z_max m(Z; z_t, d_z),
    m(x; θ, δ) = (1 + tanh((x − θ)/δ))/2.

    The output Q_v is the rate that travels: couple by it to exchange what the equations mean. With
    the defaults, d_v above 0.59, the node is chaotic; below 0.55 it rests. No variable but time has
    a unit.
    Source: Breakspear et al. 2003, Network 14:703, after Larter et al. 1999, Chaos 9:795.
    """

    states = ("V", "W", "Z")
    inputs = ("coupling", "stimulus")
    start = {"V": 0.0, "W": 0.0, "Z": 0.0}
    outputs = ("Q_v",)
    source = "Breakspear et al. 2003, Network 14:703; Larter et al. 1999, Chaos 9:795"

    g_ca: Value = parameter(1.1, "1", "conductance of calcium")
    g_k: Value = parameter(2.0, "1", "conductance of potassium")
    g_l: Value = parameter(0.5, "1", "conductance of the leak")
    g_na: Value = parameter(6.7, "1", "conductance of sodium")
    t_ca: Value = parameter(-0.01, "1", "threshold of calcium channels")
    t_k: Value = parameter(0.0, "1", "threshold of potassium channels")
    t_na: Value = parameter(0.3, "1", "threshold of sodium channels")
    d_ca: Value = parameter(0.15, "1", "width of calcium channels' threshold")
    d_k: Value = parameter(0.3, "1", "width of potassium channels' threshold")
    d_na: Value = parameter(0.15, "1", "width of sodium channels' threshold")
    v_ca: Value = parameter(1.0, "1", "reversal potential of calcium")
    v_k: Value = parameter(-0.7, "1", "reversal potential of potassium")
    v_l: Value = parameter(-0.5, "1", "reversal potential of the leak")
    v_na: Value = parameter(0.53, "1", "reversal potential of sodium")
    phi: Value = parameter(0.7, "1", "temperature's factor of potassium channels")
    tau_k: Value = parameter(1.0, "1", "slowness of potassium channels")
    a_ee: Value = parameter(0.4, "1", "weight onto pyramidal from pyramidal cells")
    a_ei: Value = parameter(2.0, "1", "weight onto inhibitory from pyramidal cells")
    a_ie: Value = parameter(2.0, "1", "weight onto pyramidal from inhibitory cells")
    a_ne: Value = parameter(1.0, "1", "weight onto pyramidal cells from elsewhere")
    a_ni: Value = parameter(0.4, "1", "weight onto inhibitory cells from elsewhere")
    b: Value = parameter(0.1, "1", "speed of inhibition")
    c: Value = parameter(0.1, "1", "share of excitation that comes from other nodes")
    i_ext: Value = parameter(0.3, "1", "current from elsewhere")
    r_nmda: Value = parameter(0.25, "1", "receptors, NMDA per AMPA")
    v_t: Value = parameter(0.0, "1", "threshold of pyramidal cells")
    d_v: Value = parameter(0.65, "1", "width of pyramidal cells' threshold")
    z_t: Value = parameter(0.0, "1", "threshold of inhibitory cells")
    d_z: Value = parameter(0.7, "1", "width of inhibitory cells' threshold")
    q_v_max: Value = parameter(1.0, "1", "highest rate of pyramidal cells")
    q_z_max: Value = parameter(1.0, "1", "highest rate of inhibitory cells")
    t_scale: Value = parameter(1.0, "1/ms", "speed of all states")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (V, W, Z), input (coupling, stimulus)."""
        v, w, z = state
        rate_v, rate_z = self.rate(v), self.q_z_max * opened(z, self.z_t, self.d_z)
        sent = self.a_ee * ((1 - self.c) * rate_v + self.c * input[0])
        current = self.i_ext + input[1]
        m_ca = opened(v, self.t_ca, self.d_ca)
        m_na = opened(v, self.t_na, self.d_na)
        m_k = opened(v, self.t_k, self.d_k)
        calcium = (self.g_ca + self.r_nmda * sent) * m_ca * (v - self.v_ca)
        sodium = (self.g_na * m_na + sent) * (v - self.v_na)
        potassium = self.g_k * w * (v - self.v_k)
        leak = self.g_l * (v - self.v_l)
        inhibition = self.a_ie * z * rate_z
        dv = self.a_ne * current - calcium - potassium - leak - sodium - inhibition
        dz = self.b * (self.a_ni * current + self.a_ei * v * rate_v)
        return (
            self.t_scale * dv,
            self.t_scale * self.phi * (m_k - w) / self.tau_k,
            self.t_scale * dz,
        )

    def rate(self, potential: Tensor) -> Tensor:
        """Q_v of the class at a potential V."""
        return self.q_v_max * opened(potential, self.v_t, self.d_v)

    def output(self, name: str, state: State) -> Tensor:
        """See the class; the states or "Q_v"."""
        return self.rate(state[0]) if name == "Q_v" else super().output(name, state)

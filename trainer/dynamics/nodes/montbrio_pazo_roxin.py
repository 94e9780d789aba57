"""The Montbrió–Pazó–Roxin mean field of quadratic integrate-and-fire cells."""

from __future__ import annotations

import math

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("montbrio_pazo_roxin")
class MontbrioPazoRoxin(Node):
    """Rate and mean potential of infinitely many quadratic integrate-and-fire cells; exact.

    r' = (Δ/(π τ) + 2 r v + I_r)/τ,
    v' = (v² + η + J τ r − (π τ r)² + I_v)/τ.

    The excitabilities of the cells spread around η by Δ, the half width of a Lorentzian. Δ, η, J
    and v have no unit, r is in 1/ms. With the defaults a node of low and a focus of high activity
    stand side by side.
    Source: Montbrió et al. 2015, Phys. Rev. X 5:021028.
    """

    states = ("r", "v")
    inputs = ("v", "r")
    start = {"r": (0.0, 0.05), "v": (0.0, 0.05)}
    state_units = {"r": "1/ms"}
    source = "Montbrió et al. 2015, Phys. Rev. X 5:021028"

    tau: Value = parameter(1.0, "ms", "time constant of the membrane")
    eta: Value = parameter(-5.0, "1", "mean excitability")
    delta: Value = parameter(1.0, "1", "spread of the excitabilities")
    j: Value = parameter(15.0, "1", "synaptic weight")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (r, v), input (v, r)."""
        r, v = state
        spikes = self.tau * r
        dr = self.delta / (math.pi * self.tau) + 2 * r * v + input[1]
        dv = v * v + self.eta + self.j * spikes - (math.pi * spikes) ** 2 + input[0]
        return dr / self.tau, dv / self.tau

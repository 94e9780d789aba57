"""The FitzHugh–Nagumo model."""

from __future__ import annotations

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("fitzhugh_nagumo")
class FitzHughNagumo(Node):
    """Excitable cell in two variables: a fast voltage and a slow recovery.

    V' = −α V³ + β V² + γ V − w + I_V,  w' = (V − δ − ε w)/τ + I_w.

    Rests without input; between a lower and an upper current I_V it oscillates.
    Source: FitzHugh 1961, Biophys. J. 1:445; in this form Kostova et al. 2004, Int. J. Bifurcation
    and Chaos 14:913.
    """

    states = ("V", "w")
    inputs = ("V", "w")
    start = {"V": (0.0, 0.05), "w": (0.0, 0.05)}
    source = "FitzHugh 1961, Biophys. J. 1:445; Kostova et al. 2004, IJBC 14:913"

    alpha: Value = parameter(3.0, "1/ms", "coefficient of V³")
    beta: Value = parameter(4.0, "1/ms", "coefficient of V²")
    gamma: Value = parameter(-1.5, "1/ms", "coefficient of V")
    delta: Value = parameter(0.0, "1", "voltage at which recovery rests")
    epsilon: Value = parameter(0.5, "1", "decay of the recovery")
    tau: Value = parameter(20.0, "ms", "time constant of the recovery")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (V, w)."""
        v, w = state
        cubic = -self.alpha * v * v * v + self.beta * v * v + self.gamma * v
        recovery = (v - self.delta - self.epsilon * w) / self.tau
        return cubic - w + input[0], recovery + input[1]

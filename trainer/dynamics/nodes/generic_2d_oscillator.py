"""The generic two-dimensional oscillator."""

from __future__ import annotations

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("generic_2d_oscillator")
class Generic2dOscillator(Node):
    """Two variables whose nullclines, a cubic and a parabola, are set by their coefficients.

    V' = d τ (−f V³ + e V² + g V + α W + γ (I_0 + I)) + I_V,
    W' = (d/τ)(a + b V + c V² − β W) + I_W.

    I is the current that coupling brings; I_V and I_W add to the derivatives themselves. By its
    coefficients it is excitable (a = −2, b = −10, c = 0), bistable (1, 0, −5) or like Morris and
    Lecar's cell (0.5, 0.6, −4).
    Source: Sanz-Leon et al. 2015, NeuroImage 111:385, after FitzHugh 1961, Biophys. J. 1:445.
    """

    states = ("V", "W")
    inputs = ("I", "V", "W")
    start = {"V": (0.0, 0.05), "W": (0.0, 0.05)}
    source = "Sanz-Leon et al. 2015, NeuroImage 111:385"

    a: Value = parameter(-2.0, "1", "shift of the parabola")
    b: Value = parameter(-10.0, "1", "slope of the parabola")
    c: Value = parameter(0.0, "1", "curvature of the parabola")
    d: Value = parameter(0.02, "1/ms", "speed of both variables")
    e: Value = parameter(3.0, "1", "coefficient of V²")
    f: Value = parameter(1.0, "1", "coefficient of −V³")
    g: Value = parameter(0.0, "1", "coefficient of V")
    alpha: Value = parameter(1.0, "1", "how W acts on V")
    beta: Value = parameter(1.0, "1", "decay of W")
    gamma: Value = parameter(1.0, "1", "how currents act on V")
    I_0: Value = parameter(0.0, "1", "constant current")
    tau: Value = parameter(1.0, "1", "how much faster V is than W, its square root")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (V, W), input (I, V, W)."""
        v, w = state
        cubic = -self.f * v * v * v + self.e * v * v + self.g * v
        current = self.gamma * (self.I_0 + input[0])
        parabola = self.a + self.b * v + self.c * v * v
        return (
            self.d * self.tau * (cubic + self.alpha * w + current) + input[1],
            self.d / self.tau * (parabola - self.beta * w) + input[2],
        )

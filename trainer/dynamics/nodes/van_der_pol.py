"""The van der Pol oscillator."""

from __future__ import annotations

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("van_der_pol")
class VanDerPol(Node):
    """Self-sustained relaxation oscillator in Liénard's form.

    x' = μ (x − x³/3 − y) + I_x,  y' = x/μ + I_y.

    Without input x'' − μ (1 − x²) x' + x = 0: the limit cycle has an amplitude near 2; its period
    is 2π ms for small μ, 6.663 ms for μ = 1 and (3 − 2 ln 2) μ ms for large μ.
    Source: van der Pol 1926, Phil. Mag. 2:978.
    """

    states = ("x", "y")
    inputs = ("x", "y")
    start = {"x": (0.0, 0.05), "y": (0.0, 0.05)}
    source = "van der Pol 1926, Phil. Mag. 2:978"

    mu: Value = parameter(1.0, "1", "strength of the nonlinear damping, above 0")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (x, y)."""
        x, y = state
        return self.mu * (x - x * x * x / 3 - y) + input[0], x / self.mu + input[1]

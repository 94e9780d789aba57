"""The Lorenz system."""

from __future__ import annotations

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("lorenz")
class Lorenz(Node):
    """Three variables of a convecting fluid: chaos on a butterfly-shaped attractor.

    x' = σ (y − x) + I_x,  y' = x (ρ − z) − y + I_y,  z' = x y − β z + I_z.

    For ρ > 1 it has the equilibria (±q, ±q, ρ − 1), q = √(β (ρ − 1)); with the defaults they and
    the origin are unstable. Fast for its unit of time: a step of 0.01 ms suits it.
    Source: Lorenz 1963, J. Atmos. Sci. 20:130.
    """

    states = ("x", "y", "z")
    inputs = ("x", "y", "z")
    start = {"x": (0.0, 0.05), "y": (0.0, 0.05), "z": (0.0, 0.05)}
    source = "Lorenz 1963, J. Atmos. Sci. 20:130"

    sigma: Value = parameter(10.0, "1", "Prandtl number")
    rho: Value = parameter(28.0, "1", "Rayleigh number over its critical value")
    beta: Value = parameter(8 / 3, "1", "form of the convection cell")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (x, y, z)."""
        x, y, z = state
        return (
            self.sigma * (y - x) + input[0],
            x * (self.rho - z) - y + input[1],
            x * y - self.beta * z + input[2],
        )

"""Hopf and Stuart–Landau oscillators."""

from __future__ import annotations

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("hopf")
class Hopf(Node):
    """Normal form of a supercritical Hopf bifurcation.

    x' = (a − β r) x − ω y + I_x,  y' = (a − β r) y + ω x + I_y,  r = x² + y².

    For a > 0 a limit cycle of radius √(a/β) and period 2π/ω ms; for a < 0 a damped oscillation.
    The origin is a fixed point: without noise or another start the node stays there.
    Source: Deco et al. 2017, Sci. Rep. 7:3095.
    """

    states = ("x", "y")
    inputs = ("x", "y")
    start = {"x": 0.0, "y": 0.0}
    source = "Deco et al. 2017, Sci. Rep. 7:3095"

    a: Value = parameter(0.25, "1/ms", "distance to the bifurcation")
    w: Value = parameter(0.2, "rad/ms", "angular frequency")
    beta: Value = parameter(1.0, "1/ms", "strength of the saturation")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (x, y)."""
        x, y = state
        growth = self.a - self.beta * (x * x + y * y)
        return growth * x - self.w * y + input[0], growth * y + self.w * x + input[1]


@node("stuart_landau")
class StuartLandau(Node):
    """The Hopf normal form in its own scale: the limit cycle has the radius √a.

    x' = (a − r) x − ω y + I_x,  y' = (a − r) y + ω x + I_y,  r = x² + y².

    A Hopf oscillator whose saturation is 1 and which starts beside the origin.
    Source: Stuart 1960, J. Fluid Mech. 9:353; for networks Selivanov et al. 2012, PRE 85:016201.
    """

    states = ("x", "y")
    inputs = ("x", "y")
    start = {"x": (0.0, 0.05), "y": (0.0, 0.05)}
    source = "Stuart 1960, J. Fluid Mech. 9:353; Selivanov et al. 2012, PRE 85:016201"

    a: Value = parameter(0.25, "1/ms", "distance to the bifurcation")
    w: Value = parameter(0.2, "rad/ms", "angular frequency")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (x, y)."""
        x, y = state
        growth = self.a - (x * x + y * y)
        return growth * x - self.w * y + input[0], growth * y + self.w * x + input[1]

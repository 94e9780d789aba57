"""The Kuramoto phase oscillator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("kuramoto")
class Kuramoto(Node):
    """A phase that turns with its own speed; coupling by phase differences does the rest.

    theta' = ω + I_theta.

    theta is not wrapped: it grows on, so that its slope is the frequency. The outputs are the
    "phase" in [0, 2π) and the point (x, y) = (cos theta, sin theta) on the unit circle. With ω = 0,
    the default, the frame turns with the nodes. Where theta grows beyond 1000 rad, float64 is the
    precision to run in: in float32 the steps of 10⁴ rad are rounded to 0.001 rad, and the speed
    with them.
    Source: Kuramoto 1984, Chemical Oscillations, Waves, and Turbulence.
    """

    states = ("theta",)
    inputs = ("theta",)
    start = {"theta": (0.0, 2 * math.pi)}
    outputs = ("phase", "x", "y")
    state_units = {"theta": "rad", "phase": "rad"}
    source = "Kuramoto 1984, Chemical Oscillations, Waves, and Turbulence"

    w: Value = parameter(0.0, "rad/ms", "angular frequency")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (theta,)."""
        # The shape of the state, also where both terms are single numbers.
        return (torch.zeros_like(state[0]) + self.w + input[0],)

    def output(self, name: str, state: State) -> Tensor:
        """See the class; the states or "phase", "x" or "y"."""
        theta = state[0]
        if name == "phase":
            wrapped = theta - 2 * math.pi * torch.floor(theta / (2 * math.pi))
            # Rounding may put an angle beside a whole turn outside the range.
            inside = (wrapped >= 0) & (wrapped < 2 * math.pi)
            return torch.where(inside, wrapped, torch.zeros_like(wrapped))
        if name == "x":
            return torch.cos(theta)
        if name == "y":
            return torch.sin(theta)
        return super().output(name, state)

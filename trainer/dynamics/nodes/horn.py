"""The unit of a harmonic oscillator recurrent network."""

from __future__ import annotations

import math

import torch

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("horn")
class Horn(Node):
    """Damped harmonic oscillator that a bounded current drives.

    x' = y,  y' = α tanh(I + v x) − ω² x − 2 γ y.

    The published step is the scheme "symplectic_euler": y moves first, then x by the new y; it is
    stable for γ dt < 1 and (ω dt)² < 4 (1 − γ dt). Units talk through their velocity y.
    Source: Effenberger, Carvalho, Dubinin and Singer 2025, PNAS 122(4):e2412830122.
    """

    states = ("x", "y")
    inputs = ("I",)
    source = "Effenberger et al. 2025, PNAS 122(4):e2412830122"
    state_units = {"y": "1/ms"}

    alpha: Value = parameter(0.04, "1/ms²", "excitability: scale of the bounded current")
    omega: Value = parameter(2 * math.pi / 28, "rad/ms", "natural angular frequency")
    gamma: Value = parameter(0.01, "1/ms", "damping")
    v: Value = parameter(0.0, "1", "feedback of x on its own current")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (x, y), input (I,)."""
        x, y = state
        current = self.alpha * torch.tanh(input[0] + self.v * x)
        return y, current - self.omega * self.omega * x - 2 * self.gamma * y

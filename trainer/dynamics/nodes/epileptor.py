"""The Epileptor: seizures that begin and end by a slow variable."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.dynamics.node import Node, State, Value, node, parameter


@node("epileptor")
class Epileptor(Node):
    """Two fast subsystems that a slow permittivity drives into seizures and out of them.

    x1' = tt (y1 − z + f1 x1 + I_ext + k_vf I_coupling_1) + I_x1,
    y1' = tt (c − d x1² − y1),
    z' = tt r (h − z + k_s I_coupling_1),
    x2' = tt (−y2 + x2 − x2³ + I_ext2 + bb g − 0.3 (z − 3.5) + k_f I_coupling_2) + I_x2,
    y2' = tt (−y2 + f2)/τ,
    g' = −tt 0.01 (g − 0.1 x1),
    f1 = −a x1² + b x1 where x1 < 0, else slope − x2 + 0.6 (z − 4)²,
    f2 = aa (x2 + 0.25) where x2 ≥ −0.25, else 0,
    h = (1 − m) (4 (x1 − x0) − 0.1 [z < 0] z⁷) + m (x0 + 3/(1 + exp(−(x1 + 0.5)/0.1))), m the
    parameter modification.

    The output "lfp" is x2 − x1, the local field potential. The inputs coupling_1 and coupling_2 are
    scaled by k_vf, k_s and k_f, which are 0 at first; x1 and x2 drive the states themselves. x0
    above −2.06 makes a node that seizes by itself. No variable but time has a unit.
    Source: Jirsa et al. 2014, Brain 137:2210; coupling by Proix et al. 2014, J. Neurosci. 34:15009.
    """

    states = ("x1", "y1", "z", "x2", "y2", "g")
    inputs = ("coupling_1", "coupling_2", "x1", "x2")
    start = {"x1": -1.5, "y1": -10.0, "z": 3.5, "x2": -1.0, "y2": 0.0, "g": 0.0}
    outputs = ("lfp",)
    source = "Jirsa et al. 2014, Brain 137:2210; Proix et al. 2014, J. Neurosci. 34:15009"

    a: Value = parameter(1.0, "1", "cubic term of x1")
    b: Value = parameter(3.0, "1", "quadratic term of x1")
    c: Value = parameter(1.0, "1", "constant of y1")
    d: Value = parameter(5.0, "1", "quadratic term of y1")
    r: Value = parameter(0.00035, "1", "slowness of z")
    x0: Value = parameter(-1.6, "1", "excitability: how close to seizures")
    i_ext: Value = parameter(3.1, "1", "current into the first subsystem")
    slope: Value = parameter(0.0, "1", "linear term of x1 within seizures")
    i_ext2: Value = parameter(0.45, "1", "current into the second subsystem")
    tau: Value = parameter(10.0, "1", "slowness of y2")
    aa: Value = parameter(6.0, "1", "slope of y2 above its threshold")
    bb: Value = parameter(2.0, "1", "effect of the first subsystem on the second")
    k_vf: Value = parameter(0.0, "1", "fast coupling into the first subsystem")
    k_f: Value = parameter(0.0, "1", "fast coupling into the second subsystem")
    k_s: Value = parameter(0.0, "1", "coupling into the slow z")
    tt: Value = parameter(1.0, "1/ms", "speed of all states")
    modification: Value = parameter(0.0, "1", "share of the sigmoid form of h, 0 to 1")

    def derivative(self, state: State, input: State) -> State:
        """See the class; state (x1, y1, z, x2, y2, g)."""
        x1, y1, z, x2, y2, g = state
        dx1 = y1 - z + self._growth(x1, x2, z) * x1 + self.i_ext + self.k_vf * input[0]
        dx2 = x2 - x2 * x2 * x2 - y2 + self.i_ext2 + self.bb * g - 0.3 * (z - 3.5)
        answer = self.aa * torch.relu(x2 + 0.25)
        return (
            self.tt * dx1 + input[2],
            self.tt * (self.c - self.d * x1 * x1 - y1),
            self.tt * self.r * (self._permittivity(x1, z) - z + self.k_s * input[0]),
            self.tt * (dx2 + self.k_f * input[1]) + input[3],
            self.tt * (answer - y2) / self.tau,
            -self.tt * 0.01 * (g - 0.1 * x1),
        )

    def _growth(self, x1: Tensor, x2: Tensor, z: Tensor) -> Tensor:
        """f1 of the class."""
        between = (self.b - self.a * x1) * x1
        within = self.slope - x2 + 0.6 * (z - 4) * (z - 4)
        return torch.where(x1 < 0, between, within)

    def _permittivity(self, x1: Tensor, z: Tensor) -> Tensor:
        """h of the class."""
        below = torch.clamp(z, max=0.0)
        cube = below * below * below
        linear = 4 * (x1 - self.x0) - 0.1 * cube * cube * below
        saturating = self.x0 + 3 * torch.sigmoid(10 * (x1 + 0.5))
        return (1 - self.modification) * linear + self.modification * saturating

    def output(self, name: str, state: State) -> Tensor:
        """See the class; the states or "lfp"."""
        return state[3] - state[0] if name == "lfp" else super().output(name, state)

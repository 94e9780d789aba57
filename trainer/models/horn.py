"""Which class a window belongs to: a recurrent network of harmonic oscillators (HORN)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext, Windows
from trainer.models.columns import Columns
from trainer.models.horn_layer import LARGEST_OMEGA, HornLayer
from trainer.registry import MODELS


@MODELS.register("horn")
class Horn(nn.Module):
    """Layers of damped oscillators that a window drives; the last positions are read out.

    Every sample of a window is a step of `dt` ms of the network's own time; channels and features
    are z-scored. A unit: x'' = alpha tanh(input + v x) − omega² x − 2 gamma x'. Its input is a
    projection of the samples, or of the positions of the layer below, and of the velocities of the
    units of its layer one step before.

    hidden_sizes: units of each layer. alpha (1/ms²), omega (rad/ms), gamma (1/ms), v: of every
    unit. spread: share within which alpha, omega and gamma differ from unit to unit, drawn evenly;
    0 makes all units alike. fit: which of the four are fitted, unit by unit. delay: ms, longest
    delay between the units of a layer; each pair's is drawn evenly, in whole steps; layer_delay:
    the same between layers. recurrent_bias: whether the recurrent input has a bias. draws: seed of
    the parameters and delays that are drawn. engine: what runs the oscillators while they are
    trained and scored, see `Simulator`; "compiled" is several times as fast as "plain" and needs a
    C++ compiler. The exported graph is the same.
    """

    tasks = frozenset({"classify"})
    dynamic_channel = False

    def __init__(
        self,
        context: ModelContext,
        *,
        hidden_sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (
            64,
        ),
        alpha: Annotated[float, Field(gt=0)] = 0.04,
        omega: Annotated[float, Field(gt=0)] = 2 * math.pi / 28,
        gamma: Annotated[float, Field(gt=0)] = 0.01,
        v: float = 0.0,
        spread: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        fit: tuple[Literal["alpha", "omega", "gamma", "v"], ...] = (),
        dt: Annotated[float, Field(gt=0)] = 1.0,
        delay: Annotated[float, Field(ge=0)] = 0.0,
        layer_delay: Annotated[float, Field(ge=0)] = 0.0,
        recurrent_bias: bool = True,
        draws: Annotated[int, Field(ge=0)] = 0,
        engine: Literal["auto", "plain", "compiled"] = "auto",
    ) -> None:
        super().__init__()
        assert context.classes is not None
        _check_stable(omega * (1 + spread), gamma * (1 + spread), dt)
        self.columns = Columns(context)
        values = {"alpha": alpha, "omega": omega, "gamma": gamma, "v": v}
        self.layers = nn.ModuleList()
        width = self.columns.count
        for number, units in enumerate(hidden_sizes):
            layer = HornLayer(
                width,
                units,
                values=values,
                spread=spread,
                fit=fit,
                dt=dt,
                delay=delay,
                input_delay=layer_delay if number else 0.0,
                bias=recurrent_bias,
                seed=draws + number,
                engine=engine,
            )
            self.layers.append(layer)
            width = units
        self.readout = nn.Linear(width, context.classes)
        nn.init.kaiming_normal_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """Class probabilities (batch, class), rows sum to 1.

        neural: (batch, time, channel, feature) raw; where the data have them also behavior
        (batch, time, dim) raw and behavior_mask (batch, time) bool, see `Behavior`.
        """
        signal = self.columns(neural, behavior, behavior_mask).transpose(1, 2)
        top = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            signal = layer(signal, last=number == top)
        return torch.softmax(self.readout(signal[:, -1]).float(), dim=-1)

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Fit the scale of behaviour where it is an input."""
        self.columns.fit(train)


def _check_stable(omega: float, gamma: float, dt: float) -> None:
    """Raise ValueError where a unit's own oscillation would grow, or a fitted one might."""
    if omega * dt >= LARGEST_OMEGA:
        raise ValueError(
            f"model.omega: {omega:g} rad/ms with steps of {dt:g} ms; must be below "
            f"{LARGEST_OMEGA / dt:.3g}, or model.dt smaller"
        )
    if gamma * dt >= 0.5:
        raise ValueError(
            f"model.gamma: {gamma:g} /ms with steps of {dt:g} ms; must be below {0.5 / dt:.3g}, "
            "or model.dt smaller"
        )

"""The legacy default: the GRU baseline that the organisers of the HDR challenge published.

Source: a3d3-institute/HDRChallenge_y2 (MIT), `simple_torch_submission`. Its behaviour is kept,
normalised output included; the code is ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from trainer.data.windows import ModelContext
from trainer.models.standardize import Standardize
from trainer.registry import MODELS


@MODELS.register("gru")
class GRU(nn.Module):
    """The organisers' baseline: a GRU over all channels, a linear readout on every step.

    hidden_size: units of the one recurrent layer.
    output_units: "normalized" answers as published, z = (x - mean) / (4 std) of the train part;
        "raw" brings the answer back to the units of the input.
    """

    tasks = frozenset({"forecast"})
    dynamic_channel = False

    def __init__(
        self,
        context: ModelContext,
        *,
        hidden_size: Annotated[int, Field(ge=1)] = 256,
        output_units: Literal["normalized", "raw"] = "normalized",
    ) -> None:
        super().__init__()
        self.output_units = output_units
        # lo, hi = mean -/+ 4 std and z = 2 (x - lo) / (hi - lo) - 1, i.e. (x - mean) / (4 std).
        mean, std = context.statistics.mean[:, 0], context.statistics.std[:, 0]
        self.standardize = Standardize(mean, 4.0 * std)
        self.encoder = nn.GRU(context.channels, hidden_size, batch_first=True)
        self.output_layer = nn.Linear(hidden_size, context.channels)

    def forward(self, neural: Tensor) -> Tensor:
        """Forecast all steps.

        neural: (batch, time, channel, feature) raw; every step is read as given.
        Returns (batch, time, channel): normalised or raw, as `output_units` says.
        """
        # 1. feature 0, normalised: (batch, time, channel)
        z = self.standardize(neural[..., 0])
        # 2. states from a zero initial state: (batch, time, hidden_size)
        states, _ = self.encoder(z)
        # 3. readout on every step: (batch, time, channel)
        output: Tensor = self.output_layer(states)
        return self.standardize.invert(output) if self.output_units == "raw" else output

    def to_raw(self, output: Tensor) -> Tensor:
        """An answer of `forward` -> raw units, same shape (batch, time, channel)."""
        return output if self.output_units == "raw" else self.standardize.invert(output)

"""Where a token comes from: learned vectors for its channel and its session."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.windows import ModelContext

ChannelKind = Literal["none", "index", "position"]
SessionKind = Literal["none", "additive"]

OCTAVES = 4


class Origin(nn.Module):
    """One vector for each channel plus one for each row's session, to be added to tokens.

    channel: "index" learns a vector for each channel; "position" learns a function of the
        electrode's place, and one vector for all whose place is not known; "none" gives zeros.
    session: "additive" learns a vector for each session and one for an unknown session, to which
        training changes each row's with probability `dropout`; "none" gives zeros.
    Raises ValueError where positions are asked for and the data have none.
    """

    table: nn.Parameter

    def __init__(
        self,
        context: ModelContext,
        width: int,
        channel: ChannelKind,
        session: SessionKind,
        dropout: float,
    ) -> None:
        super().__init__()
        self.width, self.dropout = width, dropout
        self.channel: nn.Module | None = None
        if channel == "index":
            self.channel = ByIndex(context.channels, width)
        elif channel == "position":
            if context.positions is None or not np.isfinite(context.positions).all(1).any():
                raise ValueError(
                    "model.channel_embedding: 'position' needs the places of electrodes, and the "
                    "data have none; take 'index' or 'none'"
                )
            self.channel = ByPosition(context.positions, width)
        self.takes_session = session == "additive"
        if self.takes_session:
            # Row 0 is the unknown session.
            self.table = nn.Parameter(torch.zeros(context.sessions + 1, width))

    def forward(self, z: Tensor, session: Tensor | None) -> Tensor:
        """z: (batch, ...); session: (batch,) int64 from 0, None for unknown.

        Returns (batch or 1, channel or 1, width).
        """
        vectors = z.new_zeros(1, 1, self.width) if self.channel is None else self.channel()[None]
        if not self.takes_session:
            return vectors
        if session is None:
            return vectors + self.table[:1, None]
        rows = session + 1
        if self.training:
            known = torch.rand(rows.shape, device=rows.device) >= self.dropout
            rows = rows * known
        return vectors + nn.functional.embedding(rows, self.table)[:, None]


class ByIndex(nn.Module):
    """A free vector for each channel: () -> (channel, width)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(channels, width))

    def forward(self) -> Tensor:
        """The vectors (channel, width)."""
        return self.vectors


class ByPosition(nn.Module):
    """A small network over waves of an electrode's place: () -> (channel, width).

    positions: (channel, 3) in m, NaN where not known; their centre and spread do not matter.
    """

    waves: Tensor
    known: Tensor

    def __init__(self, positions: np.ndarray, width: int) -> None:
        super().__init__()
        waves, known = place_waves(positions)
        self.register_buffer("waves", torch.from_numpy(waves), persistent=False)
        self.register_buffer("known", torch.from_numpy(known[:, None]), persistent=False)
        self.hidden = nn.Linear(waves.shape[1], width)
        self.project = nn.Linear(width, width)
        self.unknown = nn.Parameter(torch.zeros(width))
        # As small as the vectors of `ByIndex`.
        nn.init.normal_(self.project.weight, std=0.02)
        nn.init.zeros_(self.project.bias)

    def forward(self) -> Tensor:
        """The vectors (channel, width)."""
        vectors = self.project(nn.functional.gelu(self.hidden(self.waves)))
        return torch.where(self.known, vectors, self.unknown)


def place_waves(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and their sines and cosines: (channel, 3 * (1 + 2 * OCTAVES)) float32.

    positions: (channel, 3) in m, centred and scaled to a root mean square distance of 1 from the
    centre. Also which are known, (channel,) bool; the others' waves are 0.
    """
    known = np.isfinite(positions).all(axis=1)
    centred = positions[known] - positions[known].mean(axis=0)
    spread = np.sqrt(np.square(centred).sum(axis=1).mean())
    scaled = np.zeros(positions.shape)
    scaled[known] = centred / (spread or 1.0)
    turns = [scaled * np.pi * 2.0**octave / 2 for octave in range(OCTAVES)]
    parts = [scaled, *(np.sin(turn) for turn in turns), *(np.cos(turn) for turn in turns)]
    waves = np.concatenate(parts, axis=1) * known[:, None]
    return waves.astype(np.float32), known

"""A stretch of steps that an engine is to run, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trainer.dynamics.delays import Delays
from trainer.dynamics.network import Network
from trainer.dynamics.node import State
from trainer.dynamics.system import System


@dataclass(frozen=True, eq=False)
class Stretch:
    """Steps `first` … `first` + `steps` of a run.

    values: of all parameters; carry: states, then memories of noise, each (batch, node); history:
    (time, signal, batch, node), what travelled before, where something is delayed. drive: for each
    input (batch or 1, steps or 1, node or 1), or None; normals: (batch, steps, number, node), or
    None. A state is kept after the steps n > skip with (n − skip) % every == 0, counted from the
    start of the whole run; kept: numbers of the states that are. checkpoint_every: steps after
    which gradients start anew from a stored carry; 0 stores every step.
    """

    network: Network
    system: System
    values: dict[str, Any]
    delays: Delays | None
    carry: State
    history: Tensor | None
    drive: tuple[Tensor | None, ...]
    normals: Tensor | None
    batch: int
    first: int
    steps: int
    skip: int
    every: int
    kept: tuple[int, ...]
    checkpoint_every: int = 0

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.network.nodes

    def keeps(self, step: int) -> bool:
        """Whether the state after this step of the stretch, counted from 0, is kept."""
        after = self.first + step + 1 - self.skip
        return after > 0 and after % self.every == 0

    @property
    def first_kept(self) -> int:
        """The first step of the stretch after which the state is kept; may be beyond its end."""
        done = self.first - self.skip
        return self.every - 1 - done % self.every if done >= 0 else self.every - 1 - done

    @property
    def samples(self) -> int:
        """How many states are kept."""
        return max(0, -(-(self.steps - self.first_kept) // self.every))

    def drive_at(self, step: int) -> tuple[Tensor | None, ...]:
        """What enters each input in a step of the stretch, (batch or 1, node or 1)."""
        return tuple(
            None if each is None else each[:, step if each.shape[1] > 1 else 0]
            for each in self.drive
        )

    def normals_at(self, step: int) -> State:
        """The standard normal numbers of a step of the stretch, each (batch, node)."""
        return () if self.normals is None else tuple(self.normals[:, step].unbind(dim=1))


@dataclass(frozen=True, eq=False)
class Result:
    """What a stretch leaves: the kept states, each (batch, sample, node), and where it ended."""

    samples: list[Tensor]
    carry: State
    history: Tensor | None

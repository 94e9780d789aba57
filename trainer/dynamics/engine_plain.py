"""The engine that runs every step as torch operations: any device, autograd, vmap.

Its counterparts run the same step function traced once, see `engine`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.dynamics.delays import Delays, arrivals
from trainer.dynamics.node import State
from trainer.dynamics.stretch import Result, Stretch
from trainer.dynamics.system import System


def run(stretch: Stretch, advance: Callable[[int], None]) -> Result:
    """Run a stretch of steps; `advance` is called with the number of steps since the last call."""
    segment = stretch.checkpoint_every or stretch.steps
    carry, history = stretch.carry, stretch.history
    kept: list[list[Tensor]] = [[] for _ in stretch.kept]
    for start in range(0, stretch.steps, segment):
        stop = min(start + segment, stretch.steps)
        if stretch.checkpoint_every:
            part = torch.utils.checkpoint.checkpoint(
                _segment, stretch, start, stop, history, *carry, use_reentrant=False
            )
        else:
            part = _segment(stretch, start, stop, history, *carry, advance=advance)
        samples, history, carry = part
        for own, more in zip(kept, samples, strict=True):
            own += more
    return Result([_stacked(own, stretch) for own in kept], carry, history)


def _segment(
    stretch: Stretch,
    start: int,
    stop: int,
    history: Tensor | None,
    *carry: Tensor,
    advance: Callable[[int], None] = lambda steps: None,
) -> tuple[list[list[Tensor]], Tensor | None, State]:
    """Steps start … stop; returns the kept states, the history and the carry after them."""
    system: System = stretch.system
    delays: Delays | None = stretch.delays
    kept: list[list[Tensor]] = [[] for _ in stretch.kept]
    for step in range(start, stop):
        arrived = () if delays is None or history is None else arrivals(delays, history)
        carry = system.step(carry, stretch.drive_at(step), stretch.normals_at(step), arrived)
        if history is not None:
            sent = torch.stack(torch.broadcast_tensors(*system.travelling(carry)))
            history = torch.cat([history[1:], sent[None]])
        if stretch.keeps(step):
            for own, number in zip(kept, stretch.kept, strict=True):
                own.append(carry[number])
        if (step + 1) % 256 == 0:
            advance(256)
    return kept, history, carry


def _stacked(samples: list[Tensor], stretch: Stretch) -> Tensor:
    """(batch, sample, node) of samples (batch, node)."""
    if not samples:
        return stretch.carry[0].new_zeros((stretch.batch, 0, stretch.nodes))
    return torch.stack(samples, dim=1)

"""A running average of a module's weights, which is often better than the weights of any step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from trainer import checkpoint

Weights = dict[str, torch.Tensor]


@torch.no_grad()
def update(average: Weights, weights: Mapping[str, torch.Tensor], decay: float, step: int) -> None:
    """Move `average` towards the `weights` after optimizer step `step`, counted from 1, in place.

    The exponential average without its bias towards the start: the mean of all weights so far, each
    counting `decay` times as much as the one after it. Source: Kingma and Ba, Adam, section 3.
    What is not floating point is taken as it is.
    """
    share = (1 - decay) / (1 - decay**step)
    for name, value in weights.items():
        if value.is_floating_point() and step > 1:
            average[name].lerp_(value, share)
        else:
            average[name] = value.detach().clone()


@contextmanager
def swapped(module: torch.nn.Module, weights: Weights) -> Iterator[None]:
    """Run the block with `weights` in `module`; the own ones come back after it, bit for bit."""
    own = {name: value.detach().clone() for name, value in module.state_dict().items()}
    checkpoint.load_weights(module, weights)
    try:
        yield
    finally:
        checkpoint.load_weights(module, own)

"""Learning rates: over the steps of a run, and from one group of parameters to the next."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from typing import Any

import torch


class ScheduleError(ValueError):
    """A pattern of training.learning_rates names no parameter, or cycles are too many."""


def factor(step: int, total: int, *, schedule: str, warmup: int, cycles: int = 1) -> float:
    """What the learning rate of optimizer step `step` (from 0) of `total` is multiplied by.

    A linear rise over `warmup` steps, then 1 ("constant") or from 1 towards 0 along half a cosine,
    once ("cosine") or in each of `cycles` ("cycles").
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    first = warmup
    for end in cycle_ends(total, warmup=warmup, cycles=cycles):
        if step < end:
            return 0.5 * (1 + math.cos(math.pi * (step - first) / (end - first)))
        first = end
    return 0.0


def cycle_ends(total: int, *, warmup: int, cycles: int) -> list[int]:
    """The optimizer steps after which the cycles are over, of equal length but for rounding."""
    span = max(1, total - warmup)
    return [warmup + round(span * cycle / cycles) for cycle in range(1, cycles + 1)]


def parameter_groups(module: torch.nn.Module, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """The trainable parameters as an optimizer takes them, one group for each learning rate.

    factors: glob pattern of parameter names -> factor on the learning rate; where several match a
    parameter, their product. Each group has its `factor`; without patterns there is one group.
    Raises ScheduleError, which lists the names, for a pattern that matches none.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for pattern in factors:
        if named and not fnmatch.filter(named, pattern):
            raise ScheduleError(
                f"training.learning_rates: {pattern!r} matches no parameter; "
                f"the model has {', '.join(named)}"
            )
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in named.items():
        matching = (f for pattern, f in factors.items() if fnmatch.fnmatchcase(name, pattern))
        groups.setdefault(math.prod(matching), []).append(parameter)
    return [{"params": members, "factor": value} for value, members in groups.items()]

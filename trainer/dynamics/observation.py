"""What an instrument sees of activity: the protocol of all observations, and their registry.

    values, interval, state = observation.observe(activity, interval)
    more, interval, state = observation.observe(next_activity, interval_of_activity, state)

Sample k of values with an interval of so many ms is what was true, or the mean, at (k + 1) ·
interval after their start, as in a `Trajectory`. Pieces observed one after the other, each with the
state that the last one left, give the same bits as the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.dynamics.simulator import Trajectory
from trainer.registry import Registry

OBSERVATIONS = Registry("observation", "axonnx.observations", required=True)

# Times this close, as a share, are one.
SAME_TIME = 1e-6


class ObservationError(ValueError):
    """Activity, an interval or a setting that an observation cannot use; the text names it."""


class Observation(nn.Module):
    """An observation model.

    unit: of the values that it gives, "1" where they have none.
    """

    unit: str = "1"

    def observe(
        self, values: Tensor, interval: float, state: Any = None
    ) -> tuple[Tensor, float, Any]:
        """Observe values (batch, time, node), `interval` ms apart.

        Returns values (batch, time, node or sensor), their interval in ms, and the state to go on
        from with what follows. Differentiable in the values and in every `Param`. Raises
        ObservationError.
        """
        raise NotImplementedError

    def channels(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the last axis of what it gives, from the names of the nodes."""
        return labels


@OBSERVATIONS.register("chain")
class Chain(Observation):
    """Observations one after the other, such as a temporal average and then a lead field."""

    def __init__(self, *, observations: Sequence[Observation | Mapping[str, Any]]) -> None:
        super().__init__()
        if not observations:
            raise ObservationError("observations: a chain has at least one")
        self.observations = nn.ModuleList(
            each if isinstance(each, Observation) else OBSERVATIONS.build(each)
            for each in observations
        )
        self.unit = self.observations[-1].unit

    def observe(
        self, values: Tensor, interval: float, state: Any = None
    ) -> tuple[Tensor, float, Any]:
        """See Observation; the state is a tuple with one per observation."""
        states = state or (None,) * len(self.observations)
        left = []
        for each, own in zip(self.observations, states, strict=True):
            values, interval, after = each.observe(values, interval, own)
            left.append(after)
        return values, interval, tuple(left)

    def channels(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """See Observation."""
        for each in self.observations:
            labels = each.channels(labels)
        return labels


def interval_of(trajectory: Trajectory) -> float:
    """The time in ms between the kept samples of a trajectory; raises ObservationError for one."""
    if len(trajectory.time) < 2:
        raise ObservationError(
            f"a trajectory of {len(trajectory.time)} samples has no interval; keep two or more"
        )
    span = float(trajectory.time[-1] - trajectory.time[0])
    # Times are multiples of dt as floating-point numbers: their last digits are not dt's.
    return float(f"{span / (len(trajectory.time) - 1):.9g}")


def observed(
    observation: Observation, trajectory: Trajectory, monitor: str, state: Any = None
) -> tuple[Tensor, float, Any]:
    """What an observation sees of one monitor of a trajectory, see `Observation.observe`."""
    return observation.observe(trajectory[monitor], interval_of(trajectory), state)


def check_values(values: Tensor, interval: float) -> None:
    """Raise ObservationError unless values are (batch, time, node) and the interval is a time."""
    if values.ndim != 3:
        raise ObservationError(f"values are {tuple(values.shape)}; must be (batch, time, node)")
    if not values.is_floating_point():
        raise ObservationError(f"values are {values.dtype}; must be floating-point numbers")
    if not (math.isfinite(interval) and interval > 0):
        raise ObservationError(f"interval is {interval} ms; must be a number above 0")


def check_interval(interval: float, before: float) -> None:
    """Raise ObservationError where a piece has another interval than the pieces before it."""
    if abs(interval - before) > SAME_TIME * before:
        raise ObservationError(f"interval is {interval:g} ms; the pieces before had {before:g} ms")


def check_period(name: str, period: float) -> None:
    """Raise ObservationError unless a setting is a time above 0 ms."""
    if not (math.isfinite(period) and period > 0):
        raise ObservationError(f"{name} is {period} ms; must be a number above 0")


def whole_ratio(long: float, short: float) -> int | None:
    """How many times `short` goes into `long`, or None where that is no whole number above 0."""
    ratio = long / short
    whole = round(ratio)
    return whole if whole >= 1 and abs(ratio - whole) <= SAME_TIME * whole else None


def join(rest: Tensor | None, values: Tensor) -> Tensor:
    """What was left of the pieces before, then `values`, along time; raises ObservationError."""
    if rest is None:
        return values
    if rest.shape[0] != values.shape[0] or rest.shape[2] != values.shape[2]:
        raise ObservationError(
            f"values are {tuple(values.shape)}; the pieces before had a batch of {rest.shape[0]} "
            f"and {rest.shape[2]} nodes"
        )
    return torch.cat([rest, values], dim=1)

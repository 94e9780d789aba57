"""Means over consecutive stretches of time that do not overlap."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainer.dynamics.observation import (
    OBSERVATIONS,
    Observation,
    ObservationError,
    check_interval,
    check_period,
    check_values,
    join,
    whole_ratio,
)


@dataclass(frozen=True, eq=False)
class AverageState:
    """Samples that do not fill a stretch yet, (batch, time, node), and their interval in ms."""

    rest: Tensor
    interval: float


@OBSERVATIONS.register("temporal_average")
class TemporalAverage(Observation):
    """The mean of every `period` ms; an incomplete stretch waits for the next piece."""

    def __init__(self, *, period: float = 1.0) -> None:
        super().__init__()
        check_period("period", period)
        self.period = float(period)

    def observe(
        self, values: Tensor, interval: float, state: AverageState | None = None
    ) -> tuple[Tensor, float, AverageState]:
        """See Observation; `period` must be a multiple of the interval."""
        check_values(values, interval)
        if state is not None:
            check_interval(interval, state.interval)
        count = whole_ratio(self.period, interval)
        if count is None:
            raise ObservationError(
                f"period {self.period:g} ms is no multiple of the interval, {interval:g} ms"
            )
        means, rest = stretch_means(join(state.rest if state else None, values), count)
        return means, self.period, AverageState(rest, interval)


def stretch_means(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Means of every `count` samples of (batch, time, node), and the samples that are left.

    The sum goes sample by sample, so that its bits depend on nothing but these samples.
    """
    whole = values.shape[1] // count
    rest = values[:, whole * count :]
    if count == 1:
        return values, rest
    total = values[:, : whole * count : count]
    for place in range(1, count):
        total = total + values[:, place : whole * count : count]
    return total / count, rest


def at_step(activity: Tensor, interval: float, step: float) -> tuple[Tensor, Tensor]:
    """Activity (batch, time, node) at another interval: averaged or held, and what is left.

    One of `interval` and `step` (ms) is a multiple of the other, see `check_step`.
    """
    many = whole_ratio(step, interval)
    if many is not None:
        return stretch_means(activity, many)
    held = whole_ratio(interval, step)
    assert held is not None
    return activity.repeat_interleave(held, dim=1), activity[:, activity.shape[1] :]


def check_step(step: float, interval: float, period: float) -> None:
    """Raise ObservationError unless a step fits the interval before it and the period after it."""
    fits = whole_ratio(step, interval) or whole_ratio(interval, step)
    if not fits or not whole_ratio(period, step):
        raise ObservationError(
            f"step {step:g} ms must divide the period, {period:g} ms, and be a multiple or a whole "
            f"part of the interval, {interval:g} ms"
        )

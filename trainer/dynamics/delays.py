"""Delays in steps, and what arrives through them.

A signal that left j at step n − steps_ij arrives at i in step n. Distance over speed is rounded to
the nearest step; with `interpolate` it is split between the two steps around it, which makes what
arrives differentiable in the speed.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

# A quotient this many units of rounding from a whole number of steps is one.
_WHOLE = 16


class DelayError(ValueError):
    """Delays that cannot be simulated; the text names the connection or parameter."""


class DelayWarning(UserWarning):
    """Delays that the step size is too coarse for."""


@dataclass(frozen=True, eq=False)
class Tap:
    """One share of what arrives: Σ_j weights_ij signal_j(n − steps_ij).

    weights: (target, source); steps: (target, source) int64.
    """

    weights: Tensor
    steps: Tensor


@dataclass(frozen=True, eq=False)
class Delays:
    """What travels and when it arrives.

    taps: shares of every travelling coupling signal. lags: for each lagged input, the number of the
    signal that holds the state, and its delay in steps (node,) int64 with the share that comes one
    step later (node,). signals: how many signals travel. length: steps of history that are kept.
    edges: targets and sources (edge,) of the connections, where only these are summed, or None.
    """

    taps: tuple[Tap, ...]
    lags: tuple[tuple[int, Tensor, Tensor], ...]
    signals: int
    length: int
    edges: tuple[Tensor, ...] | None = None


def tap_delays(milliseconds: Tensor, weights: Tensor, dt: float, interpolate: bool) -> list[Tap]:
    """Taps of delays (target, source) in ms with weights (target, source)."""
    steps = milliseconds / dt
    if not interpolate:
        return [Tap(weights, steps.detach().round().to(torch.int64))]
    lower, later = _split(steps)
    return [Tap(weights * (1 - later), lower), Tap(weights * later, lower + 1)]


def check_delays(milliseconds: Tensor, weights: Tensor, dt: float, labels: tuple[str, ...]) -> None:
    """Warn where a connection's delay is more than 0 and less than half a step."""
    delays = milliseconds.detach()
    lost = (delays > 0) & (delays < dt / 2) & (weights.detach() != 0)
    if bool(lost.any()):
        i, j = (int(k) for k in lost.nonzero()[0])
        warnings.warn(
            f"dt {dt:g} ms is too large for {int(lost.sum())} delays, which become 0: "
            f"{labels[j]!r} to {labels[i]!r} takes {delays[i, j]:.3g} ms; a dt of "
            f"{2 * delays[lost].min():.2g} ms would keep them",
            DelayWarning,
            stacklevel=4,
        )


def lag_steps(milliseconds: Tensor, dt: float, where: str) -> tuple[Tensor, Tensor]:
    """Whole steps (node,) of a lag (node,) in ms, and the share that comes one step later."""
    if bool((milliseconds.detach() < 0).any()):
        raise DelayError(f"{where} is negative; a lag is 0 ms or more")
    return _split(milliseconds / dt)


def _split(steps: Tensor) -> tuple[Tensor, Tensor]:
    """Whole steps int64, and the share that comes one step later, differentiable.

    At a whole number the share is 0 and its slope that of a longer delay.
    """
    given = steps.detach()
    whole = given.round()
    exact = (given - whole).abs() <= _WHOLE * torch.finfo(steps.dtype).eps * (1 + whole)
    below = torch.where(exact, whole, given.floor())
    later = steps - torch.where(exact, given, below)
    return below.to(torch.int64), later


def arrivals(delays: Delays, history: Tensor) -> tuple[Tensor, ...]:
    """What arrives now: one (batch, node) per coupling signal, then one per lag.

    history: (time, signal, batch, node), the newest step last.
    """
    newest = len(history) - 1
    nodes = history.shape[-1]
    arrived: list[Tensor] = []
    source = torch.arange(nodes, device=history.device)
    for signal in range(delays.signals - _lagged(delays)):
        own = history[:, signal]
        total = None
        for tap in delays.taps:
            if delays.edges is None:
                sent = own[newest - tap.steps, :, source]  # (target, source, batch)
                share = (tap.weights[..., None] * sent).sum(dim=1).mT
            else:
                share = _over_edges(tap, own, *delays.edges)
            total = share if total is None else total + share
        assert total is not None
        arrived.append(total)
    for signal, steps, later in delays.lags:
        own = history[:, signal]
        near, far = own[newest - steps, :, source].mT, own[newest - steps - 1, :, source].mT
        arrived.append(near + later * (far - near))
    return tuple(arrived)


def _over_edges(tap: Tap, own: Tensor, targets: Tensor, sources: Tensor) -> Tensor:
    """One tap's sums (batch, node) over connections alone; own: (time, batch, node)."""
    steps, weights = tap.steps[targets, sources], tap.weights[targets, sources]
    sent = own[len(own) - 1 - steps, :, sources]  # (edge, batch)
    sums = sent.new_zeros(own.shape[-1], sent.shape[-1])
    return sums.index_add(0, targets, weights[:, None] * sent).mT


def _lagged(delays: Delays) -> int:
    return len({signal for signal, _, _ in delays.lags})


def longest(taps: list[Tap], lags: list[tuple[int, Tensor, Tensor]]) -> int:
    """Steps of history that taps and lags need."""
    steps = [int(tap.steps.max()) + 1 for tap in taps] + [int(lag[1].max()) + 2 for lag in lags]
    return max(steps, default=1)


def check_speed(speed: Tensor) -> None:
    """Raise DelayError unless the conduction speed is one positive number."""
    if speed.ndim:
        raise DelayError(
            f"speed has shape {tuple(speed.shape)}; the delays of a batch are those of one speed: "
            "run one after the other"
        )
    value = float(speed.detach())
    if not (math.isfinite(value) and value > 0):
        raise DelayError(f"speed is {value:g} mm/ms; must be more than 0")

"""Losses of time series (…, time, node): correlation, functional connectivity, dynamics, spectra.

See `objectives`, which names every loss and the rules that all of them keep.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.losses import ObjectiveError, root, same_shape, scale_invariant
from trainer.registry import OBJECTIVES
from trainer.series import (
    correlation as pearson,
)
from trainer.series import (
    functional_connectivity,
    functional_connectivity_dynamics,
    power_spectrum,
    quantiles,
    upper_triangle,
)

# Share of the mean power below which a frequency counts as silent.
_SILENCE = 1e-6


@OBJECTIVES.register("correlation")
@scale_invariant
def correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """1 − Pearson's r over time, mean over nodes; both (…, time, node)."""
    same_shape("correlation", prediction, target)
    _series("correlation", prediction, target)
    return 1 - pearson(prediction, target, -2).mean()


@OBJECTIVES.register("fc_correlation")
@scale_invariant
def fc_correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """1 − r of the functional connectivities of two series, over pairs of nodes.

    Both (…, time, node); they may differ in length, and target may lack the batch axes.
    """
    _pairs("fc_correlation", prediction, target)
    return _triangles_apart(prediction, functional_connectivity(target))


@OBJECTIVES.register("fc_rmse")
@scale_invariant
def fc_rmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean squared error of functional connectivities, over pairs of nodes.

    Shapes as `fc_correlation`.
    """
    _pairs("fc_rmse", prediction, target)
    return _triangles_distance(prediction, functional_connectivity(target))


@OBJECTIVES.register("fc_matrix_correlation")
@scale_invariant
def fc_matrix_correlation(prediction: Tensor, target: Tensor) -> Tensor:
    """1 − r of a series' functional connectivity and a given matrix, over pairs of nodes.

    prediction: (…, time, node); target: (node, node) or (…, node, node), of which the part above
    the diagonal is read.
    """
    _matrix("fc_matrix_correlation", prediction, target)
    return _triangles_apart(prediction, target)


@OBJECTIVES.register("fc_matrix_rmse")
@scale_invariant
def fc_matrix_rmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean squared error of a series' functional connectivity against a given matrix.

    Shapes as `fc_matrix_correlation`.
    """
    _matrix("fc_matrix_rmse", prediction, target)
    return _triangles_distance(prediction, target)


@OBJECTIVES.register("fcd_wasserstein")
@scale_invariant
def fcd_wasserstein(
    prediction: Tensor, target: Tensor, *, window: int = 30, step: int = 5
) -> Tensor:
    """How far apart the values of the functional connectivity dynamics of two series are.

    The Wasserstein distance of their distributions, mean |difference| of the sorted values, from 0
    to 2. window, step: in samples, see `series.functional_connectivity_dynamics`. Both (…, time,
    node); they may differ in length, and target may lack the batch axes.
    """
    found = _window_likeness("fcd_wasserstein", prediction, target, window, step)
    count = max(values.shape[-1] for values in found)
    first, second = (quantiles(values, count) for values in found)
    return (first - second).abs().mean()


@OBJECTIVES.register("psd")
def psd(prediction: Tensor, target: Tensor, *, segment: int = 256) -> Tensor:
    """Root mean squared difference of log10 power, over frequencies and nodes; 1 is a decade.

    By Welch's method, the frequency 0 left out. segment: samples of each, see
    `series.power_spectrum`. Both (…, time, node) at one sampling interval; they may differ in
    length, and target may lack the batch axes.
    """
    first, second = _spectra("psd", prediction, target, segment)
    return _decades(first, second, second.mean((-2, -1), keepdim=True))


@OBJECTIVES.register("psd_shape")
@scale_invariant
def psd_shape(prediction: Tensor, target: Tensor, *, segment: int = 256) -> Tensor:
    """As `psd`, of spectra that are divided by the mean power of their node first."""
    first, second = (_relative(x) for x in _spectra("psd_shape", prediction, target, segment))
    return _decades(first, second, torch.ones_like(second))


def fcd_kolmogorov_smirnov(
    prediction: Tensor, target: Tensor, *, window: int = 30, step: int = 5
) -> Tensor:
    """Largest difference of the distributions that `fcd_wasserstein` compares, from 0 to 1.

    For reports alone: it jumps, so that no gradient leads anywhere, and is no registered objective.
    """
    found = _window_likeness("fcd_kolmogorov_smirnov", prediction, target, window, step)
    first, second = (values.detach().sort(dim=-1).values.contiguous() for values in found)
    second = second.expand(*first.shape[:-1], second.shape[-1]).contiguous()
    places = torch.cat([first, second], dim=-1)
    below = (
        torch.searchsorted(values, places, right=True) / values.shape[-1]
        for values in (first, second)
    )
    one, other = below
    return (one - other).abs().amax(-1).mean()


def _triangles_apart(prediction: Tensor, target: Tensor) -> Tensor:
    found = upper_triangle(functional_connectivity(prediction))
    return 1 - pearson(found, upper_triangle(target), -1).mean()


def _triangles_distance(prediction: Tensor, target: Tensor) -> Tensor:
    found = upper_triangle(functional_connectivity(prediction))
    return root((found - upper_triangle(target)).square().mean(-1)).mean()


def _window_likeness(
    name: str, prediction: Tensor, target: Tensor, window: int, step: int
) -> tuple[Tensor, Tensor]:
    """Values of both functional connectivity dynamics above the diagonal, (…, pair of windows)."""
    _pairs(name, prediction, target)
    if window < 2 or step < 1:
        raise ObjectiveError(f"{name}: window is {window}, step {step}; at least 2 and 1 samples")
    if prediction.shape[-1] < 3:
        raise ObjectiveError(f"{name}: {prediction.shape[-1]} nodes; needs 3, for several pairs")
    for what, series in (("prediction", prediction), ("target", target)):
        if series.shape[-2] < window + step:
            raise ObjectiveError(
                f"{name}: {what} has {series.shape[-2]} samples; two windows of {window}, {step} "
                f"apart, need {window + step}"
            )
    first = functional_connectivity_dynamics(prediction, window, step)
    return upper_triangle(first), upper_triangle(
        functional_connectivity_dynamics(target, window, step)
    )


def _spectra(name: str, prediction: Tensor, target: Tensor, segment: int) -> tuple[Tensor, Tensor]:
    """Power of both, (…, frequency, node), without the frequency 0."""
    _series(name, prediction, target)
    if segment < 4:
        raise ObjectiveError(f"{name}: segment is {segment}; at least 4 samples")
    for what, series in (("prediction", prediction), ("target", target)):
        if series.shape[-2] < segment:
            raise ObjectiveError(
                f"{name}: {what} has {series.shape[-2]} samples, fewer than a segment of {segment}"
            )
    first, second = (power_spectrum(series, segment) for series in (prediction, target))
    return first[..., 1:, :], second[..., 1:, :]


def _relative(power: Tensor) -> Tensor:
    """Power divided by its mean over frequencies; 0 of a silent node."""
    mean = power.mean(-2, keepdim=True)
    some = mean > torch.finfo(power.dtype).tiny
    return torch.where(some, power / torch.where(some, mean, torch.ones_like(mean)), 0.0 * power)


def _decades(first: Tensor, second: Tensor, level: Tensor) -> Tensor:
    """Root mean squared difference of log10 power; what is far below `level` counts as silent."""
    silence = _SILENCE * level.detach() + torch.finfo(first.dtype).tiny
    apart = torch.log10(first + silence) - torch.log10(second + silence)
    return root(apart.square().mean((-2, -1))).mean()


def _series(name: str, prediction: Tensor, target: Tensor) -> None:
    """Raise ObjectiveError unless both are series of the same nodes."""
    if not (
        prediction.ndim >= 2
        and target.ndim >= 2
        and prediction.shape[-1] == target.shape[-1]
        and target.shape[:-2] in ((), prediction.shape[:-2])
        and min(prediction.shape[-2], target.shape[-2]) >= 2
    ):
        raise ObjectiveError(
            f"{name}: prediction {tuple(prediction.shape)} and target {tuple(target.shape)}; both "
            "must be (…, time, node) with at least 2 times and the same nodes, target with the "
            "batch axes of prediction or none"
        )


def _pairs(name: str, prediction: Tensor, target: Tensor) -> None:
    _series(name, prediction, target)
    if prediction.shape[-1] < 2:
        raise ObjectiveError(f"{name}: 1 node has no connectivity; needs at least 2")


def _matrix(name: str, prediction: Tensor, target: Tensor) -> None:
    nodes = prediction.shape[-1]
    if not (
        prediction.ndim >= 2
        and nodes >= 2
        and target.shape[-2:] == (nodes, nodes)
        and target.shape[:-2] in ((), prediction.shape[:-2])
        and prediction.shape[-2] >= 2
    ):
        raise ObjectiveError(
            f"{name}: prediction {tuple(prediction.shape)} must be (…, time, node) with at least 2 "
            f"of each, and target {tuple(target.shape)} its connectivity (node, node), with the "
            "batch axes of prediction or none"
        )

"""Losses of values entry by entry: squared and absolute errors, likelihoods, angles.

See `objectives`, which names every loss and the rules that all of them keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from trainer.registry import OBJECTIVES

Function = TypeVar("Function", bound=Callable[..., Tensor])

# Probabilities and rates below it cost more in a straight line, so that a gradient leads back up.
_SMALLEST_RATE = 1e-6

SCALE_INVARIANT: set[Callable[..., Tensor]] = set()


class ObjectiveError(ValueError):
    """Prediction and target do not fit one another."""


def scale_invariant(function: Function) -> Function:
    """Decorator that marks an objective which a change of units leaves as it is."""
    SCALE_INVARIANT.add(function)
    return function


@OBJECTIVES.register("mse")
def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all entries; both arguments of one shape."""
    same_shape("mse", prediction, target)
    return (prediction - target).square().mean()


@OBJECTIVES.register("rmse")
def rmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root of the mean squared error over all entries; its gradient at an exact match is 0."""
    same_shape("rmse", prediction, target)
    return root((prediction - target).square().mean())


@OBJECTIVES.register("mae")
def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over all entries; both arguments of one shape."""
    same_shape("mae", prediction, target)
    return (prediction - target).abs().mean()


@OBJECTIVES.register("huber")
def huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Huber loss: squared below a difference of 1 (in scaled units), linear above."""
    same_shape("huber", prediction, target)
    distance = (prediction - target).abs()
    # min(d, 1) * (d - min(d, 1) / 2): no branch, hence no inf * 0 in the gradient.
    near = distance.clamp(max=1.0)
    return (near * (distance - 0.5 * near)).mean()


@OBJECTIVES.register("gaussian_likelihood")
def gaussian_likelihood(prediction: Tensor, target: Tensor, *, sigma: float = 1.0) -> Tensor:
    """Mean of −log N(target; prediction, sigma²); sigma in the unit of both."""
    same_shape("gaussian_likelihood", prediction, target)
    _above_0("gaussian_likelihood", sigma=sigma)
    distance = (prediction - target) / sigma
    return 0.5 * distance.square().mean() + math.log(sigma) + 0.5 * math.log(2 * math.pi)


@OBJECTIVES.register("student_t_likelihood")
def student_t_likelihood(
    prediction: Tensor, target: Tensor, *, freedom: float = 4.0, scale: float = 1.0
) -> Tensor:
    """Mean of −log p(target) of Student's t around the prediction: outliers pull little.

    freedom: degrees of it; scale in the unit of both.
    """
    same_shape("student_t_likelihood", prediction, target)
    _above_0("student_t_likelihood", freedom=freedom, scale=scale)
    half = (freedom + 1) / 2
    constant = math.lgamma(freedom / 2) - math.lgamma(half)
    constant += 0.5 * math.log(freedom * math.pi) + math.log(scale)
    distance = (prediction - target) / scale
    return half * torch.log1p(distance.square() / freedom).mean() + constant


@OBJECTIVES.register("poisson_likelihood")
def poisson_likelihood(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of −log Poisson(target; prediction); prediction: expected counts, target: counts."""
    same_shape("poisson_likelihood", prediction, target)
    return (prediction - target * _log(prediction) + torch.lgamma(target + 1)).mean()


@OBJECTIVES.register("bernoulli_likelihood")
def bernoulli_likelihood(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of −log p(target); prediction: probability of 1, target: 0 or 1 or a share."""
    same_shape("bernoulli_likelihood", prediction, target)
    return -(target * _log(prediction) + (1 - target) * _log(1 - prediction)).mean()


@OBJECTIVES.register("cross_entropy")
def cross_entropy(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of -log probability of the true class.

    prediction: (batch, class) probabilities; target: (batch,) int64 class numbers; weights:
    (class,), what a row of each class counts, 1 where left out.
    """
    if prediction.ndim != 2 or target.shape != prediction.shape[:1] or target.is_floating_point():
        raise ObjectiveError(
            "cross_entropy: prediction must be (batch, class) probabilities and target (batch,) "
            f"class numbers; they are {tuple(prediction.shape)} and {tuple(target.shape)} "
            f"{target.dtype}"
        )
    probability = prediction.gather(1, target[:, None])
    # A probability that underflowed to 0 costs -log(tiny), about 87, instead of infinity.
    costs = probability.clamp(min=torch.finfo(prediction.dtype).tiny).log()
    if weights is not None:
        costs = costs * weights[target][:, None]
    return -costs.mean()


@OBJECTIVES.register("cosine")
@scale_invariant
def cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """1 − cosine of the angle between both, all entries of (time, node) in one vector."""
    same_shape("cosine", prediction, target)
    first, second = _direction(prediction), _direction(target)
    return 1 - (first * second).sum(-1).mean()


def root(square: Tensor) -> Tensor:
    """√square, whose gradient at 0 is 0 in place of infinity; NaN stays NaN."""
    some = square != 0
    return torch.where(
        some, torch.where(some, square, torch.ones_like(square)).sqrt(), torch.zeros_like(square)
    )


def same_shape(name: str, prediction: Tensor, target: Tensor) -> None:
    """Raise ObjectiveError unless both have one shape."""
    # Broadcasting would turn a missing axis into a wrong number instead of an error.
    if prediction.shape != target.shape:
        raise ObjectiveError(
            f"{name}: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} "
            "must have one shape"
        )


def _log(rate: Tensor) -> Tensor:
    """log(rate), below a small rate the tangent there: finite for 0 and for negative numbers."""
    inside = rate > _SMALLEST_RATE
    tangent = math.log(_SMALLEST_RATE) + (rate - _SMALLEST_RATE) / _SMALLEST_RATE
    return torch.where(inside, torch.where(inside, rate, torch.ones_like(rate)).log(), tangent)


def _direction(values: Tensor) -> Tensor:
    """All entries of (time, node) as one vector of length 1, (…, entry); 0 where all are 0."""
    flat = values.reshape(*values.shape[:-2], -1)
    largest = flat.detach().abs().amax(-1, keepdim=True)
    some = largest > 0
    scaled = flat / torch.where(some, largest, torch.ones_like(largest))
    square = scaled.square().sum(-1, keepdim=True)
    return scaled / torch.where(some, square, torch.ones_like(square)).sqrt()


def _above_0(name: str, **settings: float) -> None:
    for key, value in settings.items():
        if not value > 0:
            raise ObjectiveError(f"{name}: {key} is {value}; must be above 0")

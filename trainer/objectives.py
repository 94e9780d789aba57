"""What a prediction is scored by: plain functions `(prediction, target) -> scalar tensor`.

Training, fitting, inference and discovery use the same functions, so each is a pure expression of
its arguments that torch.func.grad, vmap and torch.compile take, with finite gradients
everywhere. They know no units: the caller divides both arguments by a scale first (see
`scoring.target_scale`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.registry import OBJECTIVES

__all__ = ["OBJECTIVES", "ObjectiveError", "cross_entropy", "huber", "mae", "mse"]


class ObjectiveError(ValueError):
    """Prediction and target do not fit one another."""


@OBJECTIVES.register("mse")
def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all entries; both arguments of one shape."""
    _same_shape("mse", prediction, target)
    return (prediction - target).square().mean()


@OBJECTIVES.register("mae")
def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over all entries; both arguments of one shape."""
    _same_shape("mae", prediction, target)
    return (prediction - target).abs().mean()


@OBJECTIVES.register("huber")
def huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Huber loss: squared below a difference of 1 (in scaled units), linear above."""
    _same_shape("huber", prediction, target)
    distance = (prediction - target).abs()
    # min(d, 1) * (d - min(d, 1) / 2): no branch, hence no inf * 0 in the gradient.
    near = distance.clamp(max=1.0)
    return (near * (distance - 0.5 * near)).mean()


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


def _same_shape(name: str, prediction: Tensor, target: Tensor) -> None:
    # Broadcasting would turn a missing axis into a wrong number instead of an error.
    if prediction.shape != target.shape:
        raise ObjectiveError(
            f"{name}: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} "
            "must have one shape"
        )

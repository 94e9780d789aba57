"""What a prediction is scored by: plain functions `(prediction, target) -> scalar tensor`.

A registered objective is a loss: its name says what is compared, its value is smaller the better
they agree, such as 1 − r of "correlation" and −log p of "gaussian_likelihood". Training, fitting,
inference and discovery use the same functions, so each is a pure expression of its arguments that
torch.func.grad, vmap and torch.compile take, with finite gradients everywhere, at exact matches
and on constant signals too.

Shapes: series are (…, time, node) with batch axes in front, over which losses are averaged.

Units: tensors know none. Training divides both arguments by a scale first (`scoring.target_scale`);
whoever knows the units of both has them compared once by `checked`, before anything runs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from trainer.losses import (
    SCALE_INVARIANT,
    ObjectiveError,
    bernoulli_likelihood,
    cosine,
    cross_entropy,
    gaussian_likelihood,
    huber,
    mae,
    mse,
    poisson_likelihood,
    rmse,
    student_t_likelihood,
)
from trainer.registry import OBJECTIVES
from trainer.series_losses import (
    correlation,
    fc_correlation,
    fc_matrix_correlation,
    fc_matrix_rmse,
    fc_rmse,
    fcd_kolmogorov_smirnov,
    fcd_wasserstein,
    psd,
    psd_shape,
)

Objective: TypeAlias = Callable[[Tensor, Tensor], Tensor]

__all__ = [
    "OBJECTIVES",
    "Combined",
    "Objective",
    "ObjectiveError",
    "bernoulli_likelihood",
    "checked",
    "combined",
    "correlation",
    "cosine",
    "cross_entropy",
    "fc_correlation",
    "fc_matrix_correlation",
    "fc_matrix_rmse",
    "fc_rmse",
    "fcd_kolmogorov_smirnov",
    "fcd_wasserstein",
    "gaussian_likelihood",
    "huber",
    "mae",
    "mse",
    "objective",
    "poisson_likelihood",
    "psd",
    "psd_shape",
    "rmse",
    "student_t_likelihood",
]


@dataclass(frozen=True)
class Combined:
    """A weighted sum of objectives, see `combined`."""

    terms: tuple[tuple[float, Objective], ...]

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The sum, a scalar."""
        values = [weight * term(prediction, target) for weight, term in self.terms]
        return torch.stack(values).sum()


def combined(*terms: tuple[float, str | Objective]) -> Combined:
    """The sum of objectives, each times its weight: combined((1.0, "fc_rmse"), (0.1, "psd"))."""
    if not terms:
        raise ObjectiveError("combined: needs (weight, objective) at least once")
    for weight, _ in terms:
        if not math.isfinite(weight):
            raise ObjectiveError(f"combined: the weight {weight} is no finite number")
    return Combined(
        tuple((w, objective(term) if isinstance(term, str) else term) for w, term in terms)
    )


def objective(name: str, **settings: Any) -> Objective:
    """The registered objective `name` with some of its settings: objective("psd", segment=128).

    Raises UnknownNameError, and pydantic.ValidationError for settings that it has not.
    """
    function = OBJECTIVES.get(name)
    if not settings:
        return function
    values = OBJECTIVES.settings(name).model_validate(settings)
    return functools.partial(function, **{key: getattr(values, key) for key in settings})


Given = TypeVar("Given", bound=Objective)


def checked(objective: Given, prediction_unit: str | None, target_unit: str | None) -> Given:
    """`objective` itself, if quantities of these units may be compared by it.

    Units are texts as a trajectory names them, "1" for none; None where one is not known, which
    fits any. Raises ObjectiveError where they differ and a difference is taken; objectives that
    scale does not matter to, such as correlation and functional connectivity, take any two.
    """
    for term in _terms(objective):
        differ = None not in (prediction_unit, target_unit) and prediction_unit != target_unit
        if differ and getattr(term, "func", term) not in SCALE_INVARIANT:
            name = getattr(getattr(term, "func", term), "__name__", repr(term))
            raise ObjectiveError(
                f"{name}: prediction is in {prediction_unit!r} and target in {target_unit!r}; "
                "bring both to one unit, or compare by an objective that scale does not matter to, "
                "such as correlation, fc_correlation or psd_shape"
            )
    return objective


def _terms(objective: Callable[..., Any]) -> list[Callable[..., Any]]:
    if isinstance(objective, Combined):
        return [inner for _, term in objective.terms for inner in _terms(term)]
    return [objective]

"""Linear discriminant analysis with shrunk covariances, in float64.

torch does the algebra, because its thread count, and with it the bytes, is fixed by the config.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

TEMPERATURES = tuple(np.geomspace(0.25, 16.0, 49).tolist())


def discriminant(design: Tensor, choice: Tensor, priors: Tensor) -> Tensor:
    """Weights of the classes' log probabilities, up to a constant: (column + 1, class).

    design: (row, column) float64; choice: (row,) class numbers, each of which occurs; priors:
    (class,). The covariance is the mean over classes, weighted by the priors, of each class's
    own, shrunk as Ledoit and Wolf (2004) do. The last row is the intercept.
    """
    mean, std = design.mean(0), design.std(0, correction=0)
    scale = torch.where(std > 1e-9, 1.0 / std.clamp(min=1e-9), 0.0)
    z = (design - mean) * scale
    groups = [z[choice == number] for number in range(len(priors))]
    means = torch.stack([group.mean(0) for group in groups])
    covariance = torch.stack(
        [prior * shrunk_covariance(group) for prior, group in zip(priors, groups, strict=True)]
    ).sum(0)
    # Keeps the factorisation possible where columns repeat one another exactly.
    level = 1e-6 * float(covariance.diagonal().mean()) + 1e-12
    covariance.diagonal().add_(level)
    weights = torch.cholesky_solve(means.T, torch.linalg.cholesky(covariance))
    bias = torch.log(priors) - 0.5 * (means.T * weights).sum(0)
    weights = scale[:, None] * weights
    return torch.cat([weights, (bias - mean @ weights)[None]])


def shrunk_covariance(rows: Tensor) -> Tensor:
    """Covariance (column, column) of `rows` (row, column), shrunk on standardised columns."""
    count, columns = rows.shape
    std = rows.std(0, correction=0)
    scale = torch.where(std > 0, std, 1.0)
    z = (rows - rows.mean(0)) / scale
    covariance = z.T @ z / count
    level = covariance.diagonal().mean()
    # Squared distances per column: of the covariance from level * identity, of the samples' own
    # products from the covariance.
    distance = covariance.square().sum() / columns - level.square()
    spread = (z.square().sum(1).square().sum() / count - covariance.square().sum()) / (
        columns * count
    )
    share = torch.where(distance > 0, torch.minimum(spread, distance) / distance, 0.0)
    shrunk = (1.0 - share) * covariance
    shrunk.diagonal().add_(share * level)
    return scale[:, None] * shrunk * scale


def temperature(logits: Tensor, choice: Tensor, *, balanced: bool) -> tuple[float, float]:
    """The divisor of the logits with the smallest cross-entropy, and that cross-entropy (nats).

    logits: (row, class); choice: (row,). `balanced` gives every class that occurs equal weight.
    """
    counts = torch.bincount(choice, minlength=logits.shape[1]).double()
    weights = 1.0 / counts[choice] if balanced else torch.ones(len(choice), dtype=logits.dtype)
    weights = weights / weights.sum()
    losses = []
    for heat in TEMPERATURES:
        given = torch.log_softmax(logits / heat, 1).gather(1, choice[:, None])[:, 0]
        losses.append(-float((weights * given).sum()))
    best = int(np.argmin(losses))
    return TEMPERATURES[best], losses[best]

"""What members answered to windows that they had not seen, and the weights that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from trainer import scoring, simplex
from trainer.data.windows import Windows
from trainer.models import ModelError


class Answers(Protocol):
    """Members' answers to some windows, kept as what weights are fitted to."""

    def fitted(self, *, per_step: bool) -> np.ndarray:
        """The best weights on the simplex, (member, step); (member, 1) unless `per_step`."""
        ...

    def error(self, weights: np.ndarray) -> float:
        """The held-out metric of the blend by `weights`, (member, step) or (member, 1)."""
        ...


@dataclass(frozen=True, eq=False)
class Squares:
    """Of forecast and decode: sums of products of two members' errors.

    products: (step, member, member) float64, in units of the held-out metric; one step of decode.
    count: answers that they are sums over, of all steps together.
    """

    products: np.ndarray
    count: int

    def fitted(self, *, per_step: bool) -> np.ndarray:
        """The weights of the smallest square error, of each step on its own or of all."""
        groups = self.products if per_step else self.products.sum(axis=0, keepdims=True)
        return np.stack([simplex.least_squares(group) for group in groups], axis=1)

    def error(self, weights: np.ndarray) -> float:
        """`mse` of the blend."""
        spread = np.broadcast_to(weights, (len(weights), len(self.products)))
        return float(np.einsum("ms,smn,ns->", spread, self.products, spread) / self.count)


@dataclass(frozen=True, eq=False)
class Choices:
    """Of classify: the probability of the class that was right, (window, member) float64."""

    probabilities: np.ndarray

    def fitted(self, *, per_step: bool) -> np.ndarray:
        """The weights of the smallest cross-entropy; a window has no steps to weigh apart."""
        return simplex.mixture(self.probabilities)[:, None]

    def error(self, weights: np.ndarray) -> float:
        """`cross_entropy` of the blend."""
        return simplex.cross_entropy(self.probabilities, weights[:, 0])


def together(parts: Sequence[Answers]) -> Answers:
    """The answers to several parts, of one kind, as those to one."""
    squares = [part for part in parts if isinstance(part, Squares)]
    if squares:
        products = np.sum([part.products for part in squares], axis=0)
        return Squares(products, sum(part.count for part in squares))
    choices = [part.probabilities for part in parts if isinstance(part, Choices)]
    return Choices(np.concatenate(choices))


@torch.no_grad()
def answers(modules: Sequence[torch.nn.Module], windows: Windows, scale: np.ndarray) -> Answers:
    """What `modules`, on the CPU and in evaluation mode, answer to the windows of a part.

    `scale`: (variable,), what errors are divided by, as for the held-out metric.
    """
    starts = range(0, len(windows), scoring.CHUNK)
    chunks = (slice(start, min(start + scoring.CHUNK, len(windows))) for start in starts)
    return together([_chunk(modules, windows, rows, scale) for rows in chunks])


def _chunk(
    modules: Sequence[torch.nn.Module], windows: Windows, rows: slice, scale: np.ndarray
) -> Answers:
    batch = windows.batch(rows)
    device = torch.device("cpu")
    given = torch.stack(
        [scoring.forward(module, windows, batch, device).double() for module in modules]
    )
    for member, answer in enumerate(given):
        if not torch.isfinite(answer).all():
            raise ModelError(f"model.members: member {member + 1} answers with NaN or infinity")
    if windows.task == "classify":
        choice = torch.from_numpy(batch.targets["choice"])
        right = given[:, torch.arange(len(choice)), choice]
        return Choices(right.T.numpy())
    target = torch.from_numpy(
        batch.targets["forecast" if windows.task == "forecast" else "behavior"]
    )
    errors = (given - target) / torch.from_numpy(scale)
    if windows.task == "forecast":
        # (member, batch, step, channel) -> (step, member, answer)
        errors = errors[:, :, windows.observed :].permute(2, 0, 1, 3).flatten(2)
    else:
        # What was not measured counts for nothing: (member, batch, variable) -> (1, member, answer)
        errors = errors.flatten(1)[:, ~torch.isnan(target).flatten()][None]
    products = torch.matmul(errors, errors.transpose(1, 2))
    return Squares(products.numpy(), errors.shape[0] * errors.shape[2])

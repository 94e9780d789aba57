"""Classifiers of a window's columns, fitted in closed form or to convergence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from trainer.data.errors import DataError
from trainer.data.inner_folds import FOLDS, InnerFold, inner_folds
from trainer.data.windows import Windows
from trainer.models.discriminant import discriminant, temperature
from trainer.models.ridge import with_ones
from trainer.models.stages import stages

Kind = Literal["discriminant", "logistic", "kernel"]
FitOn = Literal["train", "both"]  # parts; "both" is train and validation
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of logistic: 1 over the penalty
PENALTIES = (0.1, 0.3, 1.0, 3.0)  # of kernel: less gives weights that float32 rounds too coarsely
WIDTHS = (0.35, 0.5, 0.7, 1.0, 1.5, 3.0)  # of kernel: in standard deviations of a column
SMALLEST = 1e-9

# design, choice, classes -> points, weights, bias: see Classifier.forward
Fitted = tuple[Tensor, Tensor, Tensor, float]


class Classifier(nn.Module):
    """Columns -> class probabilities.

    kind "discriminant": linear, Ledoit-Wolf covariances. "logistic": linear, scikit-learn's
    logistic regression. "kernel": least squares on the classes' indicators with a Gaussian kernel
    around every window that it was fitted on, for classes that no plane separates. What a kind
    leaves open, and the temperature of all, are chosen by 5 inner folds of the windows it is fitted
    on. All classes count alike.

    windows: how many it will be fitted on at most, of "kernel".
    """

    shift: Tensor
    scale: Tensor
    points: Tensor
    weight: Tensor
    bias: Tensor
    sharpness: Tensor

    def __init__(self, kind: Kind, columns: int, classes: int, windows: int) -> None:
        super().__init__()
        self.kind = kind
        rows = windows if kind == "kernel" else columns
        self.register_buffer("shift", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.register_buffer("points", torch.zeros(rows if kind == "kernel" else 0, columns))
        self.register_buffer("weight", torch.zeros(rows, classes))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_buffer("sharpness", torch.zeros(1))

    def forward(self, columns: Tensor) -> Tensor:
        """columns: (batch, column) -> probabilities (batch, class), rows sum to 1."""
        z = (columns - self.shift) * self.scale
        if self.kind == "kernel":
            # Squared distances as products, |z|^2 - 2 z p + |p|^2, whose terms cancel: in float64.
            points, wide = self.points.double(), z.double()
            squares = torch.matmul(wide.square(), torch.ones_like(points).T)
            distance = squares + points.square().sum(1) - 2.0 * torch.matmul(wide, points.T)
            near = torch.exp(-self.sharpness.double() * distance.clamp(min=0.0))
            answer = torch.matmul(near, self.weight.double()) + self.bias
        else:
            answer = torch.addmm(self.bias, z, self.weight)
        return torch.softmax(answer.float(), dim=-1)

    def fit(self, windows: Windows, design: Tensor) -> None:
        """Fit on the columns (window, column) float64 of `windows`; deterministic.

        Raises DataError where a class has too few windows or trials to be left out in turn, or
        there are too many windows for `kernel`.
        """
        assert windows.targets is not None
        choice = torch.from_numpy(windows.targets)
        classes = self.weight.shape[1]
        counts = torch.bincount(choice, minlength=classes)
        if (counts == 0).any():
            number = int(torch.argmin(counts))
            raise DataError(f"class {number} has no window in the train part: split otherwise")
        if self.kind == "kernel" and len(design) > len(self.points):
            raise DataError(
                f"{len(design)} windows; a kernel keeps at most {len(self.points)}: "
                "raise model.points or take another model.classifier"
            )
        mean, std = design.mean(0), design.std(0, correction=0)
        scale = torch.where(std > SMALLEST, 1.0 / std.clamp(min=SMALLEST), 0.0)
        z = (design - mean) * scale
        candidates = _CANDIDATES[self.kind]
        folds = _folds(windows, choice, classes)
        found = []
        with threadpool_limits(1):
            for candidate in stages("choosing the classifier by folds", candidates):
                logits = torch.zeros(len(z), classes, dtype=torch.float64)
                for fold in folds:
                    fitted = candidate(z[fold.fit], choice[fold.fit], classes)
                    logits[fold.held] = _answer(fitted, z[fold.held])
                heat, loss = temperature(logits, choice, balanced=True)
                found.append((loss, heat))
            best = int(np.argmin([loss for loss, _ in found]))
            points, weight, bias, sharpness = candidates[best](z, choice, classes)
        heat = found[best][1]
        self.shift.copy_(mean)
        self.scale.copy_(scale)
        self.weight.zero_()
        self.weight[: len(weight)] = (weight / heat).to(self.weight.dtype)
        self.bias.copy_(bias / heat)
        self.points.zero_()
        self.points[: len(points)] = points.to(self.points.dtype)
        self.sharpness.fill_(sharpness)


def both_parts(train: Windows, validation: Windows) -> Windows:
    """The windows of both parts as one part."""
    sessions = len(next(iter(train.series.values())))
    both: dict[str, np.ndarray | None] = {
        "sessions": np.concatenate([train.sessions, validation.sessions + sessions])
    }
    for name in ("starts", "targets", "trials"):
        parts = getattr(train, name), getattr(validation, name)
        both[name] = None if parts[0] is None else np.concatenate(parts)
    series = {name: (*train.series[name], *validation.series[name]) for name in train.series}
    return replace(train, **both, series=series, raw=None, raw_inputs=(), times=None)  # type: ignore[arg-type]


def designs(windows: Windows, columns: Callable[..., Tensor]) -> Tensor:
    """What `columns` makes of the inputs of a part, chunk by chunk: (window, column) float64."""
    found = []
    with torch.no_grad():
        for rows in windows.chunks():
            inputs = windows.batch(rows).inputs
            found.append(columns(*(torch.from_numpy(inputs[s.name]) for s in windows.inputs)))
    return torch.cat(found).double()


def _folds(windows: Windows, choice: Tensor, classes: int) -> list[InnerFold]:
    """As many inner folds, up to 5, as the rarest class has trials, or windows without trials."""
    kinds, what = choice.numpy(), "window"
    counts = np.bincount(kinds, minlength=classes)
    if windows.trials is not None and (windows.trials >= 0).all():
        units = np.unique(np.stack([windows.sessions, windows.trials, kinds]), axis=1)
        counts, what = np.bincount(units[2], minlength=classes), "trial"
    rarest = int(np.argmin(counts))
    if counts[rarest] < 2:
        raise DataError(
            f"class {rarest} has {counts[rarest]} {what} in the train part; a classifier needs at "
            f"least 2 {what}s of every class, each to be answered by a fit without it: split "
            "otherwise, or leave the class out"
        )
    folds = inner_folds(windows, min(FOLDS, int(counts[rarest])))
    for number, fold in enumerate(folds):
        left = np.bincount(kinds[fold.fit], minlength=classes)
        if (left == 0).any():
            raise DataError(
                f"class {int(np.argmin(left))} has no window in the train part that shares no "
                f"sample with fold {number + 1} of {len(folds)}: lengthen data.stride or split "
                "otherwise"
            )
    return folds


def _answer(fitted: Fitted, z: Tensor) -> Tensor:
    points, weight, bias, sharpness = fitted
    if len(points):
        z = torch.exp(-sharpness * torch.cdist(z, points).square())
    return z @ weight + bias


def _discriminant(z: Tensor, choice: Tensor, classes: int) -> Fitted:
    priors = torch.full((classes,), 1.0 / classes, dtype=torch.float64)
    weight = discriminant(z, choice, priors)
    return z[:0], weight[:-1], weight[-1], 0.0


def _logistic(strength: float) -> Callable[[Tensor, Tensor, int], Fitted]:
    def fit(z: Tensor, choice: Tensor, classes: int) -> Fitted:
        # Slow to import, and needed here alone.
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        model.fit(z.numpy(), choice.numpy())
        weight = torch.from_numpy(np.ascontiguousarray(model.coef_.T))
        bias = torch.from_numpy(model.intercept_)
        if classes == 2:
            weight = torch.cat([-weight / 2, weight / 2], 1)
            bias = torch.cat([-bias / 2, bias / 2])
        return z[:0], weight, bias, 0.0

    return fit


def _kernel(penalty: float, width: float) -> Callable[[Tensor, Tensor, int], Fitted]:
    def fit(z: Tensor, choice: Tensor, classes: int) -> Fitted:
        sharpness = 1.0 / (2.0 * width**2 * z.shape[1])
        near = torch.exp(-sharpness * torch.cdist(z, z).square())
        counts = torch.bincount(choice, minlength=classes).double()
        targets = torch.nn.functional.one_hot(choice, classes).double() - 1.0 / classes
        # Rare classes count as much as frequent ones: their windows are penalised less.
        diagonal = penalty * counts[choice] * classes / len(choice)
        system = with_ones(near + torch.diag(diagonal))
        edge = torch.cat([torch.ones(len(z)), torch.zeros(1)]).double()
        system = torch.cat([system, edge[None]])
        sides = torch.cat([targets, torch.zeros(1, classes, dtype=torch.float64)])
        solution = torch.linalg.solve(system, sides)
        return z, solution[:-1], solution[-1], sharpness

    return fit


_CANDIDATES: dict[str, list[Callable[[Tensor, Tensor, int], Fitted]]] = {
    "discriminant": [_discriminant],
    "logistic": [_logistic(strength) for strength in STRENGTHS],
    "kernel": [_kernel(penalty, width) for penalty in PENALTIES for width in WIDTHS],
}

"""What a module is trained on and judged by, per task.

Forecasts are compared on the scored steps (those after the observed ones), in raw units divided by
each channel's standard deviation in the train part, so that units do not matter; decoded variables
alike, by their own. Classifiers give the probability of every class and are judged by
cross-entropy, every window counting the same, and by accuracy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import numpy as np
import torch

from trainer import metrics, objectives
from trainer.data.windows import Batch, Windows
from trainer.objectives import OBJECTIVES, cross_entropy

CHUNK = 256  # windows scored at a time; part of the result's bits, hence fixed
_SMALLEST = 1e-12

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class ScoringError(ValueError):
    """The objective does not suit the task."""


def objective(name: str | None, task: str) -> Objective:
    """The registered objective `name`, None being the task's own.

    Raises ScoringError where it is known not to suit `task`.
    """
    if name is None:
        name = "cross_entropy" if task == "classify" else "mse"
    classifies = name == "cross_entropy"
    if name in objectives.__all__ and classifies != (task == "classify"):
        right = "cross_entropy" if task == "classify" else "mse, mae or huber"
        raise ScoringError(
            f"training.objective: {name!r} does not suit the data set's task {task!r}; take {right}"
        )
    return cast(Objective, OBJECTIVES.get(name))


def weighted(objective: Objective, windows: Windows, kind: str) -> Objective:
    """`objective` with the weights of classes, where it is cross-entropy and `kind` asks for them.

    "balanced": windows / (classes x windows of the class), of the train part `windows`; their mean
    over its windows is 1. Left as it is for another objective, for "none", and where all classes
    are equally frequent.
    """
    if objective is not cross_entropy or kind == "none":
        return objective
    assert windows.targets is not None
    classes = windows.outputs[0].shape[1]
    counts = np.bincount(windows.targets, minlength=classes or 0)
    if len(set(counts.tolist())) == 1:
        return objective
    weights = len(windows) / (len(counts) * np.maximum(counts, 1))
    return functools.partial(_weighted_cross_entropy, torch.tensor(weights, dtype=torch.float32))


def _weighted_cross_entropy(
    weights: torch.Tensor, prediction: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    return cross_entropy(prediction, target, weights.to(prediction.device))


def target_scale(
    windows: Windows, kind: str = "channel", weight_ratio: float | None = None
) -> np.ndarray:
    """What errors are divided by, (variable,) float64: standard deviations of the train part.

    A forecast's variables are its channels. `kind` "pooled" gives every one the root mean square of
    them; with `weight_ratio` channels count by variances clamped to their median times or by the
    square root of it, in the limit 1 all alike. A constant one gets 1 of "channel", and what the
    others have on average of "pooled".
    """
    std = np.asarray(windows.target_statistics().std, dtype=np.float64)
    if kind == "pooled" and std.any():
        return _pooled_scale(std, weight_ratio)
    return np.where(std > 0, std, 1.0)


def _pooled_scale(std: np.ndarray, weight_ratio: float | None) -> np.ndarray:
    pooled = np.sqrt(np.mean(std**2))
    if weight_ratio is None:
        return np.full_like(std, pooled)
    varies = std > 0
    variance = std[varies] ** 2
    middle, reach = np.median(variance), np.sqrt(weight_ratio)
    weight = np.clip(variance, middle / reach, middle * reach)
    scale = np.full_like(std, pooled)
    scale[varies] = std[varies] * np.sqrt(weight.mean() / weight)
    return scale


def forward(
    module: torch.nn.Module,
    windows: Windows,
    batch: Batch,
    device: torch.device,
    **arguments: torch.Tensor,
) -> torch.Tensor:
    """The module's answer in raw units.

    (batch, time, channel), (batch, class) probabilities, or (batch, variable). `arguments` are what
    the module takes besides the inputs while it trains.
    """
    inputs = [torch.from_numpy(batch.inputs[spec.name]).to(device) for spec in windows.inputs]
    to_raw = getattr(module, "to_raw", None)
    output = module(*inputs, **arguments)
    return cast(torch.Tensor, output if to_raw is None else to_raw(output))


def loss(
    module: torch.nn.Module,
    windows: Windows,
    batch: Batch,
    objective: Objective,
    scale: torch.Tensor,
    **arguments: torch.Tensor,
) -> torch.Tensor:
    """The objective over one minibatch, a scalar; `scale` (channel,) also names the device.

    A mixed minibatch of classify, see `augmentation.mixed`, has targets `second_choice` and `share`
    too: the loss is the share of that of `choice` and the rest of that of the second.
    """
    # Under autocast an answer may come in bfloat16, which has no digits left for a loss.
    output = forward(module, windows, batch, scale.device, **arguments).float()
    if windows.task == "classify":
        losses = [
            objective(output, torch.from_numpy(batch.targets[name]).to(scale.device))
            for name in ("choice", "second_choice")
            if name in batch.targets
        ]
        share = float(batch.targets.get("share", np.ones(())))
        return losses[0] if len(losses) == 1 else share * losses[0] + (1 - share) * losses[1]
    if windows.task == "decode":
        behavior = torch.from_numpy(batch.targets["behavior"]).to(scale.device)
        # What was not measured costs nothing: it counts as met.
        behavior = torch.where(torch.isnan(behavior), output.detach(), behavior)
        return objective(output / scale, behavior / scale)
    target = torch.from_numpy(batch.targets["forecast"]).to(scale.device)
    scored = slice(windows.observed, None)
    return objective(output[:, scored] / scale, target[:, scored] / scale)


@torch.no_grad()
def held_out(
    module: torch.nn.Module, windows: Windows, scale: np.ndarray, device: torch.device
) -> dict[str, float]:
    """Metrics of `module` on `windows`, in evaluation mode, summed in float64.

    forecast, decode: `mse` (in units of `scale` squared) and `mse_raw`, of a forecast over the
    scored steps, of decode over what was measured; of decode `r2` too, mean over variables,
    where one that does not vary counts 0. classify: `cross_entropy` (nats), `accuracy`, and
    `balanced_accuracy`, the mean over classes that occur.
    """
    was_training = module.training
    module.eval()
    names, score = _SUMS[windows.task]
    sums, count = dict.fromkeys(names, 0.0), 0
    found: list[np.ndarray] = []
    for start in range(0, len(windows), CHUNK):
        batch = windows.batch(slice(start, min(start + CHUNK, len(windows))))
        output = forward(module, windows, batch, device).cpu().numpy().astype(np.float64)
        values, counted = score(output, batch, windows, scale)
        count += counted
        for name, value in zip(names, values, strict=True):
            sums[name] += value
        if windows.task != "forecast":
            found.append(output)
    module.train(was_training)
    means = {name: value / count for name, value in sums.items()}
    if windows.targets is None:
        return means
    answers = np.concatenate(found)
    if windows.task == "classify":
        confusion = metrics.confusion(answers.argmax(axis=1), windows.targets, answers.shape[1])
        return {**means, "balanced_accuracy": metrics.balanced_accuracy(confusion)}
    determined = metrics.r2(answers, windows.targets.astype(np.float64))
    return {**means, "r2": float(np.nan_to_num(determined).mean())}


def _forecast_sums(
    output: np.ndarray, batch: Batch, windows: Windows, scale: np.ndarray
) -> tuple[tuple[float, float], int]:
    """Sums over windows of the mean squared error over scored steps and channels; windows."""
    scored = slice(windows.observed, None)
    squares = (output[:, scored] - batch.targets["forecast"][:, scored].astype(np.float64)) ** 2
    per_window = squares.shape[1] * squares.shape[2]
    scaled = float((squares / scale**2).sum() / per_window)
    return (scaled, float(squares.sum() / per_window)), len(output)


def _decode_sums(
    output: np.ndarray, batch: Batch, windows: Windows, scale: np.ndarray
) -> tuple[tuple[float, float], int]:
    """Sums over measured values of the squared error; measured values."""
    squares = (output - batch.targets["behavior"].astype(np.float64)) ** 2
    measured = np.isfinite(squares)
    sums = float((squares / scale**2)[measured].sum()), float(squares[measured].sum())
    return sums, int(measured.sum())


def _classify_sums(
    output: np.ndarray, batch: Batch, windows: Windows, scale: np.ndarray
) -> tuple[tuple[float, float], int]:
    """Sums over windows of the negative log probability of the choice, and of hits; windows."""
    choice = batch.targets["choice"]
    given = output[np.arange(len(choice)), choice]
    hits = output.argmax(axis=1) == choice
    return (float(-np.log(np.maximum(given, _SMALLEST)).sum()), float(hits.sum())), len(choice)


_SUMS: dict[str, tuple[tuple[str, str], Callable[..., tuple[tuple[float, float], int]]]] = {
    "forecast": (("mse", "mse_raw"), _forecast_sums),
    "classify": (("cross_entropy", "accuracy"), _classify_sums),
    "decode": (("mse", "mse_raw"), _decode_sums),
}

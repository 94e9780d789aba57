"""What a module is trained on and judged by, per task.

Forecasts are compared on the scored steps (those after the observed ones), in raw units divided by
each channel's standard deviation in the train part, so that units do not matter. Decoders give the
probability of every class and are judged by cross-entropy and accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch

from trainer.data.windows import Batch, Statistics, Windows
from trainer.objectives import OBJECTIVES

CHUNK = 256  # windows scored at a time; part of the result's bits, hence fixed
_SMALLEST = 1e-12

Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class ScoringError(ValueError):
    """The objective does not suit the task."""


def objective(name: str, task: str) -> Objective:
    """The registered objective `name`; raises ScoringError where it is known not to suit `task`."""
    suits = "decode" if name == "cross_entropy" else "forecast"
    if name in ("mse", "mae", "huber", "cross_entropy") and suits != task:
        right = "cross_entropy" if task == "decode" else "mse, mae or huber"
        raise ScoringError(
            f"training.objective: {name!r} does not suit the data set's task {task!r}; take {right}"
        )
    return cast(Objective, OBJECTIVES.get(name))


def channel_scale(statistics: Statistics, kind: str = "channel") -> np.ndarray:
    """What errors are divided by, (channel,) float64: the train part's standard deviations.

    `kind` "pooled" gives every channel the root mean square of them. A constant channel gets 1.
    """
    std = np.asarray(statistics.std, dtype=np.float64)[:, 0]
    if kind == "pooled":
        std = np.full_like(std, np.sqrt(np.mean(std**2)))
    return np.where(std > 0, std, 1.0)


def forward(
    module: torch.nn.Module, windows: Windows, batch: Batch, device: torch.device
) -> torch.Tensor:
    """The module's answer in raw units: (batch, time, channel), or (batch, class) probabilities."""
    inputs = [torch.from_numpy(batch.inputs[spec.name]).to(device) for spec in windows.inputs]
    to_raw = getattr(module, "to_raw", None)
    output = module(*inputs)
    return cast(torch.Tensor, output if to_raw is None else to_raw(output))


def loss(
    module: torch.nn.Module,
    windows: Windows,
    batch: Batch,
    objective: Objective,
    scale: torch.Tensor,
) -> torch.Tensor:
    """The objective over one minibatch, a scalar; `scale` (channel,) also names the device."""
    output = forward(module, windows, batch, scale.device)
    if windows.task == "decode":
        choice = torch.from_numpy(batch.targets["choice"]).to(scale.device)
        return objective(output, choice)
    target = torch.from_numpy(batch.targets["forecast"]).to(scale.device)
    scored = slice(windows.observed, None)
    return objective(output[:, scored] / scale, target[:, scored] / scale)


@torch.no_grad()
def held_out(
    module: torch.nn.Module, windows: Windows, scale: np.ndarray, device: torch.device
) -> dict[str, float]:
    """Metrics of `module` on `windows`, in evaluation mode, summed in float64.

    forecast: `mse` (in units of `scale` squared) and `mse_raw`; decode: `cross_entropy` (nats) and
    `accuracy`.
    """
    was_training = module.training
    module.eval()
    names = ("mse", "mse_raw") if windows.task == "forecast" else ("cross_entropy", "accuracy")
    sums = dict.fromkeys(names, 0.0)
    for start in range(0, len(windows), CHUNK):
        batch = windows.batch(slice(start, min(start + CHUNK, len(windows))))
        output = forward(module, windows, batch, device).cpu().numpy().astype(np.float64)
        score = _forecast_sums if windows.task == "forecast" else _decode_sums
        for name, value in zip(names, score(output, batch, windows, scale), strict=True):
            sums[name] += value
    module.train(was_training)
    return {name: value / len(windows) for name, value in sums.items()}


def _forecast_sums(
    output: np.ndarray, batch: Batch, windows: Windows, scale: np.ndarray
) -> tuple[float, float]:
    """Sums over windows of the mean squared error over scored steps and channels."""
    scored = slice(windows.observed, None)
    squares = (output[:, scored] - batch.targets["forecast"][:, scored].astype(np.float64)) ** 2
    per_window = squares.shape[1] * squares.shape[2]
    return float((squares / scale**2).sum() / per_window), float(squares.sum() / per_window)


def _decode_sums(
    output: np.ndarray, batch: Batch, windows: Windows, scale: np.ndarray
) -> tuple[float, float]:
    """Sums over windows of the negative log probability of the choice, and of hits."""
    choice = batch.targets["choice"]
    given = output[np.arange(len(choice)), choice]
    hits = output.argmax(axis=1) == choice
    return float(-np.log(np.maximum(given, _SMALLEST)).sum()), float(hits.sum())

"""The operations that an ONNX graph performs on a window: plain data, run by numpy here.

Each acts on the channel axis of (…, channel, feature) float32, a sample at a time. The trainer
writes the same operations into the exported graph (`trainer.graph_preparation`), in this order and
with these very numbers; take, scale and clip agree with numpy bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Take:
    """Channels `indices`, in this order."""

    indices: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Scale:
    """(x - offset) * factor, both (channel, 1) float32."""

    offset: np.ndarray
    factor: np.ndarray


@dataclass(frozen=True, eq=False)
class Clip:
    """x, but low where x < low and then high where x > high, both (channel, 1) float32.

    Comparisons, not minimum and maximum: what those make of -0 differs between libraries, and in
    ONNX Runtime with the place in the array. A limit of -0 is 0, for the same reason.
    """

    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, getattr(self, name) + np.float32(0))


@dataclass(frozen=True, eq=False)
class Project:
    """Weighted sums of channels: `matrix` (channel in, channel out) float32."""

    matrix: np.ndarray


Operation = Take | Scale | Clip | Project


def evaluate(operations: Iterable[Operation], values: np.ndarray) -> np.ndarray:
    """Values (…, channel, feature) float32 after the operations, in float32.

    What is too large for float32 becomes infinite, as in the graph.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        for operation in operations:
            values = _perform(operation, values)
    return values


def _perform(operation: Operation, values: np.ndarray) -> np.ndarray:
    match operation:
        case Take(indices):
            return values[..., list(indices), :]
        case Scale(offset, factor):
            return np.asarray((values - offset) * factor)
        case Clip(low, high):
            values = np.where(values < low, low, values)
            return np.where(values > high, high, values)
        case Project(matrix):
            return np.swapaxes(np.swapaxes(values, -1, -2) @ matrix, -1, -2)

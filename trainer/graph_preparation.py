"""The steps of a preparation that an ONNX graph performs, in front of the model they belong to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recording.preparation.operations import Clip, Operation, Project, Scale, Take


class WithPreparation(nn.Module):
    """A model behind operations on its input `neural` (batch, time, channel, feature).

    The operations are those of `recording.preparation.operations`, in float32 and in their order;
    other inputs pass as they are. The channel axis is fixed: the operations name channels.
    """

    dynamic_channel = False

    def __init__(self, operations: Sequence[Operation], model: nn.Module) -> None:
        super().__init__()
        self.operations = nn.ModuleList(map(_module, operations))
        self.model = model
        self.output_units = getattr(model, "output_units", "raw")

    def forward(self, neural: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The model's answer to the prepared `neural`."""
        for operation in self.operations:
            neural = operation(neural)
        answer: Tensor | tuple[Tensor, ...] = self.model(neural, *others)
        return answer


class _Take(nn.Module):
    indices: Tensor

    def __init__(self, operation: Take) -> None:
        super().__init__()
        self.register_buffer("indices", torch.tensor(operation.indices, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.index_select(x, 2, self.indices)


class _Scale(nn.Module):
    offset: Tensor
    factor: Tensor

    def __init__(self, operation: Scale) -> None:
        super().__init__()
        self.register_buffer("offset", _float(operation.offset))
        self.register_buffer("factor", _float(operation.factor))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.offset) * self.factor


class _Clip(nn.Module):
    low: Tensor
    high: Tensor

    def __init__(self, operation: Clip) -> None:
        super().__init__()
        self.register_buffer("low", _float(operation.low))
        self.register_buffer("high", _float(operation.high))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.where(x < self.low, self.low, x)
        return torch.where(x > self.high, self.high, x)


class _Project(nn.Module):
    matrix: Tensor

    def __init__(self, operation: Project) -> None:
        super().__init__()
        self.register_buffer("matrix", _float(operation.matrix))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x.transpose(2, 3), self.matrix).transpose(2, 3)


def _module(operation: Operation) -> nn.Module:
    match operation:
        case Take():
            return _Take(operation)
        case Scale():
            return _Scale(operation)
        case Clip():
            return _Clip(operation)
        case Project():
            return _Project(operation)


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))

"""Dropout whose random numbers cost little on a CPU: nn.Dropout makes a step 15 % longer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """As nn.Dropout, with a share that is rounded to a multiple of 1/256.

    On a CPU every random number of 64 bits decides on eight entries, by a byte each. Does nothing
    in evaluation mode; the mean of what is kept and scaled is that of the input.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.lost = min(255, round(256 * share))  # of 256 values that a byte takes

    def forward(self, x: Tensor) -> Tensor:
        """x: any shape -> the same shape."""
        if not self.training or self.lost == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.lost / 256)
        numbers = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = numbers.view(torch.uint8)[: x.numel()].view(x.shape) >= self.lost
        return x * kept.to(x.dtype).mul_(256 / (256 - self.lost))

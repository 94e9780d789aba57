"""The pre-LN attention block that networks use within and across channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.models.dropout import Dropout


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)), over the last but one axis.

    Any number of leading axes: x (..., token, width) -> the same shape. Written out as plain
    products, which export to standard operators and are deterministic on every device.
    feed_forward: hidden width of the second part, as a multiple of `width`.
    Raises ValueError where `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, dropout: float, feed_forward: int = 2) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"model.heads: {heads} does not divide model.width {width}")
        self.heads, self.size = heads, width // heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, feed_forward * width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(feed_forward * width, width),
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., token, width) -> (..., token, width)."""
        x = x + self.dropout(self._attend(self.attention_norm(x)))
        output: Tensor = x + self.dropout(self.feed_forward(x))
        return output

    def _attend(self, x: Tensor) -> Tensor:
        # 1. (..., token, 3 * width) -> three of (..., head, token, size)
        parts = self.query_key_value(x).chunk(3, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, self.size)).transpose(-3, -2) for part in parts
        )
        # 2. weights of every token for every other: (..., head, token, token)
        weights = torch.softmax(query @ key.transpose(-2, -1) * self.size**-0.5, dim=-1)
        # 3. (..., head, token, size) -> (..., token, width)
        output: Tensor = self.project((weights @ value).transpose(-3, -2).flatten(-2))
        return output


def blocks(count: int, width: int, heads: int, dropout: float, feed_forward: int) -> nn.Sequential:
    """`count` blocks, one after the other."""
    return nn.Sequential(*[Block(width, heads, dropout, feed_forward) for _ in range(count)])

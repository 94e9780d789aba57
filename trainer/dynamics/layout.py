"""How (batch, node) values lie in the memory of a compiled loop: rows of padded lanes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Lanes are padded to this many numbers: whole vectors on every processor.
PADDING = 16


@dataclass(frozen=True)
class Layout:
    """Rows and lanes of a (batch, node) array.

    lanes: "node" (rows are batch members), "batch" (rows are nodes) or "flat" (one row of all).
    """

    lanes: str
    batch: int
    nodes: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return {"node": self.batch, "batch": self.nodes, "flat": 1}[self.lanes]

    @property
    def used(self) -> int:
        """Lanes that hold values."""
        counts = {"node": self.nodes, "batch": self.batch, "flat": self.batch * self.nodes}
        return counts[self.lanes]

    @property
    def width(self) -> int:
        """Lanes with their padding."""
        return -(-self.used // PADDING) * PADDING

    @property
    def size(self) -> int:
        """Numbers in one array."""
        return self.rows * self.width

    def pack(self, value: Tensor) -> Tensor:
        """(…, batch, node) → (…, row, lane), padded with ones, contiguous."""
        if self.lanes == "batch":
            value = value.mT
        elif self.lanes == "flat":
            value = value.reshape(*value.shape[:-2], 1, -1)
        if value.shape[-1] == self.width:
            return value.contiguous()
        padded = value.new_ones((*value.shape[:-1], self.width))
        padded[..., : self.used] = value
        return padded

    def unpack(self, value: Tensor) -> Tensor:
        """(…, row, lane) → (…, batch, node)."""
        value = value.reshape(*value.shape[:-2], self.rows, self.width)[..., : self.used]
        if self.lanes == "batch":
            return value.mT
        return value.reshape(*value.shape[:-2], self.batch, self.nodes)

    def kind(self, shape: tuple[int, ...]) -> str:
        """How a value of this shape, which broadcasts to (batch, node), lies: see KINDS."""
        batch, nodes = (1, 1, *shape)[-2:]
        if batch == 1 and nodes == 1:
            return "scalar"
        if self.lanes == "flat":
            return "lane"
        if batch > 1 and nodes > 1:
            return "full"
        along_nodes = nodes > 1
        return "lane" if along_nodes == (self.lanes == "node") else "row"

    def pack_as(self, kind: str, value: Tensor) -> Tensor:
        """(…, batch or 1, node or 1) as `kind` says, contiguous: (…, numbers)."""
        if kind == "scalar":
            return value.reshape(*value.shape[:-2], 1).contiguous()
        if kind == "full" or self.lanes == "flat":
            full = value.expand(*value.shape[:-2], self.batch, self.nodes)
            return self.pack(full).flatten(-2).contiguous()
        flat = value.flatten(-2)
        if kind == "row":
            return flat.contiguous()
        padded = flat.new_ones((*flat.shape[:-1], self.width))
        padded[..., : self.used] = flat
        return padded


def choose_layout(batch: int, nodes: int, *, coupled: bool, delayed: bool) -> Layout:
    """Flat without products; lanes of batch members where that pads less or delays are read."""
    by_node, by_batch = Layout("node", batch, nodes), Layout("batch", batch, nodes)
    if delayed:
        # A lane of nodes gathers its sources from as many places; that pays for few members.
        return by_batch if batch >= PADDING // 2 else by_node
    if not coupled:
        return Layout("flat", batch, nodes)
    # Samples leave as rows of nodes: lanes of members must save a quarter to be worth turning.
    return by_batch if 4 * by_batch.size < 3 * by_node.size else by_node


def matrix(layout: Layout, weights: Tensor, *, back: bool) -> Tensor:
    """The connectome as a product of this layout takes it; weights: (source, target)."""
    turned = weights.mT if back else weights
    if layout.lanes == "batch":
        return turned.mT.contiguous()
    padded = torch.zeros((layout.nodes, layout.width), dtype=weights.dtype)
    padded[:, : layout.nodes] = turned
    return padded

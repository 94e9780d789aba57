"""A connectome: weights, lengths and names of regions, checked when it is made."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components


class ConnectomeError(ValueError):
    """A connectome that cannot be used; the text names the regions."""


class ConnectomeWarning(UserWarning):
    """A connectome that can be used and may not be what was meant."""


@dataclass(frozen=True, eq=False)
class Connectome:
    """Who is connected to whom.

    weights: (node, node) float64 or a scipy sparse matrix, which is written out; row = target,
    column = source, diagonal without meaning unless `self_connections`. lengths: (node, node) mm,
    or None. labels: one name per node. positions: (node, 3) mm, or None. Raises ConnectomeError for
    a NaN, a negative length or shapes that do not fit; warns of weights that are not symmetric and
    of parts that are not connected.
    """

    weights: np.ndarray
    lengths: np.ndarray | None = None
    labels: tuple[str, ...] = ()
    positions: np.ndarray | None = None
    directed: bool = False
    self_connections: bool = False
    name: str = field(default="connectome")

    def __post_init__(self) -> None:
        weights = _matrix("weights", self.weights)
        nodes = len(weights)
        labels = tuple(self.labels) or tuple(f"node {k}" for k in range(nodes))
        if len(labels) != nodes or len(set(labels)) != nodes:
            raise ConnectomeError(
                f"{self.name}: {len(labels)} labels, {len(set(labels))} of them different, for "
                f"{nodes} nodes"
            )
        object.__setattr__(self, "labels", labels)
        self._check_finite("weights", weights)
        if not self.self_connections:
            weights = weights * (1.0 - np.eye(nodes))
        object.__setattr__(self, "weights", weights)
        if self.lengths is not None:
            object.__setattr__(self, "lengths", self._checked_lengths(nodes))
        if self.positions is not None:
            object.__setattr__(self, "positions", self._checked_positions(nodes))
        self._warn(weights)

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.labels)

    def _checked_lengths(self, nodes: int) -> np.ndarray:
        lengths = _matrix("lengths", self.lengths)
        if lengths.shape != (nodes, nodes):
            raise ConnectomeError(
                f"{self.name}: lengths are {lengths.shape}, weights ({nodes}, {nodes})"
            )
        self._check_finite("lengths", lengths)
        negative = np.argwhere(lengths < 0)
        if len(negative):
            i, j = negative[0]
            raise ConnectomeError(
                f"{self.name}: the length from {self.labels[j]!r} to {self.labels[i]!r} is "
                f"{lengths[i, j]:g} mm; lengths are 0 or more"
            )
        return lengths

    def _checked_positions(self, nodes: int) -> np.ndarray:
        positions = _numbers("positions", self.positions)
        if positions.shape != (nodes, 3):
            raise ConnectomeError(
                f"{self.name}: positions are {positions.shape}, must be ({nodes}, 3) mm"
            )
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(bad):
            raise ConnectomeError(
                f"{self.name}: the position of {self.labels[bad[0]]!r} is {positions[bad[0]]} mm"
            )
        return positions

    def _check_finite(self, what: str, matrix: np.ndarray) -> None:
        bad = np.argwhere(~np.isfinite(matrix))
        if len(bad):
            i, j = bad[0]
            raise ConnectomeError(
                f"{self.name}: {what} from {self.labels[j]!r} to {self.labels[i]!r} is "
                f"{matrix[i, j]} ({len(bad)} such entries); must be finite numbers"
            )

    def _warn(self, weights: np.ndarray) -> None:
        if not self.directed and not np.allclose(weights, weights.T, rtol=1e-5, atol=1e-8):
            i, j = np.unravel_index(np.argmax(np.abs(weights - weights.T)), weights.shape)
            warnings.warn(
                f"{self.name}: weights are not symmetric, most between {self.labels[j]!r} and "
                f"{self.labels[i]!r} ({weights[i, j]:g}, {weights[j, i]:g}); rows are targets; say "
                "directed=True if that is meant",
                ConnectomeWarning,
                stacklevel=4,
            )
        count, part = connected_components(weights != 0, directed=True, connection="weak")
        if count > 1:
            smallest = min(range(count), key=lambda k: (np.sum(part == k), k))
            names = [self.labels[k] for k in np.flatnonzero(part == smallest)[:5]]
            warnings.warn(
                f"{self.name}: {count} parts without a connection between them, one of them "
                f"{', '.join(names)}",
                ConnectomeWarning,
                stacklevel=4,
            )


def _matrix(what: str, values: object) -> np.ndarray:
    matrix = _numbers(what, values)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ConnectomeError(f"{what} are {matrix.shape}; must be (node, node)")
    return matrix


def _numbers(what: str, values: object) -> np.ndarray:
    """A copy in float64; a sparse matrix is written out."""
    if scipy.sparse.issparse(values):
        values = values.toarray()  # type: ignore[attr-defined]
    try:
        given = np.asarray(values)
    except ValueError:
        raise ConnectomeError(f"{what} have rows of different lengths") from None
    if not np.issubdtype(given.dtype, np.number) and given.dtype != np.bool_:
        raise ConnectomeError(f"{what} hold {given.dtype} values; must be real numbers")
    if np.iscomplexobj(given):
        raise ConnectomeError(f"{what} are complex; must be real numbers")
    return given.astype(np.float64)

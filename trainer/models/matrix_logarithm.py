"""Logarithms of positive definite matrices by products alone, as a graph can have them."""

from __future__ import annotations

import torch
from torch import Tensor

# Steps of each of the nested square roots: the first meets the widest spread of eigenvalues.
ROOTS = (20, 12, 9, 7, 6, 6)
TERMS = 8


def matrix_logarithm(matrices: Tensor) -> Tensor:
    """Principal logarithms: (..., size, size) symmetric positive definite -> the same shape.

    log A = 2^6 log(A^(1 / 2^6)); the roots by the coupled iteration of Newton and Schulz (Higham,
    Functions of Matrices, 2008, section 6.7), the last logarithm, of a matrix near I, by its
    series. Good to 1e-3 in float32 for eigenvalues that lie within a factor of 10000 of one
    another and of 1. The number of steps is fixed, and no element-wise logarithm is taken: its
    bits depend on where a row lies in the batch.
    """
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    root = matrices
    for steps in ROOTS:
        # The iteration needs eigenvalues in (0, 2); those of a positive matrix sum to its trace.
        norm = _spread(root)
        root = square_root(root / norm, steps, identity) * torch.sqrt(norm)
    rest = root - identity
    # Horner's scheme of rest - rest^2 / 2 + rest^3 / 3 - ...
    series = rest * ((-1.0) ** (TERMS + 1) / TERMS)
    for term in range(TERMS - 1, 0, -1):
        series = torch.matmul(rest, series) + rest * ((-1.0) ** (term + 1) / term)
    return 2.0 ** len(ROOTS) * series


def square_root(matrices: Tensor, steps: int, identity: Tensor) -> Tensor:
    """Square roots of matrices with eigenvalues in (0, 2), by `steps` coupled iterations."""
    root, inverse = matrices, identity.expand_as(matrices)
    for _ in range(steps):
        change = 1.5 * identity - 0.5 * torch.matmul(inverse, root)
        root, inverse = torch.matmul(root, change), torch.matmul(change, inverse)
    return root


def trace(matrices: Tensor) -> Tensor:
    """(..., size, size) -> (..., 1, 1)."""
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return _total(matrices * identity)


def _spread(matrices: Tensor) -> Tensor:
    """A bound of the largest eigenvalue: the Frobenius norm, (..., 1, 1)."""
    return torch.sqrt(_total(matrices.square()))


def _total(matrices: Tensor) -> Tensor:
    # A sum as a product with ones: it gives a row the same bits in any batch.
    flat = matrices.flatten(-2)
    return torch.matmul(flat, flat.new_ones(flat.shape[-1], 1)).unsqueeze(-1)

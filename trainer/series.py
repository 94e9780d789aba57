"""What is computed of time series (…, time, node): correlation, connectivity, spectra, quantiles.

Every function is a pure expression of its arguments that torch.func.grad, vmap and torch.compile
take. A constant signal correlates with nothing: its correlations are 0, with gradients of 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "correlation",
    "functional_connectivity",
    "functional_connectivity_dynamics",
    "power_spectrum",
    "quantiles",
    "standardised",
    "upper_triangle",
]


def standardised(values: Tensor, dim: int) -> Tensor:
    """`values` without their mean along `dim`, scaled to length 1 along it; 0 where constant, NaN
    where one of them is not finite."""
    # Lengths do not matter to the result: divided out first, no square overflows or vanishes.
    largest = values.detach().abs().amax(dim, keepdim=True)
    centred = values / torch.where(largest > 0, largest, torch.ones_like(largest))
    centred = centred - centred.mean(dim, keepdim=True)
    square = centred.square().sum(dim, keepdim=True)
    # What is left of a constant after its mean was taken off is rounding, not a signal.
    rounding = values.shape[dim] * (8 * torch.finfo(values.dtype).eps) ** 2
    constant = square <= rounding
    length = torch.where(constant, torch.ones_like(square), square).sqrt()
    return torch.where(constant, torch.zeros_like(centred), centred / length)


def correlation(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Pearson's r along `dim`; 0 where one of the two is constant."""
    return (standardised(first, dim) * standardised(second, dim)).sum(dim)


def functional_connectivity(series: Tensor) -> Tensor:
    """Pearson's r over time of every pair of nodes, (…, node, node); its diagonal is 1."""
    unit = standardised(series, -2)
    nodes = series.shape[-1]
    own = torch.eye(nodes, dtype=series.dtype, device=series.device)
    return unit.mT @ unit * (1 - own) + own


def functional_connectivity_dynamics(series: Tensor, window: int, step: int) -> Tensor:
    """How alike the connectivity of any two windows is, (…, window, window); its diagonal is 1.

    Pearson's r of the upper triangles of their functional connectivities. window: samples of each;
    step: samples between the starts of two.
    """
    triangles = upper_triangle(functional_connectivity(_windows(series, window, step)))
    return functional_connectivity(triangles.mT)


def upper_triangle(matrix: Tensor) -> Tensor:
    """The entries above the diagonal of (…, n, n), row by row: (…, n (n − 1) / 2)."""
    rows, columns = torch.triu_indices(
        matrix.shape[-1], matrix.shape[-1], 1, device=matrix.device
    ).unbind()
    return matrix[..., rows, columns]


def power_spectrum(series: Tensor, segment: int) -> Tensor:
    """Power density by Welch's method, (…, frequency, node).

    Means over segments of `segment` samples that overlap by half, each without its mean and under a
    Hann window. Frequency k is k / segment cycles per sample, k = 0 … segment // 2; one-sided, in
    the square of the series' unit times the sampling interval: the sum over frequencies divided by
    `segment` is the variance.
    """
    frames = _windows(series, segment, max(1, segment // 2)).mT  # (…, segment, node, sample)
    sample = torch.arange(segment, device=series.device)
    frequency = torch.arange(segment // 2 + 1, device=series.device)
    turns = (sample[:, None] * frequency % segment).to(series.dtype) * (2 * math.pi / segment)
    hann = 0.5 - 0.5 * torch.cos(sample.to(series.dtype) * (2 * math.pi / segment))
    waves = (frames - frames.mean(-1, keepdim=True)) * hann
    # Real products in place of a complex transform, which compilers leave out.
    real, imaginary = waves @ torch.cos(turns), waves @ torch.sin(turns)
    power = (real.square() + imaginary.square()).mean(-3) / hann.square().sum()
    # Frequencies that stand for their negative too; the last one does not where it is Nyquist's.
    twice = (frequency > 0) & (2 * frequency != segment)
    return (power * (1 + twice.to(series.dtype))).mT


def quantiles(values: Tensor, count: int) -> Tensor:
    """`count` evenly spaced quantiles of the last axis, (…, count): the sorted values themselves
    where there are as many."""
    ordered = values.sort(dim=-1).values
    size = values.shape[-1]
    if size == count:
        return ordered
    places = (torch.arange(count, device=values.device) + 0.5) * (size / count) - 0.5
    places = places.clamp(0, size - 1)
    below = places.floor().long()
    above = (below + 1).clamp(max=size - 1)
    share = (places - below).to(values.dtype)
    return ordered[..., below] * (1 - share) + ordered[..., above] * share


def _windows(series: Tensor, size: int, step: int) -> Tensor:
    """Windows of `size` samples, `step` samples apart: (…, window, time, node)."""
    starts = torch.arange(0, series.shape[-2] - size + 1, step, device=series.device)
    return series[..., starts[:, None] + torch.arange(size, device=series.device), :]

"""How well a model's layers predict recorded neurons, linearly.

Per layer and fold: sparse random projection, ridge regression on the other folds, then Pearson r of
the smoothed prediction with the smoothed spikes. Projection sizes, seeds (those of scikit-learn's
`SparseRandomProjection(random_state=42 + fold)`), folds and smoothing are those of the public kit
SchneiderMarius/mouse-vs-ai-benchmark, so that the numbers are its numbers.
Source: Li, Hastie & Church (2006), Very sparse random projections; Achlioptas (2003).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
KEY = "spikes"
SEED = 42
_TINY = 1e-9


def statistics(
    prediction: Mapping[str, Array], reference: Mapping[str, Array], options: Mapping[str, Any]
) -> Array:
    """Pearson r of every neuron under the best layer of the recording, and 1: (neuron, 2).

    prediction: layer name -> activations (frame, ...), floating. reference: `spikes` (frame,
    neuron). options: `rate`, frames in a second; `folds` (5), contiguous; `alpha` (1.0), the ridge
    penalty; `eps` (0.2), the distortion that the projection's size allows; `window` (2.0), seconds
    of the boxcar. The best layer has the highest mean over neurons.
    """
    spikes = _spikes(reference)
    layers = _layers(prediction, len(spikes))
    folds, taps = int(options.get("folds", 5)), _taps(options)
    if len(spikes) // folds < max(taps, 2):
        raise ValueError(
            f"the reference has {len(spikes)} frames: too few for {folds} folds of {taps}"
        )
    edges = [fold * (len(spikes) // folds) for fold in range(folds)] + [len(spikes)]
    scores = [
        np.mean(
            [
                _fold(layer, spikes, slice(edges[f], edges[f + 1]), SEED + f, options)
                for f in range(folds)
            ],
            axis=0,
        )
        for layer in layers
    ]
    best = max(scores, key=lambda score: float(np.mean(score)))
    return np.stack([best, np.ones(len(best))], axis=1)


def columns(totals: Mapping[str, Array], options: Mapping[str, Any]) -> dict[str, float]:
    """The mean over neurons of each recording, and `mean`, that over the neurons of all."""
    names = list(options.get("sets", totals))
    if missing := [name for name in names if name not in totals]:
        raise ValueError(f"no statistics of {', '.join(missing)}")
    pooled = np.sum([totals[name] for name in names], axis=0)
    scores = {name: float(totals[name][0] / totals[name][1]) for name in names}
    return {**scores, "mean": float(pooled[0] / pooled[1])}


def by_row(statistics: Array, options: Mapping[str, Any]) -> tuple[str, Array]:
    """The correlation of each neuron."""
    return "correlation of a neuron", statistics[:, 0] / statistics[:, 1]


def _fold(
    layer: Array, spikes: Array, held_out: slice, seed: int, options: Mapping[str, Any]
) -> Array:
    """Pearson r by neuron on the held-out frames, of a regression on all others."""
    train = np.ones(len(spikes), dtype=bool)
    train[held_out] = False
    size = int(
        np.ceil(4.0 * np.log(max(int(train.sum()), 2)) / float(options.get("eps", 0.2)) ** 2)
    )
    projected = _project(layer, size, seed)
    predicted = _ridge(
        projected[train], spikes[train], projected[held_out], float(options.get("alpha", 1.0))
    )
    taps = _taps(options)
    return _pearson(_boxcar(predicted, taps), _boxcar(spikes[held_out], taps))


def _project(layer: Array, size: int, seed: int) -> Array:
    """(frame, feature) to (frame, size) by a sparse random matrix of density 1 / sqrt(feature)."""
    # The legacy generator, whose stream numpy has promised never to change.
    random = np.random.RandomState(seed)
    features = layer.shape[1]
    if features == 1:
        signs = random.binomial(1, 0.5, (size, 1)) * 2.0 - 1.0
        single: Array = layer.astype(np.float64) @ (signs.T / np.sqrt(size))
        return single
    density = 1.0 / np.sqrt(features)
    chosen = [
        _sample(random, features, int(random.binomial(features, density))) for _ in range(size)
    ]
    signs = random.binomial(1, 0.5, sum(map(len, chosen))) * 2.0 - 1.0
    signs *= np.sqrt(1.0 / density) / np.sqrt(size)
    by_feature = np.ascontiguousarray(layer.T)
    projected: Array = np.empty((size, len(layer)))
    start = 0
    for component, picked in zip(projected, chosen, strict=True):
        component[:] = signs[start : start + len(picked)] @ by_feature[picked].astype(np.float64)
        start += len(picked)
    transposed: Array = projected.T
    return transposed


def _sample(random: np.random.RandomState, population: int, count: int) -> Array:
    """`count` distinct numbers below `population`, drawn in the order in which the kit draws."""
    if count == population:
        return np.arange(population)
    if 0.01 < count / population < 0.99:
        return random.permutation(population)[:count]
    drawn: list[int] = []
    while len(drawn) < count:
        fresh = random.randint(population, size=count - len(drawn)).tolist()
        drawn = list(dict.fromkeys([*drawn, *fresh]))
    return np.array(drawn, dtype=np.intp)


def _ridge(features: Array, targets: Array, held_out: Array, alpha: float) -> Array:
    """Predictions for `held_out` of a ridge regression with a free intercept."""
    centre, mean = features.mean(axis=0), targets.mean(axis=0)
    known, wanted = features - centre, targets - mean
    if known.shape[1] <= known.shape[0]:
        gram = known.T @ known + alpha * np.eye(known.shape[1])
        weights = np.linalg.solve(gram, known.T @ wanted)
    else:
        gram = known @ known.T + alpha * np.eye(known.shape[0])
        weights = known.T @ np.linalg.solve(gram, wanted)
    predicted: Array = (held_out - centre) @ weights + mean
    return predicted


def _taps(options: Mapping[str, Any]) -> int:
    return max(int(float(options.get("window", 2.0)) * float(options["rate"])), 1)


def _boxcar(values: Array, taps: int) -> Array:
    """Means over `taps` frames of (frame, neuron), zeros beyond the ends, as long as `values`."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    last = np.arange(len(values)) + (taps - 1) // 2 + 1
    means: Array = (sums[np.minimum(last, len(values))] - sums[np.maximum(last - taps, 0)]) / taps
    return means


def _pearson(one: Array, other: Array) -> Array:
    """r over frames by neuron; 0 for one that never changes."""
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    scale = np.sqrt(np.sum(one * one, axis=0) * np.sum(other * other, axis=0)) + _TINY
    r: Array = np.sum(one * other, axis=0) / scale
    return r


def _spikes(reference: Mapping[str, Array]) -> Array:
    if KEY not in reference:
        found = ", ".join(sorted(reference)) or "no array"
        raise ValueError(f"the reference holds {found}; must hold {KEY}")
    spikes = np.asarray(reference[KEY])
    if spikes.ndim != 2 or not spikes.size or spikes.dtype.kind not in "fiu":
        raise ValueError(f"the reference is {spikes.dtype} {spikes.shape}, no (frame, neuron)")
    if not np.isfinite(spikes).all():
        raise ValueError("the reference holds NaN or infinite values")
    return spikes.astype(np.float64)


def _layers(prediction: Mapping[str, Array], frames: int) -> list[Array]:
    """Activations of every layer as (frame, feature)."""
    found = [] if prediction else ["holds no layer; must hold activations by layer name"]
    layers = []
    for name, value in prediction.items():
        array = np.asarray(value)
        if array.ndim < 2 or len(array) != frames or not array.size:
            found.append(f"{name} has shape {array.shape}; must be ({frames}, ...): (frame, ...)")
        elif array.dtype.kind != "f":
            found.append(f"{name} is {array.dtype}; must be floating, such as float32")
        elif not np.isfinite(array).all():
            count = int(np.count_nonzero(~np.isfinite(array)))
            found.append(f"{name} holds {count} NaN or infinite values")
        elif float(np.abs(array).max()) > 1e100:
            found.append(
                f"{name} holds values up to {np.abs(array).max():.3g}, too large to square"
            )
        layers.append(array.reshape(len(array), -1) if array.ndim else array)
    if found:
        raise ValueError("; ".join(found))
    return layers

"""Weights of a blend: numbers that are 0 or more and sum to 1, fitted to the members' answers.

All in float64, without random numbers and without a starting point to choose: one input has one
answer. Members that answer alike, even the same one twice, share their weight.
"""

from __future__ import annotations

import numpy as np

# Of the mean square error of a member: makes the answer unique where members answer alike.
_RIDGE = 1e-10
_TOLERANCE = 1e-13
_GAP = 1e-9  # in nats per window
_SMALLEST = 1e-12  # probability, as in the held-out score


def least_squares(products: np.ndarray) -> np.ndarray:
    """The weights whose blend has the smallest square error: (member,).

    products: (member, member), sums of products of two members' errors over the same answers. As
    weights sum to 1, the blend's error is the blend of errors, and its square w' products w: the
    nearest point to the origin of a polytope. Source: P. Wolfe, Finding the nearest point in a
    polytope, Mathematical Programming 11 (1976).
    """
    count = len(products)
    size = float(np.trace(products)) / count
    if size == 0.0:
        return np.full(count, 1.0 / count)
    scaled = np.asarray(products, np.float64) / size + _RIDGE * np.eye(count)
    weights = np.zeros(count)
    used = [int(np.argmin(np.diag(scaled)))]
    weights[used] = 1.0
    error = np.inf
    # The error falls with every turn, and so no set of members comes twice.
    while (now := float(weights @ scaled @ weights)) < error:
        best_weights, error = weights, now
        slope = scaled @ weights
        slope[used] = np.inf
        joining = int(np.argmin(slope))
        if slope[joining] >= error - _TOLERANCE:
            break
        used.append(joining)
        weights = _nearest(scaled, weights, used)
    return best_weights


def mixture(probabilities: np.ndarray) -> np.ndarray:
    """The weights whose blend has the smallest cross-entropy: (member,).

    probabilities: (window, member), what each member gave to the class that was right. Newton's
    steps, each a `least_squares`, until what is left to gain is below 1e-9 nats or rounding.
    """
    given = np.maximum(np.asarray(probabilities, np.float64), _SMALLEST)
    windows, count = given.shape
    weights = np.full(count, 1.0 / count)
    while True:
        ratio = given / _blend(given, weights)[:, None]
        gain = ratio.mean(axis=0)
        if gain.max() - 1.0 <= _GAP:
            return weights
        # The square model of the cross-entropy at `weights` is that of errors `ratio - 2`.
        errors = ratio - 2.0
        products = np.einsum("nm,nk->mk", errors, errors) / windows
        change = least_squares(products) - weights
        weights, moved = _descend(given, weights, change, slope=float(-gain @ change))
        if not moved:
            return weights


def cross_entropy(probabilities: np.ndarray, weights: np.ndarray) -> float:
    """Mean negative log of the blend by `weights` (member,) of (window, member), in nats."""
    return float(-np.log(np.maximum(_blend(probabilities, weights), _SMALLEST)).mean())


def _nearest(scaled: np.ndarray, weights: np.ndarray, used: list[int]) -> np.ndarray:
    """The best weights of the members `used` alone, which loses those that get none."""
    while True:
        raw = np.linalg.solve(scaled[np.ix_(used, used)], np.ones(len(used)))
        wanted = np.zeros_like(weights)
        wanted[used] = raw / raw.sum()
        falling = [member for member in used if wanted[member] <= 0.0]
        if not falling:
            return wanted
        # As far towards `wanted` as no weight falls below 0.
        room = [weights[member] / (weights[member] - wanted[member]) for member in falling]
        first = falling[int(np.argmin(room))]
        weights = np.maximum(weights + min(room) * (wanted - weights), 0.0)
        weights[first] = 0.0
        weights /= weights.sum()
        used.remove(first)


def _descend(
    given: np.ndarray, weights: np.ndarray, change: np.ndarray, slope: float
) -> tuple[np.ndarray, bool]:
    """As much of `change` as lowers the cross-entropy, halved until it does; whether any did."""
    before = np.log(_blend(given, weights)).mean()
    for halvings in range(40):
        share = 0.5**halvings
        moved = np.maximum(weights + share * change, 0.0)
        moved /= moved.sum()
        after = np.log(_blend(given, moved)).mean()
        if after > before and after >= before - 1e-4 * share * slope:
            return moved, True
    return weights, False


def _blend(given: np.ndarray, weights: np.ndarray) -> np.ndarray:
    # Not a matrix product: its bits would depend on the number of threads.
    return np.einsum("nm,m->n", given, weights)

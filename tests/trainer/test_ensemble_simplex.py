"""Weights on the simplex: nothing near them is better, whatever the members answered."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.simplex import cross_entropy, least_squares, mixture

SEEDS = st.integers(0, 2**32 - 1)


def errors(seed: int, members: int, answers: int, kind: str) -> np.ndarray:
    """Errors of members (answer, member): independent, nearly alike, or some exactly the same."""
    random = np.random.default_rng(seed)
    drawn = random.normal(size=(answers, members)) * 10.0 ** random.integers(-6, 6)
    if kind == "alike":
        drawn += 100 * random.normal(size=(answers, 1))
    if kind == "same":
        drawn[:, members // 2 :] = drawn[:, :1]
    return drawn


def on_the_simplex(weights: np.ndarray) -> bool:
    return bool((weights >= 0).all()) and abs(float(weights.sum()) - 1) < 1e-12


@given(SEEDS, st.integers(1, 8), st.integers(1, 40), st.sampled_from(["any", "alike", "same"]))
def test_no_direction_that_is_allowed_lowers_the_square_error(seed, members, answers, kind):
    drawn = errors(seed, members, answers, kind)
    products = drawn.T @ drawn
    weights = least_squares(products)
    assert on_the_simplex(weights)
    # Karush-Kuhn-Tucker: the slope towards any member is not below that of staying.
    slope = products @ weights
    size = float(np.trace(products)) / members
    assert weights @ slope - slope.min() <= 1e-8 * size
    assert weights @ products @ weights <= np.diag(products).min() + 1e-9 * size
    assert weights.tobytes() == least_squares(products).tobytes()


@given(SEEDS, st.integers(1, 6), st.integers(1, 60), st.sampled_from([0.1, 1.0, 10.0]))
def test_no_direction_that_is_allowed_lowers_the_cross_entropy(seed, members, windows, spread):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(windows, members)) * spread + random.normal(size=(windows, 1))
    given = 1 / (1 + np.exp(-logits))
    given[random.random(given.shape) < 0.1] = 0.0
    weights = mixture(given)
    assert on_the_simplex(weights)
    at_least = np.maximum(given, 1e-12)
    # How much any member could still gain, in nats.
    assert (at_least / (at_least @ weights)[:, None]).mean(axis=0).max() - 1 <= 1e-6
    best = min(cross_entropy(given, alone) for alone in np.eye(members))
    assert cross_entropy(given, weights) <= best + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_no_point_of_a_grid_is_better(seed):
    drawn = errors(seed, 3, 12, "alike")
    products = drawn.T @ drawn
    steps = [point for point in itertools.product(range(41), repeat=3) if sum(point) == 40]
    grid = np.array(steps) / 40
    costs = np.einsum("pm,mn,pn->p", grid, products, grid)
    weights = least_squares(products)
    assert weights @ products @ weights <= costs.min() * (1 + 1e-9)
    assert np.abs(weights - grid[costs.argmin()]).max() < 0.05


def test_members_that_are_the_same_share_their_weight():
    random = np.random.default_rng(0)
    good, bad = random.normal(size=50), 5 * random.normal(size=50)
    drawn = np.stack([good, bad, good], axis=1)
    weights = least_squares(drawn.T @ drawn)
    np.testing.assert_allclose(weights[0], weights[2], atol=1e-6)
    chances = np.stack([np.full(9, 0.7), np.full(9, 0.2), np.full(9, 0.7)], axis=1)
    np.testing.assert_allclose(mixture(chances), [0.5, 0, 0.5], atol=1e-6)


def test_members_that_are_all_right_count_alike():
    np.testing.assert_array_equal(least_squares(np.zeros((4, 4))), np.full(4, 0.25))
    np.testing.assert_array_equal(mixture(np.ones((5, 2))), [0.5, 0.5])

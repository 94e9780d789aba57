"""Scores against scikit-learn and scipy; intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from trainer import metrics
from trainer.metrics import Resampling, resampling

INDEPENDENT = Resampling(np.arange(60), "trial")


def behavior(windows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    target = random.normal(size=(windows, 3)) * (1.0, 10.0, 0.1) + 1000.0
    answer = target + random.normal(size=target.shape) * (0.5, 20.0, 0.01)
    target[random.random(target.shape) < 0.2] = np.nan
    return answer, target


def test_r2_and_correlation_are_those_of_the_references_over_measured_values() -> None:
    answer, target = behavior()
    determined, correlation = metrics.r2(answer, target), metrics.pearson(answer, target)
    for variable in range(3):
        measured = np.isfinite(target[:, variable])
        truth, guess = target[measured, variable], answer[measured, variable]
        assert determined[variable] == pytest.approx(reference.r2_score(truth, guess))
        assert correlation[variable] == pytest.approx(stats.pearsonr(truth, guess).statistic)
    assert determined[1] < 0 < determined[0]


def test_what_does_not_vary_has_no_r2_and_no_correlation() -> None:
    target = np.stack([np.full(10, 3.0), np.arange(10.0), np.full(10, np.nan)], axis=1)
    answer = np.stack([np.arange(10.0), np.full(10, 0.1), np.arange(10.0)], axis=1)
    assert np.isnan(metrics.r2(answer, target)).tolist() == [True, False, True]
    assert np.isnan(metrics.pearson(answer, target)).all()


def test_distances_are_euclidean_where_every_variable_was_measured() -> None:
    target = np.array([[0.0, 0.0], [1.0, np.nan], [1.0, 1.0]])
    answer = np.array([[3.0, 4.0], [9.0, 9.0], [1.0, 2.0]])
    assert metrics.distances(answer, target).tolist() == [5.0, 1.0]


@settings(max_examples=20)
@given(st.floats(0.0, 6.28), st.integers(0, 100))
def test_the_main_axis_and_the_errors_along_it_turn_with_the_track(turn: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    track = random.uniform(0.0, 474.0, 300)
    target = np.stack([track, random.normal(0.0, 5.0, 300)], axis=1)
    errors = random.normal(0.0, 20.0, (300, 2))
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    axis, other = metrics.principal_axis(target), metrics.principal_axis(target @ turned + 1000.0)
    assert np.linalg.norm(axis) == pytest.approx(1.0)
    assert abs(axis[0]) > 0.99
    np.testing.assert_allclose(np.abs(errors @ turned @ other), np.abs(errors @ axis), atol=1e-6)
    assert metrics.extent(target @ turned + 1000.0) == pytest.approx(metrics.extent(target))
    target[::7, 1] = np.nan
    assert np.isfinite(metrics.principal_axis(target)).all()


def test_classes_are_scored_as_by_the_reference() -> None:
    random = np.random.default_rng(0)
    choice = random.choice(3, 300, p=[0.7, 0.2, 0.1])
    decided = np.where(random.random(300) < 0.6, choice, random.integers(0, 3, 300))
    counts = metrics.confusion(decided, choice, 3)
    np.testing.assert_array_equal(counts, reference.confusion_matrix(choice, decided))
    expected = reference.balanced_accuracy_score(choice, decided)
    assert metrics.balanced_accuracy(counts) == pytest.approx(expected)
    score = np.round(random.random(300), 1) + 0.2 * (choice == 1)  # with ties
    expected = reference.roc_auc_score(choice == 1, score)
    assert metrics.auroc(score, choice == 1) == pytest.approx(expected)
    assert metrics.auroc(score, np.zeros(300, bool)) is None


def test_a_class_that_does_not_occur_is_left_out() -> None:
    counts = metrics.confusion(np.array([0, 1, 2]), np.array([0, 0, 1]), 3)
    assert metrics.balanced_accuracy(counts) == pytest.approx(0.25)


def test_windows_stay_with_their_trial_or_with_their_neighbours() -> None:
    sessions, starts = np.zeros(100, np.int64), np.arange(100)[::-1]
    trials = np.repeat(np.arange(10), 10)
    assert resampling(sessions, starts, trials).count == 10
    assert not resampling(sessions, starts, trials).independent
    assert resampling(sessions, starts, np.arange(100)).independent
    blocks = resampling(sessions, starts, None)
    assert (blocks.unit, blocks.count) == ("block", metrics.BLOCKS)
    assert (np.diff(blocks.groups[np.argsort(starts)]) >= 0).all()
    # The same trial numbers in two sessions are different trials.
    assert resampling(np.repeat([0, 1], 50), starts, np.tile(np.arange(50), 2)).count == 100


def test_the_interval_of_independent_trials_is_sensible_even_where_all_were_right() -> None:
    choice = np.arange(60) % 2
    low, high = metrics.balanced_accuracy_interval(choice, choice, 2, INDEPENDENT)
    assert 0.9 < low < high < 1.0
    half = np.where(np.arange(60) % 4 < 2, choice, 1 - choice)
    low, high = metrics.balanced_accuracy_interval(half, choice, 2, INDEPENDENT)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 60), rel=0.1)


def test_blocks_that_were_all_right_count_as_one_trial_each() -> None:
    choice = np.arange(400) // 40 % 2
    blocks = resampling(np.zeros(400, np.int64), np.arange(400), None)
    low, high = metrics.balanced_accuracy_interval(choice, choice, 2, blocks)
    tens = Resampling(np.arange(20), "trial")
    each = np.arange(20) % 2
    assert [low, high] == metrics.balanced_accuracy_interval(each, each, 2, tens)


def test_intervals_over_blocks_are_wider_where_neighbours_agree() -> None:
    random = np.random.default_rng(0)
    hits = np.repeat(random.random(20) < 0.7, 20)
    choice = np.arange(400) % 2
    decided = np.where(hits, choice, 1 - choice)
    blocks = resampling(np.zeros(400, np.int64), np.arange(400), None)
    alone = resampling(np.zeros(400, np.int64), np.arange(400), np.arange(400))
    low, high = metrics.balanced_accuracy_interval(decided, choice, 2, blocks)
    narrow = metrics.balanced_accuracy_interval(decided, choice, 2, alone)
    assert low < 0.7 < high
    assert high - low > 2 * (narrow[1] - narrow[0])


def test_intervals_of_r2_hold_it_repeat_and_need_three_groups() -> None:
    answer, target = behavior()
    blocks = resampling(np.zeros(200, np.int64), np.arange(200), None)
    interval = metrics.r2_interval(answer, target, blocks)
    low, high = interval
    assert low < metrics.r2(answer, target).mean() < high
    assert metrics.r2_interval(answer, target, blocks) == interval
    assert metrics.r2_interval(answer, target, Resampling(np.arange(200) // 100, "trial")) is None


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=(400, 1))
    low, high = Resampling(np.arange(400), "trial").interval(values, lambda sums: sums[:, 0] / 400)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)

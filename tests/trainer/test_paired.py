"""Paired tests against what they promise, and against scipy and the plain scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trainer import metrics, paired
from trainer.paired import BLOCK, Difference, block_length, compare, moving_blocks

SESSIONS = np.repeat([0, 1], [60, 40])
STARTS = np.concatenate([np.arange(60), np.arange(40)])


def paired_interval(
    own: np.ndarray,
    other: np.ndarray,
    sessions: np.ndarray,
    starts: np.ndarray,
    block: int = BLOCK,
) -> Difference:
    """Change of a mean error in per cent, by moving blocks."""
    drawn = moving_blocks(sessions, starts, block)
    return compare(paired.mean(own), paired.mean(other), drawn, relative=True)


def errors(seed: int, count: int = 100) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, size=count)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 30))
def test_equal_errors_differ_by_nothing(seed: int, block: int) -> None:
    found = paired_interval(errors(seed), errors(seed), SESSIONS, STARTS, block)
    assert (found.value, found.interval) == (0.0, [0.0, 0.0])
    assert found.reference == pytest.approx(errors(seed).mean())


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(0.1, 10.0))
def test_scaled_errors_differ_by_the_scale(seed: int, scale: float) -> None:
    found = paired_interval(scale * errors(seed), errors(seed), SESSIONS, STARTS)
    expected = 100.0 * (scale - 1.0)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.interval == pytest.approx([expected, expected], abs=1e-9)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_the_order_and_the_unit_of_the_windows_do_not_matter(seed: int) -> None:
    mine, other = errors(seed), errors(seed + 1)
    first = paired_interval(mine, other, SESSIONS, STARTS)
    again = paired_interval(mine * 1e6, other * 1e6, SESSIONS, STARTS)
    assert again.value == pytest.approx(first.value)
    assert again.interval == pytest.approx(first.interval)
    assert paired_interval(mine, other, SESSIONS, STARTS) == first


def test_blocks_keep_neighbours_of_a_session_and_draw_every_window_as_often() -> None:
    random = np.random.default_rng(0)
    shuffled = random.permutation(100)
    blocks = moving_blocks(SESSIONS[shuffled], STARTS[shuffled], 10)
    sessions = SESSIONS[shuffled][blocks.members]
    assert (sessions == sessions[:, :1]).all()
    steps = np.diff(STARTS[shuffled][blocks.members], axis=1)
    assert set(np.unique(steps)) == {1, -59, -39}
    np.testing.assert_array_equal(np.bincount(blocks.members.reshape(-1)), np.full(100, 10))
    counts = np.concatenate(list(blocks.draws()))
    assert counts.shape == (metrics.DRAWS, 100)
    assert (counts.sum(axis=1) == 100).all()
    with pytest.raises(ValueError, match="at least 1"):
        moving_blocks(SESSIONS, STARTS, 0)


def correlated(random: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """Noise each value of which keeps a share of the one before: AR(1)."""
    noise = random.normal(size=count)
    for step in range(1, count):
        noise[step] = memory * noise[step - 1] + np.sqrt(1.0 - memory**2) * noise[step]
    return noise


@pytest.mark.parametrize(
    ("task", "count", "memory", "short"), [("forecast", 200, 0.6, 1), ("decode", 600, 0.9, 10)]
)
def test_intervals_of_dependent_errors_cover_the_truth_about_as_often_as_they_say(
    task: str, count: int, memory: float, short: int
) -> None:
    random = np.random.default_rng(3)
    chosen, repeats = block_length(task, count), 60
    covered = dict.fromkeys((short, chosen), 0)
    sessions, starts, reference = np.zeros(count, int), np.arange(count), np.full(count, 10.0)
    for _ in range(repeats):
        own = 9.5 + correlated(random, count, memory)
        for block in covered:
            found = paired_interval(own, reference, sessions, starts, block)
            covered[block] += found.interval[0] <= -5.0 <= found.interval[1]
    assert covered[chosen] > 0.8 * repeats
    assert covered[short] < 0.75 * repeats  # blocks that are too short promise too much


def test_scores_of_all_windows_once_are_the_plain_scores() -> None:
    random = np.random.default_rng(0)
    once = np.ones((1, 100))
    choice = random.choice(3, 100, p=[0.7, 0.2, 0.1])
    decided = np.where(random.random(100) < 0.6, choice, random.integers(0, 3, 100))
    hits = (decided == choice).astype(float)
    expected = metrics.balanced_accuracy(metrics.confusion(decided, choice, 3))
    assert paired.balanced_accuracy(hits, choice)(once)[0] == pytest.approx(expected)
    target = random.normal(size=(100, 2)) + 1000.0
    answer = target + random.normal(size=(100, 2))
    target[random.random((100, 2)) < 0.2] = np.nan
    expected = metrics.r2(answer, target).mean()
    assert paired.r2(answer, target)(once)[0] == pytest.approx(expected)
    values = errors(0, 101)
    assert paired.median(values)(np.ones((1, 101)))[0] == np.median(values)
    counts = random.integers(0, 4, (5, 101)).astype(float)
    counts[:, 0] += counts.sum(axis=1) % 2 == 0  # an odd number has one median
    for one, found in zip(counts, paired.median(values)(counts), strict=True):
        assert found == np.median(np.repeat(values, one.astype(int)))
    values[3] = np.nan
    assert paired.mean(values)(np.ones((1, 101)))[0] == pytest.approx(np.nanmean(values))


def test_trials_are_drawn_whole_and_differences_are_paired() -> None:
    trials = np.repeat(np.arange(20), 5)
    drawn = metrics.resampling(np.zeros(100, int), np.arange(100), trials)
    counts = np.concatenate(list(drawn.draws()))
    assert (counts.reshape(-1, 20, 5) == counts.reshape(-1, 20, 5)[:, :, :1]).all()
    hits = (np.random.default_rng(0).random(100) < 0.7).astype(float)
    better = hits.copy()
    better[np.flatnonzero(hits == 0)[::2]] = 1.0
    found = compare(paired.mean(better), paired.mean(hits), drawn, relative=False)
    assert found.value == pytest.approx(better.mean() - hits.mean())
    assert found.interval[0] > 0.0
    seeds = paired.average([paired.mean(better), paired.mean(hits)])
    half = compare(seeds, paired.mean(hits), drawn, relative=False)
    assert half.value == pytest.approx(found.value / 2)


def test_what_has_no_score_has_no_difference() -> None:
    nothing = paired_interval(errors(0), np.zeros(100), SESSIONS, STARTS)
    assert nothing == paired.Difference(None, None)


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 40))
def test_fewer_than_three_blocks_or_groups_give_no_interval(block: int, windows: int) -> None:
    sessions, starts = np.zeros(windows, int), np.arange(windows)
    mine, other = errors(0, windows), errors(1, windows)
    found = paired_interval(mine, other, sessions, starts, block)
    assert found.value is not None
    assert (found.interval is None) == (windows < 3 * block)
    trials = metrics.resampling(sessions, starts, starts // block)
    found = compare(paired.mean(mine), paired.mean(other), trials, relative=False)
    assert (found.interval is None) == (windows <= 2 * block)


@given(st.integers(1, 5000))
def test_decoded_parts_have_about_twenty_blocks_and_others_blocks_of_ten(windows: int) -> None:
    assert block_length("forecast", windows) == block_length("classify", windows) == 10
    assert block_length("forecast", windows, spacing=3.0) == 30
    block = block_length("decode", windows)
    assert block >= 10
    assert block == 10 or 19 * windows <= 20 * 20 * block <= 20 * (windows + 20)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_sign_test_of_what_one_alone_got_right(pairs) -> None:
    mine, other = np.array(pairs, bool).T
    better, worse = int((mine & ~other).sum()), int((~mine & other).sum())
    expected = 1.0 if better + worse == 0 else stats.binomtest(better, better + worse).pvalue
    assert paired.mcnemar(mine, other) == pytest.approx(expected)

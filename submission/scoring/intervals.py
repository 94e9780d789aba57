"""Confidence intervals of scores, and of the difference of two submissions, by bootstrap.

Rows (windows, trials, blocks of samples) are drawn again with replacement within their set. Where
several sets (sessions) belong to one subject, those are drawn again as well for every column that
rests on more than one set: such a column speaks of sessions in general. Percentile intervals.
Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapters 8 and 13; Davison &
Hinkley (1997), Bootstrap Methods and their Application, section 3.8, for the hierarchy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Statistics = Mapping[str, Array]  # set name -> (row, statistic), rows can be added
Totals = dict[str, Array]  # set name -> (resample, statistic)
Drawn = Literal["rows", "sets and rows"]
BOTH: Drawn = "sets and rows"
RESAMPLES = 2000
LEVEL = 0.95
SEED = 20260101
CELLS = 1 << 23  # numbers held at once


class Rule(Protocol):
    """What of a module of `submission.rules` is needed here."""

    def columns(self, totals: Mapping[str, Array], options: Mapping[str, Any]) -> dict[str, float]:
        """Scores by column key, from the summed statistics by set name."""


@dataclass(frozen=True)
class Interval:
    """Where a column lies: ends of the interval (NaN: not defined) and what was drawn for it."""

    low: float
    high: float
    drawn: Drawn


@dataclass(frozen=True)
class Difference:
    """A column of one submission less that of another, on the same rows.

    `better` is the share of resamples in which the one is better, `equal` that without a
    difference.
    """

    low: float
    high: float
    better: float
    equal: float


def intervals(
    rule: Rule,
    options: Mapping[str, Any],
    statistics: Statistics,
    groups: Sequence[Sequence[str]],
    scores: Mapping[str, Array],
) -> dict[str, Interval]:
    """The interval of every column of the leaderboard, from what `bootstrap` gave for the same."""
    hierarchical = _hierarchical(rule, options, statistics, groups)
    return {
        key: Interval(*_ends(values), BOTH if key in hierarchical else "rows")
        for key, values in scores.items()
    }


def differences(
    one: Mapping[str, Array], other: Mapping[str, Array], rising: Mapping[str, bool]
) -> dict[str, Difference]:
    """Columns of `one` less those of `other`, pair by pair of what `bootstrap` gave.

    Both must come from `comparable` statistics, so that they are on the same rows and sets.
    `rising` says of every column whether a large score is good.
    """
    found = {}
    for key, values in one.items():
        gap = values - other[key]
        sign = 1.0 if rising.get(key, False) else -1.0
        known = gap[np.isfinite(gap)]
        better, equal = (
            float(np.mean(part)) if known.size else 0.0
            for part in (sign * known > 0.0, known == 0.0)
        )
        found[key] = Difference(*_ends(gap), better, equal)
    return found


def comparable(one: Statistics, other: Statistics) -> bool:
    """Whether two were scored on the same sets, in the same order, with as many rows in each."""
    return list(one) == list(other) and all(one[k].shape == other[k].shape for k in one)


def bootstrap(
    rule: Rule,
    options: Mapping[str, Any],
    statistics: Statistics,
    groups: Sequence[Sequence[str]],
    resamples: int = RESAMPLES,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Array]:
    """Scores (resample,) of every column.

    `groups` are names of sets that stand for one another (the sessions of one subject). What is
    drawn depends on the seed, the sets' order and their numbers of rows alone: two submissions on
    the same data meet the same draws.
    """
    hierarchical = _hierarchical(rule, options, statistics, groups)
    keys = tuple(_columns(rule, options, _sums(statistics), 0))
    found = {key: np.empty(resamples) for key in keys}
    apart = [(name,) for name in statistics]
    for wanted, together in (
        ([key for key in keys if key not in hierarchical], apart),
        ([key for key in keys if key in hierarchical], groups),
    ):
        if not wanted:
            continue
        for start, totals in _draws(statistics, together, resamples):
            notify(f"drawing rows again: {start} of {resamples}")
            for place in range(len(next(iter(totals.values())))):
                values = _columns(rule, options, totals, place)
                for key in wanted:
                    found[key][start + place] = values[key]
    return found


def _columns(
    rule: Rule, options: Mapping[str, Any], totals: Mapping[str, Array], place: int
) -> dict[str, float]:
    with np.errstate(all="ignore"):
        return dict(rule.columns({name: values[place] for name, values in totals.items()}, options))


def _draws(
    statistics: Statistics, groups: Sequence[Sequence[str]], resamples: int
) -> Iterator[tuple[int, Totals]]:
    """Sums of drawn rows, some resamples at a time: number of the first, sums of every set.

    In the place of each set comes one drawn from its group, whose rows are drawn in turn.
    """
    generator = np.random.default_rng(SEED)
    widest = max(max(values.shape) for values in statistics.values())
    wide = sum(values.shape[1] for values in statistics.values())
    step = int(max(1, min(resamples, CELLS // max(widest, wide))))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        totals = {
            name: _drawn(generator, group, statistics, size) for group in groups for name in group
        }
        yield start, totals


def _drawn(
    generator: np.random.Generator, group: Sequence[str], statistics: Statistics, size: int
) -> Array:
    """Sums of the drawn rows of a set drawn from `group`: (resample, statistic)."""
    chosen = generator.integers(0, len(group), size)
    sums = np.empty((size, statistics[group[0]].shape[1]))
    for number, name in enumerate(group):
        here = np.flatnonzero(chosen == number)
        sums[here] = _counts(generator, len(here), len(statistics[name])) @ statistics[name]
    return sums


def _counts(generator: np.random.Generator, resamples: int, rows: int) -> Array:
    """How often each row was drawn: (resample, row); every resample draws `rows` of them."""
    drawn = generator.integers(0, rows, (resamples, rows))
    drawn += np.arange(resamples)[:, None] * rows
    counts = np.bincount(drawn.ravel(), minlength=resamples * rows)
    return counts.reshape(resamples, rows).astype(np.float64)


def _hierarchical(
    rule: Rule,
    options: Mapping[str, Any],
    statistics: Statistics,
    groups: Sequence[Sequence[str]],
) -> frozenset[str]:
    """Columns that rest on several sets, of which some stand for one another.

    Found by changing one set after the other and looking which columns follow.
    """
    totals = _sums(statistics)
    before = _columns(rule, options, totals, 0)
    resting: dict[str, set[str]] = {key: set() for key in before}
    for name, total in totals.items():
        # Another change for each number, lest a ratio stays what it was.
        change = np.random.default_rng(SEED).uniform(1.0, 2.0, total.shape)
        after = _columns(rule, options, {**totals, name: total + change}, 0)
        for key, value in before.items():
            if after[key] != value:
                resting[key].add(name)
    return frozenset(
        key
        for key, names in resting.items()
        if len(names) > 1 and any(len(names & set(group)) > 1 for group in groups)
    )


def _sums(statistics: Statistics) -> Totals:
    """All rows of every set: (1, statistic)."""
    return {name: values.sum(axis=0)[None] for name, values in statistics.items()}


def _ends(values: Array) -> tuple[float, float]:
    """Percentiles of the resamples in which the score is defined; NaN where it never is."""
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan"), float("nan")
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(known, [tail, 100.0 - tail])
    return float(low), float(high)

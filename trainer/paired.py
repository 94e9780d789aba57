"""Paired tests of two models on the same windows: what differs, with its interval; plain numpy.

A draw of a bootstrap says how often each window occurs. A score takes such counts, (draw, window),
and gives one number per draw, so that every score is compared in the same way: by the difference,
or the change in per cent, of both models' scores of the same draws. Intervals are central 95 %
ranges and come from a fixed seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.metrics import BLOCKS, FEWEST, SEED, Resampling, central, chunks, resampling

BLOCK = 10

# Counts (draw, window) -> one score per draw.
Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class MovingBlocks:
    """Blocks of consecutive windows that stay together: `members` (block, window in the block).

    One block begins at every window of every session; the last ones go on at the session's first
    window, so that every window is drawn equally often.
    """

    members: np.ndarray
    windows: int

    @property
    def block(self) -> int:
        """Windows in a block."""
        return self.members.shape[1]

    @property
    def count(self) -> int:
        """Number of whole blocks that do not overlap."""
        return self.windows // self.block

    def draws(self) -> Iterator[np.ndarray]:
        """How often each window occurs in a draw: (draw, window) float64, some draws at a time."""
        generator = np.random.Generator(np.random.PCG64(SEED))
        blocks = math.ceil(self.windows / self.block)
        for draws in chunks():
            chosen = generator.integers(0, len(self.members), (draws, blocks))
            rows = self.members[chosen].reshape(draws, -1)
            places = rows + self.windows * np.arange(draws)[:, None]
            counts = np.bincount(places.reshape(-1), minlength=draws * self.windows)
            yield counts.reshape(draws, self.windows).astype(np.float64)


@dataclass(frozen=True)
class Difference:
    """A model against another, which has the score `reference`: `value` and its 95 % interval.

    None where there is no such thing: with fewer than three blocks or groups there is no interval.
    """

    value: float | None
    interval: list[float] | None
    reference: float | None = None


def block_length(task: str, windows: int, spacing: float = 1.0) -> int:
    """How many consecutive windows of a part stay together.

    10, and of decode at least a twentieth of the part: its windows overlap, behaviour changes
    slowly, and so errors agree for far longer. `spacing`: how many windows of the part begin where
    one of the test part does.
    """
    shortest = max(1, round(BLOCK * spacing))
    return max(shortest, math.ceil(windows / BLOCKS)) if task == "decode" else shortest


def moving_blocks(sessions: np.ndarray, starts: np.ndarray, block: int = BLOCK) -> MovingBlocks:
    """Blocks of `block` consecutive windows of a session; sessions, starts: (window,).

    A session with fewer windows gives blocks in which they recur. Raises ValueError for a block of
    no window.
    """
    if block < 1:
        raise ValueError(f"block: is {block}; must be at least 1")
    members = np.empty((len(starts), block), np.int64)
    order = np.lexsort((starts, sessions))
    for session in np.unique(sessions):
        rows = order[sessions[order] == session]
        places = (np.arange(len(rows))[:, None] + np.arange(block)) % len(rows)
        members[rows] = rows[places]
    return MovingBlocks(members, len(starts))


def drawing(
    task: str,
    sessions: np.ndarray,
    starts: np.ndarray,
    trials: np.ndarray | None = None,
    spacing: float = 1.0,
) -> MovingBlocks | Resampling:
    """What a bootstrap draws: of classify trials or stretches of time, else moving blocks.

    sessions, starts, trials: (window,). Intervals are those of what is drawn alone: they know
    nothing of other recordings or seeds. `spacing`: see `block_length`.
    """
    if task == "classify":
        return resampling(sessions, starts, trials)
    return moving_blocks(sessions, starts, block_length(task, len(starts), spacing))


def compare(
    score: Score, reference: Score, drawn: MovingBlocks | Resampling, *, relative: bool
) -> Difference:
    """`score` minus `reference`, in per cent of the reference where `relative`."""
    once = np.ones((1, drawn.windows))
    with np.errstate(invalid="ignore", divide="ignore"):
        other = reference(once)
        value = float(_difference(score(once), other, relative)[0])
        if not np.isfinite(value):
            return Difference(None, None)
        if drawn.count < FEWEST:
            return Difference(value, None, float(other[0]))
        found = [
            _difference(score(counts), reference(counts), relative) for counts in drawn.draws()
        ]
    return Difference(value, central(np.concatenate(found)), float(other[0]))


def _difference(score: np.ndarray, reference: np.ndarray, relative: bool) -> np.ndarray:
    return 100.0 * (score / reference - 1.0) if relative else score - reference


def mean(values: np.ndarray) -> Score:
    """Mean of values (window,), NaN left out."""
    known = np.isfinite(values)
    filled, weight = np.where(known, values, 0.0), known.astype(np.float64)
    return lambda counts: (counts * filled).sum(axis=1) / (counts * weight).sum(axis=1)


def balanced_accuracy(hits: np.ndarray, choice: np.ndarray) -> Score:
    """Mean recall over the classes that occur; hits (window,) 0 ... 1, choice (window,)."""
    own = [(choice == one).astype(np.float64) for one in np.unique(choice)]

    def score(counts: np.ndarray) -> np.ndarray:
        # A draw without one of the classes has no score: it would be another task's.
        recalls = [(counts * hits * of).sum(axis=1) / (counts * of).sum(axis=1) for of in own]
        return np.mean(recalls, axis=0)

    return score


def r2(answer: np.ndarray, target: np.ndarray) -> Score:
    """Mean R² over variables; answer, target: (window, variable), NaN in target left out.

    Errors are drawn, the targets' variance is the whole part's: a draw of windows in which hardly
    anything moved would have an R² far below 0 that says nothing of a model.
    """
    weight = np.isfinite(target).astype(np.float64)
    errors = np.where(weight > 0, answer - target, 0.0) ** 2
    spread = np.nanvar(target, axis=0)

    def score(counts: np.ndarray) -> np.ndarray:
        found = []
        for variable, variance in enumerate(spread):
            known = (counts * weight[:, variable]).sum(axis=1)
            error = (counts * errors[:, variable]).sum(axis=1)
            total = known * variance
            found.append(
                1.0 - np.divide(error, total, np.full_like(error, np.nan), where=total > 0)
            )
        return np.mean(found, axis=0)

    return score


def median(values: np.ndarray) -> Score:
    """Lower median of values (window,), NaN left out."""
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]

    def score(counts: np.ndarray) -> np.ndarray:
        running = np.cumsum(counts[:, order], axis=1)
        place = (running < running[:, -1:] / 2.0).sum(axis=1)
        return values[order[np.minimum(place, len(order) - 1)]]

    return score


def average(scores: Sequence[Score]) -> Score:
    """The mean of several scores, say of the same model's seeds."""
    return lambda counts: np.mean([score(counts) for score in scores], axis=0)


def mcnemar(hits: np.ndarray, reference: np.ndarray) -> float:
    """Exact two-sided p value that two classifiers err equally often; hits (trial,) bool each."""
    better = int((hits & ~reference).sum())
    worse = int((~hits & reference).sum())
    changed, fewer = better + worse, min(better, worse)
    ways = sum(math.comb(changed, count) for count in range(fewer + 1))
    return min(1.0, 2 * ways / 2**changed)

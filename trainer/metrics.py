"""The field's scores of classes and of decoded behaviour, with intervals: plain numpy, float64.

Test windows are not independent: neighbours overlap, behaviour changes slowly. Intervals therefore
resample whole `groups` (trials, or stretches of time), see `Resampling`; they are central 95 %
ranges and come from a fixed seed. How two models are compared is in `trainer.paired`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

LEVEL = 95.0
DRAWS = 2000
BLOCKS = 20
FEWEST = 3  # groups or blocks without which there is no honest interval
SEED = 20
_CHUNK = 100  # draws at a time


@dataclass(frozen=True, eq=False)
class Resampling:
    """Which windows stay together: `groups` (window,) int64 number trials or stretches of time.

    `unit` names them: "trial" or "block".
    """

    groups: np.ndarray
    unit: str

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(np.unique(self.groups))

    @property
    def windows(self) -> int:
        """Number of windows."""
        return len(self.groups)

    @property
    def independent(self) -> bool:
        """Whether every trial has one window."""
        return self.unit == "trial" and self.count == len(self.groups)

    def draws(self) -> Iterator[np.ndarray]:
        """How often each window occurs in a draw: (draw, window) float64, some draws at a time."""
        _, numbers = np.unique(self.groups, return_inverse=True)
        for counts in self._group_draws():
            yield counts[:, numbers]

    def _group_draws(self) -> Iterator[np.ndarray]:
        """How often each group occurs in a draw: (draw, group) float64, some draws at a time."""
        generator = np.random.Generator(np.random.PCG64(SEED))
        for draws in chunks():
            chosen = generator.integers(0, self.count, (draws, self.count))
            counts = np.zeros((draws, self.count))
            np.add.at(counts, (np.arange(draws)[:, None], chosen), 1.0)
            yield counts

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums (group, ...) of values (window, ...)."""
        _, numbers = np.unique(self.groups, return_inverse=True)
        totals = np.zeros((self.count, *values.shape[1:]))
        np.add.at(totals, numbers, values)
        return totals

    def interval(
        self, values: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
    ) -> list[float] | None:
        """Bootstrap over groups: `score` of sums (draw, ...) of `values` (window, ...).

        None where there are fewer than three groups, or where no draw has a score.
        """
        if self.count < FEWEST:
            return None
        totals = self.sums(values)
        counts = np.concatenate(list(self._group_draws()))
        flat = totals.reshape(len(totals), -1)
        # Group by group: a matrix product would tie the bytes to a linear-algebra library.
        drawn = np.zeros((DRAWS, flat.shape[1]))
        for group, sums in enumerate(flat):
            drawn += counts[:, group, None] * sums
        scores = score(drawn.reshape(DRAWS, *totals.shape[1:]))
        return central(scores)


def chunks() -> Iterator[int]:
    """How many draws are made at a time; `DRAWS` in all."""
    for start in range(0, DRAWS, _CHUNK):
        yield min(_CHUNK, DRAWS - start)


def resampling(sessions: np.ndarray, starts: np.ndarray, trials: np.ndarray | None) -> Resampling:
    """Trials where every window has one (trials (window,) >= 0), else about 20 blocks of time.

    sessions, starts: (window,). A block is a run of consecutive windows of one session.
    """
    if trials is not None and (trials >= 0).all():
        _, groups = np.unique(np.stack([sessions, trials]), axis=1, return_inverse=True)
        return Resampling(groups.reshape(-1), "trial")
    order = np.lexsort((starts, sessions))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    block = place * min(BLOCKS, len(order)) // len(order)
    _, groups = np.unique(np.stack([sessions, block]), axis=1, return_inverse=True)
    return Resampling(groups.reshape(-1), "block")


def confusion(decided: np.ndarray, choice: np.ndarray, classes: int) -> np.ndarray:
    """Counts (true class, decided class) of decided and true class numbers (window,)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (choice, decided), 1)
    return counts


def balanced_accuracy(counts: np.ndarray) -> float:
    """Mean recall over the classes that occur; counts (true class, decided class)."""
    trials = counts.sum(axis=1)
    return float((counts.diagonal()[trials > 0] / trials[trials > 0]).mean())


def balanced_accuracy_interval(
    decided: np.ndarray, choice: np.ndarray, classes: int, resampled: Resampling
) -> list[float] | None:
    """95 % interval of the balanced accuracy.

    Of independent trials, the posterior of the mean recall under flat priors, which stays honest
    where every trial was right. Of windows that depend on one another, a bootstrap over groups;
    where all its draws agree, the posterior with every group counted as one trial of its classes.
    """
    one_hot = np.eye(classes)[choice]
    hit = one_hot * (decided == choice)[:, None]
    occurs = one_hot.any(axis=0)
    if resampled.independent:
        return _posterior(hit.sum(axis=0)[occurs], one_hot.sum(axis=0)[occurs])

    def score(sums: np.ndarray) -> np.ndarray:
        hits, shown = sums[:, 0], sums[:, 1]
        recall = np.divide(hits, shown, out=np.full_like(hits, np.nan), where=shown > 0)
        # A draw without one of the classes would be scored on another task.
        return np.asarray(recall[:, occurs].mean(axis=1))

    found = resampled.interval(np.stack([hit, one_hot], axis=1), score)
    if found is None or found[0] < found[1]:
        return found
    groups = (resampled.sums(one_hot) > 0).sum(axis=0)[occurs]
    return _posterior(groups * hit.sum(axis=0)[occurs] / one_hot.sum(axis=0)[occurs], groups)


def _posterior(hits: np.ndarray, trials: np.ndarray) -> list[float] | None:
    generator = np.random.Generator(np.random.PCG64(SEED))
    draws = generator.beta(hits + 1.0, trials - hits + 1.0, (5 * DRAWS, len(hits)))
    return central(draws.mean(axis=1))


def auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve of `score` (window,) for `positive` (window,) bool; ties count half.

    None where one of the two classes does not occur.
    """
    above, below = int(positive.sum()), int((~positive).sum())
    if above == 0 or below == 0:
        return None
    _, place, ties = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(ties) - (ties - 1) / 2.0
    total = float(ranks[place][positive].sum())
    return (total - above * (above + 1) / 2.0) / (above * below)


def r2(answer: np.ndarray, target: np.ndarray) -> np.ndarray:
    """1 - SSE / SST of each variable, (variable,); SST about the mean of the same values.

    answer, target: (window, variable), NaN in `target` left out. NaN where a target does not vary.
    """
    errors, spread = np.empty(target.shape[1]), np.empty(target.shape[1])
    for variable, (guess, truth) in enumerate(zip(answer.T, target.T, strict=True)):
        measured = np.isfinite(truth)
        truth = truth[measured]
        errors[variable] = np.square(guess[measured] - truth).sum()
        spread[variable] = np.square(truth - truth.mean()).sum() if len(truth) else 0.0
    return np.divide(
        1.0 * (spread - errors), spread, np.full_like(spread, np.nan), where=spread > 0
    )


def r2_interval(
    answer: np.ndarray, target: np.ndarray, resampled: Resampling
) -> list[float] | None:
    """95 % interval of the mean R² over variables, by bootstrap over groups.

    Errors are drawn, the targets' variance is that of all windows, see `paired.r2`.
    """
    measured = np.isfinite(target)
    if not measured.any(axis=0).all():
        return None
    variance = np.nanvar(target, axis=0)
    errors = np.where(measured, answer - target, 0.0) ** 2
    parts = np.stack([errors, measured.astype(np.float64)], axis=1)

    def score(sums: np.ndarray) -> np.ndarray:
        error, count = sums[:, 0], sums[:, 1]
        total = count * variance
        ratio = np.divide(error, total, np.full_like(error, np.nan), where=total > 0)
        return np.asarray((1.0 - ratio).mean(axis=1))

    return resampled.interval(parts, score)


def pearson(answer: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Correlation of each variable, (variable,), NaN where one of the two does not vary."""
    found = np.full(target.shape[1], np.nan)
    for variable, (guess, truth) in enumerate(zip(answer.T, target.T, strict=True)):
        measured = np.isfinite(truth)
        if not measured.any():
            continue
        a = guess[measured] - guess[measured].mean()
        b = truth[measured] - truth[measured].mean()
        scale = np.sqrt(np.square(a).sum() * np.square(b).sum())
        # An answer that is constant but for rounding has no correlation either.
        if np.ptp(guess[measured]) > 1e-6 * max(np.abs(guess[measured]).max(), 1e-30) and scale > 0:
            found[variable] = (a * b).sum() / scale
    return found


def distances(answer: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Euclidean distance in the space of all variables, (window,), where all were measured."""
    measured = np.isfinite(target).all(axis=1)
    return np.asarray(np.sqrt(np.square(answer[measured] - target[measured]).sum(axis=1)))


def principal_axis(targets: np.ndarray) -> np.ndarray:
    """Unit vector (variable,) along which targets (window, variable) vary most, as along a track.

    Windows in which a variable was not measured are left out.
    """
    centred = _centred(targets)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.asarray(axes[:, -1])


def extent(targets: np.ndarray) -> float:
    """Range of targets (window, variable) along their `principal_axis`, as a track's length."""
    return float(np.ptp((_centred(targets) * principal_axis(targets)).sum(axis=1)))


def _centred(targets: np.ndarray) -> np.ndarray:
    known = targets[np.isfinite(targets).all(axis=1)].astype(np.float64)
    return np.asarray(known - known.mean(axis=0))


def central(values: np.ndarray) -> list[float] | None:
    """The central 95 % range of the finite values, None where there are none."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return None
    edges = np.percentile(known, [(100.0 - LEVEL) / 2.0, (100.0 + LEVEL) / 2.0])
    return [float(edge) for edge in edges]

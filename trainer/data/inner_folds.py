"""Folds inside one part: what a fit may see so that the rest is predicted without having been seen.

Penalties, out-of-fold targets, weights of an ensemble and sweeps choose by these, so that neither
the validation part is used up nor the test part looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trainer.data.errors import SplitError
from trainer.data.windows import Dataset, Windows

FOLDS = 5  # by which models choose what is left open


@dataclass(frozen=True, eq=False)
class InnerFold:
    """Rows (row,) int64 of a part: `held` are predicted by a fit on `fit`, disjoint samples."""

    fit: np.ndarray
    held: np.ndarray


def inner_folds(windows: Windows, folds: int = FOLDS) -> list[InnerFold]:
    """`folds` consecutive stretches of a part, each held out once.

    Trials stay whole where every window has one, and each class is spread over all folds alike.
    Windows that share samples with a held one are left out of its fit. Raises SplitError where
    there are fewer trials or windows than folds, or nothing is left to fit on.
    """
    number = _fold_of(windows, folds)
    found = []
    for fold in range(folds):
        held = np.flatnonzero(number == fold)
        others = np.flatnonzero(number != fold)
        fit = others[~_touching(windows, others, held)]
        if len(fit) == 0 or len(held) == 0:
            raise SplitError(
                f"{folds} folds of {len(windows)} windows leave nothing to fit on; give fewer folds"
            )
        found.append(InnerFold(fit, held))
    return found


def fold_dataset(dataset: Dataset, folds: int, fold: int) -> Dataset:
    """`dataset` whose train part lacks an inner fold, which is its test part; validation stays.

    Its fingerprint tells it from the whole. Raises SplitError as `inner_folds` does.
    """
    chosen = inner_folds(dataset.train, folds)[fold]
    return replace(
        dataset,
        train=dataset.train.take(chosen.fit),
        test=dataset.train.take(chosen.held),
        fingerprint=f"{dataset.fingerprint}-fold-{fold}-of-{folds}",
    )


def _fold_of(windows: Windows, folds: int) -> np.ndarray:
    """The fold of each window: (window,) int64."""
    order = np.lexsort((windows.starts, windows.sessions))
    trials = windows.trials
    if trials is not None and (trials >= 0).all():
        keys = np.stack([windows.sessions, trials])
    else:
        keys = np.stack([windows.sessions, windows.starts])
    _, first, unit = np.unique(keys[:, order], axis=1, return_index=True, return_inverse=True)
    unit = unit.reshape(-1)
    # Units in order of appearance, of every class apart where a window has one.
    kinds = np.zeros(len(first), np.int64)
    if windows.task == "classify":
        assert windows.targets is not None
        kinds = windows.targets[order][first]
    if len(first) < folds:
        raise SplitError(f"{folds} folds of {len(first)} windows or trials; give fewer folds")
    fold = np.empty(len(first), np.int64)
    rare = 0
    for kind in np.unique(kinds):
        own = np.flatnonzero(kinds == kind)
        own = own[np.argsort(first[own], kind="stable")]
        if len(own) >= folds:
            fold[own] = np.arange(len(own)) * folds // len(own)
        else:  # what is too rare for every fold goes round, so that no fold stays empty
            fold[own] = (rare + np.arange(len(own))) % folds
            rare += len(own)
    number = np.empty(len(order), np.int64)
    number[order] = fold[unit]
    return number


def _touching(windows: Windows, rows: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Which of `rows` share samples with a window of `held`: (row,) bool."""
    touching = np.zeros(len(rows), bool)
    for session in np.unique(windows.sessions[held]):
        taken = np.sort(windows.starts[held[windows.sessions[held] == session]])
        own = np.flatnonzero(windows.sessions[rows] == session)
        starts = windows.starts[rows[own]]
        after = np.searchsorted(taken, starts)
        below = taken[np.maximum(after - 1, 0)]
        above = taken[np.minimum(after, len(taken) - 1)]
        nearest = np.minimum(np.abs(starts - below), np.abs(above - starts))
        touching[own] = nearest < windows.steps
    return touching

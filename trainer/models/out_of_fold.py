"""Answers to train windows by fits that did not see them: what a network learns to correct."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.inner_folds import inner_folds
from trainer.data.windows import Windows
from trainer.models.stages import stages


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """fold (window,) int64 of each train window; `fits` (fold,) without each of them."""

    fold: np.ndarray
    fits: list[Any]

    @classmethod
    def fit(cls, base: Any, train: Windows, refit: Callable[[Any, Windows], None]) -> OutOfFold:
        """Copies of `base` that `refit` fits without each inner fold of `train`.

        Raises SplitError as `inner_folds` does.
        """
        number, fits = np.zeros(len(train), np.int64), []
        folds = inner_folds(train)
        for index, fold in enumerate(stages("fitting the base without each fold", folds)):
            number[fold.held] = index
            fits.append(copy.deepcopy(base))
            refit(fits[-1], train.take(fold.fit))
        return cls(number, fits)

    def answers(self, neural: Tensor, rows: np.ndarray) -> Tensor:
        """What a fit that did not see it answers to each window, (batch, ...) as the base does.

        neural: (batch, time, channel, feature) raw, the windows `rows` of the train part.
        """
        owned = [np.flatnonzero(self.fold[rows] == fold) for fold in range(len(self.fits))]
        found = [fit(neural[own]) for fit, own in zip(self.fits, owned, strict=True) if len(own)]
        order = np.argsort(np.concatenate(owned))
        return torch.cat(found)[torch.from_numpy(order)]

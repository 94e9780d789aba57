"""How predictions compare with the recording itself, where it holds the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recording.align_times import nearest_rows
from recording.contract import Samples, Series
from recording.plan import Plan
from recording.prediction_table import Block

if TYPE_CHECKING:
    from recording.predictions import Prepared


class Score:
    """Sums over blocks of predictions; `lines` says what came of them."""

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        self.plan, self.prepared = plan, prepared
        self.count, self.error, self.floor = 0, 0.0, 0.0
        self.truths: list[np.ndarray] = []
        self.answers: list[np.ndarray] = []

    def add(self, block: Block) -> None:
        """Take in a block of answers."""
        truth = truth_of(self.plan, self.prepared, block)
        if truth is None:
            return
        if self.plan.task != "forecast":
            self.truths.append(truth)
            self.answers.append(block.answer)
            return
        ahead = truth[:, self.plan.observed :]
        last = truth[:, self.plan.observed - 1 : self.plan.observed]
        answer = block.answer[:, self.plan.observed :].astype(np.float64)
        known = np.isfinite(ahead)
        self.error += float(((answer - ahead)[known] ** 2).sum())
        self.floor += float(((last - ahead)[known] ** 2).sum())
        self.count += int(known.sum())

    def lines(self) -> list[str]:
        """One line per measure; none where the recording does not hold the answer."""
        if self.plan.task == "forecast":
            if not self.count:
                return []
            mse, floor = self.error / self.count, self.floor / self.count
            return [
                f"against the recording itself: MSE {mse:.6g}, persistence {floor:.6g}"
                + (f" (skill {1 - mse / floor:.3f})" if floor > 0 else "")
            ]
        if not self.truths:
            return []
        truth, answer = np.concatenate(self.truths), np.concatenate(self.answers)
        return (
            _classes(truth, answer)
            if self.plan.task == "classify"
            else self._decoded(truth, answer)
        )

    def _decoded(self, truth: np.ndarray, answer: np.ndarray) -> list[str]:
        lines = []
        for index, name in enumerate(self.plan.outputs):
            measured = np.isfinite(truth[:, index])
            wanted = truth[measured, index].astype(np.float64)
            if len(wanted) < 2 or wanted.std() == 0:
                continue
            rest = ((answer[measured, index] - wanted) ** 2).sum()
            share = 1 - rest / ((wanted - wanted.mean()) ** 2).sum()
            lines.append(f"{name}: R² {share:.3f} over {len(wanted)} windows")
        return lines


def truth_of(plan: Plan, prepared: Prepared, block: Block) -> np.ndarray | None:
    """What a block's answers would be right with, None where the recording does not hold it.

    forecast: (batch, time, channel); classify: (batch,) class numbers, -1 for another class;
    decode: (batch, variable), NaN where it was not measured.
    """
    if plan.task == "forecast":
        neural = prepared.truth.neural
        rows = [
            np.asarray(neural.values[int(start) : int(start) + plan.window], np.float64)
            for start in block.starts
        ]
        stacked = np.stack(rows)
        return stacked if stacked.ndim == 3 else stacked[..., 0]
    if plan.task == "classify":
        trials = prepared.recording.trials
        if trials is None or plan.cut != "trial":
            return None
        numbers = [
            plan.outputs.index(name) if name in plan.outputs else -1 for name in trials.names
        ]
        return np.asarray(np.array(numbers, np.int64)[trials.kinds[block.trials]])
    behavior = prepared.recording.modalities.get("behavior")
    if not isinstance(behavior, (Series, Samples)):
        return None
    if any(name not in behavior.names for name in plan.outputs):
        return None
    columns = [behavior.names.index(name) for name in plan.outputs]
    times = block.times + (plan.window - 1) / plan.rate
    return nearest_rows(behavior, times, 0.5 / plan.rate)[:, columns]


def _classes(truth: np.ndarray, answer: np.ndarray) -> list[str]:
    known = truth >= 0
    if not known.any():
        return []
    hits = answer[known].argmax(axis=1) == truth[known]
    classes = np.unique(truth[known])
    balanced = float(np.mean([hits[truth[known] == kind].mean() for kind in classes]))
    return [
        f"against the recording's own classes: accuracy {hits.mean():.3f}, "
        f"balanced {balanced:.3f} over {known.sum()} trials"
    ]

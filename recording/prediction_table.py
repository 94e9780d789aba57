"""Predictions as a table: one row per time stamp, columns with names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recording.plan import Plan

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Block:
    """Answers to some windows: first sample, its time in seconds, trial, answer (batch, …)."""

    starts: np.ndarray
    times: np.ndarray
    trials: np.ndarray
    answer: np.ndarray


def table(plan: Plan, block: Block) -> Columns:
    """The rows of a block of answers.

    forecast: `window_start_s`, `time_s`, then a column per channel, a row per forecast step;
    classify: `window_start_s`, `window_stop_s`, `trial` (-1: none), `predicted`, then the
    probability of each class; decode: `window_start_s`, `time_s` of the last sample of the window,
    then a column per variable.
    """
    if plan.task == "classify":
        return _classes(plan, block)
    if plan.task == "decode":
        return _variables(plan, block)
    return _forecast(plan, block)


def column_names(plan: Plan) -> tuple[str, ...]:
    """Names of the columns with answers, with their units."""
    if plan.task == "classify":
        return tuple(f"p_{name}" for name in plan.outputs)
    return tuple(
        f"{name} [{unit}]" if unit else name
        for name, unit in zip(plan.outputs, plan.output_units, strict=True)
    )


def _forecast(plan: Plan, block: Block) -> Columns:
    ahead = np.arange(plan.observed, plan.window)
    times = block.times[:, None] + ahead / plan.rate
    values = block.answer[:, plan.observed :].reshape(-1, block.answer.shape[2])
    columns = {
        "window_start_s": np.repeat(block.times, len(ahead)),
        "time_s": times.reshape(-1),
    }
    return columns | _answers(plan, values)


def _classes(plan: Plan, block: Block) -> Columns:
    names = np.array(plan.outputs)
    columns = {
        "window_start_s": block.times,
        "window_stop_s": block.times + plan.window / plan.rate,
        "trial": block.trials,
        "predicted": names[block.answer.argmax(axis=1)],
    }
    return columns | _answers(plan, block.answer)


def _variables(plan: Plan, block: Block) -> Columns:
    columns = {
        "window_start_s": block.times,
        "time_s": block.times + (plan.window - 1) / plan.rate,
    }
    return columns | _answers(plan, block.answer)


def _answers(plan: Plan, values: np.ndarray) -> Columns:
    return {name: values[:, index] for index, name in enumerate(column_names(plan))}

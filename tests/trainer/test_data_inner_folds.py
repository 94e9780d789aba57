"""Folds inside a part: every window held once, and nothing of it seen by its fit."""

from __future__ import annotations

import numpy as np
import pytest
from contexts import classify_context, forecast_context, forecast_windows
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import SplitError
from trainer.data.inner_folds import inner_folds
from trainer.data.windows import Windows


@settings(max_examples=30, deadline=None)
@given(length=st.integers(150, 400), stride=st.integers(1, 12), folds=st.integers(2, 6))
def test_every_window_is_held_once_and_shares_no_sample_with_its_fit(length, stride, folds):
    context = forecast_context(1)
    windows = forecast_windows(context, np.zeros((length, 1, 1)), stride)
    found = inner_folds(windows, folds) if len(windows) >= 6 * folds else []
    if not found:
        return
    assert sorted(np.concatenate([fold.held for fold in found])) == list(range(len(windows)))
    for fold in found:
        distance = np.abs(windows.starts[fold.fit][:, None] - windows.starts[fold.held])
        assert distance.min() >= windows.steps
        # Nothing is left out without need.
        left = np.setdiff1d(np.arange(len(windows)), np.concatenate([fold.fit, fold.held]))
        near = np.abs(windows.starts[left][:, None] - windows.starts[fold.held]).min(axis=1)
        assert (near < windows.steps).all()


def test_windows_of_other_sessions_are_not_left_out():
    context = forecast_context(1)
    one = forecast_windows(context, np.zeros((100, 1, 1)))
    both = Windows(
        task="forecast",
        observed=10,
        inputs=one.inputs,
        outputs=one.outputs,
        series={"neural": (*one.series["neural"], *one.series["neural"])},
        sessions=np.repeat([0, 1], len(one)),
        starts=np.tile(one.starts, 2),
    )
    first, second = inner_folds(both, 2)
    assert list(first.fit) == list(second.held)
    assert list(second.fit) == list(first.held)


def test_trials_stay_whole_and_classes_are_spread():
    context = classify_context(1, 1, dim=0)
    targets = np.repeat([0, 1, 0, 0, 1, 0], 4)
    windows = Windows(
        task="classify",
        observed=20,
        inputs=context.inputs,
        outputs=context.outputs,
        series={"neural": (np.zeros((24 * 20, 1, 1), np.float32),)},
        sessions=np.zeros(24, np.int64),
        starts=np.arange(24) * 20,
        targets=targets,
        trials=np.repeat(np.arange(6), 4),
    )
    for fold in inner_folds(windows, 2):
        assert not set(windows.trials[fold.held]) & set(windows.trials[fold.fit])
        assert sorted(targets[fold.held]) == [0] * 8 + [1] * 4


def test_too_many_folds_are_refused():
    context = forecast_context(1)
    windows = forecast_windows(context, np.zeros((30, 1, 1)), 10)
    with pytest.raises(SplitError, match="fewer folds"):
        inner_folds(windows, 5)


def test_classes_too_rare_for_every_fold_leave_none_empty():
    context = classify_context(1, 1, dim=0)
    windows = Windows(
        task="classify",
        observed=20,
        inputs=context.inputs,
        outputs=context.outputs,
        series={"neural": (np.zeros((6 * 20, 1, 1), np.float32),)},
        sessions=np.zeros(6, np.int64),
        starts=np.arange(6) * 20,
        targets=np.array([0, 0, 0, 1, 1, 2]),
        trials=np.arange(6),
    )
    held = [fold.held for fold in inner_folds(windows, 5)]
    assert sorted(np.concatenate(held)) == list(range(6))
    assert all(len(rows) for rows in held)

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from submission import rules
from submission.rules import (
    correlation,
    forecast_error,
    generic_metric,
    neural_alignment,
    normalized_error,
)

RULES: list[ModuleType] = [
    correlation,
    forecast_error,
    generic_metric,
    neural_alignment,
    normalized_error,
]
FEW = settings(max_examples=25, deadline=None, database=None)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def total(rule: ModuleType, prediction, reference, options) -> np.ndarray:
    found = rule.statistics(prediction, reference, options)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    label, values = rule.by_row(found, options)
    assert label
    assert len(values) == len(found)
    return found.sum(axis=0)


# --- every rule ------------------------------------------------------------------------------


def test_each_rule_stands_alone():
    folder = Path(rules.__file__).parent
    assert sorted(path.stem for path in folder.glob("*.py")) == [
        "__init__",
        *sorted(rule.__name__.rpartition(".")[2] for rule in RULES),
    ]
    for rule in RULES:
        tree = ast.parse(Path(rule.__file__).read_text(), feature_version=(3, 10))
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert modules <= {"__future__", "collections.abc", "typing"}
        names = [
            n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names
        ]
        assert sorted(names) == ["numpy", "numpy.typing"]


# --- forecast_error --------------------------------------------------------------------------

FORECAST = {"observed": 3, "sets": ["b", "a"]}


def test_forecast_error_is_the_plain_mean_of_each_set():
    reference = {"a": normal(0, 7, 5, 4, 2), "b": normal(1, 3, 5, 6)}
    prediction = {
        "a": normal(2, 7, 5, 4).astype(np.float32),
        "b": normal(3, 3, 5, 6),
    }
    totals = {
        name: total(forecast_error, {"arr_0": prediction[name]}, {"arr_0": array}, FORECAST)
        for name, array in reference.items()
    }
    scores = forecast_error.columns(totals, FORECAST)
    a = np.mean((prediction["a"].astype(np.float64) - reference["a"][..., 0])[:, 3:] ** 2)
    b = np.mean((prediction["b"] - reference["b"])[:, 3:] ** 2)
    assert list(scores) == ["MSE_b", "MSE_a", "total_MSR"]
    np.testing.assert_allclose(list(scores.values()), [b, a, (a + b) / 2], rtol=1e-14)
    with pytest.raises(ValueError, match="no statistics of b"):
        forecast_error.columns({"a": totals["a"]}, FORECAST)


@FEW
@given(st.integers(1, 9), st.integers(0, 9))
def test_forecast_error_adds_over_rows(rows: int, cut: int):
    truth, answer = normal(rows, rows, 5, 3, 2), normal(cut, rows, 5, 3)
    whole = forecast_error.statistics({"arr_0": answer}, {"arr_0": truth}, FORECAST)
    halves = [
        forecast_error.statistics({"arr_0": answer[part]}, {"arr_0": truth[part]}, FORECAST)
        for part in (slice(0, cut), slice(cut, None))
        if len(answer[part])
    ]
    np.testing.assert_array_equal(np.concatenate(halves), whole)
    picked = np.random.default_rng(cut).integers(0, rows, rows)
    drawn = forecast_error.statistics({"arr_0": answer[picked]}, {"arr_0": truth[picked]}, FORECAST)
    np.testing.assert_array_equal(drawn, whole[picked])


def test_observed_steps_are_not_looked_at():
    truth, answer = normal(0, 2, 5, 3), normal(1, 2, 5, 3)
    answer[:, :3] = np.nan
    assert np.isfinite(total(forecast_error, {"arr_0": answer}, {"arr_0": truth}, FORECAST)).all()


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ({}, "holds no array; must hold arr_0"),
        ({"y": np.zeros(3), "x": np.zeros(3)}, "holds x, y; must hold arr_0"),
        ({"arr_0": np.zeros((2, 5, 4))}, r"has shape \(2, 5, 4\); must be \(2, 5, 3\)"),
        ({"arr_0": np.zeros((2, 5, 3), int)}, "is int64; must be floating, such as float32"),
        ({"arr_0": np.zeros((1, 5, 3), int)}, r"has shape .*; is int64"),
        ({"arr_0": np.full((2, 5, 3), np.nan)}, "holds 12 NaN or infinite values from step 3 on"),
        ({"arr_0": np.full((2, 5, 3), 1e200)}, r"holds values up to 1e\+200, too large"),
    ],
)
def test_forecast_error_refuses(prediction, message):
    with pytest.raises(ValueError, match=message):
        forecast_error.statistics(prediction, {"arr_0": np.zeros((2, 5, 3))}, FORECAST)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"x": np.zeros(3)}, "the reference holds x; must hold arr_0"),
        ({"arr_0": np.zeros((2, 5))}, r"the reference is float64 \(2, 5\), no \(window"),
        ({"arr_0": np.full((2, 5, 3), np.inf)}, "the reference holds NaN or infinite"),
    ],
)
def test_forecast_error_names_a_wrong_reference(reference, message):
    with pytest.raises(ValueError, match=message):
        forecast_error.statistics({"arr_0": np.zeros((2, 5, 3))}, reference, FORECAST)


# --- normalized_error ------------------------------------------------------------------------

WEIGHTS = {"weights": {"challenge_1": 0.3, "challenge_2": 0.7}}


@pytest.mark.parametrize("mean", [0.0, 1e7])
def test_normalized_error(mean: float):
    truth = {"challenge_1": mean + normal(0, 40), "challenge_2": mean + 3 * normal(1, 30, 1)}
    answer = {"challenge_1": mean + normal(2, 40, 1), "challenge_2": mean + normal(3, 30)}
    totals = {
        name: total(normalized_error, {"arr_0": answer[name]}, {"arr_0": truth[name]}, WEIGHTS)
        for name in truth
    }
    scores = normalized_error.columns(totals, WEIGHTS)
    expected = {
        name: np.sqrt(np.mean((answer[name].ravel() - truth[name].ravel()) ** 2))
        / np.std(truth[name])
        for name in truth
    }
    assert list(scores) == ["challenge_1", "challenge_2", "overall"]
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, rel=1e-8 if mean else 1e-13)
    overall = 0.3 * scores["challenge_1"] + 0.7 * scores["challenge_2"]
    assert scores["overall"] == pytest.approx(overall, rel=1e-14)


def test_the_mean_scores_one_and_drawn_rows_score_themselves():
    truth = 5.0 + normal(0, 50)
    constant = np.full((50, 1), truth.mean())
    weights = {"weights": {"a": 1.0}}
    rows = normalized_error.statistics({"arr_0": constant}, {"arr_0": truth}, weights)
    assert normalized_error.columns({"a": rows.sum(axis=0)}, weights)["a"] == pytest.approx(1.0)
    picked = np.random.default_rng(1).integers(0, 50, 50)
    found = normalized_error.columns({"a": rows[picked].sum(axis=0)}, weights)["overall"]
    drawn = truth[picked]
    expected = np.sqrt(np.mean((constant[0, 0] - drawn) ** 2)) / drawn.std()
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_constant_target_has_no_normalized_error():
    found = total(
        normalized_error, {"arr_0": normal(0, 9)}, {"arr_0": np.full(9, 0.1)}, {"weights": {"a": 1}}
    )
    assert np.isnan(normalized_error.columns({"a": found}, {"weights": {"a": 1.0}})["overall"])
    with pytest.raises(ValueError, match="no statistics of challenge_2"):
        normalized_error.columns({"challenge_1": found}, WEIGHTS)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ({"y": np.zeros(4)}, "holds y; must hold arr_0"),
        ({"arr_0": np.zeros((1, 4))}, r"has shape \(1, 4\); must be \(4, 1\)"),
        ({"arr_0": np.zeros(4, bool)}, "is bool; must be floating"),
        ({"arr_0": np.array([0, 1, np.nan, np.inf])}, "holds 2 NaN .*, the first in row 2"),
        ({"arr_0": np.full(4, 1e200)}, "too large"),
    ],
)
def test_normalized_error_refuses(prediction, message):
    with pytest.raises(ValueError, match=message):
        normalized_error.statistics(prediction, {"arr_0": np.arange(4)}, WEIGHTS)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({}, "the reference holds no array"),
        ({"arr_0": np.zeros((2, 2))}, "the reference has shape"),
        ({"arr_0": np.array(["a"])}, "not finite numbers"),
    ],
)
def test_normalized_error_names_a_wrong_reference(reference, message):
    with pytest.raises(ValueError, match=message):
        normalized_error.statistics({"arr_0": np.zeros(2)}, reference, WEIGHTS)


# --- correlation -----------------------------------------------------------------------------

EPISODES = {"sub-01/a": 33, "sub-01/b": 52, "sub-02/a": 41}
SUBJECTS = {"subjects": {name: name[:6] for name in EPISODES}, "trim": 5, "block": 20}


def episodes(mean: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    truth = {n: mean + normal(i, rows, 6) for i, (n, rows) in enumerate(EPISODES.items())}
    answer = {n: array * 0.5 + normal(9, *array.shape) for n, array in truth.items()}
    for array in answer.values():
        array[:, 5] = 0.1  # never changes
    return truth, answer


@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 1e-13), (1e6, 1e-9)])
def test_correlation_over_concatenated_episodes(mean: float, tolerance: float):
    truth, answer = episodes(mean)
    totals = {
        n: total(correlation, {"arr_0": answer[n]}, {"arr_0": truth[n]}, SUBJECTS) for n in truth
    }
    scores = correlation.columns(totals, SUBJECTS)
    expected = {}
    for subject in ("sub-01", "sub-02"):
        names = [name for name in EPISODES if name.startswith(subject)]
        x = np.concatenate([answer[name][5:-5] for name in names])
        y = np.concatenate([truth[name][5:-5] for name in names])
        by_parcel = [stats.pearsonr(x[:, i], y[:, i])[0] for i in range(5)]
        expected[subject] = np.mean([*by_parcel, 0.0])
    assert list(scores) == ["sub-01", "sub-02", "mean"]
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=tolerance)
    assert scores["mean"] == pytest.approx(np.mean(list(expected.values())), abs=tolerance)


def test_correlation_does_not_depend_on_blocks_or_on_where_episodes_are_cut():
    x, y = 100.0 + normal(0, 90, 4), 7.0 + normal(1, 90, 4)
    found = []
    for block in (1, 7, 20, 1000):
        options = {"subjects": {"all": "s"}, "trim": 0, "block": block}
        rows = correlation.statistics({"arr_0": x}, {"arr_0": y}, options)
        assert rows.shape == (-(-90 // block), 1 + 7 * 4)
        assert rows[:, 0].sum() == 90
        found.append(correlation.columns({"all": rows.sum(axis=0)}, options)["mean"])
    options = {"subjects": {"one": "s", "two": "s"}, "trim": 0}
    parts = {"one": slice(0, 31), "two": slice(31, 90)}
    totals = {
        name: total(correlation, {"arr_0": x[part]}, {"arr_0": y[part]}, options)
        for name, part in parts.items()
    }
    found.append(correlation.columns(totals, options)["mean"])
    np.testing.assert_allclose(found, found[0], atol=1e-14)


def test_correlation_of_equal_and_of_constant_episodes():
    options = {"subjects": {"a": "s", "b": "s"}, "trim": 0}
    y = normal(0, 20, 3)
    same = total(correlation, {"arr_0": y}, {"arr_0": y}, options)
    assert correlation.columns({"a": same, "b": same}, options)["s"] == pytest.approx(1.0)
    flat = total(correlation, {"arr_0": np.full((20, 3), 1e5 / 3)}, {"arr_0": y}, options)
    assert correlation.columns({"a": flat, "b": flat}, options)["s"] == 0.0
    other = total(correlation, {"arr_0": np.full((20, 3), 1e5 / 7)}, {"arr_0": y + 1}, options)
    assert abs(correlation.columns({"a": flat, "b": other}, options)["s"]) > 0.1
    narrow = total(correlation, {"arr_0": y[:, :2]}, {"arr_0": y[:, :2]}, options)
    with pytest.raises(ValueError, match="unequal parcels"):
        correlation.columns({"a": same, "b": narrow}, options)
    with pytest.raises(ValueError, match="no statistics of b"):
        correlation.columns({"a": same}, options)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ({"y": np.zeros(4)}, "holds y; must hold arr_0"),
        ({"arr_0": np.zeros((29, 2))}, r"has shape \(29, 2\); must be \(30, 2\)"),
        ({"arr_0": np.zeros((30, 2), np.int8)}, "is int8; must be floating"),
        (
            {"arr_0": np.where(np.arange(60).reshape(30, 2) == 20, np.nan, 0.0)},
            "first in sample 10",
        ),
        ({"arr_0": normal(0, 30, 2) * 1e200}, "too large"),
    ],
)
def test_correlation_refuses(prediction, message):
    with pytest.raises(ValueError, match=message):
        correlation.statistics(prediction, {"arr_0": normal(0, 30, 2)}, SUBJECTS)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({}, "the reference holds no array"),
        ({"arr_0": np.zeros(30)}, "the reference is float64"),
        ({"arr_0": np.full((30, 2), np.nan)}, "the reference holds NaN"),
        ({"arr_0": np.zeros((11, 2))}, "the reference has 11 samples, of which 10 are left out"),
    ],
)
def test_correlation_names_a_wrong_reference(reference, message):
    truth = reference.get("arr_0", np.zeros((30, 2)))
    with pytest.raises(ValueError, match=message):
        correlation.statistics({"arr_0": np.zeros(truth.shape)}, reference, SUBJECTS)


# --- neural_alignment ------------------------------------------------------------------------

ALIGNMENT = {"rate": 10.0, "window": 0.4, "folds": 3, "eps": 0.9, "sets": ["r"]}


def recording(frames: int = 90) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    good = normal(0, frames, 2, 3, 4).astype(np.float32)
    weights = normal(1, 24, 5) * 0.3
    spikes = np.maximum(good.reshape(frames, -1) @ weights + 0.1 * normal(2, frames, 5), 0.0)
    spikes[:, 4] = 0.0
    return {"poor": normal(3, frames, 30), "good": good}, {"spikes": spikes}


def by_the_book(layer: np.ndarray, spikes: np.ndarray) -> np.ndarray:
    """The kit's steps, with dense matrices."""
    frames, scores = len(spikes), []
    edges = [0, frames // 3, 2 * (frames // 3), frames]
    for fold in range(3):
        held = np.arange(edges[fold], edges[fold + 1])
        rest = np.setdiff1d(np.arange(frames), held)
        size = int(np.ceil(4 * np.log(len(rest)) / 0.9**2))
        matrix = neural_alignment._project(np.eye(layer.shape[1]), size, 42 + fold)
        x = layer.astype(np.float64) @ matrix
        centred = x[rest] - x[rest].mean(axis=0)
        target = spikes[rest] - spikes[rest].mean(axis=0)
        stacked = np.vstack([centred, np.eye(size)])  # the penalty as further rows
        weights = np.linalg.lstsq(stacked, np.vstack([target, np.zeros((size, 5))]), rcond=None)[0]
        guess = (x[held] - x[rest].mean(axis=0)) @ weights + spikes[rest].mean(axis=0)
        smooth = [
            np.stack([np.convolve(column, np.ones(4) / 4, "same") for column in values.T])
            for values in (guess, spikes[held])
        ]
        constant = np.ptp(smooth[1], axis=1) == 0
        pairs = zip(*smooth, constant, strict=True)
        scores.append([0.0 if flat else stats.pearsonr(a, b)[0] for a, b, flat in pairs])
    return np.mean(scores, axis=0)


def test_neural_alignment_follows_the_kit():
    layers, reference = recording()
    found = neural_alignment.statistics(layers, reference, ALIGNMENT)
    books = {n: by_the_book(a.reshape(90, -1), reference["spikes"]) for n, a in layers.items()}
    assert books["good"].mean() > books["poor"].mean() + 0.1
    np.testing.assert_allclose(found[:, 0], books["good"], atol=1e-6)
    np.testing.assert_array_equal(found[:, 1], 1.0)
    assert found[4, 0] == 0.0
    again = neural_alignment.statistics(dict(reversed(layers.items())), reference, ALIGNMENT)
    assert again.tobytes() == found.tobytes()
    np.testing.assert_array_equal(neural_alignment.by_row(found, ALIGNMENT)[1], found[:, 0])
    scores = neural_alignment.columns({"r": found.sum(axis=0)}, ALIGNMENT)
    assert scores == {"r": pytest.approx(found[:, 0].mean()), "mean": scores["r"]}


def test_neurons_of_all_recordings_are_pooled():
    totals = {"a": np.array([3.0, 10.0]), "b": np.array([1.0, 2.0])}
    scores = neural_alignment.columns(totals, {})
    assert scores == {"a": 0.3, "b": 0.5, "mean": pytest.approx(4 / 12)}
    with pytest.raises(ValueError, match="no statistics of c"):
        neural_alignment.columns(totals, {"sets": ["a", "c"]})


@pytest.mark.parametrize("features", [1, 2, 3, 30, 400, 12_000])
def test_projection_is_sparse_with_unit_variance(features: int):
    matrix = neural_alignment._project(np.eye(min(features, 50), features), 60, 42).T
    scale = features**0.25 / np.sqrt(60)
    assert set(np.unique(np.abs(matrix)).round(12)) <= {0.0, round(scale, 12)}
    assert np.mean(matrix != 0) == pytest.approx(1 / np.sqrt(features), rel=0.25)


SCIKIT_LEARN = ["000000000+000-00", "000000000000-+0-", "0+0-00-000+000+0", "0-00+00+00000000"]


def test_projection_draws_as_scikit_learn_does():
    # SparseRandomProjection(n_components=4, random_state=43).fit(np.zeros((1, 16))), version 1.9.1
    signs = np.sign(neural_alignment._project(np.eye(16), 4, 43)).T.astype(int)
    drawn = ["".join("-0+"[value + 1] for value in row) for row in signs]
    assert drawn == SCIKIT_LEARN


@pytest.mark.parametrize("taps", [1, 2, 3, 20])
def test_boxcar_is_numpys_convolution(taps: int):
    values = normal(0, 40, 3)
    expected = [np.convolve(column, np.ones(taps) / taps, "same") for column in values.T]
    np.testing.assert_allclose(neural_alignment._boxcar(values, taps).T, expected, atol=1e-14)


def test_more_components_than_frames_solve_the_same_regression():
    x, y, new = normal(0, 12, 20), normal(1, 12, 2), normal(2, 5, 20)
    dual = neural_alignment._ridge(x, y, new, 1.0)
    centred = x - x.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + np.eye(20), centred.T @ (y - y.mean(axis=0)))
    expected = (new - x.mean(axis=0)) @ weights + y.mean(axis=0)
    np.testing.assert_allclose(dual, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ({}, "holds no layer"),
        ({"a": np.zeros((89, 3))}, r"a has shape \(89, 3\); must be \(90, ...\)"),
        ({"a": np.zeros(90)}, r"a has shape \(90,\)"),
        ({"a": np.array(1.0)}, r"a has shape \(\)"),
        ({"a": np.zeros((90, 3), int)}, "a is int64; must be floating"),
        ({"a": np.full((90, 3), np.nan), "b": np.zeros((2, 2))}, "a holds 270 NaN .*; b has shape"),
        ({"a": np.full((90, 3), 1e200)}, "too large"),
    ],
)
def test_neural_alignment_refuses(prediction, message):
    with pytest.raises(ValueError, match=message):
        neural_alignment.statistics(prediction, recording()[1], ALIGNMENT)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"x": np.zeros(3)}, "the reference holds x; must hold spikes"),
        ({"spikes": np.zeros(90)}, "the reference is float64"),
        ({"spikes": np.full((90, 2), np.nan)}, "the reference holds NaN"),
        ({"spikes": np.zeros((11, 2))}, "the reference has 11 frames: too few for 3 folds of 4"),
    ],
)
def test_neural_alignment_names_a_wrong_reference(reference, message):
    rows = len(next(iter(reference.values())))
    with pytest.raises(ValueError, match=message):
        neural_alignment.statistics({"a": np.zeros((rows, 2))}, reference, ALIGNMENT)


# --- generic_metric --------------------------------------------------------------------------


def generic(metric: str, answer: np.ndarray, truth: np.ndarray) -> float:
    options = {"metric": metric, "output": "y"}
    rows = total(generic_metric, {"y": answer, "extra": truth}, {"y": truth}, options)
    scores = generic_metric.columns({"set": rows}, options)
    assert list(scores) == [f"{metric}_set", metric]
    assert scores[metric] == scores[f"{metric}_set"] or np.isnan(scores[metric])
    return scores[metric]


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_generic_regression_metrics(offset: float):
    truth, answer = offset + normal(0, 30, 2), offset + normal(0, 30, 2) + 0.3 * normal(1, 30, 2)
    error = answer - truth
    expected = {
        "mse": np.mean(error**2),
        "mae": np.mean(np.abs(error)),
        "rmse": np.sqrt(np.mean(error**2)),
        "r2": 1 - np.sum(error**2) / np.sum((truth - truth.mean()) ** 2),
        "pearson": stats.pearsonr(answer.ravel(), truth.ravel())[0],
    }
    for metric, value in expected.items():
        assert generic(metric, answer, truth) == pytest.approx(value, rel=1e-8 if offset else 1e-12)


def test_generic_metrics_of_constants():
    truth = normal(0, 9)
    assert generic("pearson", np.full(9, 0.1), truth) == 0.0
    assert generic("pearson", truth, np.full(9, 0.1)) == 0.0
    assert np.isnan(generic("r2", truth, np.full(9, 0.1)))
    assert generic("r2", truth, truth) == 1.0


def test_generic_accuracy():
    truth = np.array([0, 2, 1, 1])
    scores = np.array([[3, 1, 2], [0, 1, 5], [9, 0, 1], [0, 1, 0]], np.float32)
    assert generic("accuracy", scores, truth) == 0.75
    assert generic("accuracy", np.array([0, 2, 0, 1]), truth) == 0.75
    assert generic("accuracy", np.array([0.0, 2.0, 0.0, 1.0]), truth) == 0.75
    assert generic("accuracy", scores, np.eye(3)[truth]) == 0.75
    by_time = np.stack([scores, scores], axis=1)
    assert generic("accuracy", by_time, np.stack([truth, truth], axis=1)) == 0.75


@FEW
@given(st.sampled_from(["mse", "mae", "rmse", "r2", "pearson"]), st.integers(2, 30))
def test_generic_drawn_rows_score_themselves(metric: str, rows: int):
    truth, answer = 3.0 + normal(rows, rows, 2), normal(rows + 1, rows, 2)
    options = {"metric": metric}
    found = generic_metric.statistics({"y": answer}, {"arr_0": truth}, options)
    picked = np.random.default_rng(rows).integers(0, rows, rows)
    drawn = generic_metric.columns({"s": found[picked].sum(axis=0)}, options)[metric]
    assert drawn == pytest.approx(
        generic(metric, answer[picked], truth[picked]), rel=1e-9, abs=1e-9
    )


def test_generic_columns_are_the_sets_and_their_mean():
    totals = {"b": np.array([2.0, 4.0]), "a": np.array([4.0, 4.0])}
    options = {"metric": "mse", "key": "error", "output": None}
    assert generic_metric.columns(totals, options) == {"error_b": 2.0, "error_a": 1.0, "error": 1.5}
    assert generic_metric.columns(totals, {**options, "sets": ["a"]})["error"] == 1.0
    with pytest.raises(ValueError, match="no statistics of c"):
        generic_metric.columns(totals, {**options, "sets": ["a", "c"]})


@pytest.mark.parametrize(
    ("prediction", "options", "message"),
    [
        ({}, {}, "^holds no array; must hold one array"),
        ({"a": np.zeros(4), "b": np.zeros(4)}, {}, "^holds a, b; must hold one array"),
        ({"a": np.zeros(4)}, {"output": "y"}, "^holds a; must hold y"),
        ({"y": np.zeros((4, 1))}, {}, r"has shape \(4, 1\); must be \(4,\)"),
        ({"y": np.zeros(4, int)}, {}, "is int64; must be floating"),
        ({"y": np.array([0, np.nan, 0, 0])}, {}, "holds 1 NaN .* first in row 1"),
        ({"y": np.full(4, 1e200)}, {}, "too large"),
        ({"y": np.zeros(4)}, {"metric": "f1"}, "no metric 'f1'; there are mse, mae"),
        ({"y": np.zeros(3, int)}, {"metric": "accuracy"}, r"has shape \(3,\); must be \(4,\)"),
        ({"y": np.zeros((4, 1))}, {"metric": "accuracy"}, "scores with one more axis"),
        ({"y": np.array(list("abcd"))}, {"metric": "accuracy"}, "must be labels"),
        ({"y": np.full((4, 2), np.nan)}, {"metric": "accuracy"}, "holds NaN"),
    ],
)
def test_generic_refuses(prediction, options, message):
    with pytest.raises(ValueError, match=message):
        generic_metric.statistics(
            prediction, {"y": np.arange(4)}, {"metric": "mse", "output": None, **options}
        )


def test_generic_names_a_wrong_reference():
    options = {"metric": "mse", "output": "y"}
    with pytest.raises(ValueError, match="the reference holds x; must hold y"):
        generic_metric.statistics({"y": np.zeros(2)}, {"x": np.zeros(2)}, options)
    with pytest.raises(ValueError, match="no finite"):
        generic_metric.statistics({"y": np.zeros(2)}, {"y": np.array([np.nan, 0])}, options)

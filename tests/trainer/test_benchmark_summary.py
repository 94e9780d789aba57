"""Tables from scores written by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from trainer.benchmark_config import Benchmark
from trainer.benchmark_goals import _verdict as verdict_of
from trainer.benchmark_goals import ablation, goals
from trainer.benchmark_pictures import flat
from trainer.benchmark_report import markdown, published
from trainer.benchmark_scores import Kept
from trainer.benchmark_summary import Results, difference, spread, summarize
from trainer.paired import Difference

WINDOWS = 120


def data(observed: int = 2, shift: int = 0) -> Kept:
    random = np.random.default_rng(1)
    series = random.normal(size=(10 * WINDOWS + 20, 3))
    starts = 10 * np.arange(WINDOWS) + shift
    neural = np.stack([series[start : start + observed + 2] for start in starts])
    arrays = {
        "scale": np.ones(3),
        "test_sessions": np.zeros(WINDOWS, int),
        "test_starts": starts,
        "test_seconds": starts / 100.0,
        "test_neural": neural,
        "validation_sessions": np.zeros(WINDOWS, int),
        "validation_starts": 5 * np.arange(WINDOWS),
    }
    facts = {
        "label": "one",
        "name": "made",
        "description": "made by hand",
        "fingerprint": "0",
        "task": "forecast",
        "observed": observed,
        "steps": observed + 2,
        "rate_hz": 100.0,
        "unit": "µV",
        "channel_names": ["a", "b", "c"],
        "session_names": ["s"],
        "output_names": [],
        "windows": {"train": 500, "validation": WINDOWS, "test": WINDOWS},
        "synthetic": False,
    }
    return Kept(arrays, facts)


def run(of: Kept, error: float, seed: int = 0) -> Kept:
    """A run whose answers are off by `error` and a little noise."""
    random = np.random.default_rng(seed)
    truth = of.arrays["test_neural"][:, of.facts["observed"] :]
    answer = truth + error * random.normal(1.0, 0.1, (len(truth), 1, 1))
    squares = np.square(answer - truth).mean(axis=(1, 2))
    arrays = {"test_answer": answer, "test_mse": squares, "test_mse_raw": 4 * squares}
    arrays |= {"validation_mse": squares, "validation_mse_raw": 4 * squares}
    facts = {
        "seed": seed,
        "model": "linear",
        "parameters": 10,
        "artifact_bytes": 1000,
        "latency_ms": 0.1,
        "training_cpu_s": 1.0 + seed,
        "resumed": False,
        "members": [],
        "artifact": f"id{seed}",
        "epochs": 0,
        "config": {"model": {"name": "linear"}, "training": {}},
    }
    return Kept(arrays, facts)


@pytest.fixture
def results() -> Results:
    one, late = data(), data(observed=4, shift=-2 + 10)
    runs = {
        ("one", "floor"): [run(one, 1.0)],
        ("one", "better"): [run(one, 0.9, seed) for seed in range(3)],
        ("one", "better/less"): [run(one, 0.95, seed) for seed in range(3)],
        ("late", "better"): [run(late, 0.8)],
    }
    return Results({"one": one, "late": late}, runs)


@pytest.fixture
def described() -> Benchmark:
    return Benchmark.model_validate(
        {
            "name": "mine",
            "reference": "floor",
            "data": {"one": {"name": "x"}, "late": {"name": "x"}},
            "compared_with": {"late": "one"},
            "models": {
                "floor": {"model": {"name": "linear"}},
                "better": {"model": {"name": "gru"}},
            },
            "goals": (
                {"model": "better", "below": "floor", "percent": 10.0, "interval": True},
                {"model": "better", "data": "one", "at_most": 0.5},
                {"model": "better", "data": "one", "at_most": 0.9, "interval": True},
                {"model": "better", "data": "one", "about": 0.8, "percent": 5.0},
                {"model": "better", "below": "better"},
            ),
            "ablations": {"reference": "better", "items": {"less": {}}},
        },
        strict=False,
    )


def test_means_ranks_skill_and_costs(results: Results, described: Benchmark) -> None:
    found = summarize(described, results)
    floor, better = found["data"]["one"]["rows"]
    assert (floor["rank"], better["rank"]) == (2.0, 1.0)
    means = [float(np.mean(kept.arrays["test_mse"])) for kept in results.runs["one", "better"]]
    assert better["scores"]["mse"]["mean"] == pytest.approx(np.mean(means))
    assert better["scores"]["mse"]["per_seed"] == pytest.approx(means)
    assert better["scores"]["mse_raw"]["mean"] == pytest.approx(4 * np.mean(means))
    expected = 1.0 - np.mean(means) / floor["scores"]["mse"]["mean"]
    assert better["skill"] == pytest.approx(expected)
    assert better["paired"]["value"] == pytest.approx(-100.0 * expected)
    assert better["training_cpu_s"] == 2.0
    assert found["ranks"][0]["model"] == "better"
    assert "better/less" not in {row["model"] for row in found["data"]["one"]["rows"]}


def decoding(answer: np.ndarray, target: np.ndarray, unit: str | None) -> Results:
    """One model's answers to targets on a diagonal track."""
    of = data()
    arrays = {name: of.arrays[name] for name in of.arrays if not name.endswith("neural")}
    for part in ("validation", "test"):
        arrays[f"{part}_target"] = target
    arrays["axis"] = np.array([0.6, 0.8])
    facts = {**of.facts, "task": "decode", "shared_unit": unit, "extent": 200.0}
    own = {"validation_answer": answer, "test_answer": answer}
    kept = Kept(own, run(of, 1.0).facts)
    return Results({"one": Kept(arrays, facts)}, {("one", "floor"): [kept]})


def test_the_error_along_the_track_knows_nothing_of_that_across_it(described: Benchmark) -> None:
    random = np.random.default_rng(0)
    target = random.uniform(0.0, 200.0, (WINDOWS, 1)) * np.array([0.6, 0.8])
    answer = target + 10.0 * np.array([0.6, 0.8]) + 500.0 * np.array([0.8, -0.6])
    (row,) = summarize(described, decoding(answer, target, "px"))["data"]["one"]["rows"]
    assert row["scores"]["median_along_share"]["mean"] == pytest.approx(5.0)
    assert row["scores"]["median_error_share"]["mean"] == pytest.approx(250.05, abs=0.01)
    (row,) = summarize(described, decoding(answer, target, None))["data"]["one"]["rows"]
    assert set(row["scores"]) == {"r2"}  # of variables in different units there is no distance


def test_seeds_give_students_interval() -> None:
    low, high = stats.t.interval(0.95, 2, loc=2.0, scale=stats.sem([1.0, 2.0, 3.0]))
    assert spread([1.0, 2.0, 3.0])["half_width"] == pytest.approx((high - low) / 2)
    assert spread([1.0])["half_width"] is None


def test_other_contexts_are_compared_on_common_targets(
    results: Results, described: Benchmark
) -> None:
    found, windows = difference(results, ("late", "better"), ("one", "floor"), "mse")
    # Starts of `late` are 10 later and its horizon begins 2 later: 10 k + 12 and 10 k + 2.
    assert windows == WINDOWS - 1
    assert found.value == pytest.approx(-36.0, abs=3.0)
    row = summarize(described, results)["data"]["late"]["rows"][0]
    assert row["paired"]["against"] == "floor on one"
    assert row["paired"]["value"] == found.value


def test_goals_are_met_or_stay_in_unmet(results: Results, described: Benchmark) -> None:
    sets = summarize(described, results)["data"]
    rows = goals(described, results, sets)
    said = [(row["data"], row["goal"], row["met"]) for row in rows]
    assert said[0] == ("one", "<= -10 %, 95 % interval beyond 0", True)
    assert said[1] == ("late", "<= -10 %, 95 % interval beyond 0", True)
    assert said[2][2] is False
    assert said[3][2] is True
    assert said[4] == ("one", "within 5 % of 0.8", True)
    assert said[5] == ("one", "< 0 %", False)  # as good as itself is not ahead


def test_the_peer_of_a_goal_is_scored_on_the_common_targets(
    results: Results, described: Benchmark
) -> None:
    rows = goals(described, results, summarize(described, results)["data"])
    floor = results.runs["one", "floor"][0].arrays["test_mse"]
    assert rows[0]["peer_value"] == pytest.approx(floor.mean())
    assert rows[1]["peer_value"] == pytest.approx(floor[1:].mean())  # `late` begins a window later


def test_a_goal_without_runs_stays_in_and_is_missed(results: Results, described: Benchmark) -> None:
    runs = {("one", "better"): results.runs["one", "better"]}
    results = Results({"one": results.data["one"]}, runs)
    found = summarize(described, results) | {"ablation": []}
    found["goals"] = goals(described, results, found["data"])
    said = [(row["data"], row["kind"], row["met"]) for row in found["goals"]]
    assert said[:2] == [("one", "not run", False), ("late", "not run", False)]
    assert said[2] == ("one", "value", False)
    assert found["goals"][0]["goal"] == "below floor"
    text = "\n".join(markdown(found))
    assert "| one: better against floor | – | not run | below floor | **no** |" in text
    assert published(found, "axonnx", {})["rows"][-1]["met"] is False


def test_the_mean_rank_leaves_out_variants(results: Results, described: Benchmark) -> None:
    first, second = summarize(described, results)["ranks"]
    assert (first["model"], first["mean_rank"]) == ("better", 1.0)
    assert (second["model"], second["mean_rank"]) == ("floor", 2.0)
    assert set(first["ranks"]) == set(second["ranks"]) == {"one"}


def test_an_ablation_is_judged_by_validation_and_every_seed(
    results: Results, described: Benchmark
) -> None:
    for name in [name for name in results.runs["one", "better/less"][0].arrays]:
        if name.startswith("test_"):
            for kept in results.runs["one", "better/less"]:
                del kept.arrays[name]  # an item is not scored on the test part
    (row,) = ablation(described, results, summarize(described, results)["data"])
    assert (row["item"], row["verdict"]) == ("less", "worse")
    assert row["validation"]["interval"][0] > 0
    assert len(row["per_seed"]) == 3
    assert np.mean(row["per_seed"]) == pytest.approx(row["validation"]["value"], rel=0.02)
    assert "test" not in row
    # One seed that says otherwise makes it unsure, however narrow the interval.
    odd = results.runs["one", "better/less"][1].arrays
    odd["validation_mse"] = 0.95 * results.runs["one", "better"][1].arrays["validation_mse"]
    (row,) = ablation(described, results, summarize(described, results)["data"])
    assert row["per_seed"][1] == pytest.approx(-5.0)
    assert row["validation"]["interval"][0] > 0
    assert row["verdict"] == "no difference"


@pytest.mark.parametrize(
    ("value", "interval", "metric", "verdict"),
    [
        (300.0, None, "mse", "–"),
        (0.05, [0.01, 0.08], "mse", "no difference"),
        (0.05, [0.01, 0.08], "r2", "better"),
        (-2.0, [-3.0, -1.0], "mse", "better"),
        (-2.0, [-3.0, -1.0], "accuracy", "worse"),
    ],
)
def test_verdicts_know_intervals_and_units(value, interval, metric, verdict) -> None:
    assert verdict_of(Difference(value, interval), [value], metric) == verdict


def test_tables_and_rows_hold_what_was_found(results: Results, described: Benchmark) -> None:
    found = summarize(described, results)
    found["goals"] = goals(described, results, found["data"])
    found["ablation"] = ablation(described, results, found["data"])
    looks = {"synthetic": {"runs": 2, "configs": 1, "earlier": 3, "total": 5}}
    report = published(found, "axonnx benchmark mine.yaml", looks)
    assert report["looks_at_test_parts"] == looks
    first = next(row for row in report["rows"] if row["case"] == "one, better")
    assert first["peer"] == "floor"
    assert first["spread"] == found["data"]["one"]["rows"][1]["scores"]["mse"]["sd"]
    text = "\n".join(markdown(found))
    assert "### Goals" in text
    assert "**no**" in text
    assert "| less | one |" in text


def test_a_head_is_spread_out_and_a_grid_stays() -> None:
    grid = np.array([[0.0, 0.0, 0.0], [0.001, 0.0, 0.0], [0.0, 0.002, 0.0]])
    np.testing.assert_allclose(flat(grid), 1000.0 * grid[:, :2])
    head = np.array([[0.0, 0.0, 0.09], [0.09, 0.0, 0.0], [-0.09, 0.0, 0.0], [0.0, 0.05, 0.07]])
    spread_out = flat(head)
    assert np.isfinite(spread_out).all()
    assert np.ptp(spread_out[:, 0]) > 180.0  # the arc, not its shadow


def test_what_was_fitted_on_the_validation_part_has_no_figure_of_it(results, described):
    for kept in results.runs["one", "better/less"]:
        for name in [name for name in kept.arrays if name.startswith("validation_")]:
            del kept.arrays[name]
    runs = {**results.runs, ("one", "better"): results.runs["one", "better/less"]}
    results = Results(results.data, runs)
    found = summarize(described, results)
    rows = {row["model"]: row for row in found["data"]["one"]["rows"]}
    assert rows["better"]["scores"]["mse"]["validation"] is None
    assert rows["floor"]["scores"]["mse"]["validation"] is not None
    found |= {"goals": [], "ablation": ablation(described, results, found["data"])}
    (item,) = found["ablation"]
    assert (item["validation"]["value"], item["verdict"]) == (None, "–")
    lines = "\n".join(markdown(found)).split("\n")
    line = next(line for line in lines if line.startswith("| better | 0."))
    assert "| – |" in line

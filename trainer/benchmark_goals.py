"""What a benchmark set out to reach and what it did, and its ablation: pure functions of scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.benchmark_config import Benchmark, Goal
from trainer.benchmark_summary import (
    METRICS,
    SMALLER,
    Results,
    difference,
    difference_unit,
    has,
    over_windows,
    ranked_by,
    unit,
    value,
)

# A change that is sure and smaller is no reason to set anything: per cent or points.
SLIGHT = 0.1


def goals(benchmark: Benchmark, results: Results, sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per goal and data set; `sets` are the data sets of `benchmark_summary.summarize`."""
    return [row for goal in benchmark.goals for row in _rows_of(benchmark, results, sets, goal)]


def _rows_of(
    benchmark: Benchmark, results: Results, sets: Mapping[str, Any], goal: Goal
) -> list[dict[str, Any]]:
    wanted = (goal.data,) if isinstance(goal.data, str) else goal.data
    rows = []
    for label in wanted or tuple(sets):
        if (label, goal.model) in results.runs:
            rows += _goal_row(benchmark, results, sets, goal, label)
    return rows


def _goal_row(
    benchmark: Benchmark, results: Results, sets: Mapping[str, Any], goal: Goal, label: str
) -> list[dict[str, Any]]:
    metric = goal.metric or ranked_by(benchmark, results.data[label])
    if metric not in METRICS[results.data[label].facts["task"]]:
        return []
    row = {"data": label, "model": goal.model, "metric": metric, "peer": None, "peer_value": None}
    against = goal.below or goal.above
    if against is None:
        return [row | _bound(results, sets, goal, label, metric)]
    place = (benchmark.compared_with.get(label, label), against)
    if place not in results.runs:
        return []
    found, windows = difference(results, (label, goal.model), place, metric)
    margin = goal.percent if metric in SMALLER else goal.points
    bound = -margin if goal.below else margin
    change = found.value
    met = change is not None and (change <= bound if goal.below else change >= bound)
    strict = margin == 0.0 and change == 0.0  # "ahead of" is more than "as good as"
    sided = found.interval is not None and (
        found.interval[1] < 0.0 if goal.below else found.interval[0] > 0.0
    )
    unit_text = difference_unit(metric)
    word = "<=" if goal.below else ">="
    if margin == 0.0:
        word = word[0]
    text = f"{word} {bound + 0.0:g} {unit_text}" + (
        ", 95 % interval beyond 0" if goal.interval else ""
    )
    return [
        row
        | {
            "kind": "paired",
            "value": change,
            "interval": found.interval,
            "unit": unit_text,
            "windows": windows,
            "peer": against if place[0] == label else f"{against} on {place[0]}",
            "peer_value": value(results, place, metric),
            "goal": text,
            "met": bool(met and not strict and (sided or not goal.interval)),
        }
    ]


def _bound(
    results: Results, sets: Mapping[str, Any], goal: Goal, label: str, metric: str
) -> dict[str, Any]:
    (own,) = (row for row in sets[label]["rows"] if row["model"] == goal.model)
    score = own["scores"][metric]
    half, over = score["half_width"], "seeds"
    interval = None if half is None else [score["mean"] - half, score["mean"] + half]
    if len(own["seeds"]) == 1:  # seeds change nothing, or were not asked: the windows tell
        interval, over = over_windows(results, (label, goal.model), metric), "test windows"
    if goal.about is not None:
        met, reach = abs(score["mean"] / goal.about - 1.0) <= goal.percent / 100.0, 0
        text, beyond = f"within {goal.percent:g} % of {goal.about:g}", True
    elif goal.at_most is not None:
        met, reach, text = score["mean"] <= goal.at_most, 1, f"<= {goal.at_most:g}"
        beyond = interval is not None and interval[reach] <= goal.at_most
    else:
        assert goal.at_least is not None
        met, reach, text = score["mean"] >= goal.at_least, 0, f">= {goal.at_least:g}"
        beyond = interval is not None and interval[reach] >= goal.at_least
    if goal.interval:
        text += f", 95 % interval over {over} too"
    return {
        "kind": "value",
        "value": score["mean"],
        "interval": interval,
        "unit": unit(metric, sets[label]),
        "windows": sets[label]["windows"]["test"],
        "goal": text,
        "met": bool(met and (beyond or not goal.interval)),
    }


def ablation(
    benchmark: Benchmark, results: Results, sets: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every item on every data set, changed against the recipe, on validation and test part.

    The verdict goes by the validation part, never by the test part.
    """
    if benchmark.ablations is None:
        return []
    reference = benchmark.ablations.reference
    rows = []
    for item in benchmark.ablations.items:
        for label in sets:
            mine, other = (label, f"{reference}/{item}"), (label, reference)
            if mine not in results.runs or other not in results.runs:
                continue
            metric = ranked_by(benchmark, results.data[label])
            parts = {}
            for part in ("validation", "test"):
                runs = [*results.runs[mine], *results.runs[other]]
                parts[part] = {"value": None, "interval": None}
                if all(has(run, part) for run in runs):
                    found, _ = difference(results, mine, other, metric, part)
                    parts[part] = {"value": found.value, "interval": found.interval}
            rows.append(
                {
                    "item": item,
                    "data": label,
                    "unit": difference_unit(metric),
                    **parts,
                    "verdict": _verdict(parts["validation"], metric),
                }
            )
    return rows


def _verdict(found: Mapping[str, Any], metric: str) -> str:
    interval = found["interval"]
    if found["value"] is None:
        return "–"
    if interval is None or interval[0] <= 0.0 <= interval[1] or abs(found["value"]) < SLIGHT:
        return "no difference"
    better = interval[1] < 0.0 if metric in SMALLER else interval[0] > 0.0
    return "better" if better else "worse"

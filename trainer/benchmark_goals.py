"""What a benchmark set out to reach and what it did, and its ablation: pure functions of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.benchmark_config import Benchmark, Goal
from trainer.benchmark_summary import (
    SMALLER,
    Results,
    difference,
    difference_unit,
    has,
    over_windows,
    per_seed,
    ranked_by,
    unit,
)
from trainer.paired import Difference

# A change that is sure and smaller is no reason to set anything, by the unit of differences.
SLIGHT = {"%": 0.1, "points": 0.1, "R²": 0.001}


def goals(benchmark: Benchmark, results: Results, sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per goal and data set; `sets` are the data sets of `benchmark_summary.summarize`."""
    return [row for goal in benchmark.goals for row in _rows_of(benchmark, results, sets, goal)]


def _rows_of(
    benchmark: Benchmark, results: Results, sets: Mapping[str, Any], goal: Goal
) -> list[dict[str, Any]]:
    """A row for every data set that the goal names, or else on which its models are run."""
    entries, against = benchmark.entries(), goal.below or goal.above
    wanted = (goal.data,) if isinstance(goal.data, str) else goal.data
    named = wanted is not None
    rows = []
    for label in wanted or tuple(benchmark.data):
        places = [(label, goal.model)]
        if against is not None:
            places.append((benchmark.compared_with.get(label, label), against))
        planned = all(data in (entries[model].data or benchmark.data) for data, model in places)
        if not named and not planned:
            continue
        metric = goal.metric or benchmark.metric
        if all(place in results.runs for place in places):
            metric = goal.metric or ranked_by(benchmark, results.data[label])
            if metric in sets[label]["rows"][0]["scores"]:
                found = _bound if against is None else _paired
                row = {"data": label, "model": goal.model, "metric": metric}
                rows.append(row | found(results, sets, goal, places, metric))
                continue
            if not named:  # another task's metric
                continue
        rows.append(_not_run(goal, label, metric))
    return rows


def _not_run(goal: Goal, label: str, metric: str | None) -> dict[str, Any]:
    """The row of a goal without runs: it is not met, and it stays in."""
    bounds = ("below", "above", "at_most", "at_least", "about")
    ((kind, bound),) = [(key, x) for key in bounds if (x := getattr(goal, key)) is not None]
    return {
        "data": label,
        "model": goal.model,
        "metric": metric,
        "peer": goal.below or goal.above,
        "peer_value": None,
        "kind": "not run",
        "value": None,
        "interval": None,
        "unit": None,
        "windows": 0,
        "goal": f"{kind.replace('_', ' ')} {bound}",
        "met": False,
    }


def _paired(
    results: Results,
    sets: Mapping[str, Any],
    goal: Goal,
    places: Sequence[tuple[str, str]],
    metric: str,
) -> dict[str, Any]:
    """What a goal against another model came to, on the targets that both have."""
    (label, _), (other, against) = places
    found, windows = difference(results, places[0], places[1], metric)
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
    return {
        "kind": "paired",
        "value": change,
        "interval": found.interval,
        "unit": unit_text,
        "windows": windows,
        "peer": against if other == label else f"{against} on {other}",
        "peer_value": found.reference,
        "goal": text,
        "met": bool(met and not strict and (sided or not goal.interval)),
    }


def _bound(
    results: Results,
    sets: Mapping[str, Any],
    goal: Goal,
    places: Sequence[tuple[str, str]],
    metric: str,
) -> dict[str, Any]:
    """What a goal that is a number came to."""
    ((label, _),) = places
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
        "peer": None,
        "peer_value": None,
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
    """Every item on every data set, changed against the recipe, on the validation part alone."""
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
            row = {
                "item": item,
                "data": label,
                "unit": difference_unit(metric),
                "validation": {"value": None, "interval": None},
                "per_seed": [],
                "verdict": "–",
            }
            if all(has(run, "validation") for run in (*results.runs[mine], *results.runs[other])):
                found, _ = difference(results, mine, other, metric, "validation")
                row["validation"] = {"value": found.value, "interval": found.interval}
                row["per_seed"] = _each_seed(results, mine, other, metric)
                row["verdict"] = _verdict(found, row["per_seed"], metric)
            rows.append(row)
    return rows


def _each_seed(
    results: Results, mine: tuple[str, str], other: tuple[str, str], metric: str
) -> list[float]:
    """The difference on the validation part of every seed that both have."""
    sides = []
    for place in (mine, other):
        values = per_seed(results, place, metric, "validation")
        seeds = [run.facts["seed"] for run in results.runs[place]]
        sides.append(dict(zip(seeds, values, strict=True)))
    pairs = [(sides[0][seed], sides[1][seed]) for seed in sides[0] if seed in sides[1]]
    if metric in SMALLER:
        return [100.0 * (own / base - 1.0) for own, base in pairs]
    return [own - base for own, base in pairs]


def _verdict(found: Difference, seeds: Sequence[float], metric: str) -> str:
    """Better or worse where the interval excludes zero and every seed alone says the same."""
    if found.value is None or found.interval is None:
        return "–"
    if abs(found.value) < SLIGHT[difference_unit(metric)]:
        return "no difference"
    edges = [*found.interval, *seeds]
    if min(edges) <= 0.0 <= max(edges):
        return "no difference"
    return "better" if (found.value < 0.0) == (metric in SMALLER) else "worse"

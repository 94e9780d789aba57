"""A benchmark's tables: for the terminal, as Markdown, and as rows of a results file."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from rich.table import Table

from artifact.providers import processor
from trainer.benchmark_summary import unit
from trainer.report import change

METRIC_NAMES = {
    "mse": "MSE",
    "mse_raw": "MSE, raw units",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "r2": "R²",
    "median_error": "median distance",
    "median_error_share": "median distance, share",
    "median_along_share": "median error along the track",
}
_DIGITS = {"mse": ".4f", "mse_raw": ".5g", "r2": ".3f", "median_error": ".4g"}


def published(
    found: Mapping[str, Any], command: str, looks: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """The results file: machine, versions and rows on top, the whole summary below them.

    looks: at test parts, by the name of the data.
    """
    return {
        "benchmark": found["name"],
        "harness": "axonnx benchmark",
        "command": command,
        "machine": {"processor": processor(), "system": platform.system()},
        "versions": {
            name: version(name) for name in ("torch", "numpy", "scipy", "onnx", "onnxruntime")
        },
        "looks_at_test_parts": {name: dict(counted) for name, counted in looks.items()},
        "rows": [*_score_rows(found, command), *_goal_rows(found, command)],
        "summary": dict(found),
    }


def tables(found: Mapping[str, Any]) -> list[Table]:
    """For the terminal: one table per data set, then ranks, goals and the ablation."""
    drawn = []
    for label, data in found["data"].items():
        title = f"{label}: {data['name']}, {data['windows']['test']} test windows"
        head, lines = data_table(found, label)
        head[1] = METRIC_NAMES[data["metric"]]  # the page has room for units and costs
        kept = [*range(4), head.index("rank"), head.index("training (CPU s)")]
        drawn.append(
            _table(title, [head[i] for i in kept], [[line[i] for i in kept] for line in lines])
        )
    for title, (head, lines) in _more(found).items():
        if lines:
            drawn.append(_table(title, head, lines))
    return drawn


def markdown(found: Mapping[str, Any], pictures: Mapping[str, str] | None = None) -> list[str]:
    """The same tables as Markdown, each below a heading: paragraphs.

    pictures: by their names, as Markdown, each to be shown below its table.
    """
    shown = pictures or {}
    parts = []
    for label in found["data"]:
        own = [f"{label}-{kind}.png" for kind in ("errors", "calibration", "examples")]
        parts += [f"### {label}", about(found, label), grid(*data_table(found, label))]
        parts += [shown.get(name, "") for name in own]
    for title, (head, lines) in _more(found).items():
        if lines:
            parts += [f"### {title}", _MEANING[title], grid(head, lines)]
            parts.append(shown.get(f"{title.lower()}.png", ""))
    return [part for part in parts if part]


def about(found: Mapping[str, Any], label: str) -> str:
    """What a table of a data set is made of, in a few sentences."""
    data = found["data"][label]
    windows = ", ".join(f"{count} {part}" for part, count in data["windows"].items())
    text = f"`{data['name']}`: {data['description']}. Windows: {windows}."
    if data["task"] == "forecast":
        ahead = data["steps"] - data["observed"]
        text += f" {ahead} steps forecast from {data['observed']}, at {data['rate_hz']:g} Hz."
    if data["synthetic"]:
        text += " **Synthetic data: these scores say nothing about a brain.**"
    return text


def data_table(found: Mapping[str, Any], label: str) -> tuple[list[str], list[list[str]]]:
    """Head and lines of one data set, the best model first."""
    data = found["data"][label]
    metric = data["metric"]
    others = [name for name in data["rows"][0]["scores"] if name != metric]
    against = f"{found['reference']} on {data['compared_with']}" * bool(data["compared_with"])
    head = [
        "model",
        titled(metric, data),
        f"against {against or found['reference']}",
        f"skill over {data['best_linear']}" if data["best_linear"] else "skill",
        *(titled(name, data) for name in others),
        "validation (chosen on it)",
        "rank",
        "parameters",
        "artifact (kB)",
        "one window (CPU ms)",
        "training (CPU s)",
    ]
    lines = []
    for row in sorted(data["rows"], key=lambda row: row["rank"]):
        scores = row["scores"]
        lines.append(
            [
                row["model"],
                spread(scores[metric], metric),
                change(row["paired"]),
                "–" if row["skill"] is None else f"{100 * row['skill']:+.1f} %",
                *(number(scores[name]["mean"], name) for name in others),
                _known(scores[metric]["validation"], metric),
                f"{row['rank']:g}",
                f"{row['parameters']:,}".replace(",", " "),
                f"{row['artifact_bytes'] / 1000:.0f}",
                f"{row['latency_ms']:.2f}",
                seconds(row),
            ]
        )
    return head, lines


def titled(metric: str, data: Mapping[str, Any]) -> str:
    """A metric with its unit on a data set."""
    name, of = METRIC_NAMES[metric], unit(metric, data)
    return name if of == "1" else f"{name} {of}" if of.startswith("(") else f"{name} ({of})"


def _more(found: Mapping[str, Any]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Tables over data sets: title -> head and lines."""
    labels = [label for label, data in found["data"].items() if not data["compared_with"]]
    ranks = [
        [row["model"], f"{row['mean_rank']:.2f}", *(f"{row['ranks'][x]:g}" for x in labels)]
        for row in found["ranks"]
    ]
    goals = [
        [
            f"{row['data']}: {row['model']}" + (f" against {row['peer']}" if row["peer"] else ""),
            METRIC_NAMES.get(row["metric"], "–"),
            _REACHED[row["kind"]](row),
            row["goal"],
            "yes" if row["met"] else "**no**",
        ]
        for row in found["goals"]
    ]
    ablation = [
        [
            row["item"],
            row["data"],
            change({**row["validation"], "unit": row["unit"]}),
            ", ".join(
                f"{value:{'+.3f' if row['unit'] == 'R²' else '+.1f'}}" for value in row["per_seed"]
            )
            or "–",
            row["verdict"],
        ]
        for row in found["ablation"]
    ]
    several = len(labels) > 1
    return {
        "Mean rank": (["model", "mean rank", *labels], ranks if several else []),
        "Goals": (["goal", "metric", "reached", "wanted", "met"], goals),
        "Ablation": (["changed", "data", "validation", "each seed", "verdict"], ablation),
    }


_MEANING = {
    "Mean rank": "Over the data sets, by the test part's mean score over seeds; 1 is best.",
    "Goals": "Those that were missed, or not run, stay in.",
    "Ablation": "One thing of the recipe changed at a time; the change against the whole recipe on "
    "the validation part, with paired 95 % intervals, and of each seed alone. Better or worse is "
    "what the interval and every seed say alike; less than 0.1 is no difference. Of many items "
    "some differ by chance. Items are not scored on the test part.",
}


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left."""
    rule = "|".join(["---", *("--:" for _ in head[1:])])
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *rows])


def spread(score: Mapping[str, Any], metric: str) -> str:
    """A mean over seeds with its 95 % half width."""
    text = number(score["mean"], metric)
    if score["half_width"] is None:
        return text
    return f"{text} ± {number(score['half_width'], metric)}"


def number(value: float, metric: str) -> str:
    """A score in its metric's digits."""
    return f"{value:{_DIGITS.get(metric, '.1f')}}"


def _known(value: float | None, metric: str) -> str:
    return "–" if value is None else number(value, metric)


def _value(row: Mapping[str, Any]) -> str:
    text = f"{row['value']:.4g}"
    if row["interval"] is not None:
        text += " [{:.4g}, {:.4g}]".format(*row["interval"])
    return f"{text} {row['unit']}"


_REACHED = {"paired": change, "value": _value, "not run": lambda row: "not run"}


def seconds(row: Mapping[str, Any]) -> str:
    """What a model's training took; of runs that were stopped once, since they went on: "> "."""
    if row["training_cpu_s"] is None:
        return "–"
    return f"{'> ' * row['resumed']}{row['training_cpu_s']:.1f}"


def _table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    drawn = Table(title=title)
    for name in head:
        drawn.add_column(name, overflow="fold", justify="left" if name == head[0] else "right")
    for line in lines:
        drawn.add_row(*line)
    return drawn


def _score_rows(found: Mapping[str, Any], command: str) -> list[dict[str, Any]]:
    rows = []
    for label, data in found["data"].items():
        means = {
            row["model"]: {name: one["mean"] for name, one in row["scores"].items()}
            for row in data["rows"]
        }
        peer = found["reference"] if found["reference"] in means else None
        for row in data["rows"]:
            for name, score in row["scores"].items():
                rows.append(
                    {
                        "case": f"{label}, {row['model']}",
                        "metric": f"test {METRIC_NAMES[name]}, mean over {len(row['seeds'])} seeds",
                        "unit": unit(name, data),
                        "value": score["mean"],
                        "spread": score["sd"],
                        "peer": peer,
                        "peer_value": None if peer is None else means[peer][name],
                        "goal": None,
                        "met": None,
                        "command": command,
                    }
                )
    return rows


def _goal_rows(found: Mapping[str, Any], command: str) -> list[dict[str, Any]]:
    rows = []
    for row in found["goals"]:
        paired = row["kind"] == "paired"
        interval = row["interval"]
        rows.append(
            {
                "case": f"{row['data']}, {row['model']}"
                + (f" against {row['peer']}" if row["peer"] else ""),
                "metric": f"{'change of ' * paired}test {METRIC_NAMES.get(row['metric'], '–')}",
                "unit": row["unit"],
                "value": row["value"],
                "spread": None if interval is None else (interval[1] - interval[0]) / 2,
                "interval": interval,
                "peer": row["peer"],
                "peer_value": row["peer_value"],
                "goal": row["goal"],
                "met": row["met"],
                "command": command,
            }
        )
    return rows

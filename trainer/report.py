"""An evaluation's report as Markdown and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

WORST_CHANNELS = 10
MILLISECONDS = 1000.0


def table(report: Mapping[str, Any]) -> Table:
    """One line per model."""
    head, lines = _summary(report)
    drawn = Table(title=f"{report['data']['name']}, test part")
    for name in head:
        drawn.add_column(name, overflow="fold", justify="left" if name == head[0] else "right")
    for line in lines:
        drawn.add_row(*line)
    return drawn


def markdown(report: Mapping[str, Any]) -> str:
    """The whole report."""
    data = report["data"]
    parts = [
        f"# Evaluation on {data['name']}",
        f"{data['description']}. Test part, {data['windows']} windows; data fingerprint "
        f"`{data['fingerprint']}`.",
    ]
    if data["synthetic"]:
        parts.append("**Synthetic data: these scores say nothing about a brain.**")
    parts.append(_markdown(*_summary(report)))
    parts += [_how_sure(report), _how_paired(report)]
    parts += [f"`{row['label']}`: {row['note']}." for row in report["models"] if row["note"]]
    identities = [row for row in report["models"] if row["artifact"]]
    parts += [f"`{row['label']}` is artifact `{row['artifact']}`." for row in identities]
    parts += _PARTS[report["task"]](report)
    return "\n\n".join(parts) + "\n"


def _summary(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    lines = [
        [row["label"], *_COLUMNS[report["task"]](row), change(row["paired"])]
        for row in report["models"]
    ]
    head = ["model", *_HEADS[report["task"]]]
    if report["task"] == "decode" and report["data"]["shared_unit"]:
        head.append(f"median error ({report['data']['shared_unit']}, share of the range)")
    return [*head, f"against {_best(report)}"], lines


def _best(report: Mapping[str, Any]) -> str:
    """The best simple baseline, by which every other row was tested."""
    return next(row["label"] for row in report["models"] if row["paired"] is None)


def change(paired: Mapping[str, Any] | None) -> str:
    """A paired difference with its interval, and its p where it has one."""
    if paired is None or paired["value"] is None:
        return "–"
    form, unit = ("+.3f", "") if paired["unit"] == "R²" else ("+.1f", f" {paired['unit']}")
    text = f"{paired['value']:{form}}{unit}"
    if paired["interval"] is not None:
        low, high = (f"{edge:{form}}" for edge in paired["interval"])
        text += f" [{low}, {high}]"
    p = paired.get("p")
    return text if p is None else f"{text}, p {p:.2g}"


def _forecast_columns(row: Mapping[str, Any]) -> list[str]:
    skills = (row["skill"], row["skill_train_mean"])
    return [
        _between(row["mse"], row["mse_interval"]),
        f"{row['mse_raw']:.6g}",
        *(_number(skill, "+.3f") for skill in skills),
    ]


def _classify_columns(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['accuracy']:.4f}",
        _between(row["balanced_accuracy"], row["balanced_accuracy_interval"]),
        f"{row['chance']:.4f}",
        f"{row['cross_entropy']:.4f}",
        _number(row["auroc"], ".4f"),
    ]


def _decode_columns(row: Mapping[str, Any]) -> list[str]:
    known = [value for value in row["r_per_variable"] if value is not None]
    columns = [
        _between(row["r2"], row["r2_interval"]),
        _number(sum(known) / len(known) if known else None, ".4f"),
        f"{row['mse']:.4f}",
    ]
    if "median_error" not in row:
        return columns
    share = row["median_error_share"]
    part = "" if share is None else f" ({100 * share:.1f} %)"
    return [*columns, f"{row['median_error']:.4g}{part}"]


def _how_paired(report: Mapping[str, Any]) -> str:
    """What the last column of the summary is."""
    what = {
        "forecast": "the change of the MSE, below 0 the model is better",
        "classify": "the difference of balanced accuracy in points, above 0 the model is better",
        "decode": "the difference of R², above 0 the model is better",
    }[report["task"]]
    again = report["data"]["resampled"]
    tested = (row["paired"] for row in report["models"] if row["paired"] is not None)
    block = next((paired["block"] for paired in tested if "block" in paired), 10)
    drawn, p = f"blocks of {block} windows", ""
    if report["task"] == "classify":
        drawn = f"{again['unit']}s"
        p = "; p is of McNemar's exact test" if again["independent"] else ""
    return (
        f"Against {_best(report)}, the best simple baseline here: {what}, with the 95 % interval "
        f"of a paired bootstrap over {drawn} of the same test part{p}."
    )


def _how_sure(report: Mapping[str, Any]) -> str:
    """What the intervals are, in a sentence or two."""
    again = report["data"]["resampled"]
    units = f"{again['count']} {again['unit']}s"
    if report["task"] == "classify" and again["independent"]:
        return (
            f"In brackets: 95 % interval over {units}, the posterior of the mean recall under flat "
            "priors. Chance is an answer that does not look at the window."
        )
    what = {
        "trial": "whole trials are drawn, since the windows of one depend on one another",
        "block": "blocks of consecutive windows are drawn, since neighbours depend on one another",
    }[again["unit"]]
    short = "" if again["count"] >= 3 else " Fewer than three give no interval."
    return f"In brackets: 95 % bootstrap interval over {units}; {what}.{short}"


def _forecast_parts(report: Mapping[str, Any]) -> list[str]:
    data, rows = report["data"], report["models"]
    names = [row["label"] for row in rows]
    scored = range(data["observed"], data["steps"])
    ahead = [(step - data["observed"] + 1) * MILLISECONDS / data["rate_hz"] for step in scored]
    parts = []
    for key, unit in (("mse", "MSE / train variance"), ("mse_raw", f"MSE, ({data['unit']})²")):
        steps = [
            [str(step), f"{time:.4g}", *(f"{row[f'{key}_per_step'][i]:.5g}" for row in rows)]
            for i, (step, time) in enumerate(zip(scored, ahead, strict=True))
        ]
        sessions = [
            [session, *(f"{row[f'{key}_per_session'][session]:.5g}" for row in rows)]
            for session in rows[0][f"{key}_per_session"]
        ]
        parts += [
            f"## Per step, {unit}",
            _markdown(["step", "ms ahead", *names], steps),
            f"## Per session, {unit}",
            _markdown(["session", *names], sessions),
            f"## The {WORST_CHANNELS} worst channels of {names[0]}, {unit}",
            _markdown(["channel", *names], _worst(data["channel_names"], rows, key)),
        ]
    return [*parts, "All channels are in report.json."]


def _worst(
    channel_names: Sequence[str], rows: Sequence[Mapping[str, Any]], key: str
) -> list[list[str]]:
    first = rows[0][f"{key}_per_channel"]
    order = sorted(range(len(first)), key=lambda i: (-first[i], i))[:WORST_CHANNELS]
    return [
        [channel_names[i], *(f"{row[f'{key}_per_channel'][i]:.5g}" for row in rows)] for i in order
    ]


def _classify_parts(report: Mapping[str, Any]) -> list[str]:
    names = report["data"]["output_names"]
    parts = []
    for row in report["models"]:
        head = ["true class", *(f"decoded {name}" for name in names)]
        lines = [
            [name, *map(str, counts)] for name, counts in zip(names, row["confusion"], strict=True)
        ]
        parts += [f"## Confusion of {row['label']}", _markdown(head, lines)]
    return parts + _sessions(report, "balanced_accuracy", "balanced accuracy")


def _decode_parts(report: Mapping[str, Any]) -> list[str]:
    data, rows = report["data"], report["models"]
    names = [row["label"] for row in rows]
    parts = [
        "R² is 1 - SSE / SST over the measured test values, SST about their own mean: the train "
        "mean can come out below 0. MSE is in units of each variable's train variance."
    ]
    for key, title in (
        ("r2", "R²"),
        ("r", "Pearson's r"),
        ("mse", "MSE / train variance"),
        ("mse_raw", "MSE, units²"),
    ):
        lines = [
            [f"{name} ({unit})", *(_number(row[f"{key}_per_variable"][i], ".5g") for row in rows)]
            for i, (name, unit) in enumerate(
                zip(data["output_names"], data["output_units"], strict=True)
            )
        ]
        parts += [f"## Per variable, {title}", _markdown(["variable", *names], lines)]
    return parts + _sessions(report, "r2", "R²")


def _sessions(report: Mapping[str, Any], key: str, title: str) -> list[str]:
    """A table by session, where there are several."""
    rows = report["models"]
    sessions = list(rows[0][f"{key}_per_session"])
    if len(sessions) < 2:
        return []
    lines = [
        [session, *(_number(row[f"{key}_per_session"][session], ".4f") for row in rows)]
        for session in sessions
    ]
    head = ["session", *(row["label"] for row in rows)]
    return [f"## Per session, {title}", _markdown(head, lines)]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _between(value: float | None, interval: Sequence[float] | None) -> str:
    if interval is None:
        return _number(value, ".4f")
    return f"{_number(value, '.4f')} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|".join("---" for _ in head)
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *rows])


_PARTS = {"forecast": _forecast_parts, "classify": _classify_parts, "decode": _decode_parts}
_COLUMNS = {
    "forecast": _forecast_columns,
    "classify": _classify_columns,
    "decode": _decode_columns,
}
_HEADS = {
    "forecast": [
        "MSE / train variance",
        "MSE, raw units²",
        "skill over persistence",
        "skill over the train mean",
    ],
    "classify": ["accuracy", "balanced accuracy", "chance", "cross-entropy (nats)", "AUROC"],
    "decode": ["R²", "r", "MSE / train variance"],
}

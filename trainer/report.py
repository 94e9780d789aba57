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
    parts += [f"`{row['label']}`: {row['note']}." for row in report["models"] if row["note"]]
    identities = [row for row in report["models"] if row["artifact"]]
    parts += [f"`{row['label']}` is artifact `{row['artifact']}`." for row in identities]
    parts += _forecast_parts(report) if report["task"] == "forecast" else _classify_parts(report)
    return "\n\n".join(parts) + "\n"


def _summary(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = report["models"]
    if report["task"] == "classify":
        names = ("accuracy", "balanced_accuracy", "cross_entropy")
        head = ["model", "accuracy", "balanced accuracy", "cross-entropy (nats)"]
        return head, [[row["label"], *(f"{row[name]:.4f}" for name in names)] for row in rows]
    floor = next(row["mse"] for row in rows if row["label"] == "persistence")
    head = ["model", "MSE / train variance", "MSE, raw units²", "against persistence"]
    lines = [
        [
            row["label"],
            f"{row['mse']:.4f}",
            f"{row['mse_raw']:.6g}",
            f"{100.0 * (row['mse'] / floor - 1.0):+.1f} %" if floor > 0 else "–",
        ]
        for row in rows
    ]
    return head, lines


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
    parts = []
    for row in report["models"]:
        classes = range(len(row["confusion"]))
        head = ["true class", *(f"decoded {c}" for c in classes)]
        lines = [[str(c), *map(str, row["confusion"][c])] for c in classes]
        parts += [f"## Confusion of {row['label']}", _markdown(head, lines)]
    return parts


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|".join("---" for _ in head)
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *rows])

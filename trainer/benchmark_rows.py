"""Results in short: rows of scripts outside the harness, and the README's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifact.bundle import write_file
from trainer.benchmark_report import grid, spread, titled
from trainer.report import change

# Results of scripts that have a place on the page; others are shown where they belong.
SCRIPTS = {"training_throughput": "Training throughput of PatchFormer"}
START, END = "<!-- results -->", "<!-- /results -->"


def section(report: Mapping[str, Any], pictures: str) -> list[str]:
    """A script's rows as paragraphs; `pictures` is the way to the folder of its picture."""
    name, rows = report["benchmark"], report["rows"]
    peers = ", ".join(dict.fromkeys(row["peer"] for row in rows))
    units = ", ".join(dict.fromkeys(row["unit"] for row in rows))
    head = ["case", units, "± half the middle 50 %", peers, "goal", "met"]
    lines = [
        [
            row["case"],
            f"{row['value']:.4g}",
            f"{row['spread']:.2g}",
            f"{row['peer_value']:.4g}",
            row["goal"].replace("none", "–"),
            {True: "yes", False: "**no**", None: "–"}[row["met"]],
        ]
        for row in rows
    ]
    versions = ", ".join(f"{key} {one}" for key, one in sorted(report["versions"].items()))
    return [
        f"## {SCRIPTS[name]}",
        f"```\n{rows[0]['command']}\n```",
        f"What is counted: {'; '.join(dict.fromkeys(row['metric'] for row in rows))}.",
        f"![{name}]({pictures}/{name}.png)",
        grid(head, lines),
        f"Made with {versions} on {report['machine']['processor']} "
        f"({report['machine']['system']}), at a load of {report['load']:.1f}.",
    ]


def short_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """One line per data set of every benchmark with goals: its reference and the best model."""
    head = ["data", "metric", "reference", "best on the test part", "against the reference"]
    lines = []
    for report in reports:
        summary = report["summary"]
        if not summary["goals"]:
            continue
        for label, data in summary["data"].items():
            if data["compared_with"]:  # leaves the protocol, and has its place on the page
                continue
            place = f"{summary['title']}: {label} ({data['windows']['test']} windows)"
            lines.append([place, *_line(summary, data)])
    return grid(head, lines) if lines else ""


def _line(summary: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    metric = data["metric"]
    best = min(data["rows"], key=lambda row: (row["rank"], row["model"]))
    told = {
        row["model"]: f"`{row['model']}` {spread(row['scores'][metric], metric)}"
        for row in data["rows"]
    }
    reference = told.get(summary["reference"], "–")
    of = f"{told[best['model']]}, of {len(data['rows'])}"
    return [
        titled(metric, data),
        reference,
        of,
        change(best["paired"]),
    ]


def fill(page: Path, reports: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write the short table between a page's markers; nothing without markers or results."""
    table = short_table(reports)
    text = page.read_text() if page.is_file() else ""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (table and start and end):
        return []
    return [write_file(page, f"{before}{START}\n{table}\n{END}{after}".encode())]

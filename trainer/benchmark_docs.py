"""docs/results.md and docs/models.md, written from published results alone: no run, no data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifact.bundle import write_file
from trainer import benchmark_rows, yaml_source
from trainer.benchmark_report import METRIC_NAMES, grid, markdown, seconds, spread
from trainer.config import ConfigError
from trainer.models import MODELS
from trainer.registry import UnknownNameError
from trainer.report import change

HARNESS = "axonnx benchmark"
HOW = (
    "Written by `axonnx benchmark --docs` from `benchmarks/results/*.json`; not edited by hand.",
    "**How to read the tables.** Every model has the same windows, masking and output units, and "
    "is scored as its exported artifact answers, in raw units. ± is Student's 95 % half width over "
    "seeds, where there are several. *Against …* is the change of the error in per cent (negative "
    "is better), or the difference of the score (positive is better), of the mean over seeds on "
    "the very same test windows, with the 95 % interval of a paired bootstrap: of forecasts over "
    "moving blocks of 10 windows, of decoded behaviour over longer ones, a twentieth of the test "
    "part, since errors of neighbouring windows agree for long, and of classes over trials. Fewer "
    "than three blocks or trials give no interval. It holds for these runs on this recording: it "
    "knows nothing of other seeds, people or days. With some 15 blocks such an interval covers "
    "about 90 %.",
    "*Skill* is the share of the best linear model's error that is gone. *One window* is the "
    "median processor time of `Model.predict` for one window on one core, *training* the processor "
    'time of the fit or of all epochs (of a run that was stopped more than the figure, ">"). '
    "*Validation* is the same score on the part by which "
    "settings, and within a fit penalties, temperatures, epochs or weights, are chosen: it is no "
    "held-out figure, and flatters most what chooses most by it. What was fitted on it has none.",
)


def write(results: Path, docs: Path) -> list[Path]:
    """Write both pages, and the table of a README beside the docs; returns what was written."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    reports = [report for report in found if report.get("harness") == HARNESS]
    if not reports:
        raise ConfigError(f"{results}: no results of {HARNESS} to make pages from")
    scripts = [report for report in found if report.get("benchmark") in benchmark_rows.SCRIPTS]
    page = results_page(reports, results, docs, scripts)
    pages = {"results.md": page, "models.md": models_page(reports)}
    written = [write_file(docs / name, text.encode()) for name, text in pages.items()]
    return [*written, *benchmark_rows.fill(docs.parent / "README.md", reports)]


def results_page(
    reports: Sequence[Mapping[str, Any]],
    results: Path,
    docs: Path,
    scripts: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Every benchmark with its command, tables and pictures."""
    parts = ["# Results", *HOW]
    if reports:
        looks = _looks(_all_looks([report["looks_at_test_parts"] for report in reports]))
        parts.append(f"Test parts were scored by all benchmarks together: {looks}.")
    for report in reports:
        parts += _benchmark(report, _from(docs, results))
    for report in scripts:
        parts += benchmark_rows.section(report, _from(docs, results))
    return "\n\n".join(parts) + "\n"


def models_page(reports: Sequence[Mapping[str, Any]]) -> str:
    """One card per registered model: what it is, its settings and its figures."""
    parts = [
        "# Models",
        "Written by `axonnx benchmark --docs`; not edited by hand. What the columns mean is said "
        "in [results](results.md). `axonnx models NAME` lists every setting. Settings that are "
        "not named here have their defaults.",
    ]
    cards: dict[str, list[str]] = {}
    for report in reports:
        summary = report["summary"]
        for label, model in summary["models"].items():
            if "/" not in label:  # an item of an ablation has its own table
                cards.setdefault(model["registered"], []).extend(_card(summary, label))
    for name in sorted(cards):
        parts += [f"## {name}", _summary_of(name), *cards[name]]
    return "\n\n".join(part for part in parts if part) + "\n"


def _benchmark(report: Mapping[str, Any], pictures: str) -> list[str]:
    summary = report["summary"]
    versions = ", ".join(f"{name} {one}" for name, one in sorted(report["versions"].items()))
    looks = _looks(report["looks_at_test_parts"])
    shown = _shown(f"{pictures}/{report['benchmark']}", report)
    return [
        f"## {summary['title']}",
        *([summary["text"].strip()] if summary["text"].strip() else []),
        f"```\n{report['command']}\n```",
        shown["ranking.png"],
        *markdown(summary, shown),
        f"Test parts were scored by this benchmark: {looks}. Tables made with "
        f"{versions} on {report['machine']['processor']} ({report['machine']['system']}); the runs "
        f"with {_states(report['distinct_sources'])} of the sources.",
    ]


def _states(count: int) -> str:
    return "one state" if count == 1 else f"{count} states"


def _looks(counted: Mapping[str, Mapping[str, int]]) -> str:
    """Looks at test parts, in words."""
    texts = []
    for name, one in counted.items():
        before = f" and {one['earlier']} times before they were counted" * bool(one["earlier"])
        texts.append(f"`{name}` {one['runs']} times by {one['configs']} configs{before}")
    return ", ".join(texts)


def _all_looks(parts: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """Looks by all benchmarks; of those before, which each may tell, the most that one tells."""
    found: dict[str, dict[str, int]] = {}
    for name in sorted({name for part in parts for name in part}):
        own = [part[name] for part in parts if name in part]
        found[name] = {key: sum(one[key] for one in own) for key in ("runs", "configs")}
        found[name]["earlier"] = max(one["earlier"] for one in own)
    return found


def _shown(folder: str, report: Mapping[str, Any]) -> dict[str, str]:
    """Every picture as Markdown, by its name."""
    return {
        name: f"![{report['benchmark']}: {Path(name).stem.replace('-', ' ')}]({folder}/{name})"
        for name in report["pictures"]
    }


def _card(summary: Mapping[str, Any], label: str) -> list[str]:
    model = summary["models"][label]
    against = f"against {summary['reference']}"
    head = ["data", "score", against, "parameters", "CPU ms", "training (CPU s)"]
    lines = []
    for data, one in summary["data"].items():
        for row in one["rows"]:
            if row["model"] == label:
                metric = one["metric"]
                score = f"{METRIC_NAMES[metric]} {spread(row['scores'][metric], metric)}"
                lines.append(
                    [
                        data,
                        score,
                        change(row["paired"]),
                        f"{row['parameters']:,}".replace(",", " "),
                        f"{row['latency_ms']:.2f}",
                        seconds(row),
                    ]
                )
    joined = f" It joins {', '.join(model['ensemble_of'])}." if model["ensemble_of"] else ""
    return [
        f"### {label}, in {summary['name']}",
        f"{_settings(model['settings'])}{joined}",
        grid(head, lines),
    ]


def _settings(settings: Mapping[str, Any]) -> str:
    """Settings that are not defaults, once where they are the same on every data set."""
    texts = {data: _flow(one) for data, one in settings.items()}
    if len(set(texts.values())) == 1:
        return f"Settings: {next(iter(texts.values()))}."
    return "Settings: " + "; ".join(f"on {data} {text}" for data, text in texts.items()) + "."


def _flow(one: Mapping[str, Any]) -> str:
    named = [
        f"`{section}.{key}: {_yaml(value)}`"
        for section in ("model", "training")
        for key, value in one[section].items()
        if key not in ("device", "threads")
    ]
    return ", ".join(named) or "all by default"


def _yaml(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return yaml_source.dump(value).replace("\n...", "").strip()


def _summary_of(name: str) -> str:
    try:
        return MODELS.summary(name)
    except UnknownNameError:
        return ""


def _from(docs: Path, results: Path) -> str:
    """The way from the pages to the results, as a link writes it."""
    return Path(os.path.relpath(results, docs)).as_posix()

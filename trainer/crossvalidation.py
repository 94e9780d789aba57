"""`axonnx crossvalidate CONFIG`: train a config once per fold and say how far scores agree."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

import artifact
from artifact.bundle import write_file
from artifact.manifest import canonical_json
from recording.style import COLORS, INK, STYLE
from trainer import checkpoint, folder
from trainer.config import ConfigError, RunConfig, load_config
from trainer.data import load_dataset
from trainer.data.windows import PARTS, Dataset
from trainer.folder import RunFolderError
from trainer.pipeline import train_and_export
from trainer.plots import label, write
from trainer.progress import plain_console
from trainer.registry import DATASETS
from trainer.training import check_same_run

RUNS = Path("runs")
UNITS = ("trial", "segment", "session", "subject", "site", "block")
REPORT, PICTURE = "crossvalidation.json", "crossvalidation.png"
PREFIX = "test_"


def run(argv: list[str], overrides: Sequence[tuple[str, str]] = ()) -> int:
    """The command; `overrides` are `("section.key", "value")` of the config.

    Raises ConfigError, DataError, SplitError, RunFolderError and what training raises.
    """
    parser = argparse.ArgumentParser(
        prog="axonnx crossvalidate",
        description="Train a config once per fold: each fold is the test part once, the next one "
        "validates, the others train. What is done is kept: the same command goes on where it was "
        "stopped. Any key of the file can be overridden, as for `axonnx train`.",
        epilog="example: axonnx crossvalidate configs/mine.yaml --folds 5 --unit trial",
        allow_abbrev=False,
        usage="axonnx crossvalidate CONFIG [--section.key value …] [--folds N] [--unit UNIT] "
        "[--gap SAMPLES] [--output DIR] [--overwrite]",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of the run")
    parser.add_argument("--folds", metavar="N", type=int, default=5, help="3 or more (default: 5)")
    parser.add_argument(
        "--unit",
        choices=UNITS,
        help="what is never divided (default: what the config's split goes by; block for time)",
    )
    parser.add_argument(
        "--gap",
        metavar="SAMPLES",
        type=int,
        help="cut around what is held out (default: a window for block, else none)",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="default: runs/<config name>-crossvalidation"
    )
    parser.add_argument("--overwrite", action="store_true", help="train every fold anew")
    options = parser.parse_args(argv)
    if options.folds < 3:
        parser.error(f"--folds {options.folds}: must be 3 or more: test, validation and train")
    config = load_config(options.config, list(overrides))
    console = plain_console()
    output = options.output or RUNS / f"{config.name}-crossvalidation"
    found = crossvalidate(
        config,
        output,
        folds=options.folds,
        unit=options.unit,
        gap=options.gap,
        overwrite=options.overwrite,
        console=console,
    )
    console.print(table(found))
    for name in (REPORT, PICTURE):
        console.print(f"  {output / name}", soft_wrap=True)
    return 0


def crossvalidate(
    config: RunConfig,
    output: Path,
    *,
    folds: int = 5,
    unit: str | None = None,
    gap: int | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train `config` in `output`/fold-0, …; write and return what crossvalidation.json holds.

    A fold that is complete is not trained again, one that was stopped goes on. Means and standard
    errors are over folds, whose training data overlap: the errors are too small rather than too
    large. Raises ConfigError where the data set takes no folds, RunFolderError where `output` holds
    something else, CheckpointError where a fold was trained on other data or with another config.
    """
    console = console or Console()
    unit = unit or unit_of_split(config)
    configs = [fold_config(config, unit, folds, fold, gap) for fold in range(folds)]
    check_output(output, folds)
    rows = []
    for fold, own in enumerate(configs):
        place = output / f"fold-{fold}"
        done = not overwrite and (place / folder.ARTIFACT / folder.MANIFEST).is_file()
        said = "is complete" if done else "is test"
        console.print(f"fold {fold + 1} of {folds} {said}: {place}", soft_wrap=True)
        if done:
            dataset = load_dataset(own.data)
            check_same_run(checkpoint.load(place / folder.CHECKPOINT), own, dataset)
        else:
            trained = train_and_export(
                own, place, resume=not overwrite, overwrite=overwrite, console=console
            )
            dataset = trained.dataset
        rows.append(_row(fold, place, dataset))
    found = {
        "name": config.name,
        "data": config.data["name"],
        "model": config.model["name"],
        "unit": unit,
        "folds": folds,
        "gap": gap,
        "metrics": _summary(rows),
        "rows": rows,
    }
    write_file(output / REPORT, canonical_json(found))
    draw(found, output / PICTURE)
    return found


def unit_of_split(config: RunConfig) -> str:
    """What folds never divide where nothing is said: what the config's own split goes by."""
    split = config.data.get("split") or {}
    by = split.get("by") if isinstance(split, Mapping) else None
    if by == "fold":
        return str(split["unit"])
    if by is None:
        return "trial" if config.data.get("task") == "classify" else "block"
    return "block" if by == "time" else str(by)


def fold_config(
    config: RunConfig, unit: str, folds: int, fold: int, gap: int | None = None
) -> RunConfig:
    """The config of one fold, named after it; raises ConfigError where data take no folds."""
    name = config.data["name"]
    split = {"by": "fold", "unit": unit, "folds": folds, "fold": fold, "gap": gap}
    settings = DATASETS.settings(name)
    problem = "has no setting `split`"
    if "split" in settings.model_fields:
        data = {key: value for key, value in config.data.items() if key != "name"}
        try:
            settings.model_validate_json(json.dumps({**data, "split": split}))
        except ValidationError as error:
            details = error.errors()[0]
            given = ".".join(map(str, details["loc"]))
            problem = f"takes no such split ({given}: {details['msg']})"
        else:
            values = config.resolved()
            values["data"]["split"] = split
            values["name"] = f"{config.name[:90]}-fold-{fold}"
            return RunConfig.model_validate_json(json.dumps(values))
    raise ConfigError(
        f"data set {name} {problem}; cross-validation needs data whose split can be "
        "{by: fold, …}, such as `recording` or `array`"
    )


def check_output(output: Path, folds: int) -> None:
    """Raise RunFolderError where `output` holds anything but this many folds; changes nothing."""
    if output.exists() and not output.is_dir():
        raise RunFolderError(f"{output} is a file; --output takes a folder")
    present = sorted(path.name for path in output.iterdir()) if output.exists() else []
    own = {f"fold-{fold}" for fold in range(folds)} | {REPORT, PICTURE}
    foreign = [name for name in present if name not in own and ".tmp-" not in name]
    if foreign:
        raise RunFolderError(
            f"{output} holds {', '.join(foreign[:3])}, which is no fold of {folds}; "
            "choose another --output"
        )


def table(found: Mapping[str, Any]) -> Table:
    """One line per fold, then mean and standard error, of every metric of the test part."""
    names = list(found["metrics"])
    drawn = Table(
        "fold",
        "test windows",
        *names,
        title=f"{found['name']}: {found['folds']} folds by unit {found['unit']}, test part",
    )
    for row in found["rows"]:
        scores = (_cell(row["metrics"].get(name)) for name in names)
        drawn.add_row(str(row["fold"]), str(row["windows"]["test"]), *scores)
    drawn.add_section()
    means = (
        f"{_cell(one['mean'])} ± {_cell(one['standard_error'])}"
        for one in found["metrics"].values()
    )
    drawn.add_row("mean ± s.e.", "", *means)
    return drawn


def draw(found: Mapping[str, Any], destination: Path) -> Path:
    """Draw every metric of the test part: a dot per fold, the mean and its standard error."""
    metrics = found["metrics"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 2.6 * len(metrics), 3.4), layout="constrained")
        panels = figure.subplots(1, len(metrics), squeeze=False).ravel()
        for panel, (name, one), color in zip(panels, metrics.items(), _cycle(), strict=False):
            scores = [(row["fold"], row["metrics"].get(name)) for row in found["rows"]]
            known = [(fold, score) for fold, score in scores if score is not None]
            panel.plot([f for f, _ in known], [s for _, s in known], "o", color=color)
            panel.axhline(one["mean"], color=INK, linewidth=1.0)
            error = one["standard_error"] or 0.0
            panel.axhspan(one["mean"] - error, one["mean"] + error, color=color, alpha=0.15)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            text = f"{_cell(one['mean'])} ± {_cell(one['standard_error'])}"
            label(panel, text, "fold that is test", name)
        figure.suptitle(f"{found['name']}: {found['folds']} folds by unit {found['unit']}")
        return write(figure, destination)


def _row(fold: int, place: Path, dataset: Dataset) -> dict[str, Any]:
    """What is kept of a finished fold, read from its artifact."""
    model = artifact.load(place / folder.ARTIFACT)
    scores = {
        name.removeprefix(PREFIX): float(value) if np.isfinite(value) else None
        for name, value in model.manifest.metrics.items()
        if name.startswith(PREFIX)
    }
    windows = {part: len(dataset.parts[part]) for part in PARTS}
    return {"fold": fold, "artifact": model.id, "windows": windows, "metrics": scores}


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and standard error of each metric over the folds that have it."""
    summary = {}
    for name in dict.fromkeys(name for row in rows for name in row["metrics"]):
        scores = [row["metrics"].get(name) for row in rows]
        known = np.array([score for score in scores if score is not None])
        error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else None
        if len(known):
            summary[name] = {
                "mean": float(known.mean()),
                "standard_error": None if error is None else float(error),
                "folds": len(known),
            }
    return summary


def _cycle() -> list[str]:
    return [*COLORS, *COLORS]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"

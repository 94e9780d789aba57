"""`axonnx crossvalidate CONFIG`: train a config once per fold and say how far scores agree.

With a sweep, nested: each fold's settings are chosen inside what is not its test part, which the
winner is scored on once. With several seeds, what they change is told apart from what folds do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError
from rich.console import Console

import artifact
from artifact.bundle import write_file
from artifact.manifest import canonical_json
from trainer import checkpoint, folder
from trainer.config import ConfigError, RunConfig, load_config
from trainer.data import load_dataset
from trainer.data.windows import PARTS
from trainer.fold_report import chosen_table, draw, summary, table
from trainer.folder import RunFolderError
from trainer.pipeline import train_and_export
from trainer.progress import plain_console
from trainer.registry import DATASETS
from trainer.trained import check_same_run

if TYPE_CHECKING:
    from trainer.sweep_config import Plan

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
        "[--gap SAMPLES] [--seeds N] [--sweep SWEEP [--trials N]] [--output DIR] [--overwrite]",
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
        "--seeds", metavar="N", type=int, default=1, help="trainings of each fold (default: 1)"
    )
    parser.add_argument(
        "--sweep",
        metavar="SWEEP",
        type=Path,
        help="choose settings of the config within each fold, by inner folds of its train part",
    )
    parser.add_argument("--trials", metavar="N", type=int, help="of each sweep")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="default: runs/<config name>-crossvalidation"
    )
    parser.add_argument("--overwrite", action="store_true", help="train every fold anew")
    options = parser.parse_args(argv)
    if options.folds < 3:
        parser.error(f"--folds {options.folds}: must be 3 or more: test, validation and train")
    for name in ("seeds", "trials"):
        if (getattr(options, name) or 1) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be 1 or more")
    config = load_config(options.config, list(overrides))
    plan = None
    if options.sweep is not None:
        from trainer.sweep_config import load_sweep

        plan = load_sweep(options.sweep, list(overrides), run=options.config)
    console = plain_console()
    output = options.output or RUNS / f"{config.name}-crossvalidation"
    found = crossvalidate(
        config,
        output,
        folds=options.folds,
        unit=options.unit,
        gap=options.gap,
        seeds=options.seeds,
        plan=plan,
        trials=options.trials,
        overwrite=options.overwrite,
        console=console,
    )
    console.print(table(found))
    if plan is not None:
        console.print(chosen_table(found))
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
    seeds: int = 1,
    plan: Plan | None = None,
    trials: int | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train `config` in `output`/fold-0, …; write and return what crossvalidation.json holds.

    `seeds`: each fold is trained with that many, from the config's on, in fold-0-seed-1, ….
    `plan`: a sweep that chooses settings within each fold, in fold-0-sweep, …, by inner folds of
    its train part. A run that is complete is not trained again, one that was stopped goes on. Means
    and standard errors are over folds, whose training data overlap: the errors are too small rather
    than too large. Raises ConfigError where the data set takes no folds, RunFolderError where
    `output` holds something else, CheckpointError where a fold was trained on other data or with
    another config.
    """
    console = console or Console()
    unit = unit or unit_of_split(config)
    configs = [fold_config(config, unit, folds, fold, gap) for fold in range(folds)]
    check_output(output, folds, seeds, nested=plan is not None)
    rows, chosen = [], []
    for fold, own in enumerate(configs):
        if plan is not None:
            place = output / f"fold-{fold}-sweep"
            console.print(f"fold {fold + 1} of {folds}: choosing in {place}", soft_wrap=True)
            own, values = _choose(plan, own, place, trials, overwrite, console)
            chosen.append(values)
        for seed in range(seeds):
            place = output / _folder(fold, seed)
            seeded = own.model_copy(update={"seed": own.seed + seed})
            said = f"fold {fold + 1} of {folds}" + (f", seed {seeded.seed}," if seeds > 1 else "")
            rows.append(_train_fold(seeded, place, fold, said, overwrite, console))
    found = {
        "name": config.name,
        "data": config.data["name"],
        "model": config.model["name"],
        "unit": unit,
        "folds": folds,
        "gap": gap,
        "seeds": seeds,
        "metrics": summary(rows),
        "rows": rows,
    }
    if plan is not None:
        found["chosen"] = chosen
        found["unstable"] = unstable(plan, chosen)
    write_file(output / REPORT, canonical_json(found))
    draw(found, output / PICTURE)
    return found


def _train_fold(
    own: RunConfig, place: Path, fold: int, said: str, overwrite: bool, console: Console
) -> dict[str, Any]:
    """Train one fold unless that is done; its row of the report."""
    done = not overwrite and (place / folder.ARTIFACT / folder.MANIFEST).is_file()
    said += " is complete" if done else " is test"
    console.print(f"{said}: {place}", soft_wrap=True)
    if done:
        dataset = load_dataset(own.data)
        check_same_run(checkpoint.load(place / folder.CHECKPOINT), own, dataset)
    else:
        trained = train_and_export(
            own, place, resume=not overwrite, overwrite=overwrite, console=console
        )
        dataset = trained.dataset
    windows = {part: len(dataset.parts[part]) for part in PARTS}
    return {"fold": fold, "seed": own.seed, "windows": windows, **_scores(place)}


def _choose(
    plan: Plan,
    own: RunConfig,
    place: Path,
    trials: int | None,
    overwrite: bool,
    console: Console,
) -> tuple[RunConfig, dict[str, Any]]:
    """The config of a fold with the settings that a sweep within it chooses, and these."""
    from trainer.sweep import sweep

    if overwrite:
        folder.remove(place)
    # By inner folds, since validation already decides when training stops.
    settings = plan.settings.model_copy(
        update={
            "name": own.name[-90:].lstrip("._-"),
            "objective": "inner_folds",
            "refit_best": False,
        }
    )
    data = {**plan.values["data"], "split": own.data["split"]}
    inner = replace(plan, settings=settings, values={**plan.values, "data": data})
    report = sweep(inner, place, trials=trials, console=console)
    values = report["best"]["values"]
    return inner.config(values).model_copy(update={"name": own.name}), values


def unstable(plan: Plan, chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    """Parameters that folds disagree on.

    Choices where they are not all alike; numbers that span more than a quarter of what was
    searched, in ratios where the search went by them.
    """
    found = []
    for key, parameter in plan.settings.space.items():
        values = [one[key] for one in chosen]
        kind = parameter.model_dump()
        if "choices" in kind:
            differ = any(value != values[0] for value in values)
        else:
            ends = np.array([min(values), max(values), kind["low"], kind["high"]], np.float64)
            low, high, first, last = np.log(ends) if kind["log"] else ends
            differ = high - low > 0.25 * (last - first)
        if differ:
            found.append(key)
    return found


def unit_of_split(config: RunConfig) -> str:
    """What folds never divide where nothing is said: what the config's own split goes by."""
    split = config.data.get("split") or {}
    by = split.get("by") if isinstance(split, Mapping) else None
    if by == "fold":
        return str(split["unit"])
    if by is None:
        task = config.data.get("task") or load_dataset(config.data).task
        return "trial" if task == "classify" else "block"
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


def check_output(output: Path, folds: int, seeds: int = 1, *, nested: bool = False) -> None:
    """Raise RunFolderError where `output` holds anything but these folds; changes nothing."""
    if output.exists() and not output.is_dir():
        raise RunFolderError(f"{output} is a file; --output takes a folder")
    present = sorted(path.name for path in output.iterdir()) if output.exists() else []
    own = {_folder(fold, seed) for fold in range(folds) for seed in range(seeds)}
    own |= {f"fold-{fold}-sweep" for fold in range(folds) if nested} | {REPORT, PICTURE}
    foreign = [name for name in present if name not in own and ".tmp-" not in name]
    if foreign:
        raise RunFolderError(
            f"{output} holds {', '.join(foreign[:3])}, which is no fold of {folds}; "
            "choose another --output"
        )


def _folder(fold: int, seed: int) -> str:
    """The run folder of the `seed`-th training of a fold."""
    return f"fold-{fold}" if seed == 0 else f"fold-{fold}-seed-{seed}"


def _scores(place: Path) -> dict[str, Any]:
    """What is kept of a finished training, read from its artifact."""
    model = artifact.load(place / folder.ARTIFACT)
    scores = {
        name.removeprefix(PREFIX): float(value) if np.isfinite(value) else None
        for name, value in model.manifest.metrics.items()
        if name.startswith(PREFIX)
    }
    return {"artifact": model.id, "metrics": scores}

"""Recurrent networks of oscillators (HORN) on tasks: delayed match, and digits as sequences.

    uv run python benchmarks/task_training.py            # some fifteen minutes, one thread

Everything is trained by the trainer of `axonnx train`; only the accuracy on the test part is noted
after every epoch besides, which no choice looks at. In four parts:

delayed match: 2 symbols, 8 steps, 64 units, with the settings of the published task (Adam 3e-2) and
with those of configs/delayed_match.yaml, five seeds each. The peer's value is the epoch after which
brainmass 0.1.1 prints an accuracy of 1.
sequential digits: 64 pixels, one at a time, a HORN of 64 units beside a GRU of 38, which has as
many parameters. Either has six settings, of which cross-entropy on the validation part chooses one
with seed 0, the same epochs and batches; the chosen ones are trained with three further seeds. What
is reported is the test accuracy of the epoch with the best validation cross-entropy.
variants: HORNs whose units differ and are fitted, with delays, and of two layers, on the digits;
one seed each, other settings as chosen.
other tasks: HORN and GRU, three settings each, of which the validation part chooses; one seed.

Writes results/task_training.json and .png beside this file.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Threads that spin while they wait slow a busy machine down several times; torch reads it once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from artifact.bundle import write_file
from artifact.manifest import canonical_json
from artifact.providers import processor
from trainer import scoring
from trainer.config import RunConfig, load_config
from trainer.data import load_dataset
from trainer.determinism import deterministic
from trainer.trained import build
from trainer.training import Trainer

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CONFIG = HERE.parent / "configs" / "delayed_match.yaml"
COMMAND = " ".join(["uv run python benchmarks/task_training.py", *sys.argv[1:]])
MATCH_SEEDS, DIGIT_SEEDS = range(5), (1, 2, 3)
EPOCHS, TASK_EPOCHS = 60, 30
GOAL_EPOCH, PEER_EPOCH = 12, 12
HORN = {"name": "horn", "engine": "compiled"}
GRU = {"name": "gru_classifier", "hidden_size": 38}
DIGITS = {"name": "sequential_digits"}
RECIPE = {"batch_size": 64, "schedule": "cosine", "weight_decay": 0.0}
UNITS: tuple[dict[str, Any], ...] = (
    {"alpha": 0.2},  # as published for delayed match: period 28 ms, slowly damped
    {"alpha": 0.5, "omega": math.pi / 4, "gamma": 0.2, "spread": 0.5},
    {"alpha": 1.0, "omega": 1.0, "gamma": 0.3},
)
CANDIDATES: dict[str, list[tuple[dict[str, Any], float]]] = {
    "HORN": [({**HORN, **units}, rate) for units in UNITS for rate in (1e-2, 2e-2)],
    "GRU": [(GRU, rate) for rate in (2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2)],
}
TASK_CANDIDATES: dict[str, list[tuple[dict[str, Any], float]]] = {
    "HORN": [({**HORN, **units}, 1e-2) for units in UNITS],
    "GRU": [(GRU, rate) for rate in (3e-3, 1e-2, 3e-2)],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "units that differ": {"spread": 0.5},
    "units that differ, fitted": {"spread": 0.5, "fit": ["alpha", "omega", "gamma", "v"]},
    "delays to 10 ms": {"delay": 10.0},
    "two layers, delays between": {"hidden_sizes": [40, 40], "layer_delay": 4.0},
}
TASKS = ("delayed_recall", "n_back", "context_dependent_integration")

Curve = list[dict[str, float]]  # of every epoch: loss, validation and test scores
Runs = dict[str, Any]


def main() -> None:
    """Train everything and write table and picture."""
    options = _options()
    console = Console()
    with Progress(console=console) as progress, deterministic(1):
        found = {
            "match": _match(progress),
            "search": _search(progress, options.epochs),
        }
        chosen = {name: _best(rows) for name, rows in found["search"].items()}
        found["digits"] = _digits(progress, chosen, options.epochs)
        found["variants"] = _variants(progress, chosen, options.epochs)
        found["tasks"] = _tasks(progress)
    rows = _rows(found)
    report = {
        "benchmark": "task_training",
        "machine": {"processor": processor(), "system": platform.system()},
        "load": os.getloadavg()[1],
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
        "settings": {"epochs": options.epochs, "recipe": RECIPE, "chosen": chosen},
        "curves": found,
        "rows": rows,
    }
    write_file(options.output / "task_training.json", canonical_json(report))
    _draw(found, options.output / "task_training.png")
    console.print(_table(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the digits")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: benchmarks/results")
    return parser.parse_args()


def _trained(
    data: dict[str, Any], model: dict[str, Any], training: dict[str, Any], seed: int
) -> Runs:
    """One training: its curve, its parameters and the processor time it took."""
    settings = {"device": "cpu", "threads": 1, "patience": 10_000, **training}
    config = RunConfig.model_validate(
        {"name": "task", "seed": seed, "data": data, "model": model, "training": settings}
    )
    dataset = load_dataset(config.data)
    module = build(config, dataset)
    module.fit_closed_form(dataset.train, dataset.validation)
    trainer = Trainer(config, dataset, module, torch.device("cpu"))
    curve: Curve = []

    def on_epoch(row: dict[str, Any]) -> None:
        test = scoring.held_out(trainer.module, dataset.test, trainer.scale, trainer.device)
        kept = ("epoch", "loss", "cross_entropy", "accuracy")
        curve.append({**{k: row[k] for k in kept}, "test_accuracy": test["accuracy"]})

    trainer.begin()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trainer.run(Path(folder), Console(quiet=True), on_epoch)
    best = min(curve, key=lambda row: row["cross_entropy"])
    return {
        "seed": seed,
        "curve": curve,
        "best": best,
        "seconds_per_epoch": (time.process_time() - began) / len(curve),
        "parameters": sum(each.numel() for each in trainer.parameters),
    }


def _match(progress: Progress) -> dict[str, list[Runs]]:
    """Delayed match by the published settings and by the config's: runs of all seeds."""
    config = load_config(CONFIG, [])
    own = config.training.model_dump(exclude_unset=True)
    recipes = {
        "published settings": {**own, "learning_rate": 3e-2, "epochs": 20},
        "configs/delayed_match.yaml": {**own, "epochs": 20},
    }
    task = progress.add_task("delayed match", total=len(recipes) * len(MATCH_SEEDS))
    found: dict[str, list[Runs]] = {}
    for name, training in recipes.items():
        found[name] = []
        for seed in MATCH_SEEDS:
            found[name].append(_trained(config.data, config.model, training, seed))
            progress.advance(task)
    return found


def _search(progress: Progress, epochs: int) -> dict[str, list[Runs]]:
    """Every candidate on the digits, with seed 0."""
    task = progress.add_task("choosing settings", total=sum(map(len, CANDIDATES.values())))
    found: dict[str, list[Runs]] = {}
    for name, candidates in CANDIDATES.items():
        found[name] = []
        for model, rate in candidates:
            training = {**RECIPE, "epochs": epochs, "learning_rate": rate}
            run = _trained(DIGITS, model, training, 0)
            found[name].append({**run, "model": model, "learning_rate": rate})
            progress.advance(task)
    return found


def _best(runs: list[Runs]) -> Runs:
    best = min(runs, key=lambda run: run["best"]["cross_entropy"])
    return {key: best[key] for key in ("model", "learning_rate")}


def _digits(progress: Progress, chosen: dict[str, Runs], epochs: int) -> dict[str, list[Runs]]:
    """The chosen settings with further seeds."""
    task = progress.add_task("digits", total=len(chosen) * len(DIGIT_SEEDS))
    found: dict[str, list[Runs]] = {name: [] for name in chosen}
    for seed in DIGIT_SEEDS:
        for name, choice in chosen.items():
            training = {**RECIPE, "epochs": epochs, "learning_rate": choice["learning_rate"]}
            found[name].append(_trained(DIGITS, choice["model"], training, seed))
            progress.advance(task)
    return found


def _variants(progress: Progress, chosen: dict[str, Runs], epochs: int) -> dict[str, Runs]:
    task = progress.add_task("variants", total=len(VARIANTS))
    choice = chosen["HORN"]
    training = {**RECIPE, "epochs": epochs, "learning_rate": choice["learning_rate"]}
    found = {}
    for name, changed in VARIANTS.items():
        found[name] = _trained(DIGITS, {**choice["model"], **changed}, training, DIGIT_SEEDS[0])
        progress.advance(task)
    return found


def _tasks(progress: Progress) -> dict[str, dict[str, Runs]]:
    """The other tasks: of every network the run that does best on the validation part."""
    runs = len(TASKS) * sum(map(len, TASK_CANDIDATES.values()))
    task = progress.add_task("other tasks", total=runs)
    found: dict[str, dict[str, Runs]] = {}
    for name in TASKS:
        found[name] = {}
        for kind, candidates in TASK_CANDIDATES.items():
            tried = []
            for model, rate in candidates:
                training = {**RECIPE, "epochs": TASK_EPOCHS, "learning_rate": rate}
                run = _trained({"name": name}, model, training, 1)
                tried.append({**run, "model": model, "learning_rate": rate})
                progress.advance(task)
            found[name][kind] = min(tried, key=lambda run: run["best"]["cross_entropy"])
    return found


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, runs in found["match"].items():
        epochs = [_first_right(run["curve"]) for run in runs]
        rows.append(
            {
                **_row(f"delayed match, {name}", "first epoch with test accuracy 1", "epoch"),
                "value": max(epochs),
                "spread": (max(epochs) - min(epochs)) / 2,
                "runs": epochs,
                "peer": "brainmass 0.1.1, as its documentation prints",
                "peer_value": PEER_EPOCH,
                "goal": f"<= {GOAL_EPOCH}",
                "met": max(epochs) <= GOAL_EPOCH,
            }
        )
    means = {
        name: statistics.mean(run["best"]["test_accuracy"] for run in runs)
        for name, runs in found["digits"].items()
    }
    for name, runs in found["digits"].items():
        peer = {"HORN": "GRU", "GRU": "HORN"}[name]
        rows.append(
            {
                **_row(f"sequential digits, {name}", "test accuracy, mean of seeds", "1"),
                "value": means[name],
                "spread": statistics.stdev(run["best"]["test_accuracy"] for run in runs),
                "runs": [run["best"]["test_accuracy"] for run in runs],
                "peer": peer,
                "peer_value": means[peer],
                "parameters": runs[0]["parameters"],
                "cpu_seconds_per_epoch": statistics.median(r["seconds_per_epoch"] for r in runs),
            }
        )
    for name, run in found["variants"].items():
        rows.append(
            {
                **_row(f"sequential digits, HORN, {name}", "test accuracy, one seed", "1"),
                "value": run["best"]["test_accuracy"],
                "peer": "HORN",
                "peer_value": means["HORN"],
                "parameters": run["parameters"],
            }
        )
    for name, kinds in found["tasks"].items():
        rows.append(
            {
                **_row(f"{name}, HORN", "test accuracy, one seed", "1"),
                "value": kinds["HORN"]["best"]["test_accuracy"],
                "peer": "GRU",
                "peer_value": kinds["GRU"]["best"]["test_accuracy"],
            }
        )
    return rows


def _row(case: str, metric: str, unit: str) -> dict[str, Any]:
    empty = {"spread": None, "goal": "none", "met": None}
    return {"case": case, "metric": metric, "unit": unit, "command": COMMAND, **empty}


def _first_right(curve: Curve) -> int:
    """The first epoch after which every test trial is answered right; one past the last if none."""
    right = (row["epoch"] for row in curve if row["test_accuracy"] == 1.0)
    return int(next(right, len(curve) + 1))


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Training on tasks")
    for head in ("case", "metric", "value", "± ", "peer", "peer value", "goal", "met"):
        table.add_column(head)
    for row in rows:
        table.add_row(
            row["case"],
            row["metric"],
            f"{row['value']:.3g}",
            "" if row["spread"] is None else f"{row['spread']:.2g}",
            row["peer"],
            f"{row['peer_value']:.3g}",
            row["goal"],
            {True: "yes", False: "no", None: "–"}[row["met"]],
        )
    return table


def _draw(found: dict[str, Any], destination: Path) -> None:
    figure = Figure(figsize=(15.0, 4.6), layout="constrained")
    match, digits, tasks = figure.subplots(1, 3)
    for (name, runs), color in zip(found["match"].items(), ("#0072B2", "#D55E00"), strict=True):
        for number, run in enumerate(runs):
            epochs, values = _curve(run)
            match.plot(epochs, values, color=color, alpha=0.6, label=None if number else name)
    match.axvline(GOAL_EPOCH, color="#009E73", linestyle="--", label=f"goal: 1 by {GOAL_EPOCH}")
    match.set_title("Delayed match, 2 symbols, 8 steps", loc="left")
    for (name, runs), color in zip(found["digits"].items(), ("#D55E00", "#0072B2"), strict=True):
        epochs, _ = _curve(runs[0])
        values = np.array([_curve(run)[1] for run in runs])
        count = runs[0]["parameters"]
        digits.plot(epochs, values.mean(0), color=color, label=f"{name}, {count:,} parameters")
        digits.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.2)
    digits.set_title("Sequential digits, 64 pixels one at a time", loc="left")
    for panel in (match, digits):
        panel.set_xlabel("epoch")
        panel.set_ylabel("test accuracy")
        panel.set_ylim(0, 1.02)
        panel.legend(loc="lower right", frameon=False)
    _draw_tasks(tasks, found)
    destination.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(destination, dpi=120, metadata={"Software": None})


def _draw_tasks(panel: Any, found: dict[str, Any]) -> None:
    """Test accuracies of variants on the digits, and of both networks on the other tasks."""
    bars = [(f"digits: {name}", run, "#D55E00") for name, run in found["variants"].items()]
    for name, kinds in found["tasks"].items():
        label = name.replace("_", " ")
        bars.append((f"{label}: HORN", kinds["HORN"], "#D55E00"))
        bars.append((f"{label}: GRU", kinds["GRU"], "#0072B2"))
    values = [run["best"]["test_accuracy"] for _, run, _ in bars]
    places = np.arange(len(bars))
    panel.barh(places, values, color=[color for _, _, color in bars], height=0.7)
    panel.set_yticks(places, [label for label, _, _ in bars])
    for place, value in zip(places, values, strict=True):
        panel.annotate(
            f"{value:.3f}",
            (value, place),
            xytext=(-4, 0),
            textcoords="offset points",
            va="center",
            ha="right",
            color="white",
        )
    panel.invert_yaxis()
    panel.set_xlim(0, 1.02)
    panel.set_xlabel("test accuracy")
    panel.set_title("Variants and other tasks, one seed", loc="left")


def _curve(run: Runs) -> tuple[list[float], list[float]]:
    return [row["epoch"] for row in run["curve"]], [row["test_accuracy"] for row in run["curve"]]


if __name__ == "__main__":
    main()

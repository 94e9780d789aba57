"""What a submission costs on one core: the published GRU from a zip of ours, and in torch.

    uv run python benchmarks/submission_costs.py

HDR Neural Forecasting's two monkeys with their published weights and numbers of windows. The peer
is what entrants submit: the same network written in torch, run one window at a time, in the
environment of its own that this script makes (Python 3.10, torch 2.2.2, numpy 1.26.4). Both run
the same ingestion program in the process engine, pinned to one core, one after the other in each
round. Writes results/submission_costs.json and .png beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import artifact
from artifact.bundle import write_file
from artifact.manifest import canonical_json
from artifact.providers import processor
from submission.build import build
from submission.checking import trial
from submission.config import SubmissionConfig
from submission.contents import read
from submission.errors import ConfigError
from submission.scoring import budgets
from submission.scoring.timings import Timing, time_place
from submission.worker import sandbox
from submission.worker.engines import ProcessEngine
from trainer.legacy import import_legacy

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("AXONNX_DATA", Path(__file__).parents[2] / "shared" / "data"))
MONKEYS = ("affi", "beignet")
PYTHONS = ("3.10", "3.11")
PEER_PACKAGES = ("numpy==1.26.4", "torch==2.2.2")
COMMAND = "uv run python benchmarks/submission_costs.py"
SHARE = 0.1  # of the time limit, for the baseline
TORCH = """
import os

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
torch.set_num_threads(1)


class Network(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.encoder = torch.nn.GRU(channels, 256, batch_first=True)
        self.output_layer = torch.nn.Linear(256, channels)

    def forward(self, window):
        return self.output_layer(self.encoder(window)[0])


class Model:
    def __init__(self, monkey_name):
        self.name = monkey_name

    def load(self):
        with np.load(os.path.join(HERE, f"{self.name}.npz")) as data:
            mean, spread = data["average"][0, ::9], 4 * data["std"][0, ::9]
        self.mean, self.spread = mean, spread
        self.network = Network(len(mean)).eval()
        weights = torch.load(os.path.join(HERE, f"{self.name}.pth"), map_location="cpu")
        self.network.load_state_dict(weights)

    def predict(self, X):
        answers = []
        with torch.no_grad():
            for window in X:
                scaled = ((window[..., 0] - self.mean) / self.spread).astype(np.float32)
                answer = self.network(torch.from_numpy(scaled[None])).numpy()[0]
                answers.append(answer * self.spread + self.mean)
        return np.stack(answers).astype(np.float32)
"""


def main() -> None:
    """Measure both in turns, write table and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: benchmarks/results")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name, console.status("building") as status:
        work = Path(name)
        path = _zip(work)
        parts = budgets.sizes(path)
        found: dict[str, list[Timing]] = {}
        for number in range(options.rounds):
            for label in (*PYTHONS, "torch"):
                status.update(f"round {number + 1} of {options.rounds}: {label}")
                found.setdefault(label, []).append(_time(label, path, work / f"{number}{label}"))
    rows = _rows(found, parts)
    report = {
        "benchmark": "submission_costs",
        "machine": {"processor": processor(), "system": platform.system()},
        "versions": {
            "peer": list(PEER_PACKAGES),
            "onnxruntime": {label: found[label][0].onnxruntime for label in PYTHONS},
        },
        "settings": {"rounds": options.rounds, "windows": "published", "cores": 1},
        "rows": rows,
    }
    write_file(options.output / "submission_costs.json", canonical_json(report))
    _draw(rows, options.output / "submission_costs.png")
    console.print(_table(rows))


def _zip(work: Path) -> Path:
    """The submission of the published weights, in raw units."""
    folder, models = DATA / "hdr_legacy", {}
    for name in MONKEYS:
        models[name] = import_legacy(
            folder / f"model_{name}.pth",
            folder / f"train_data_average_std_{name}.npz",
            work / name,
            output_units="raw",
        )
    values = {"challenge": "neural_forecasting", "settings": {}, "models": models}
    config = {**values, "python": PYTHONS, "output": work / "submission.zip"}
    return build(SubmissionConfig.model_validate(config)).path


def _time(label: str, path: Path, work: Path) -> Timing:
    """One report's figures: of the zip under a Python, or of the peer."""
    work.mkdir()
    program = trial.unpack(path, work / "unpacked")
    stated = read(program)
    definition, bundles = stated.definition, {}
    for name, entry in stated.artifacts.items():
        bundles[name] = artifact.read(program / "artifacts" / entry.folder)
    if label == "torch":
        program = _peer(work / "peer")
    python = sandbox.find_python(PYTHONS[0] if label == "torch" else label)
    if python is None:
        raise ConfigError(f"no Python for {label} on this machine")
    packages = PEER_PACKAGES if label == "torch" else definition.image.packages
    interpreter = sandbox.environment(python, packages)
    place = trial.Place(label, ProcessEngine(interpreter), interpreter.version)
    timing = time_place(definition, bundles, program, place, work / "runs")
    shutil.rmtree(work)
    return timing


def _peer(folder: Path) -> Path:
    """The same network as entrants write it."""
    folder.mkdir()
    (folder / "model.py").write_text(TORCH, "utf-8")
    for name in MONKEYS:
        source = DATA / "hdr_legacy"
        shutil.copyfile(source / f"model_{name}.pth", folder / f"{name}.pth")
        shutil.copyfile(source / f"train_data_average_std_{name}.npz", folder / f"{name}.npz")
    return folder


def _rows(found: dict[str, list[Timing]], parts: tuple[budgets.Part, ...]) -> list[dict[str, Any]]:
    torch = found["torch"]
    rows = []
    for part in parts:
        if part.name.startswith("vendor/"):
            size = part.zipped / 1e6
            rows.append(_row(part.name, "runtime, zipped", "MB", [size], None, 12.0))
    for label in PYTHONS:
        mine, case = found[label], f"published GRU, Python {label}"
        pairs = (
            ("cold start", "s", [t.cold_start for t in mine], [t.cold_start for t in torch], 2.0),
            ("whole test set", "s", _projected(mine), _projected(torch), SHARE * 600),
            ("peak memory", "MB", _memory(mine), _memory(torch), None),
        )
        rows += [_row(case, metric, unit, *values) for metric, unit, *values in pairs]
    return rows


def _projected(timings: list[Timing]) -> list[float]:
    return [timing.projected or 0.0 for timing in timings]


def _memory(timings: list[Timing]) -> list[float]:
    return [timing.peak_bytes / 1e6 for timing in timings]


def _row(
    case: str,
    metric: str,
    unit: str,
    values: list[float],
    peer: list[float] | None,
    goal: float | None,
) -> dict[str, Any]:
    value = median(values)
    return {
        "case": case,
        "metric": metric,
        "unit": unit,
        "value": value,
        "spread": max(values) - min(values),
        "peer": "the same network in torch" if peer else None,
        "peer_value": median(peer) if peer else None,
        "goal": f"<= {goal:g}" if goal else None,
        "met": value <= goal if goal else None,
        "command": COMMAND,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="a submission on one core")
    for head in ("case", "metric", "value", "spread", "torch", "goal", "met"):
        table.add_column(head)
    for row in rows:
        peer = "" if row["peer_value"] is None else f"{row['peer_value']:.2f}"
        table.add_row(
            row["case"],
            f"{row['metric']}, {row['unit']}",
            f"{row['value']:.2f}",
            f"{row['spread']:.2f}",
            peer,
            row["goal"] or "",
            {True: "yes", False: "NO", None: ""}[row["met"]],
        )
    return table


def _draw(rows: list[dict[str, Any]], destination: Path) -> None:
    """Three panels: each metric of the zip under both Pythons beside torch."""
    metrics = ("cold start", "whole test set", "peak memory")
    figure = Figure(figsize=(10.0, 3.4), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 3), metrics, strict=True):
        chosen = [row for row in rows if row["metric"] == metric]
        names = [f"zip, {row['case'].rpartition(' ')[2]}" for row in chosen] + ["torch, 3.10"]
        values = [row["value"] for row in chosen] + [chosen[0]["peer_value"]]
        drawn = axis.barh(names, values, color=["#0072B2", "#0072B2", "#b0b0b0"])
        axis.bar_label(drawn, fmt="%.2f" if max(values) < 50 else "%.0f", padding=4)
        axis.set_xlim(0, 1.3 * max(values))
        axis.invert_yaxis()
        axis.set_xlabel(chosen[0]["unit"])
        axis.set_title(metric, loc="left")
    figure.suptitle("the published GRU for both monkeys, one core, without network")
    destination.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(destination, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()

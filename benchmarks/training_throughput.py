"""Training throughput of PatchFormer on two cores: eager float32, bfloat16, and torch.compile.

    uv run python benchmarks/training_throughput.py            # some two minutes
    uv run python benchmarks/training_throughput.py --compile  # and minutes of compilation

Optimizer steps of the trainer itself, from cutting the windows to AdamW, on one thread: width 128,
8 heads, feed forward 256, 4 layers, patches that make 4 tokens for each channel, batches of 32
windows with 16 channels. What is reported is ideal for two cores, 2 x windows / processor time of a
step: processor time does not count what other programs take, and a second core at best doubles it.
Case "over time" has its 4 layers within channels, on all tokens; "over time and channels" its last
one across channels, on one token each. Both have the same number of parameters.
The peer is PyTorch's own nn.TransformerEncoder of that size, between the same embedding and readout
and with the same optimizer, timed in turns with the rest; it does without the trainer's work on
windows. On a machine that does other things at the time all of them are slower: see `load`.
Writes results/training_throughput.json and .png beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
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
from trainer.config import RunConfig
from trainer.data import load_dataset
from trainer.determinism import deterministic
from trainer.trained import build
from trainer.training import Trainer

RESULTS = Path(__file__).parent / "results"
COMMAND = " ".join(["uv run python benchmarks/training_throughput.py", *sys.argv[1:]])
CORES, BATCH, CHANNELS = 2, 32, 16
WARM_UP, STEPS, RUNS = 3, 8, 9
MODEL = {
    "name": "patchformer",
    "width": 128,
    "heads": 8,
    "feed_forward": 2,
    "patch_len": 4,
    "patch_stride": 2,
    "base": "last",
}
LAYERS = {
    "over time": {"temporal_blocks": 4, "channel_blocks": 0},
    "over time and channels": {"temporal_blocks": 3, "channel_blocks": 1},
}
# Name -> settings of training, and the throughput to reach.
MODES: dict[str, tuple[dict[str, Any], int | None]] = {
    "float32": ({"precision": "float32"}, 381),
    "bfloat16": ({"precision": "bfloat16"}, 551),
    "compiled float32": ({"precision": "float32", "compile": True}, None),
    "compiled bfloat16": ({"precision": "bfloat16", "compile": True}, None),
}
PEER = "nn.TransformerEncoder"


def main() -> None:
    """Time every mode, in turns, and write table and picture."""
    options = _options()
    console = Console()
    modes = [name for name in MODES if options.compile or "compile" not in MODES[name][0]]
    with deterministic(1):
        trainers: dict[tuple[str, str], Trainer | Peer] = {
            (layers, mode): _trainer(layers, mode)
            for layers in LAYERS
            for mode in modes
            if layers == "over time" or "compiled" not in mode
        }
        parameters = {layers: _parameters(trainers[layers, "float32"]) for layers in LAYERS}
        for mode in ("float32", "bfloat16"):
            trainers[PEER, mode] = Peer(mode)
        first: dict[tuple[str, str], float] = {}
        runs: dict[tuple[str, str], list[float]] = {case: [] for case in trainers}
        with Progress(console=console) as progress:
            task = progress.add_task("steps", total=len(trainers) * (1 + options.runs))
            for case, trainer in trainers.items():
                progress.update(task, description=f"first step, {', '.join(case)}")
                first[case] = _first_step(trainer)
                progress.advance(task)
            # In turns, so that what else the machine does falls on all alike.
            for _ in range(options.runs):
                for case, trainer in trainers.items():
                    progress.update(task, description=", ".join(case))
                    runs[case].append(_seconds_per_step(trainer))
                    progress.advance(task)
    rows = [
        _row(case, found, first[case], parameters[case[0]], runs)
        for case, found in runs.items()
        if case[0] != PEER
    ]
    report = {
        "benchmark": "training_throughput",
        "machine": {"processor": processor(), "system": platform.system()},
        "load": os.getloadavg()[1],
        "versions": {name: version(name) for name in ("torch", "numpy")},
        "settings": {
            "model": MODEL,
            "layers": LAYERS,
            "batch": BATCH,
            "channels": CHANNELS,
            "steps": STEPS,
            "runs": options.runs,
        },
        "rows": rows,
    }
    write_file(options.output / "training_throughput.json", canonical_json(report))
    _draw(rows, options.output / "training_throughput.png")
    console.print(_table(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--compile", action="store_true", help="with the compiled modes")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: benchmarks/results")
    return parser.parse_args()


def _trainer(layers: str, mode: str) -> Trainer:
    config = RunConfig.model_validate(
        {
            "name": "throughput",
            "data": {"name": "synthetic", "channels": CHANNELS, "samples": 2000},
            "model": {**MODEL, **LAYERS[layers]},
            "training": {
                "batch_size": BATCH,
                "device": "cpu",
                "threads": 1,
                **MODES[mode][0],
            },
        }
    )
    dataset = load_dataset(config.data)
    trainer = Trainer(config, dataset, build(config, dataset), torch.device("cpu"))
    trainer.module.train()
    return trainer


class Peer:
    """A network of the same size from PyTorch's parts, and one optimizer step of it."""

    def __init__(self, mode: str) -> None:
        layer = torch.nn.TransformerEncoderLayer(
            128, 8, 256, 0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.embed = torch.nn.Linear(4, 128)
        self.encoder = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = torch.nn.Linear(4 * 128, 10)
        self.parameters = [
            parameter
            for module in (self.embed, self.encoder, self.head)
            for parameter in module.parameters()
        ]
        self.optimizer = torch.optim.AdamW(self.parameters)
        self.half = mode == "bfloat16"

    def _run_step(self, rows: np.ndarray) -> float:
        x = torch.randn(len(rows) * CHANNELS, 4, 4)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            answer = self.head(self.encoder(self.embed(x)).flatten(1))
        loss = (answer.float() - 1.0).square().mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return float(loss.detach())


def _first_step(trainer: Trainer | Peer) -> float:
    """Seconds of the first step, which compiles where that is asked for."""
    began = time.perf_counter()
    trainer._run_step(np.arange(BATCH))
    seconds = time.perf_counter() - began
    for _ in range(WARM_UP):
        trainer._run_step(np.arange(BATCH))
    return seconds


def _seconds_per_step(trainer: Trainer | Peer) -> float:
    """Processor time of one optimizer step, mean over a run of them."""
    draws = np.random.default_rng(0)
    began = time.process_time()
    for _ in range(STEPS):
        trainer._run_step(draws.permutation(10 * BATCH)[:BATCH])
    return (time.process_time() - began) / STEPS


def _parameters(trainer: Trainer | Peer) -> int:
    return sum(parameter.numel() for parameter in trainer.parameters)


def _row(
    case: tuple[str, str],
    found: list[float],
    first: float,
    parameters: int,
    runs: dict[tuple[str, str], list[float]],
) -> dict[str, Any]:
    layers, mode = case
    peer = runs[PEER, mode.removeprefix("compiled ")]
    speeds = [CORES * BATCH / seconds for seconds in found]
    value, goal = statistics.median(speeds), MODES[mode][1]
    low, _, high = statistics.quantiles(speeds, n=4)
    return {
        "case": f"{mode}, 4 layers {layers}",
        "metric": "windows trained on, 2 x batch / processor time of a step, median of runs",
        "unit": "windows/s",
        "value": value,
        "spread": (high - low) / 2,
        "runs": speeds,
        "milliseconds_per_step": 1000 * statistics.median(found),
        "first_step_minutes": first / 60,
        "parameters": parameters,
        "peer": PEER,
        "peer_value": CORES * BATCH / statistics.median(peer),
        "goal": "none" if goal is None else f">= {goal}",
        "met": None if goal is None else bool(value >= goal),
        "command": COMMAND,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="PatchFormer, width 128, 4 layers, batches of 32 windows, 16 channels")
    for head in (
        "case",
        "windows/s",
        "± half IQR",
        "ms/step",
        "first step (min)",
        PEER,
        "goal",
        "met",
    ):
        table.add_column(head)
    for row in rows:
        table.add_row(
            row["case"],
            f"{row['value']:.0f}",
            f"{row['spread']:.0f}",
            f"{row['milliseconds_per_step']:.0f}",
            f"{row['first_step_minutes']:.2f}",
            f"{row['peer_value']:.0f}",
            row["goal"],
            {True: "yes", False: "no", None: "–"}[row["met"]],
        )
    return table


def _draw(rows: list[dict[str, Any]], destination: Path) -> None:
    figure = Figure(figsize=(9.0, 1.6 + 0.55 * len(rows)), layout="constrained")
    panel = figure.subplots()
    names = [row["case"] for row in rows]
    colors = ["#D55E00" if "bfloat16" in name else "#0072B2" for name in names]
    values, spreads = ([row[key] for row in rows] for key in ("value", "spread"))
    panel.barh(names, values, xerr=spreads, color=colors, height=0.6)
    goals = [None if row["goal"] == "none" else float(row["goal"].split()[-1]) for row in rows]
    for place, (row, goal) in enumerate(zip(rows, goals, strict=True)):
        said = {True: ", goal met", False: ", goal missed", None: ""}[row["met"]]
        end = row["value"] + row["spread"]
        if goal is not None:
            panel.plot([goal] * 2, [place - 0.4, place + 0.4], "--", color="#009E73", linewidth=2.5)
            end = max(end, goal)
        panel.annotate(
            f"{row['value']:.0f}{said}",
            (end, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
        panel.plot([row["peer_value"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
    panel.plot([], [], color="black", linewidth=2, label=PEER)
    panel.plot([], [], "--", color="#009E73", linewidth=2.5, label="goal")
    figure.legend(loc="outside lower right", ncols=2, frameon=False)
    panel.invert_yaxis()
    ends = [row["value"] + row["spread"] for row in rows] + [goal or 0.0 for goal in goals]
    panel.set_xlim(0, 1.3 * max(ends))
    panel.set_xlabel("windows per second, ideal for two cores")
    panel.set_title("PatchFormer, width 128, 4 layers, batches of 32 x 16 channels", loc="left")
    destination.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(destination, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()

"""A minute's tour on synthetic data: train, export, serve, submit, and compare the answers."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import artifact
from artifact.arrays import Array
from artifact.model import Model
from trainer import evaluation, folder, outside, plots, scoring
from trainer.config import RunConfig
from trainer.data.windows import Batch, Dataset
from trainer.pipeline import train_and_export
from trainer.training import Run

DATA = {"name": "synthetic"}
MODELS: dict[str, dict[str, Any]] = {
    "patchformer": {"width": 32},
    "gru": {"output_units": "raw"},
}
TRAINING: dict[str, dict[str, Any]] = {
    "patchformer": {"epochs": 6, "learning_rate": 3e-3, "device": "cpu"},
    "gru": {"epochs": 8, "learning_rate": 3e-3, "device": "cpu"},
}
WINDOWS = 64
PICTURED_CHANNELS = 4


@dataclass(frozen=True)
class Outcome:
    """What one model's row of the closing table says; `equal` over every way it was asked."""

    name: str
    scores: dict[str, float]
    gap: float
    http: bool
    submitted: bool | None

    @property
    def equal(self) -> bool:
        """Whether no way of asking gave another bit."""
        return self.http and self.submitted is not False


def run(output: Path) -> int:
    """Make the tour in the folder `output`; 0 done, 1 where two answers differ or a step fails."""
    console = Console()
    console.print(
        "[bold]axonnx quickstart[/] on SYNTHETIC data: noisy coupled oscillators in the format of "
        "the forecasting challenge.\nIts scores say nothing about a brain; its steps are those of "
        "a real run.",
        highlight=False,
    )
    started = time.monotonic()
    with _stopped_by_sigterm():
        try:
            outcomes = _tour(output, console)
        except outside.OutsideError as error:
            print(f"axonnx: error: {error}", file=sys.stderr)
            return 1
    console.print(_table(outcomes))
    console.print(f"{time.monotonic() - started:.0f} s; all of it is in {output}", highlight=False)
    if not all(outcome.equal for outcome in outcomes):
        print("axonnx: error: answers differ; see the table", file=sys.stderr)
        return 1
    _next_commands(output, console)
    return 0


def _tour(output: Path, console: Console) -> list[Outcome]:
    runs = {}
    for number, name in enumerate(MODELS, start=1):
        console.rule(f"{number}/6 train {name}", align="left")
        runs[name] = train_and_export(_config(name), output / name, overwrite=True, console=console)
    dataset = runs["patchformer"].dataset
    batch = _test_windows(dataset)
    models = {name: artifact.load(output / name / folder.ARTIFACT) for name in MODELS}
    console.rule("3/6 compare torch with ONNX Runtime", align="left")
    gaps = {name: _parity(models[name], runs[name], batch, console) for name in MODELS}
    answers = {name: model.predict(batch.inputs)["forecast"] for name, model in models.items()}
    console.rule("4/6 serve", align="left")
    neural = batch.inputs["neural"]
    places = {name: output / name / folder.ARTIFACT for name in MODELS}
    served = {name: outside.over_http(places[name], neural, console) for name in MODELS}
    console.rule("5/6 build a submission and run it in a fresh process", align="left")
    submitted = {}
    if outside.runs_here():
        target = outside.build_zip(places, neural.shape[2], output, console)
        submitted = outside.from_zip(target, MODELS, neural, console)
    else:
        console.print("skipped: a submission's runtime is for Linux on x86-64", highlight=False)
    console.rule("6/6 draw", align="left")
    console.print(_draw(output / "forecast.png", dataset, batch, answers), highlight=False)
    return [
        Outcome(
            name=name,
            scores=_scores(runs[name]),
            gap=gaps[name],
            http=outside.same(served[name], answers[name]),
            submitted=outside.same(submitted[name], answers[name]) if submitted else None,
        )
        for name in MODELS
    ]


def _config(name: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": f"quickstart-{name}",
            "data": DATA,
            "model": {"name": name, **MODELS[name]},
            "training": TRAINING[name],
        }
    )


def _test_windows(dataset: Dataset) -> Batch:
    """Windows of the test part, evenly spread."""
    count = len(dataset.test)
    places = np.linspace(0, count - 1, min(WINDOWS, count)).round().astype(np.int64)
    return dataset.test.batch(places)


def _parity(model: Model, trained: Run, batch: Batch, console: Console) -> float:
    """Largest gap between the torch module and the artifact, in standard deviations."""
    wanted = evaluation.of_module(trained.module, trained.dataset.test)(batch.inputs)
    answer = model.predict(batch.inputs)["forecast"]
    gap = float(np.abs(answer - wanted).max() / answer.std())
    console.print(f"{model.manifest.name}: {gap:.1e} standard deviations apart", highlight=False)
    return gap


def _draw(destination: Path, dataset: Dataset, batch: Batch, answers: dict[str, Array]) -> Path:
    """One test window, both models and persistence."""
    target = batch.targets["forecast"]
    row, observed = len(target) // 2, dataset.test.observed
    chosen = np.linspace(0, target.shape[2] - 1, PICTURED_CHANNELS).round().astype(np.int64)
    persistence = np.broadcast_to(target[row, observed - 1], target[row].shape)
    predictions = {name: values[row][:, chosen] for name, values in answers.items()}
    return plots.forecast_example(
        destination,
        target[row][:, chosen],
        {**predictions, "persistence": persistence[:, chosen]},
        observed=observed,
        rate=dataset.rate,
        channel_names=[dataset.channel_names[i] for i in chosen],
        unit=dataset.unit,
        title="axonnx quickstart, SYNTHETIC data: one test window",
    )


def _scores(trained: Run) -> dict[str, float]:
    """Test error in units of the train variance: the model's, persistence's, linear's."""
    dataset = trained.dataset
    scale = scoring.channel_scale(dataset.train.statistics())
    scored = {"model": evaluation.of_module(trained.module, dataset.test)}
    scored |= {entry.label: entry.predict for entry in evaluation.baselines(dataset)}
    return {
        name: evaluation.score_forecast(predict, dataset, scale)["mse"]
        for name, predict in scored.items()
    }


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="quickstart, SYNTHETIC data")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right")
    words = {True: "same bytes", False: "DIFFERENT", None: "not run here"}
    floors = [name for name in outcomes[0].scores if name != "model"]
    table.add_row("test MSE / train variance", *(f"{o.scores['model']:.3f}" for o in outcomes))
    for floor in floors:
        table.add_row(f"  of {floor}", *(f"{o.scores[floor]:.3f}" for o in outcomes))
    table.add_row("torch against ONNX (sd)", *(f"{o.gap:.1e}" for o in outcomes))
    table.add_row("HTTP against Model.predict", *(words[o.http] for o in outcomes))
    table.add_row("submission against Model.predict", *(words[o.submitted] for o in outcomes))
    return table


def _next_commands(output: Path, console: Console) -> None:
    console.print("next:")
    made = output / "patchformer" / folder.ARTIFACT
    for command in (
        f"axonnx serve {made}",
        f"axonnx evaluate {made} --legacy {output / 'gru' / folder.ARTIFACT}",
        f"axonnx submission check {output / 'submission.zip'}",
        "axonnx train configs/goose_patchformer.yaml   # a real recording",
    ):
        console.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the tour through its `finally` clauses, so that no process stays behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

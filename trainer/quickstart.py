"""A minute's tour on synthetic data: train, export, serve, submit, and compare the answers."""

from __future__ import annotations

import shlex
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
from artifact.model import Model
from trainer import evaluation, folder, outside, scoring
from trainer.config import RunConfig
from trainer.data.windows import Batch
from trainer.pipeline import train_and_export
from trainer.progress import plain_console
from trainer.trained import Run

DATA = {"name": "synthetic"}
MODELS: dict[str, dict[str, Any]] = {
    "patchformer": {"width": 32},
    "gru": {"output_units": "raw"},
}
TRAINING: dict[str, dict[str, Any]] = {
    "patchformer": {"epochs": 6, "learning_rate": 3e-3, "device": "cpu"},
    "gru": {"epochs": 8, "learning_rate": 3e-3, "device": "cpu"},
}
NEEDS = "uv sync --extra trainer --extra cpu --extra serve --extra submission"


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
    """Make the tour in the folder `output`.

    0 done, 1 where two answers differ or a step fails, 2 where packages are missing.
    """
    console = plain_console()
    missing = outside.missing_packages()
    if missing:
        print(
            f"axonnx: error: the tour serves and submits too, and needs {', '.join(missing)}: "
            f"run `{NEEDS}`",
            file=sys.stderr,
        )
        return 2
    console.print(
        "axonnx quickstart on SYNTHETIC data: noisy coupled oscillators in the format of the "
        "forecasting challenge.\nIts scores say nothing about a brain; its steps are those of a "
        "real run."
    )
    obstacle = outside.no_zip_because()
    if obstacle:
        console.print(f"Step 5, the submission, is left out: {obstacle}.")
    started = time.monotonic()
    with _stopped_by_sigterm():
        try:
            outcomes = _tour(output, console, submit=not obstacle)
        except outside.OutsideError as error:
            print(f"axonnx: error: {error}", file=sys.stderr)
            return 1
    console.print(_table(outcomes))
    console.print(f"{time.monotonic() - started:.0f} s; all of it is in {output}")
    if not all(outcome.equal for outcome in outcomes):
        print("axonnx: error: answers differ; see the table", file=sys.stderr)
        return 1
    _next_commands(output, console, submit=not obstacle)
    return 0


def _tour(output: Path, console: Console, *, submit: bool) -> list[Outcome]:
    runs = {}
    for number, name in enumerate(MODELS, start=1):
        console.rule(f"{number}/6 train {name}", align="left")
        runs[name] = train_and_export(_config(name), output / name, overwrite=True, console=console)
    dataset = runs["patchformer"].dataset
    batch = evaluation.examples(dataset.test)
    models = {name: artifact.load(output / name / folder.ARTIFACT) for name in MODELS}
    console.rule("3/6 compare torch with ONNX Runtime", align="left")
    gaps = {name: _parity(models[name], runs[name], batch, console) for name in MODELS}
    answers = {name: _answers(model)(batch.inputs) for name, model in models.items()}
    console.rule("4/6 serve", align="left")
    neural = batch.inputs["neural"]
    places = {name: output / name / folder.ARTIFACT for name in MODELS}
    served = {name: outside.over_http(places[name], neural, console) for name in MODELS}
    submitted = {}
    if submit:
        console.rule("5/6 build a submission and run it in a fresh process", align="left")
        target = outside.build_zip(places, neural.shape[2], output, console)
        submitted = outside.from_zip(target, MODELS, neural, console)
    console.rule("6/6 draw", align="left")
    shown = {name: _answers(model) for name, model in models.items()}
    title = "axonnx quickstart, SYNTHETIC data"
    picture = evaluation.draw_example(dataset, shown, output / "forecast.png", title)
    console.print(str(picture))
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


def _answers(model: Model) -> evaluation.Predict:
    return lambda inputs: model.predict(inputs)["forecast"]


def _parity(model: Model, trained: Run, batch: Batch, console: Console) -> float:
    """Largest gap between the torch module and the artifact, in standard deviations."""
    wanted = evaluation.of_module(trained.module, trained.dataset.test)(batch.inputs)
    answer = model.predict(batch.inputs)["forecast"]
    gap = float(np.abs(answer - wanted).max() / answer.std())
    console.print(f"{model.manifest.name}: {gap:.1e} standard deviations apart")
    return gap


def _scores(trained: Run) -> dict[str, float]:
    """Test error in units of the train variance: the model's, persistence's, linear's."""
    dataset = trained.dataset
    scale = scoring.target_scale(dataset.train)
    scored = {"model": evaluation.of_module(trained.module, dataset.test)}
    scored |= {entry.label: entry.predict for entry in evaluation.baselines(dataset)}
    return {
        name: evaluation.score_forecast(predict, dataset, scale)[0]["mse"]
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


def _next_commands(output: Path, console: Console, *, submit: bool) -> None:
    made, gru = (output / name / folder.ARTIFACT for name in ("patchformer", "gru"))
    commands = [
        ["axonnx", "serve", made],
        ["axonnx", "evaluate", made, "--legacy", gru],
        ["axonnx", "submission", "check", output / "submission.zip"],
        ["axonnx", "train", "configs/goose_patchformer.yaml"],
    ]
    console.print("next:")
    for words in commands:
        if submit or "submission" not in words:
            console.print(f"  {shlex.join(map(str, words))}", soft_wrap=True)


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

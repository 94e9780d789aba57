"""From a config to a finished run folder: train, draw, export."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from trainer import evaluation, folder, plots
from trainer.config import RunConfig
from trainer.ensembles import train
from trainer.export import export_artifact
from trainer.trained import Run, saw_validation


def train_and_export(
    config: RunConfig,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Run:
    """Train `config` in the run folder `output`, draw its pictures and export its artifact.

    The artifact comes last: where it is, the folder is complete. Raises what `ensembles.train`
    does, and ExportError.
    """
    console = console or Console()
    run = train(config, output, resume=resume, overwrite=overwrite, console=console)
    finish(run, console)
    return run


def finish(run: Run, console: Console) -> None:
    """Draw a trained run's pictures and export its artifact; raises ExportError."""
    output, config = run.folder, run.config
    metric = folder.HELD_OUT[run.dataset.task]
    plots.loss_curve(
        output / folder.LOSS_PLOT,
        [row["epoch"] for row in run.history],
        [row["loss"] for row in run.history],
        [row[metric] for row in run.history],
        best_epoch=int(run.metrics["epoch"]),
        metric=metric,
        title=config.name,
        part="fitted on too" if saw_validation(run.module) else "held out",
    )
    shown = {"prediction": evaluation.of_module(run.module, run.dataset.test)}
    evaluation.draw_example(run.dataset, shown, output / folder.FORECAST_PLOT, config.name)
    console.print("exporting …", highlight=False)
    export_artifact(run.module, run.dataset, config, run.metrics, output / folder.ARTIFACT)

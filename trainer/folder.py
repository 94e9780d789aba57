"""The run folder: which files it holds, and who may write into it."""

from __future__ import annotations

import shutil
from pathlib import Path

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.safetensors"
LOSS_PLOT = "loss.png"
FORECAST_PLOT = "forecast.png"
ARTIFACT = "artifact"
EVALUATION = "evaluation"
RESULTS = (CHECKPOINT, METRICS, LOSS_PLOT, FORECAST_PLOT, ARTIFACT, EVALUATION)


class RunFolderError(Exception):
    """A run folder is missing, taken, or no run folder."""


def claim(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Make `output` ready for a run.

    A run that is there is kept with `resume`, removed with `overwrite`, and refused with
    RunFolderError otherwise; so is a folder that holds anything but a run.
    """
    if output.exists() and not output.is_dir():
        raise RunFolderError(f"{output} is a file; --output takes a folder")
    output.mkdir(parents=True, exist_ok=True)
    sweep(output)
    present = sorted(path.name for path in output.iterdir())
    if not present:
        return
    if CONFIG not in present:
        raise RunFolderError(
            f"{output} holds {', '.join(present[:3])} but no {CONFIG}, so it is no run; "
            "choose another --output"
        )
    if overwrite:
        for name in RESULTS:
            remove(output / name)
    elif not resume:
        raise RunFolderError(
            f"{output} holds a run: --resume continues it, --overwrite starts it anew, "
            "--output DIR writes elsewhere"
        )


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for leftover in folder.glob("*.tmp-*"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check(folder: Path) -> Path:
    """Return `folder` if it holds a run; raises RunFolderError otherwise."""
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder} is no run folder: it holds no {CONFIG}")
    return folder

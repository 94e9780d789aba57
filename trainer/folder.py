"""The run folder: which files it holds, and who may write into it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.safetensors"
LOSS_PLOT = "loss.png"
FORECAST_PLOT = "forecast.png"
ARTIFACT = "artifact"
MANIFEST = "manifest.json"  # of an artifact, whose folder holds a config.yaml too
EVALUATION = "evaluation"
SNAPSHOTS = "snapshots"
FOLDS = "folds"  # of an ensemble: its members' configs trained without a part of the train part
WEIGHTS, WEIGHTS_PLOT = "weights.json", "weights.png"  # of an ensemble
# Patterns, removed in this order: while anything of a run is left, so is what tells that it is one.
RESULTS = (
    LOSS_PLOT,
    FORECAST_PLOT,
    ARTIFACT,
    f"{ARTIFACT}-best",  # of other checkpoints than the one that training itself exports
    f"{ARTIFACT}-last",
    f"{ARTIFACT}-snapshot-*",
    EVALUATION,
    SNAPSHOTS,
    WEIGHTS_PLOT,
    WEIGHTS,
    FOLDS,
    METRICS,
    CHECKPOINT,
)

# The held-out metric of each task, as rows of metrics.jsonl name it, that early stopping and
# `best` go by; smaller is better.
HELD_OUT = {"forecast": "mse", "classify": "cross_entropy", "decode": "mse"}


class RunFolderError(Exception):
    """A run folder is missing, taken, or no run folder."""


def check_free(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise RunFolderError unless a run may be written to `output`; changes nothing.

    It may where nothing is there, and over a run with `resume` or `overwrite`.
    """
    if output.exists() and not output.is_dir():
        raise RunFolderError(f"{output} is a file; --output takes a folder")
    present = sorted(path.name for path in output.iterdir()) if output.exists() else []
    present = [name for name in present if ".tmp-" not in name]
    if not present:
        return
    if not is_run(output):
        what = "is an artifact" if MANIFEST in present else f"holds {', '.join(present[:3])}"
        raise RunFolderError(f"{output} {what} and no run; choose another --output")
    if not (resume or overwrite):
        raise RunFolderError(
            f"{output} holds a run: --resume continues it, --overwrite starts it anew, "
            "--output DIR writes elsewhere"
        )


def check_writable(output: Path) -> None:
    """Raise RunFolderError unless `output` can be made or written to; leaves nothing behind."""
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise RunFolderError(
            f"{there} cannot be written to: {error.strerror}; choose another --output"
        ) from None


def claim(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Make `output` ready for a run: what `check_free` lets `overwrite` replace is removed."""
    check_free(output, resume=resume, overwrite=overwrite)
    output.mkdir(parents=True, exist_ok=True)
    sweep(output)
    if overwrite:
        for pattern in RESULTS:
            for path in sorted(output.glob(pattern)):
                remove(path)


def snapshot(output: Path, number: int) -> Path:
    """Where the weights at the end of cycle `number` are, counted from 1."""
    return output / SNAPSHOTS / f"{number}.safetensors"


def is_run(folder: Path) -> bool:
    """Whether `folder` is that of a run, not that of an artifact or of anything else.

    A run that was stopped before its first checkpoint holds a config.yaml alone, an ensemble the
    folds that were trained until then.
    """
    if not (folder / CONFIG).is_file() or (folder / MANIFEST).exists():
        return False
    marks = {METRICS, CHECKPOINT}
    names = {path.name for path in folder.iterdir() if ".tmp-" not in path.name}
    return bool(names & marks) or names <= {CONFIG, FOLDS, WEIGHTS}


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for pattern in ("*.tmp-*", f"{SNAPSHOTS}/*.tmp-*"):
        for leftover in folder.glob(pattern):
            remove(leftover)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check(folder: Path) -> Path:
    """Return `folder` if it holds a run; raises RunFolderError otherwise."""
    if not is_run(folder):
        artifact = (folder / MANIFEST).exists()
        found = "it is an artifact" if artifact else f"it lacks {CONFIG} or {METRICS}"
        raise RunFolderError(f"{folder} is no run folder: {found}")
    return folder

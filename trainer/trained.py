"""A trained run, rebuilt from its folder: which weights, and whether they are this config's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from artifact.manifest import config_digest
from trainer import checkpoint, folder, scoring
from trainer.checkpoint import Checkpoint, CheckpointError, Snapshot
from trainer.config import RunConfig, load_config
from trainer.data import load_dataset
from trainer.data.windows import Dataset, resembles
from trainer.determinism import deterministic, seed_everything
from trainer.models import ModelError, build_model

SNAPSHOT = "snapshot-"


@dataclass(frozen=True)
class Run:
    """A trained module, on the CPU and in evaluation mode, with all that it came from.

    `metrics`: the epoch of the weights, and held-out metrics such as `test_mse`, none of the
    validation part where the module was fitted on it; `history`: one dict per epoch, as in
    metrics.jsonl.
    """

    folder: Path
    config: RunConfig
    dataset: Dataset
    module: torch.nn.Module
    metrics: dict[str, float]
    history: list[dict[str, Any]]


def load_run(output: Path, which: str = "kept", *, dataset: Dataset | None = None) -> Run:
    """Rebuild a run's module through the registry from its config and checkpoint.

    `which` is "best" or "last" epoch, "kept" for the one that training exports, or "snapshot-1", …
    for the end of a cycle. Raises RunFolderError, ConfigError or CheckpointError.
    """
    config = load_config(folder.check(output) / folder.CONFIG, [])
    saved = checkpoint.load(output / folder.CHECKPOINT)
    with deterministic(config.training.threads):
        dataset = dataset or load_dataset(config.data)
        check_same_run(saved, config, dataset)
        module = build(config, dataset)
        name = kept(config, dataset) if which == "kept" else which
        weights, epoch = chosen_weights(output, name, saved)
        checkpoint.load_weights(module, weights)
        module.eval()
        scale = scoring.target_scale(dataset.train)
        metrics: dict[str, float] = {"epoch": epoch}
        for part in ("test",) if saw_validation(module) else ("validation", "test"):
            scores = scoring.held_out(module, dataset.parts[part], scale, torch.device("cpu"))
            metrics |= {f"{part}_{name}": value for name, value in scores.items()}
    return Run(output, config, dataset, module, metrics, saved.history)


def saw_validation(module: torch.nn.Module) -> bool:
    """Whether the module was fitted on the validation part, so that it is not held out."""
    return bool(getattr(module, "saw_validation", False))


def chosen_weights(
    output: Path, name: str, saved: Checkpoint
) -> tuple[dict[str, torch.Tensor], int]:
    """The weights called "best", "last" or "snapshot-1", … of a run, and their epoch.

    `saved` is the run's checkpoint. Raises CheckpointError where they are not there.
    """
    if name.startswith(SNAPSHOT):
        snapshot = load_snapshot(output, name, saved)
        return snapshot.weights, snapshot.epoch
    return saved.weights(name), saved.best_epoch if name == "best" else saved.epoch


def load_snapshot(output: Path, name: str, saved: Checkpoint) -> Snapshot:
    """Snapshot `name`, as in "snapshot-1", of the run whose checkpoint is `saved`.

    Raises CheckpointError where it is not there or of another run.
    """
    files = (output / folder.SNAPSHOTS).glob("*.safetensors")
    there = sorted((path.stem for path in files), key=lambda stem: (len(stem), stem))
    number = name.removeprefix(SNAPSHOT)
    if number not in there:
        found = ", ".join(f"{SNAPSHOT}{each}" for each in there) or "none"
        raise CheckpointError(
            f"{output} has no {name}; it has: {found} (training.snapshots keeps them)"
        )
    snapshot = checkpoint.load_snapshot(folder.snapshot(output, int(number)))
    ours = saved.config_sha256, saved.data_fingerprint
    if (snapshot.config_sha256, snapshot.data_fingerprint) != ours:
        raise CheckpointError(f"{output}: {name} was left by another run; train with --overwrite")
    return snapshot


def kept(config: RunConfig, dataset: Dataset) -> str:
    """The epoch that the run exports, "best" or "last", see `keep` of TrainingConfig."""
    keep = config.training.keep
    if keep != "auto":
        return keep
    return "best" if resembles(dataset.train, dataset.validation) else "last"


def build(config: RunConfig, dataset: Dataset) -> torch.nn.Module:
    """The module that the config names, with the initial weights of its seed, on the CPU.

    Raises ModelError where a setting does not fit the data.
    """
    seed_everything(config.seed, 0)
    try:
        return build_model(config.model, dataset.context())
    except ValueError as error:
        raise ModelError(str(error)) from error


def check_same_run(saved: Checkpoint, config: RunConfig, dataset: Dataset) -> None:
    """Raise CheckpointError, naming what differs, unless config and data are the checkpoint's."""
    resolved = config.resolved()
    if saved.config_sha256 != config_digest(resolved):
        keys = "; ".join(differences(saved.config, resolved)) or "the order of its keys"
        raise CheckpointError(
            f"the checkpoint was made with another config: {keys}. "
            "Give the old values to resume, or --overwrite to start anew"
        )
    if saved.data_fingerprint != dataset.fingerprint:
        raise CheckpointError(
            f"the data behind data set {dataset.name!r} changed since the checkpoint was made "
            f"(fingerprint {saved.data_fingerprint[:12]}… then, {dataset.fingerprint[:12]}… now)"
        )


_MISSING = object()


def differences(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys whose values differ, as `section.key: old, now new` or "not there", sorted."""
    lines = []
    for key in sorted(then.keys() | now.keys()):
        old, new = then.get(key, _MISSING), now.get(key, _MISSING)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {_shown(old)}, now {_shown(new)}")
    return lines


def _shown(value: object) -> str:
    return "not there" if value is _MISSING else repr(value)

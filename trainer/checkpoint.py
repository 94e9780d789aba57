"""One training run's state in one safetensors file, written atomically and read without pickle.

The file holds the weights of the last and of the best epoch, their running average where the run
keeps one, the optimizer's moments, and, as one JSON text in the header, everything else that a
resumed run needs. Random generators need no room: each epoch seeds them from (seed, epoch).
Snapshots, the weights at the end of a cycle of the learning rate, have files of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from artifact.bundle import write_file

# Checked on reading: a later layout of the file gets the next number.
FORMAT = 1
# safetensors writes header entries in an arbitrary order, hence a single one.
_HEADER = "axonnx"


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or belongs to another run or module."""


@dataclass(frozen=True)
class Checkpoint:
    """State after `epoch` epochs and `step` optimizer steps (epoch 0: before the first step).

    `last`, `best`, `average`: state dicts of the module, `average` empty where the run keeps none
    and `best` one of averages where it does; `optimizer`: {parameter index: {name: tensor}};
    `history`: one dict per epoch, as in metrics.jsonl; `best_epoch`, `best_metric`: where the
    held-out metric was lowest; `config`: the resolved run config; `data_fingerprint`: sha256 of the
    data.
    """

    epoch: int
    step: int
    last: dict[str, torch.Tensor]
    best: dict[str, torch.Tensor]
    optimizer: dict[int, dict[str, torch.Tensor]]
    history: list[dict[str, Any]]
    best_epoch: int
    best_metric: float
    config: dict[str, Any]
    config_sha256: str
    data_fingerprint: str
    average: dict[str, torch.Tensor] = field(default_factory=dict)

    def weights(self, which: str) -> dict[str, torch.Tensor]:
        """The state dict to use of the "best" or "last" epoch; the average's where there is one.

        Raises CheckpointError for another word.
        """
        if which not in ("best", "last"):
            raise CheckpointError(
                f"no checkpoint {which!r}; it is 'best', 'last' or, of a run with "
                "training.snapshots, 'snapshot-1', …"
            )
        return self.best if which == "best" else self.average or self.last


@dataclass(frozen=True)
class Snapshot:
    """Weights at the end of a cycle, after `step` optimizer steps, within or closing `epoch`."""

    weights: dict[str, torch.Tensor]
    epoch: int
    step: int
    config_sha256: str
    data_fingerprint: str


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write `checkpoint` to `path`: a reader sees the whole old file or the whole new one."""
    tensors = {f"last.{name}": value for name, value in checkpoint.last.items()}
    tensors |= {f"best.{name}": value for name, value in checkpoint.best.items()}
    tensors |= {f"average.{name}": value for name, value in checkpoint.average.items()}
    for index, slots in checkpoint.optimizer.items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in slots.items()}
    header = {
        "format": FORMAT,
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "history": checkpoint.history,
        "best_epoch": checkpoint.best_epoch,
        "best_metric": checkpoint.best_metric,
        "config": checkpoint.config,
        "config_sha256": checkpoint.config_sha256,
        "data_fingerprint": checkpoint.data_fingerprint,
    }
    _write(tensors, header, path)


def save_snapshot(snapshot: Snapshot, path: Path) -> None:
    """Write `snapshot` to `path`, atomically."""
    header = {"format": FORMAT, **vars(snapshot)}
    _write(header.pop("weights"), header, path)


def load_snapshot(path: Path) -> Snapshot:
    """Read a snapshot; raises CheckpointError when it is missing, damaged or none."""
    header, tensors = _read(path)
    try:
        return Snapshot(weights=tensors, **header)
    except TypeError as error:
        raise CheckpointError(f"{path}: not a snapshot of this program ({error!r})") from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; raises CheckpointError when it is missing, damaged or no checkpoint."""
    header, tensors = _read(path)
    try:
        groups: dict[str, dict[str, torch.Tensor]] = {
            group: {} for group in ("last", "best", "average", "optimizer")
        }
        for name, value in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = value
        optimizer: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in groups["optimizer"].items():
            index, _, slot = name.partition(".")
            optimizer.setdefault(int(index), {})[slot] = value
        return Checkpoint(
            last=groups["last"],
            best=groups["best"],
            average=groups["average"],
            optimizer=optimizer,
            **header,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this program ({error!r})") from error


def _write(tensors: dict[str, torch.Tensor], header: dict[str, Any], path: Path) -> None:
    # Tied weights share memory, which safetensors refuses; each name gets a copy.
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    text = json.dumps(header, allow_nan=False)
    write_file(path, safetensors.torch.save(copies, {_HEADER: text}))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header, without its format, and tensors of one file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no checkpoint there")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if header.pop("format") != FORMAT:
            raise ValueError(f"another format; this version reads format {FORMAT}")
    except (
        safetensors.SafetensorError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
    ) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this program ({error!r})") from error
    return header, tensors


def load_weights(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copy `weights` into `module`; raises CheckpointError naming each tensor that does not fit."""
    own = module.state_dict()
    faults = [f"{name} is missing" for name in own if name not in weights]
    faults += [f"{name} is not in the model" for name in weights if name not in own]
    faults += [
        f"{name} is {tuple(weights[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if faults:
        raise CheckpointError("the checkpoint does not fit the model: " + "; ".join(faults))
    # Into the module's own, which tells the versions of its parts: of older ones parts are made up.
    own.update(weights)
    module.load_state_dict(own)

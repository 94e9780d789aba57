"""What a fit has evaluated, kept so that a stopped fit goes on to the same end bit for bit."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from artifact.bundle import write_file
from trainer.dynamics.parameters import Param, ParameterError
from trainer.dynamics.simulator import SimulationError

# Evaluations between two writes of the file.
EVERY = 20


# What a run ends with where its parameters lead nowhere: such a run has an infinite loss.
EXPLODES = (SimulationError, ParameterError)


class FittingError(ValueError):
    """A fit cannot be made or went nowhere; the text says why."""


def set_raw(params: Mapping[str, Param], raw: Mapping[str, Tensor]) -> None:
    """Set the unconstrained numbers of Params."""
    with torch.no_grad():
        for name, value in raw.items():
            params[name].raw.copy_(value)


@dataclass(frozen=True)
class Evaluation:
    """Loss number `step` (from 1) of start `restart`; best: the lowest of that start so far."""

    restart: int
    step: int
    loss: float
    best: float


@dataclass
class Record:
    """The evaluations of a fit, the best numbers and the end of every start, and a state to go on.

    best: of every start, the unconstrained numbers of its lowest loss by the names of the Params.

    path: the checkpoint, None to keep none; identity: sha256 of what is fitted and how; on_step:
    called with every new evaluation. state: tensors that the coming steps of a descent need.
    """

    path: Path | None
    identity: str
    on_step: Callable[[Evaluation], bool | None] | None
    evaluations: list[Evaluation] = field(default_factory=list)
    best: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        path: Path | None,
        described: Mapping[str, Any],
        on_step: Callable[[Evaluation], bool | None] | None,
    ) -> Record:
        """A new record, or the one at `path`; raises FittingError where that is another fit's."""
        text = json.dumps(described, sort_keys=True)
        record = cls(path, hashlib.sha256(text.encode()).hexdigest(), on_step)
        if path is not None and path.exists():
            record._read(path)
        return record

    def of(self, restart: int) -> list[Evaluation]:
        """The evaluations of one start, in order."""
        return [each for each in self.evaluations if each.restart == restart]

    def add(
        self,
        restart: int,
        loss: float,
        raw: Mapping[str, Tensor],
        state: Mapping[str, Tensor] | None = None,
    ) -> bool:
        """Take in an evaluation at unconstrained numbers; True where the start should end."""
        own = self.of(restart)
        lowest = own[-1].best if own else math.inf
        if loss < lowest or not own:
            self.best[restart] = {name: value.detach().clone() for name, value in raw.items()}
        evaluation = Evaluation(restart, len(own) + 1, loss, min(loss, lowest))
        self.evaluations.append(evaluation)
        if self.path is not None and len(self.evaluations) % EVERY == 0:
            self.state = {name: value.detach().clone() for name, value in (state or {}).items()}
            self.write()
        return bool(self.on_step and self.on_step(evaluation))

    def end(self, restart: int, reason: str) -> None:
        """Note why a start ended."""
        self.ended[restart] = reason
        self.state = {}
        self.write()

    def write(self) -> None:
        """Write the checkpoint, where one is kept."""
        if self.path is None:
            return
        header = {
            "format": 1,
            "identity": self.identity,
            "evaluations": [
                [number if math.isfinite(number) else None for number in astuple(each)]
                for each in self.evaluations
            ],
            "ended": {str(restart): reason for restart, reason in self.ended.items()},
        }
        text = json.dumps(header, sort_keys=True).encode()
        tensors = {"header": torch.frombuffer(bytearray(text), dtype=torch.uint8)}
        for restart, values in self.best.items():
            tensors |= {f"best/{restart}/{name}": value for name, value in values.items()}
        tensors |= {f"state/{name}": value for name, value in self.state.items()}
        # Equal fits leave equal bytes: safetensors keeps the order of equal dtypes by name.
        whole = {name: tensors[name].contiguous() for name in sorted(tensors)}
        write_file(self.path, safetensors.torch.save(whole))

    def _read(self, path: Path) -> None:
        try:
            tensors = safetensors.torch.load(path.read_bytes())
            header = json.loads(bytes(tensors.pop("header").numpy()))
            if header["format"] != 1:
                raise FittingError(f"{path}: checkpoint format {header['format']}, must be 1")
            rows = [[math.inf if n is None else n for n in row] for row in header["evaluations"]]
            self.evaluations = [Evaluation(*row) for row in rows]
            self.ended = {int(restart): str(why) for restart, why in header["ended"].items()}
            identity = header["identity"]
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            if isinstance(error, FittingError):
                raise
            raise FittingError(f"{path} is no checkpoint of a fit: {error}") from None
        if identity != self.identity:
            raise FittingError(
                f"{path} was left by another fit (parameters, target, method, start, steps or "
                "seed): remove it to start anew"
            )
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "state":
                self.state[rest] = tensor
            else:
                restart, _, parameter = rest.partition("/")
                self.best.setdefault(int(restart), {})[parameter] = tensor

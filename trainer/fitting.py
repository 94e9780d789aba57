"""Fit the Params of a model to one fixed target, with or without gradients, by one call.

    fitter = Fitter(network, predict, OBJECTIVES.get("rmse"))
    result = fitter.fit(target, method="adam", steps=60, learning_rate=0.1)

`predict(module)` runs a simulation and returns what is compared with the target. What is fitted are
the module's `Param`s that may be fitted, nothing else. The module ends at the best values found.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer.dynamics.parameters import Param
from trainer.fitting_gradient import OPTIMIZERS, descend
from trainer.fitting_record import Evaluation, FittingError, Record, set_raw
from trainer.fitting_search import NEVERGRAD, SCIPY, search

__all__ = ["METHODS", "FitResult", "Fitter", "FittingError", "Restart"]

Objective = Callable[[Tensor, Any], Tensor]
Predict = Callable[[nn.Module], Tensor]

METHODS = (*OPTIMIZERS, *NEVERGRAD, *SCIPY)


@dataclass(frozen=True, eq=False)
class Restart:
    """One start: its lowest loss, the values there, and why it ended."""

    number: int
    loss: float
    values: dict[str, Tensor]
    ended: str


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a fit found.

    values: best constrained values by name; loss: the lowest; history: every evaluation in order;
    restarts: one per start; spread: standard deviation of each value over the restarts whose loss
    is within `tolerance` of the lowest, None where only one is; method: how it was found.
    """

    values: dict[str, Tensor]
    loss: float
    history: tuple[Evaluation, ...]
    restarts: tuple[Restart, ...]
    spread: dict[str, Tensor | None]
    tolerance: float
    method: str


@dataclass
class Fitter:
    """Fits a module's Params so that `objective(predict(module), target)` is low.

    predict: runs the module and returns the prediction; it must be a pure function of the Params
    (a simulation with a fixed seed). objective: `(prediction, target) -> scalar`, lower is better.
    penalty: of the module, added to the loss. predict_many: in place of `predict` where candidates
    are tried, `{name: (candidate, …)} -> predictions (candidate, …)`, for one batched run of a
    whole generation.
    """

    module: nn.Module
    predict: Predict
    objective: Objective
    penalty: Callable[[nn.Module], Tensor] | None = None
    predict_many: Callable[[Mapping[str, Tensor]], Tensor] | None = None
    params: dict[str, Param] = field(init=False)

    def __post_init__(self) -> None:
        named = self.module.named_modules()
        self.params = {name: each for name, each in named if isinstance(each, Param) and each.fit}
        if not self.params:
            raise FittingError(
                "nothing to fit: the module has no Param(value, fit=True); plain numbers are "
                "constants"
            )

    def fit(
        self,
        target: Any,
        *,
        method: str = "adam",
        steps: int = 100,
        learning_rate: float = 1e-2,
        rates: Mapping[str, float] | None = None,
        schedule: Literal["constant", "cosine"] = "constant",
        gradient_clip: float = math.inf,
        population: int = 12,
        spread: float = 1.0,
        restarts: int = 1,
        patience: int | None = None,
        tolerance: float = 0.05,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_step: Callable[[Evaluation], bool | None] | None = None,
    ) -> FitResult:
        """Fit to `target` and leave the module at the best values.

        method: one of METHODS. steps: optimizer steps, generations of a search, or evaluations for
        scipy's methods, for each start. learning_rate, schedule, gradient_clip: of the gradient
        methods; rates: glob pattern of names -> factor on the learning rate. population: candidates
        of a generation. restarts: starts; the first from the module's values, the others drawn
        around them, in the range of a bounded Param, else `spread` away in unconstrained numbers.
        patience: steps without a lower loss after which a start ends. tolerance: share by which the
        loss of a restart may exceed the lowest and still count for `FitResult.spread`. checkpoint:
        a file that a stopped fit goes on from, to the same end bit for bit. on_step: called with
        every evaluation; True ends the start.

        Raises FittingError where arguments do not fit or no start has a finite loss.
        """
        if method not in METHODS:
            raise FittingError(f"method {method!r} is none of {', '.join(METHODS)}")
        if steps < 1 or restarts < 1 or population < 2:
            raise FittingError(
                f"steps {steps}, restarts {restarts}: at least 1; population {population}: 2"
            )
        if schedule not in ("constant", "cosine"):
            raise FittingError(f"schedule {schedule!r} is none of constant, cosine")
        plan = Plan(
            method=method,
            steps=steps,
            learning_rate=learning_rate,
            rates=dict(rates or {}),
            schedule=schedule,
            gradient_clip=gradient_clip,
            population=population,
            spread=spread,
            restarts=restarts,
            patience=patience,
            seed=seed,
        )
        record = Record.open(checkpoint, plan.described(self.params, target), on_step)
        starts = draw_starts(self.params, plan)
        found = []
        for number, raw in enumerate(starts):
            set_raw(self.params, raw)
            found.append(self._start(number, target, plan, record))
        best = min(found, key=lambda each: each.loss)
        if not math.isfinite(best.loss):
            reasons = "; ".join(f"start {each.number}: {each.ended}" for each in found)
            raise FittingError(f"no start has a finite loss ({reasons})")
        set_raw(self.params, record.best[best.number])
        return FitResult(
            values=best.values,
            loss=best.loss,
            history=tuple(record.evaluations),
            restarts=tuple(found),
            spread=_spread(found, best.loss, tolerance),
            tolerance=tolerance,
            method=method,
        )

    def loss(self, target: Any) -> Tensor:
        """The loss at the module's present values, differentiable in its Params."""
        value = self.objective(self.predict(self.module), target)
        return value if self.penalty is None else value + self.penalty(self.module)

    def _start(self, number: int, target: Any, plan: Plan, record: Record) -> Restart:
        if number not in record.ended:
            method = descend if plan.method in OPTIMIZERS else search
            record.end(number, method(self, number, target, plan, record))
        own = record.of(number)
        loss = own[-1].best if own else math.inf
        raws = record.best[number] if math.isfinite(loss) else {}
        values = {name: self.params[name].transform.forward(raw) for name, raw in raws.items()}
        return Restart(number, loss, values, record.ended[number])


@dataclass(frozen=True)
class Plan:
    """The arguments of `Fitter.fit` that decide what happens."""

    method: str
    steps: int
    learning_rate: float
    rates: dict[str, float]
    schedule: str
    gradient_clip: float
    population: int
    spread: float
    restarts: int
    patience: int | None
    seed: int

    def described(self, params: Mapping[str, Param], target: Any) -> dict[str, Any]:
        """What a checkpoint must agree with, as JSON values.

        The plan, where it starts and, where it aims at a tensor, its sha256.
        """
        values = {name: param.raw.detach().flatten().tolist() for name, param in params.items()}
        clip = self.gradient_clip if math.isfinite(self.gradient_clip) else None
        aim = None
        if isinstance(target, Tensor):
            numbers = target.detach().cpu().contiguous().numpy()
            aim = [list(target.shape), hashlib.sha256(numbers.tobytes()).hexdigest()]
        return {**vars(self), "gradient_clip": clip, "start": values, "target": aim}


def draw_starts(params: Mapping[str, Param], plan: Plan) -> list[dict[str, Tensor]]:
    """Unconstrained starts: the present values, then draws of numpy's Philox generator."""
    import numpy as np

    first = {name: param.raw.detach().clone() for name, param in params.items()}
    starts = [first]
    for number in range(1, plan.restarts):
        draws = np.random.Generator(np.random.Philox(key=[plan.seed, number]))
        drawn = {}
        for name, param in params.items():
            low, high = param.transform.low, param.transform.high
            shape = tuple(param.raw.shape)
            if math.isfinite(low) and math.isfinite(high) and param.transform.name == "bounded":
                share = torch.from_numpy(np.asarray(draws.uniform(0.02, 0.98, shape)))
                value = low + (high - low) * share
                drawn[name] = param.transform.inverse(value).to(param.raw.dtype)
            else:
                step = torch.from_numpy(np.asarray(draws.standard_normal(shape)))
                drawn[name] = first[name] + (plan.spread * step).to(param.raw.dtype)
        starts.append(drawn)
    return starts


def _spread(found: list[Restart], lowest: float, tolerance: float) -> dict[str, Tensor | None]:
    """Standard deviation of each value over the restarts that ended about as low as the best."""
    bound = lowest + tolerance * max(abs(lowest), 1e-12)
    close = [each for each in found if each.loss <= bound]
    names = min(found, key=lambda each: each.loss).values
    return {
        name: torch.stack([each.values[name] for each in close]).std(dim=0)
        if len(close) > 1
        else None
        for name in names
    }

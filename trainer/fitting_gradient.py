"""Fitting by gradient: any torch optimizer, step by step, resumable."""

from __future__ import annotations

import fnmatch
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainer import schedule
from trainer.dynamics.parameters import Param
from trainer.fitting_record import EXPLODES, FittingError, Record

if TYPE_CHECKING:
    from trainer.fitting import Fitter, Plan

# Name of a method -> torch's optimizer.
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "lbfgs": torch.optim.LBFGS,
}


def descend(fitter: Fitter, number: int, target: Any, plan: Plan, record: Record) -> str:
    """Descend from the module's present values; returns why it ended.

    Evaluation n is of the values before step n; one more follows the last step.
    """
    optimizer = OPTIMIZERS[plan.method](_groups(fitter, plan), lr=plan.learning_rate)  # type: ignore[call-arg]
    if plan.method == "lbfgs" and record.path is not None:
        raise FittingError("checkpoint: lbfgs keeps too much to go on from; take another method")
    _restore(record, fitter, optimizer)
    since = _steps_without_gain(record, number)
    for step in range(len(record.of(number)), plan.steps + 1):
        factor = schedule.factor(step, plan.steps, schedule=plan.schedule, warmup=0)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * group["factor"] * factor
        raw = {name: param.raw.detach().clone() for name, param in fitter.params.items()}
        before = min((each.loss for each in record.of(number)), default=math.inf)
        loss, problem = _step(fitter, target, optimizer, plan, moves=step < plan.steps)
        ends = record.add(number, loss, raw, _state(fitter, optimizer))
        since = 0 if loss < before else since + 1
        if problem:
            return f"step {step + 1}: {problem}"
        if ends:
            return f"ended by the caller after {step + 1} evaluations"
        if plan.patience is not None and since >= plan.patience:
            return f"no lower loss in {plan.patience} steps"
    return "all steps"


def _step(
    fitter: Fitter, target: Any, optimizer: torch.optim.Optimizer, plan: Plan, *, moves: bool
) -> tuple[float, str]:
    """The loss of the present values, then a step; and what went wrong."""
    raws = [param.raw for param in fitter.params.values()]
    losses: list[float] = []

    def closure() -> float:
        optimizer.zero_grad()
        loss = fitter.loss(target)
        losses.append(float(loss.detach()))
        if not loss.requires_grad:
            raise FittingError(
                "the loss has no gradient in any Param; use differentiable operations, or a method "
                "without gradients"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        if math.isfinite(plan.gradient_clip):
            torch.nn.utils.clip_grad_norm_(raws, plan.gradient_clip)
        return losses[-1]

    try:
        if not moves:
            with torch.no_grad():
                losses.append(float(fitter.loss(target)))
        elif isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            if _finite(raws, losses[0]):
                optimizer.step()
    except EXPLODES as error:
        return math.inf, str(error)
    if not _finite(raws, losses[0]):
        return losses[0] if math.isfinite(losses[0]) else math.inf, "loss or gradient not finite"
    return losses[0], ""


def _finite(raws: list[torch.nn.Parameter], loss: float) -> bool:
    gradients = [raw.grad for raw in raws if raw.grad is not None]
    return math.isfinite(loss) and all(bool(torch.isfinite(each).all()) for each in gradients)


def _steps_without_gain(record: Record, number: int) -> int:
    """Evaluations since the lowest loss of a start, of which some were made before."""
    losses = [each.loss for each in record.of(number)]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def _groups(fitter: Fitter, plan: Plan) -> list[dict[str, Any]]:
    """One group of parameters for each factor on the learning rate."""
    for pattern in plan.rates:
        if not fnmatch.filter(list(fitter.params), pattern):
            raise FittingError(
                f"rates: {pattern!r} matches no parameter; there are {', '.join(fitter.params)}"
            )
    groups: dict[float, list[Tensor]] = {}
    for name, param in fitter.params.items():
        factors = (f for pattern, f in plan.rates.items() if fnmatch.fnmatchcase(name, pattern))
        groups.setdefault(math.prod(factors), []).append(param.raw)
    if plan.method == "lbfgs" and len(groups) > 1:
        raise FittingError("rates: lbfgs has one learning rate for all parameters")
    return [{"params": members, "factor": value} for value, members in groups.items()]


def _state(fitter: Fitter, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Unconstrained numbers and the optimizer's tensors, by name."""
    state = {f"raw/{name}": param.raw for name, param in fitter.params.items()}
    for place, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                state[f"optimizer/{place}/{name}"] = value
            elif isinstance(value, float | int):
                state[f"number/{place}/{name}"] = torch.tensor(value, dtype=torch.float64)
    return state


def _restore(record: Record, fitter: Fitter, optimizer: torch.optim.Optimizer) -> None:
    """Go back to the state that a checkpoint was written in."""
    if not record.state:
        return
    moments: dict[int, dict[str, Any]] = {}
    for name, value in record.state.items():
        kind, _, rest = name.partition("/")
        if kind == "raw":
            param: Param = fitter.params[rest]
            with torch.no_grad():
                param.raw.copy_(value)
            continue
        place, _, own = rest.partition("/")
        moments.setdefault(int(place), {})[own] = value if kind == "optimizer" else value.item()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    record.state = {}

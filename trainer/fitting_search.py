"""Fitting without gradients: nevergrad's and scipy's methods behind one vector of numbers.

A Param of finite range is searched between its bounds, any other in its unconstrained numbers.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainer.dynamics.parameters import Param
from trainer.fitting_record import EXPLODES, FittingError, Record, set_raw

if TYPE_CHECKING:
    from trainer.fitting import Fitter, Plan

# Name of a method -> nevergrad's, and scipy's.
NEVERGRAD = {
    "differential_evolution": "DE",
    "two_points_differential_evolution": "TwoPointsDE",
    "cma_es": "CMA",
    "particle_swarm": "PSO",
    "one_plus_one": "OnePlusOne",
}
SCIPY = {
    "nelder_mead": "Nelder-Mead",
    "powell": "Powell",
    "cobyla": "COBYLA",
    "cobyqa": "COBYQA",
}


class _Ended(Exception):
    """The start is over; the text says why."""


def search(fitter: Fitter, number: int, target: Any, plan: Plan, record: Record) -> str:
    """Search from the module's present values; returns why it ended."""
    space = _Space.of(fitter.params)
    evaluations = _Evaluations(fitter, number, target, plan, record, space)
    try:
        if plan.method in SCIPY:
            return _by_scipy(evaluations, plan, space)
        return _by_nevergrad(evaluations, number, plan, space)
    except _Ended as ended:
        return str(ended)


@dataclass(frozen=True, eq=False)
class _Space:
    """The numbers that are searched: one vector for all Params."""

    params: dict[str, Param]
    start: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, params: dict[str, Param]) -> _Space:
        start, low, high = [], [], []
        for param in params.values():
            size = param.raw.numel()
            value = (param.value() if _ranged(param) else param.raw).detach().double()
            start.append(value.flatten().numpy())
            low.append(np.full(size, param.transform.low if _ranged(param) else -math.inf))
            high.append(np.full(size, param.transform.high if _ranged(param) else math.inf))
        return cls(params, *(np.concatenate(each) for each in (start, low, high)))

    def raws(self, vectors: np.ndarray) -> dict[str, Tensor]:
        """Unconstrained numbers {name: (candidate, …)} of vectors (candidate, number)."""
        found, place = {}, 0
        for name, param in self.params.items():
            size = param.raw.numel()
            part = torch.from_numpy(np.ascontiguousarray(vectors[:, place : place + size]))
            part = part.reshape(len(vectors), *param.raw.shape).to(param.raw.dtype)
            if _ranged(param):
                low, high = param.transform.low, param.transform.high
                room = 1e-6 * (high - low)
                part = param.transform.inverse(part.clamp(low + room, high - room))
            found[name] = part
            place += size
        return found

    def values(self, raws: dict[str, Tensor]) -> dict[str, Tensor]:
        """Constrained values of unconstrained numbers, both {name: (candidate, …)}."""
        return {
            name: torch.stack([self.params[name].transform.forward(each) for each in raw])
            for name, raw in raws.items()
        }


def _ranged(param: Param) -> bool:
    return param.transform.name == "bounded"


class _Evaluations:
    """Losses of vectors: those that the record holds already, then new ones."""

    def __init__(
        self, fitter: Fitter, number: int, target: Any, plan: Plan, record: Record, space: _Space
    ) -> None:
        self.fitter, self.number, self.target = fitter, number, target
        self.plan, self.record, self.space = plan, record, space
        self.known: Iterator[float] = iter([each.loss for each in record.of(number)])

    def losses(self, vectors: np.ndarray) -> list[float]:
        """The losses of vectors (candidate, number), infinite where a run explodes."""
        found = list(itertools.islice(self.known, len(vectors)))
        if len(found) == len(vectors):
            return found
        raws = self.space.raws(vectors)
        together = self.fitter.predict_many is not None and self.fitter.penalty is None
        # A generation whose first losses are known runs whole again: in a smaller batch, the others
        # would sum in another order.
        made = (self._together if together else self._alone)(raws, len(vectors))
        ends = ""
        for place, loss in list(enumerate(made))[len(found) :]:
            raw = {name: each[place] for name, each in raws.items()}
            if self.record.add(self.number, loss, raw):
                ends = "ended by the caller"
            found.append(loss)
        if ends:
            raise _Ended(ends)
        return found

    def check_patience(self) -> None:
        """Raise _Ended where the loss has not become lower for `patience` generations."""
        plan = self.plan
        if plan.patience is None:
            return
        losses = [each.loss for each in self.record.of(self.number)]
        each = plan.population if plan.method in NEVERGRAD else 1
        if losses and len(losses) - 1 - losses.index(min(losses)) >= plan.patience * each:
            raise _Ended(f"no lower loss in {plan.patience} steps")

    def _together(self, raws: dict[str, Tensor], count: int) -> list[float]:
        assert self.fitter.predict_many is not None
        with torch.no_grad():
            try:
                predictions = self.fitter.predict_many(self.space.values(raws))
            except EXPLODES:
                return self._alone(raws, count)  # one that explodes ends the whole batch
            return [_number(self.fitter.objective(each, self.target)) for each in predictions]

    def _alone(self, raws: dict[str, Tensor], count: int) -> list[float]:
        losses = []
        for place in range(count):
            set_raw(self.fitter.params, {name: raw[place] for name, raw in raws.items()})
            try:
                with torch.no_grad():
                    losses.append(_number(self.fitter.loss(self.target)))
            except EXPLODES:
                losses.append(math.inf)
        return losses


def _number(loss: Tensor) -> float:
    return float(loss) if math.isfinite(float(loss)) else math.inf


def _by_nevergrad(evaluations: _Evaluations, number: int, plan: Plan, space: _Space) -> str:
    """Generations of `population` candidates, asked for together and told in order."""
    try:
        import nevergrad
    except ModuleNotFoundError:
        raise FittingError(
            f"method {plan.method} needs the Python package 'nevergrad': run `uv sync --extra fit` "
            "(or `pip install 'axonnx[fit]'`), or take nelder_mead, powell or a gradient"
        ) from None
    size = len(space.start)
    # The package's CMA-ES needs two numbers or more: a single one gets an idle companion.
    idle = 1 if plan.method == "cma_es" and size == 1 else 0
    bounded = bool(np.isfinite(space.low).all())
    start, low, high = (
        np.pad(each, (0, idle), constant_values=filling)
        for each, filling in (
            (space.start, 0.0),
            (space.low, -1.0 if bounded else -math.inf),
            (space.high, 1.0 if bounded else math.inf),
        )
    )
    vector = nevergrad.p.Array(init=start.copy())
    if bounded:
        vector = vector.set_bounds(low, high)
    else:
        vector = vector.set_mutation(
            sigma=np.where(np.isfinite(low), (high - low) / 6, plan.spread)
        )
    vector.random_state = np.random.RandomState((plan.seed * 1_000_003 + number) % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = nevergrad.optimizers.registry[NEVERGRAD[plan.method]](
            vector, budget=plan.steps * plan.population, num_workers=plan.population
        )
        # The first candidate is where the start is; suggested before anything is asked for, it
        # takes no other's place.
        optimizer.suggest(start.copy())
        for _ in range(plan.steps):
            asked = [optimizer.ask() for _ in range(plan.population)]
            values = np.stack([np.clip(each.value, low, high) for each in asked])
            vectors = values[:, :size]
            losses = evaluations.losses(vectors)
            for candidate, loss in zip(asked, losses, strict=True):
                optimizer.tell(candidate, min(loss, _LARGEST))
            evaluations.check_patience()
    return "all generations"


# What an infinite loss is told as: methods compare and average losses.
_LARGEST = 1e30


def _by_scipy(evaluations: _Evaluations, plan: Plan, space: _Space) -> str:
    from scipy import optimize

    budget = plan.steps
    made = 0

    def loss(vector: np.ndarray) -> float:
        nonlocal made
        if made >= budget:
            raise _Ended("all evaluations")
        made += 1
        value = evaluations.losses(vector[None])[0]
        evaluations.check_patience()
        return min(value, _LARGEST)

    bounds = None
    if np.isfinite(space.low).any():
        bounds = optimize.Bounds(space.low, space.high)
    options: dict[str, Any] = {"maxiter": 10 * budget}
    if plan.method == "nelder_mead":
        options |= {"initial_simplex": _simplex(plan, space), "xatol": 1e-8, "fatol": 1e-12}
    found = optimize.minimize(
        loss, space.start, method=SCIPY[plan.method], bounds=bounds, options=options
    )
    return str(found.message)


def _simplex(plan: Plan, space: _Space) -> np.ndarray:
    """The start and, along each number, a step of a tenth of its range or of `spread`."""
    range_of = np.where(np.isfinite(space.low), (space.high - space.low) / 5, plan.spread)
    steps = np.where(space.start + range_of < space.high, range_of, -range_of)
    return np.vstack([space.start, space.start + np.diag(steps)])

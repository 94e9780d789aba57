"""Where an animal is from the spikes of cells that fire at places: a Bayesian decoder.

After Zhang, Ginzburg, McNaughton and Sejnowski (1998), "Interpreting neuronal population activity
by reconstruction", J. Neurophysiol. 79: Poisson counts whose rates depend on the place, and a place
that changes little from one step to the next.
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainer.data.errors import DataError
from trainer.data.inner_folds import inner_folds
from trainer.data.windows import ModelContext, Windows
from trainer.models.columns import log_of_rows
from trainer.models.place_maps import Observed, PlaceMaps, Tuning, fit_maps
from trainer.models.stages import stages
from trainer.models.standardize import Standardize
from trainer.registry import MODELS

SMOOTHINGS = (0.02, 0.04, 0.08)
DRIFTS = (0.0, 0.025, 0.05, 0.1)
MOST_COUNTS = 1e6  # of a unit in a step: keeps every sum finite, whatever comes in
TINY = 1e-30
RULED_OUT = -1e4  # log-likelihood in a step


@MODELS.register("place_field")
class PlaceField(nn.Module):
    """Poisson decoder of position: the rate of every unit at every place, then Bayes' rule.

    Feature 0 counts the spikes of a unit in a step; values below 0 count as 0. Step by step of a
    window the posterior over places spreads by a random walk and is multiplied by the likelihood
    of the counts. Rate maps, in closed form, are spikes over time spent at a place, both smoothed.
    Where one principal component holds nine tenths of the variance of the train part's targets,
    places are its quantiles (a track); else they are cells of a grid over two, of those visited.

    places: how many, at most.
    smoothing: standard deviation of the maps' Gaussian smoothing, in parts of the range of the
        targets.
    drift: standard deviation of the walk in one step, in the same parts; 0 is an animal that
        stands still while the window lasts, so that its counts add up.
    directed: of a track, separate maps for the two directions of running, and a walk that goes on
        in its direction at the mean speed.
    prior: "flat" takes every place as equally likely when the window begins, "occupancy" as often
        as in the train part.
    answer: the "mean" of the posterior or its "mode"; a place answers with the mean of the train
        targets in it.
    Null of `smoothing` (0.02 ... 0.08), `drift` (0 ... 0.1) and `directed` takes the least mean
    distance over five folds of the train part: a decoder that is lost for a moment is far off,
    and squares would see little else.
    """

    tasks = frozenset({"decode"})
    dynamic_channel = False

    log_rates: Tensor
    offset: Tensor
    transition: Tensor
    start: Tensor
    answers: Tensor
    same_place: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        places: Annotated[int, Field(ge=2, le=1000)] = 40,
        smoothing: Annotated[float, Field(gt=0, le=1)] | None = None,
        drift: Annotated[float, Field(ge=0, le=1)] | None = None,
        directed: bool | None = None,
        prior: Literal["flat", "occupancy"] = "flat",
        answer: Literal["mean", "mode"] = "mean",
    ) -> None:
        super().__init__()
        assert context.variables is not None
        assert context.target_statistics is not None
        self.places, self.answer, self.prior = places, answer, prior
        self.tunings = tuple(
            Tuning(*chosen)
            for chosen in product(
                SMOOTHINGS if smoothing is None else (smoothing,),
                DRIFTS if drift is None else (drift,),
                (False, True) if directed is None else (directed,),
            )
        )
        self.mean, self.scale = context.target_statistics.mean, context.target_statistics.std
        self.target = Standardize(self.mean, self.scale)
        self.directions = 1 if directed is False else 2
        states = self.directions * places
        # Until it is fitted, every place is as likely as another and answers with the train mean.
        self.register_buffer("log_rates", torch.zeros(context.channels, states))
        self.register_buffer("offset", torch.zeros(states))
        self.register_buffer("transition", torch.full((states, states), 1 / states))
        self.register_buffer("start", torch.zeros(states))
        self.register_buffer("answers", torch.zeros(places, context.variables))
        # States of one place in both directions: a product keeps a row's bits in any batch.
        same = torch.eye(places).repeat(self.directions, 1)
        self.register_buffer("same_place", same, persistent=False)

    def forward(self, neural: Tensor) -> Tensor:
        """neural: (batch, time, channel, feature) raw -> behaviour (batch, variable) raw."""
        # 1. log-likelihood of each step's counts at every state: (batch, time, state)
        counts = neural[..., 0].clamp(0.0, MOST_COUNTS)
        evidence = torch.matmul(counts, self.log_rates) + self.offset
        # 2. posterior, carried from step to step: (batch, state)
        belief = torch.softmax(evidence[:, 0] + self.start, dim=-1)
        for step in range(1, neural.shape[1]):
            moved = torch.matmul(belief, self.transition).clamp(min=TINY)
            belief = torch.softmax(log_of_rows(moved) + evidence[:, step], dim=-1)
        # 3. of places: (batch, place)
        posterior = torch.matmul(belief, self.same_place)
        # 4. (batch, variable)
        if self.answer == "mode":
            return self.target.invert(self.answers[posterior.argmax(dim=-1)])
        return self.target.invert(torch.matmul(posterior, self.answers))

    def fit_closed_form(self, train: Windows, validation: Windows) -> None:
        """Choose what is null and fit the maps; deterministic. `validation` is not looked at.

        Raises DataError where the train part has no window with every variable measured.
        """
        self.refit(train)

    def refit(self, train: Windows) -> None:
        """Fit on `train` alone, with the settings that were chosen before, if any were.

        So fits out of fold have maps without a fold, but smoothing, drift and `directed` that were
        chosen with it.
        """
        assert train.targets is not None
        measured = np.isfinite(train.targets).all(axis=1)
        if not measured.any():
            raise DataError(
                "place_field: no train window has every variable measured: split otherwise"
            )
        train = train.take(np.flatnonzero(measured))
        if len(self.tunings) > 1:
            self.tunings = (self._chosen(train),)
        maps = fit_maps(self._observed(train), self.places, self.directions, self.tunings[0])
        self._fill(maps)

    def _chosen(self, train: Windows) -> Tuning:
        """The tuning of the least mean distance, in train sd, over the inner folds."""
        errors = dict.fromkeys(self.tunings, 0.0)
        for fold in stages("choosing among place maps by folds", inner_folds(train)):
            fit, held = self._observed(train.take(fold.fit)), train.take(fold.held)
            for tuning in self.tunings:
                self._fill(fit_maps(fit, self.places, self.directions, tuning))
                errors[tuning] += self._error(held)
        return min(errors, key=lambda tuning: errors[tuning])

    @torch.no_grad()
    def _error(self, windows: Windows) -> float:
        total = 0.0
        for rows in windows.chunks():
            batch = windows.batch(rows)
            gap = self(torch.from_numpy(batch.inputs["neural"])) - torch.from_numpy(
                batch.targets["behavior"]
            )
            squares = (gap * self.target.inverse_scale).double().square().sum(dim=1)
            total += float(squares.sqrt().sum())
        return total

    def _observed(self, windows: Windows) -> Observed:
        """Counts of the step that a window is answered for, positions about the train mean."""
        assert windows.targets is not None
        counts = np.empty((len(windows), self.log_rates.shape[0]))
        for rows in windows.chunks():
            counts[rows] = windows.batch(rows).inputs["neural"][:, -1, :, 0]
        return Observed(
            counts=np.clip(counts, 0.0, MOST_COUNTS),
            positions=windows.targets.astype(np.float64) - self.mean,
            sessions=windows.sessions,
            starts=windows.starts,
            steps=windows.steps,
        )

    def _fill(self, maps: PlaceMaps) -> None:
        """Put maps into the buffers that `forward` reads; a place not visited is ruled out."""
        states = self.offset.shape[0]
        visited = np.tile(maps.visited, self.directions)
        rates = maps.rates.reshape(states, -1)
        log_rates = np.where(visited[:, np.newaxis], np.log(rates), 0.0)
        self._copy("log_rates", log_rates.T)
        self._copy("offset", np.where(visited, -rates.sum(axis=1), RULED_OUT))
        self._copy("transition", maps.transition)
        if self.prior == "occupancy":
            self._copy("start", np.log(np.maximum(maps.occupancy, TINY)))
        scale = self.scale
        places = np.divide(
            maps.positions, scale, out=np.zeros_like(maps.positions), where=scale > 0
        )
        self._copy("answers", places)

    def _copy(self, name: str, values: np.ndarray) -> None:
        self.get_buffer(name).copy_(torch.from_numpy(np.ascontiguousarray(values)))

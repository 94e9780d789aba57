"""Several trained models as one: their weighted mean, in raw units."""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from trainer.data.paths import DataPath
from trainer.data.windows import ModelContext
from trainer.registry import MODELS


class Member(BaseModel):
    """What a member was when the ensemble was trained.

    name: of its run, with ":last" and the like where other weights than the kept ones are meant;
    checkpoint: sha256 of the file that held its weights; seed, model, training: of its config.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    checkpoint: str
    seed: int
    model: dict[str, Any]
    training: dict[str, Any]


@MODELS.register("ensemble")
class Ensemble(nn.Module):
    """Weighted mean of runs that were trained on the same data: seeds, epochs, architectures.

    members: run folders, with the weights that training.keep of each kept; ":last" after one takes
        those of its last epoch.
    weights: 0 or more, sum 1. "out_of_fold" fits them to train windows that the members' configs,
        trained again without them, predict; "validation" to the validation part by which the
        members stopped already; "equal" gives all the same.
    folds: of "out_of_fold": how often every member's config is trained again.
    per: "step" fits each forecast step on its own, "all" one weight for a member. Classes and
        variables share one.
    trained: what the members were; filled in when training starts.
    Raises ValueError where `trained` is empty, or a member does not fit the data.
    """

    tasks = frozenset({"forecast", "classify", "decode"})

    weight: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        members: tuple[DataPath, ...] = (),
        weights: Literal["out_of_fold", "validation", "equal"] = "out_of_fold",
        folds: Annotated[int, Field(ge=2, le=100)] = 3,
        per: Literal["step", "all"] = "step",
        trained: tuple[Member, ...] = (),
    ) -> None:
        super().__init__()
        if not trained:
            raise ValueError(
                "model.members: an ensemble is made of run folders that are there, such as "
                "[runs/goose_linear, runs/goose_gru]; `axonnx train` reads them"
            )
        self.forecasts = context.task == "forecast"
        self.observed = context.observed
        self.trained = trained
        # Their weights come from the runs, and none is trained any further.
        modules = [MODELS.build(member.model, context) for member in trained]
        self.members = nn.ModuleList(modules).requires_grad_(False)
        self.dynamic_channel = _all_dynamic(self.members)
        steps = context.horizon if self.forecasts and per == "step" else 1
        self.register_buffer("weight", torch.full((len(trained), steps, 1), 1 / len(trained)))

    def forward(
        self, neural: Tensor, behavior: Tensor | None = None, behavior_mask: Tensor | None = None
    ) -> Tensor:
        """The weighted mean of the members' answers, (batch, time, channel) raw of a forecast.

        neural: (batch, time, channel, feature) raw; observed steps of a forecast come back as they
        are. Of other tasks (batch, class) probabilities or (batch, variable) raw; behavior and
        behavior_mask where the data have them, as the members take them.
        """
        inputs = (neural,) if behavior is None else (neural, behavior, behavior_mask)
        # 1. one answer after the other; of a forecast the steps after the observed ones
        answers = [self.answer(index, *inputs) for index in range(len(self.members))]
        # 2. (batch, horizon, channel), (batch, class) or (batch, variable)
        mean = self._weighted(0, answers[0])
        for index, answer in enumerate(answers[1:], start=1):
            mean = mean + self._weighted(index, answer)
        # 3. (batch, time, channel)
        if not self.forecasts:
            return mean
        return torch.cat([neural[:, : self.observed, :, 0], mean], dim=1)

    @property
    def saw_validation(self) -> bool:
        """Whether a member was fitted on the validation part."""
        return any(getattr(member, "saw_validation", False) for member in self.members)

    def answer(self, index: int, *inputs: Tensor | None) -> Tensor:
        """What one member answers in raw units: (batch, horizon, channel) of a forecast."""
        member = self.members[index]
        to_raw = getattr(member, "to_raw", None)
        answer: Tensor = member(*inputs)
        if to_raw is not None:
            answer = to_raw(answer)
        return answer[:, self.observed :] if self.forecasts else answer

    def without_idle(self) -> Ensemble:
        """The same function without the members whose weights are all 0."""
        used = torch.nonzero(self.weight.abs().sum(dim=(1, 2)) > 0).flatten().tolist()
        smaller = copy.deepcopy(self)
        smaller.members = nn.ModuleList(smaller.members[index] for index in used)
        smaller.weight = self.weight[used]
        smaller.trained = tuple(self.trained[index] for index in used)
        smaller.dynamic_channel = _all_dynamic(smaller.members)
        return smaller

    def description(self) -> list[dict[str, Any]]:
        """Name, model, seed, digest and weights (step) of every member, as plain JSON."""
        return [
            {
                "name": member.name,
                "model": member.model["name"],
                "seed": member.seed,
                "checkpoint": member.checkpoint,
                "weights": [float(value) for value in weight.flatten()],
            }
            for member, weight in zip(self.trained, self.weight, strict=True)
        ]

    def _weighted(self, index: int, answer: Tensor) -> Tensor:
        weight = self.weight[index] if self.forecasts else self.weight[index, 0]
        return weight * answer


def _all_dynamic(members: nn.ModuleList) -> bool:
    return all(getattr(member, "dynamic_channel", False) for member in members)

"""Mouse vs AI (NeurIPS 2025), track 2: how well a network that sees predicts a mouse's neurons.

The submission is the ONNX file. Its first input takes grey frames in 0-1, float32
(batch, 1, 86, 155); what is scored are the tensors inside that `submission.layers` chooses.
Track 1, foraging, runs in the challenge's game engine and is not scored here.
"""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from artifact import Manifest, graph, providers
from artifact.errors import ArtifactError
from submission import layers
from submission.challenges import (
    ARRAY_KEY,
    Array,
    Arrays,
    Challenge,
    Column,
    Contract,
    Definition,
    Image,
    Limits,
    Name,
    Tensor,
    TestSet,
    named_from_model,
    template,
)
from submission.errors import ConfigError
from submission.rules import neural_alignment

Count = Annotated[int, Field(ge=1, le=1_000_000)]
# Its image is not published; the public kit asks for Python 3.10 and any onnxruntime since 1.16.
IMAGE = Image(None, "3.10", ("numpy==2.2.6", "onnxruntime==1.23.2"))
NEURONS = 12  # of made-up answers
MEAN = "mean"


class Settings(BaseModel):
    """Recordings and how they are scored; the defaults are the published leaderboard's.

    `rate` is frames in a second, `window` the boxcar in seconds, `alpha` the ridge penalty, `eps`
    the distortion allowed to the random projection, `batch` the frames in a call.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    recordings: Annotated[tuple[Name, ...], Field(min_length=1)] = (
        "tigre569_p2s38",
        "tigre613_p2s23",
        "tigre847_p2s8",
    )
    rows: dict[Name, Count] = {}
    rate: PositiveFloat = 10.0
    window: PositiveFloat = 2.0
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    alpha: PositiveFloat = 1.0
    eps: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    batch: Count = 128

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(set(self.recordings)) < len(self.recordings) or MEAN in self.recordings:
            raise ValueError(f"recordings: each has a name of its own, other than {MEAN!r}")
        if unknown := [name for name in self.rows if name not in self.recordings]:
            raise ValueError(f"rows: {', '.join(unknown)} is none of the recordings")
        return self


def _define(settings: Settings, models: tuple[str, ...]) -> Definition:
    if len(models) > 1:
        raise ConfigError(
            f"models: {', '.join(models)}; a submission to {CHALLENGE.name} is one: name one"
        )
    (subject,) = models or ("main",)
    contract = Contract({ARRAY_KEY: Tensor("float32", layers.FRAME)}, {})
    folder = resources.files("submission")
    return Definition(
        kind="graph",
        entry="model.onnx",
        subjects=(subject,),
        sets=tuple(_set(settings, subject, name) for name in settings.recordings),
        columns=(
            *(Column(name, f"{name}, Pearson r", "desc") for name in settings.recordings),
            Column(MEAN, "mean over neurons, Pearson r", "desc"),
        ),
        rule=neural_alignment,
        options={
            "sets": list(settings.recordings),
            **settings.model_dump(include={"rate", "window", "folds", "alpha", "eps", "batch"}),
        },
        contract=lambda subject, manifest: contract,
        image=IMAGE,
        limits=Limits(),  # 5 a day; the others are not published: the platform's defaults
        call="mapping",
        ingestion=template("ingestion_mouse_vs_ai.py"),
        beside={"layers.py": folder.joinpath("layers.py").read_bytes()},
        problems=problems,
        graph_problems=graph_problems,
        to_model=to_model,
        from_model=named_from_model,
        mask=seen,
        truth=spikes,
        fewest=settings.folds * max(int(settings.window * settings.rate), 2),
    )


def _set(settings: Settings, subject: str, name: str) -> TestSet:
    output = f"{name}.predictions.npz"
    return TestSet(name, subject, f"{name}.npz", output, f"{name}.npz", settings.rows.get(name))


def problems(subject: str, manifest: Manifest) -> list[str]:
    """What is wrong with the artifact's first input, in words."""
    first = manifest.inputs[0]
    if first.dtype == "float32" and first.shape == (None, *layers.FRAME):
        return []
    sizes = ", ".join(map(str, layers.FRAME))
    return [f"first input {first.name} is {first.dtype} {first.layout}, not (batch, {sizes})"]


def graph_problems(model: bytes) -> tuple[list[str], list[str]]:
    """What of an ONNX file the challenge cannot score, and what is odd about it, in words."""
    try:
        summary = graph.summarize(model)
        if summary.external_data:
            names = ", ".join(summary.external_data[:3])
            return [f"keeps {names} in another file; export it with all weights inside"], []
        wrong = layers.input_problems(providers.create_session(model))
        if wrong:
            return wrong, []
        found = layers.tensors(model)
        session = providers.create_session(layers.everything(model, found))
        chosen, _ = layers.chosen(session, found)
    except ArtifactError as error:
        return [str(error)], []
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        text = str(error).split("\n")[0]
        return [f"cannot be run on frames (batch, 1, 86, 155): {text}"], []
    if not layers.FEWEST <= len(chosen) <= layers.MOST:
        listed = f" ({', '.join(chosen[:5])})" if chosen else ""
        return [
            f"{len(chosen)} tensors inside can be scored{listed}; {layers.FEWEST} to {layers.MOST} "
            "must be: floats of 2 to 4 axes, the first of them the batch, before sight joins the "
            f"policy, and not called {', '.join(layers.IGNORED)}"
        ], []
    return [], _odd(summary, session, found, chosen)


def _odd(
    summary: graph.GraphSummary, session: Any, found: layers.Tensors, chosen: list[str]
) -> list[str]:
    """What lets the kit score other tensors than meant, or fail."""
    odd = []
    if not found.joins:
        parts = ", ".join(layers.ELSE)
        odd.append(
            f"no node takes a tensor of {layers.SIGHT} and one of {parts}, so that the kit cannot "
            f"tell sight from the rest: it scores {len(chosen)} tensors, {chosen[0]} to "
            f"{chosen[-1]}. Export names as the starter kit's network has them"
        )
    elif not set(chosen) <= found.before:
        odd.append(
            f"fewer than {layers.FEWEST} tensors lie before sight joins the rest, so that the kit "
            f"scores the first half of all: {chosen[0]} to {chosen[-1]}"
        )
    if others := [entry.name for entry in session.get_inputs()[1:]]:
        odd.append(
            f"has the further inputs {', '.join(others)}; the kit of track 2 feeds the first alone "
            "(the program that runs here feeds zeros)"
        )
    if random := sorted(graph.RANDOM_OPERATORS & set(summary.operators)):
        odd.append(f"has the random operators {', '.join(random)}: answers may not repeat")
    return odd


def to_model(arrays: Arrays, manifest: Manifest) -> dict[str, Array]:
    """Frames for the artifact's first input, as float32; zeros for all others."""
    frames = np.ascontiguousarray(arrays[ARRAY_KEY], dtype=np.float32)
    first, *others = manifest.inputs
    zeros = {
        spec.name: np.zeros((len(frames), *(size or 1 for size in spec.shape[1:])), spec.dtype)
        for spec in others
    }
    return {first.name: frames, **zeros}


def seen(arrays: Arrays) -> dict[str, Array]:
    """Made-up frames as a camera gives them, in 0-1."""
    return {name: np.clip(array, 0.0, 1.0) for name, array in arrays.items()}


def spikes(arrays: Arrays) -> dict[str, Array]:
    """Made-up counts of spikes (frame, neuron), float32, for as many frames as `arrays` have."""
    rows = len(next(iter(arrays.values())))
    counts = np.random.default_rng(0).poisson(2.0, (rows, NEURONS))
    return {neural_alignment.KEY: counts.astype(np.float32)}


CHALLENGE = Challenge("mouse_vs_ai", "Mouse vs AI, track 2", Settings, _define)

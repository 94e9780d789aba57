"""A challenge: forecast windows of any size with `Forecaster().forecast(window)`."""

from __future__ import annotations

from importlib import resources

from pydantic import BaseModel, ConfigDict

from artifact import Manifest
from axonnx_example import rule
from submission.challenges import (
    ARRAY_KEY,
    Challenge,
    Column,
    Contract,
    Definition,
    Image,
    Limits,
    Tensor,
    TestSet,
    compare_tensors,
)


class Settings(BaseModel):
    """Steps and channels of a window."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int = 20
    channels: int = 4


def _define(settings: Settings, models: tuple[str, ...]) -> Definition:
    row = (settings.steps, settings.channels)
    contract = Contract(
        {ARRAY_KEY: Tensor("float32", (*row, 1))}, {ARRAY_KEY: Tensor("float32", row)}
    )

    def problems(subject: str, manifest: Manifest) -> list[str]:
        return compare_tensors("input", manifest, contract.inputs[ARRAY_KEY])

    files = resources.files("axonnx_example")
    return Definition(
        kind="code",
        entry="forecaster.py",
        interface=("Forecaster", ("forecast",)),
        subjects=("main",),
        sets=(TestSet("windows", "main", "windows.npz", "forecast.npz", "answers.npz", rows=40),),
        columns=(Column("absolute_error", "absolute error"),),
        rule=rule,
        contract=lambda subject, manifest: contract,
        image=Image(None, "3.11", ("numpy==2.2.6",)),
        limits=Limits(60.0),
        template=files.joinpath("entry.py.template").read_bytes(),
        ingestion=files.joinpath("ingestion.py.template").read_bytes(),
        problems=problems,
    )


CHALLENGE = Challenge("next_steps", "forecasts of the next steps", Settings, _define)

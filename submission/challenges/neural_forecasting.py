"""HDR year 2, "Neural Forecasting": ten steps of µECoG seen, ten to forecast, two monkeys.

`Model(monkey_name)`, `load()`, `predict(X)`: X float32 (batch, 20, channel, 9) in raw units, steps
10 to 19 repeating step 9; answer float32 (batch, 20, channel), feature 0 in raw units.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from artifact import Manifest, TensorSpec
from submission.challenges import Arrays, Challenge, FileName, Name, RowShapes, TestSet

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class DataFile(BaseModel):
    """A test set: its file in the challenge's input folder, and whose recording it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: FileName
    subject: str


PUBLISHED = {
    "affi": DataFile(file="test_data_affi_masked.npz", subject="affi"),
    "affi_private": DataFile(file="test_data_affi_2024-03-20_private_masked.npz", subject="affi"),
    "beignet": DataFile(file="test_data_beignet_masked.npz", subject="beignet"),
    "beignet_private_1": DataFile(
        file="test_data_beignet_2022-06-01_private_masked.npz", subject="beignet"
    ),
    "beignet_private_2": DataFile(
        file="test_data_beignet_2022-06-02_private_masked.npz", subject="beignet"
    ),
}


class Settings(BaseModel):
    """Sizes and files of the challenge; the defaults are the published ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    channels: dict[Name, Count] = {"affi": 239, "beignet": 89}
    steps: Count = 20
    observed: Count = 10
    features: Count = 9
    data: dict[Name, DataFile] | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.channels:
            raise ValueError("channels: is empty; give each subject its channel count")
        for name, entry in (self.data or {}).items():
            if entry.subject not in self.channels:
                known = ", ".join(self.channels)
                raise ValueError(f"data.{name}: no subject {entry.subject!r} in channels ({known})")
        return self


def _subjects(settings: Settings, models: Iterable[str]) -> tuple[str, ...]:
    return tuple(settings.channels)


def _sets(settings: Settings, subjects: Iterable[str]) -> tuple[TestSet, ...]:
    files = settings.data
    if files is None and set(settings.channels) == {"affi", "beignet"}:
        files = PUBLISHED
    elif files is None:
        files = {
            name: DataFile(file=f"test_data_{name}_masked.npz", subject=name)
            for name in settings.channels
        }
    return tuple(
        TestSet(name, entry.subject, entry.file, f"test_{name}.predictions.npz")
        for name, entry in files.items()
    )


def _problems(settings: Settings, subject: str, manifest: Manifest) -> list[str]:
    row_in = (settings.steps, settings.channels[subject], settings.features)
    return _compare("input", manifest.inputs, row_in) + _compare(
        "output", manifest.outputs, row_in[:2]
    )


def _compare(role: str, specs: tuple[TensorSpec, ...], row: tuple[int, ...]) -> list[str]:
    """What is wrong with the one tensor of a role, in words; empty when it fits."""
    if len(specs) != 1:
        found = ", ".join(spec.name for spec in specs)
        return [f"has the {role}s {found}; the challenge has one {role}"]
    spec, wanted = specs[0], ", ".join(map(str, row))
    sizes = spec.shape[1:]
    fits = len(sizes) == len(row) and all(
        size in (None, want) for size, want in zip(sizes, row, strict=False)
    )
    problems = [] if fits else [f"{role} {spec.name} is {spec.layout}, not (batch, {wanted})"]
    if spec.dtype != "float32":
        problems.append(f"{role} {spec.name} is {spec.dtype}, not float32")
    return problems


def _row_shapes(
    settings: Settings, subject: str, manifest: Manifest
) -> tuple[RowShapes, RowShapes]:
    row = (settings.steps, settings.channels[subject], settings.features)
    return {manifest.inputs[0].name: row}, {manifest.outputs[0].name: row[:2]}


def _mask(settings: Settings, arrays: Arrays) -> Arrays:
    """Repeat the last observed step, as the challenge's files do."""
    masked = {name: np.array(array) for name, array in arrays.items()}
    for array in masked.values():
        array[:, settings.observed :] = array[:, settings.observed - 1 : settings.observed]
    return masked


CHALLENGE = Challenge(
    name="neural_forecasting",
    title="HDR year 2, Neural Forecasting",
    template="neural_forecasting.py.template",
    call="array",
    time_limit=600.0,
    image_python="3.10",
    settings=Settings,
    subjects=_subjects,
    sets=_sets,
    problems=_problems,
    row_shapes=_row_shapes,
    mask=_mask,
)

"""HDR year 2, "Neural Forecasting": ten steps of µECoG seen, ten to forecast, two monkeys.

`Model(monkey_name)`, `load()`, `predict(X)`: X float32 (batch, 20, channel, 9) in raw units, steps
10 to 19 repeating step 9; answer float32 (batch, 20, channel), feature 0 in raw units.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from artifact import Manifest
from submission.challenges import (
    ARRAY_KEY,
    Arrays,
    Challenge,
    Column,
    Contract,
    Definition,
    FileName,
    Image,
    Limits,
    Name,
    Tensor,
    TestSet,
    compare_tensors,
    subjects_of,
    template,
)
from submission.rules import forecast_error

Count = Annotated[int, Field(ge=1, le=1_000_000)]
IMAGE = Image("ytchou97/hdr-image", "3.10", ("numpy==2.2.6",))
WHITELIST = (
    *("pytorch", "tensorflow", "numpy", "scikit-learn", "keras", "torch", "open-clip-torch"),
    *("torchvision", "transformers", "pandas", "Pillow", "scipy", "tqdm", "pyarrow", "duckdb"),
    *("matplotlib", "xgboost", "nflows", "lightgbm", "seaborn", "iminuit", "timm", "torchaudio"),
    *("catboost", "plotly", "netCDF4", "xarray", "PyWavelets", "opencv-python-headless"),
    *("albumentations", "ultralytics"),
)


class DataFile(BaseModel):
    """A test set: its file in the input folder, whose recording it is, how many windows it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: FileName
    subject: str
    rows: Count | None = None


PUBLISHED = {
    "affi": DataFile(file="test_data_affi_masked.npz", subject="affi", rows=122),
    "affi_private": DataFile(
        file="test_data_affi_2024-03-20_private_masked.npz", subject="affi", rows=162
    ),
    "beignet": DataFile(file="test_data_beignet_masked.npz", subject="beignet", rows=87),
    "beignet_private_1": DataFile(
        file="test_data_beignet_2022-06-01_private_masked.npz", subject="beignet", rows=82
    ),
    "beignet_private_2": DataFile(
        file="test_data_beignet_2022-06-02_private_masked.npz", subject="beignet", rows=76
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
        if self.observed >= self.steps:
            raise ValueError(f"observed: {self.observed} of {self.steps} steps; none is forecast")
        if self.data is not None and not self.data:
            raise ValueError("data: is empty; name the test sets, or leave it out")
        for name, entry in (self.data or {}).items():
            if entry.subject not in self.channels:
                known = ", ".join(self.channels)
                raise ValueError(f"data.{name}: no subject {entry.subject!r} in channels ({known})")
        return self


def _sets(settings: Settings) -> tuple[TestSet, ...]:
    files = settings.data
    if files is None and set(settings.channels) == {"affi", "beignet"}:
        files = PUBLISHED
    elif files is None:
        files = {
            name: DataFile(file=f"test_data_{name}_masked.npz", subject=name)
            for name in settings.channels
        }
    return tuple(
        TestSet(
            name,
            entry.subject,
            entry.file,
            f"test_{name}.predictions.npz",
            entry.file.replace("_masked", ""),
            entry.rows,
        )
        for name, entry in files.items()
    )


def _define(settings: Settings, models: tuple[str, ...]) -> Definition:
    sets = _sets(settings)
    subjects = tuple(settings.channels)
    if models:
        subjects_of(models, subjects, CHALLENGE.name)

    def contract(subject: str, manifest: Manifest | None) -> Contract:
        row = (settings.steps, settings.channels[subject], settings.features)
        return Contract(
            {ARRAY_KEY: Tensor("float32", row)}, {ARRAY_KEY: Tensor("float32", row[:2])}
        )

    def problems(subject: str, manifest: Manifest) -> list[str]:
        wanted = contract(subject, None)
        return [
            *compare_tensors("input", manifest, wanted.inputs[ARRAY_KEY]),
            *compare_tensors("output", manifest, wanted.outputs[ARRAY_KEY]),
        ]

    def mask(arrays: Arrays) -> Arrays:
        """Repeat the last observed step, as the challenge's files do."""
        masked = {name: np.array(array) for name, array in arrays.items()}
        for array in masked.values():
            array[:, settings.observed :] = array[:, settings.observed - 1 : settings.observed]
        return masked

    return Definition(
        kind="code",
        entry="model.py",
        subjects=subjects,
        sets=sets,
        columns=(
            *(Column(f"MSE_{entry.name}", f"MSE {entry.name}", precision=2) for entry in sets),
            Column("total_MSR", "total MSE", precision=2),
        ),
        rule=forecast_error,
        options={"observed": settings.observed, "sets": [entry.name for entry in sets]},
        contract=contract,
        image=IMAGE,
        limits=Limits(),  # the challenge's own are not published: the platform's defaults
        template=template("neural_forecasting.py"),
        ingestion=template("ingestion_model.py"),
        whitelist=WHITELIST,
        problems=problems,
        mask=mask,
    )


CHALLENGE = Challenge("neural_forecasting", "HDR year 2, Neural Forecasting", Settings, _define)

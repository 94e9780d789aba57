"""Any artifact behind `Model(name)`, `load()`, `predict(inputs)`: arrays by name in and out."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from artifact import Manifest
from submission.challenges import Arrays, Challenge, RowShapes, TestSet


class Settings(BaseModel):
    """Nothing to set: names, sizes and dtypes are the artifacts' own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _subjects(settings: Settings, models: Iterable[str]) -> tuple[str, ...]:
    return tuple(models)


def _sets(settings: Settings, subjects: Iterable[str]) -> tuple[TestSet, ...]:
    return tuple(TestSet(name, name, f"{name}.npz", f"{name}.predictions.npz") for name in subjects)


def _problems(settings: Settings, subject: str, manifest: Manifest) -> list[str]:
    return []


def _row_shapes(
    settings: Settings, subject: str, manifest: Manifest
) -> tuple[RowShapes, RowShapes]:
    return (
        {spec.name: spec.shape[1:] for spec in manifest.inputs},
        {spec.name: spec.shape[1:] for spec in manifest.outputs},
    )


def _mask(settings: Settings, arrays: Arrays) -> Arrays:
    return arrays


CHALLENGE = Challenge(
    name="generic",
    title="one artifact per name, arrays by name",
    template="generic.py.template",
    call="mapping",
    time_limit=600.0,
    image_python=None,
    settings=Settings,
    subjects=_subjects,
    sets=_sets,
    problems=_problems,
    row_shapes=_row_shapes,
    mask=_mask,
)

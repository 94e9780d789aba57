"""Data sets: recordings, windows, splits. Modules here register their data sets on import."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from trainer.registry import DATASETS

register_dataset = DATASETS.register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

from trainer.data.errors import DataError, SplitError  # noqa: E402
from trainer.data.splits import check_disjoint  # noqa: E402
from trainer.data.windows import Batch, Dataset, ModelContext, Statistics, Windows  # noqa: E402

__all__ = [
    "Batch",
    "DataError",
    "Dataset",
    "ModelContext",
    "SplitError",
    "Statistics",
    "Windows",
    "load_dataset",
    "register_dataset",
]


def load_dataset(config: Mapping[str, Any]) -> Dataset:
    """The data set of a run's `data` section: `name` and its settings.

    Raises UnknownNameError, pydantic.ValidationError, DataError; SplitError where parts overlap.
    """
    dataset: Dataset = DATASETS.build(config)
    check_disjoint(dataset.parts)
    return dataset

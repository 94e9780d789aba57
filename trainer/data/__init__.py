"""Data sets: recordings, windows, splits. Modules here register their data sets on import."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from trainer.data.errors import DataError, SplitError
from trainer.data.leaks import check_disjoint
from trainer.data.windows import Batch, Dataset, ModelContext, Statistics, Windows
from trainer.registry import DATASETS

__all__ = [
    "DATASETS",
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

register_dataset = DATASETS.register


def load_dataset(config: Mapping[str, Any]) -> Dataset:
    """The data set of a run's `data` section: `name` and its settings.

    Raises UnknownNameError, pydantic.ValidationError, DataError; SplitError where parts overlap.
    """
    dataset: Dataset = DATASETS.build(config)
    check_disjoint(dataset.parts)
    return dataset


for _module in pkgutil.iter_modules(__path__):
    if _module.name != "prepare":  # reads data sets and registers none
        importlib.import_module(f"{__name__}.{_module.name}")

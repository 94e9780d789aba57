"""Data sets: recordings, windows, splits. Modules here register their data sets on import."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Mapping
from typing import Any

from trainer.data.errors import DataError, SplitError
from trainer.data.leaks import check_leaks
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

    Raises UnknownNameError, pydantic.ValidationError, DataError; SplitError where parts share
    samples, trials or copies of samples. Says so on the error stream where data are so large that
    not all of them were compared.
    """
    dataset: Dataset = DATASETS.build(config)
    share = check_leaks(dataset.parts, rate=dataset.rate, session_names=dataset.session_names)
    if share < 1:
        text = f"axonnx: note: looked for copies between the parts in {share:.1%} of the samples"
        print(text, file=sys.stderr)
    return dataset


# Reads data sets and registers none; needs torch, and registers connectomes.
_APART = ("prepare", "connectomes")

for _module in pkgutil.iter_modules(__path__):
    if _module.name not in _APART:
        importlib.import_module(f"{__name__}.{_module.name}")

"""Architectures: one file and one decorated class each, imported here so that they register.

A model is a torch module built as `Model(context, **settings)`; `forward` takes the tensors of
`context.inputs` in their order, in raw units, and returns those of `context.outputs`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from torch import nn

from trainer.data.windows import ModelContext
from trainer.registry import MODELS

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


class ModelError(ValueError):
    """A model cannot be built for this data set."""


def build_model(config: Mapping[str, Any], context: ModelContext) -> nn.Module:
    """The module that `config` ("name" and settings) describes, for data described by `context`.

    Raises UnknownNameError, pydantic.ValidationError, and ModelError where the model does
    another task than the data set's or its settings do not fit the data.
    """
    name = config.get("name")
    if isinstance(name, str) and context.task not in _tasks(name):
        fit = ", ".join(n for n in MODELS.names() if context.task in _tasks(n))
        raise ModelError(
            f"model.name: {name!r} does not do the data set's task {context.task!r}; valid: {fit}"
        )
    module: nn.Module = MODELS.build(config, context)
    return module


def _tasks(name: str) -> frozenset[str]:
    return getattr(MODELS.get(name), "tasks", frozenset())


__all__ = ["MODELS", "ModelError", "build_model"]

"""Preparation: what is done to a recording before it is cut into windows, step by step.

Each step is a small class; modules here register theirs on import.
"""

from __future__ import annotations

import importlib
import pkgutil

from recording.preparation.operations import Operation, evaluate
from recording.preparation.steps import (
    STEPS,
    Preparation,
    Step,
    dump_steps,
    graph_tail,
    parse_steps,
    prepare,
    step,
)

__all__ = [
    "STEPS",
    "Operation",
    "Preparation",
    "Step",
    "dump_steps",
    "evaluate",
    "graph_tail",
    "parse_steps",
    "prepare",
    "step",
]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

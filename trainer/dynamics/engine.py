"""Which engine runs a stretch of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.dynamics import engine_compiled, engine_plain
from trainer.dynamics.node import State
from trainer.dynamics.stretch import Result, Stretch

if TYPE_CHECKING:
    from trainer.dynamics.simulator import Simulator


def choose(
    asked: str, simulator: Simulator, steps: int, batch: int, values: dict[str, Any], carry: State
) -> str:
    """The engine of a run."""
    return "plain" if asked == "auto" else asked


def run(chosen: str, stretch: Stretch, advance: Callable[[int], None]) -> Result:
    """Run a stretch by the chosen engine."""
    if chosen == "compiled":
        return engine_compiled.run(stretch, advance)
    return engine_plain.run(stretch, advance)

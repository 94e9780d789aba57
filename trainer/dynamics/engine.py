"""Which engine runs a stretch of steps.

Equal runs have equal bits, so the choice depends on what is run and on whether there is a compiler,
never on clocks or on what was compiled before.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch

from trainer.dynamics import engine_compiled, engine_plain, engine_replay, kernel_build
from trainer.dynamics.stretch import Result, Stretch
from trainer.dynamics.tracing import TraceError

ENGINES = ("auto", "plain", "replay", "compiled")

# Below, tracing (some 1 s) or compiling (some 3 s) takes longer than it saves.
REPLAY_STEPS = 10_000
COMPILED_STEPS = 20_000
COMPILED_GRADIENT_STEPS = 1_500  # a gradient costs torch some .6 ms a step, and is asked for often
COMPILED_UPDATES = 100_000_000  # steps x batch x node


class EngineError(ValueError):
    """An engine cannot run what it was asked to; the text says which can."""


class EngineWarning(UserWarning):
    """A long run is not compiled."""


def run(asked: str, stretch: Stretch, total: int, advance: Callable[[int], None]) -> Result:
    """Run a stretch by the engine that was asked for; `total`: steps of the whole run."""
    chosen = _automatic(stretch, total) if asked == "auto" else asked
    if asked == "auto" and chosen != "plain":
        try:
            engine_compiled.prepare(stretch, differentiated(stretch))
        except TraceError as error:
            _say_uncompiled(str(error))
            chosen = "plain"
    if chosen == "plain":
        return engine_plain.run(stretch, advance)
    _check(chosen, stretch)
    if chosen == "replay":
        return engine_replay.run(stretch, advance)
    return engine_compiled.run(stretch, advance)


def traced(stretch: Stretch) -> bool:
    """Whether tensors are inside vmap or grad, where memory cannot be looked at."""
    values = [*stretch.carry, *stretch.values.values(), *stretch.drive]
    values += [stretch.history, stretch.normals]
    return any(
        isinstance(each, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(each)
        for each in values
    )


def differentiated(stretch: Stretch) -> bool:
    """Whether a gradient may be asked of the stretch."""
    return torch.is_grad_enabled() and any(
        each.requires_grad for each in engine_compiled.tensors_of(stretch).values()
    )


def _automatic(stretch: Stretch, total: int) -> str:
    if not _fits(stretch):
        return "plain"
    updates = total * stretch.batch * stretch.nodes
    gradient = differentiated(stretch)
    steps = COMPILED_GRADIENT_STEPS if gradient else COMPILED_STEPS
    if total >= steps or updates >= COMPILED_UPDATES:
        obstacle = kernel_build.obstacle()
        if obstacle is None:
            return "compiled"
        _say_uncompiled(obstacle)
    short = total < REPLAY_STEPS or stretch.history is not None or gradient
    return "plain" if short else "replay"


def _fits(stretch: Stretch) -> bool:
    """Whether engines that trace the step can run the stretch at all."""
    lags = () if stretch.delays is None else stretch.delays.lags
    others = [lag[2] for lag in lags] + [each for each in (stretch.normals,) if each is not None]
    if torch.is_grad_enabled() and any(each.requires_grad for each in others):
        return False
    first = stretch.carry[0]
    known = first.device.type == "cpu" and first.dtype in (torch.float32, torch.float64)
    return known and not traced(stretch)


def _check(chosen: str, stretch: Stretch) -> None:
    if not _fits(stretch):
        raise EngineError(
            f"engine {chosen!r} runs float32 and float64 on the CPU, outside of vmap and grad, and "
            "has no gradient in lags and noise's numbers; use engine='plain'"
        )
    if chosen == "replay" and stretch.history is not None:
        raise EngineError("engine 'replay' has no delays; use 'plain' or 'compiled'")
    if chosen == "replay" and differentiated(stretch):
        raise EngineError("engine 'replay' has no gradients; use 'plain', 'compiled' or no_grad()")


@functools.cache
def _say_uncompiled(obstacle: str) -> None:
    warnings.warn(
        f"a long simulation runs uncompiled, some ten times slower: {obstacle}",
        EngineWarning,
        stacklevel=5,
    )

"""The run loop: a network through time, by one of three engines, whole or in pieces."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from trainer.dynamics import engine as engines
from trainer.dynamics.engine import ENGINES
from trainer.dynamics.network import Network
from trainer.dynamics.node import State
from trainer.dynamics.noise import standard_normals, start_generator
from trainer.dynamics.stretch import Result, Stretch
from trainer.dynamics.system import System

Engine: TypeAlias = Literal["auto", "plain", "replay", "compiled"]
Input: TypeAlias = float | Tensor | np.ndarray

# Steps that are run at a time: bounds the memory that noise takes.
CHUNK = 1024


class SimulationError(ValueError):
    """A run that cannot be made or that went wrong; the text names the node or the argument."""


class SimulationWarning(UserWarning):
    """A run that may not be what was meant."""


@dataclass(frozen=True, eq=False)
class SimulationState:
    """Where a run stands, enough to go on bit for bit.

    carry: states, then memories of noise, each (batch, node); history: (time, signal, batch, node),
    what travelled before, or None; step: steps done; seed: of the noise; dt in ms.
    """

    carry: State
    history: Tensor | None
    step: int
    seed: int
    dt: float


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a run leaves.

    time: (time,) float64, ms from the start of the run, one per kept sample. values: of every
    monitor, (batch, time, node). state: where the run ended, to go on from. labels: names of the
    nodes. units: of every monitor.
    """

    time: np.ndarray
    values: dict[str, Tensor]
    state: SimulationState
    labels: tuple[str, ...]
    units: dict[str, str]

    def __getitem__(self, name: str) -> Tensor:
        """The monitor called `name`, (batch, time, node)."""
        if name not in self.values:
            raise KeyError(f"no monitor {name!r}; this run kept {', '.join(self.values)}")
        return self.values[name]


class Simulator:
    """Runs a network.

    dt: step in ms. scheme: a name of `integrators.SCHEMES`: "euler", "heun", "rk4",
    "exponential_euler", "stochastic_heun" or "symplectic_euler".
    engine: "plain" runs every step as torch operations on any device and under vmap; "replay" runs
    the traced step through numpy, without gradients; "compiled" through a C++ loop made once per
    model, with gradients; "auto" chooses by the length of the run alone, see `engine`, so
    that equal runs have equal bits.
    """

    def __init__(
        self,
        network: Network,
        dt: float,
        *,
        scheme: str = "heun",
        engine: Engine = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not (math.isfinite(dt) and dt > 0):
            raise SimulationError(f"dt is {dt}; must be a number of ms above 0")
        if engine not in ENGINES:
            raise SimulationError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
        self.network = network
        self.dt = float(dt)
        self.scheme = scheme
        self.engine: Engine = engine
        self.dtype = dtype

    def run(
        self,
        duration: float,
        *,
        batch_size: int | None = None,
        inputs: Mapping[str, Input] | None = None,
        monitors: tuple[str, ...] | None = None,
        transient: float = 0.0,
        sample_every: int = 1,
        seed: int = 0,
        first_member: int = 0,
        start: Mapping[str, Input] | None = None,
        state: SimulationState | None = None,
        values: Mapping[str, Any] | None = None,
        normals: Tensor | None = None,
        checkpoint_every: int = 0,
        whole: float | None = None,
        on_steps: Callable[[int, int], None] | None = None,
    ) -> Trajectory:
        """Run for `duration` ms.

        batch_size: runs side by side, by default what parameters and inputs ask for. inputs: by
        name of the node's inputs, a number or an array (batch or 1, time or 1, node or 1) with one
        row per step. monitors: names of states or outputs to keep, by default all states.
        transient: ms at the start that are not kept; sample_every: of the rest, every so many-th
        step is kept and no other is stored. seed: of noise and random starts; first_member: number
        of the first batch member, so that members can be run apart. start: initial states by name,
        numbers or (batch or 1, node or 1). state: go on from the end of another run. values: other
        values of parameters, by their dotted names; differentiable. normals: (batch, steps, number,
        node), in place of the seed's. checkpoint_every: steps after which gradients are computed
        from a stored state instead of stored steps. whole: ms of the run of which this is a piece,
        if it is one: chooses the engine. on_steps: called with steps done and of all.

        Raises SimulationError: among others where a state is no finite number, with the node, the
        state and the time.
        """
        steps = self._steps(duration, "duration")
        skip = self._steps(transient, "transient") if transient else 0
        done_before = state.step if state else 0
        total = steps if whole is None else max(steps, self._steps(whole, "whole"))
        if skip >= max(total, done_before + steps):
            raise SimulationError(f"transient is {transient:g} ms of a run of {duration:g} ms")
        if checkpoint_every < 0 or int(checkpoint_every) != checkpoint_every:
            raise SimulationError(
                f"checkpoint_every is {checkpoint_every}; must be a number of steps, 0 for none"
            )
        if seed < 0 or first_member < 0:
            raise SimulationError(f"seed {seed}, first_member {first_member}: must be 0 or more")
        if state is not None and start is not None:
            raise SimulationError("start: a run goes on from a state or begins, not both")
        if sample_every < 1 or int(sample_every) != sample_every:
            raise SimulationError(f"sample_every is {sample_every}; must be a whole number, 1 up")
        resolved = self._values(values)
        drive = self._drive(inputs or {}, steps)
        system = self.network.system(resolved, self.dt, self.scheme)
        batch = self._batch(batch_size, resolved, drive, start, state, normals)
        state = state or self._start(system, batch, start, seed, first_member, normals)
        delays = self.network.delays(resolved, self.dt)
        self._check_state(system, state, batch, 0 if delays is None else delays.signals)
        history = state.history
        if delays is not None:
            history = self._history(system, state, delays.length, batch)
        numbers = sum(noise.normals for noise in system.noises)
        wanted = (batch, steps, numbers, self.network.nodes)
        if normals is not None and tuple(normals.shape) != wanted:
            raise SimulationError(
                f"normals are {tuple(normals.shape)}; must be {wanted}, (batch, step, number, node)"
            )
        names = self._monitors(monitors)
        pieces: list[Result] = []
        carry, done = state.carry, 0
        while done < steps:
            count = min(CHUNK, steps - done) if numbers and normals is None else steps - done
            drawn = None
            if numbers and normals is not None:
                drawn = normals[:, done : done + count].to(self.dtype)
            elif numbers:
                members = range(first_member, first_member + batch)
                drawn = self._normals(members, state, done, count, numbers)
            stretch = Stretch(
                network=self.network,
                system=system,
                values=resolved,
                delays=delays,
                carry=carry,
                history=history,
                drive=tuple(
                    each if each is None or each.shape[1] == 1 else each[:, done : done + count]
                    for each in drive
                ),
                normals=drawn,
                batch=batch,
                first=state.step + done,
                steps=count,
                skip=skip,
                every=int(sample_every),
                kept=self._kept(names),
                checkpoint_every=checkpoint_every,
            )
            piece = engines.run(self.engine, stretch, total, _teller(on_steps, done, steps))
            carry, history = piece.carry, piece.history
            pieces.append(piece)
            done += count
            if on_steps is not None:
                on_steps(done, steps)
        ended = SimulationState(carry, history, state.step + steps, state.seed, self.dt)
        return self._trajectory(pieces, ended, state.step, steps, skip, sample_every, names)

    def stream(self, duration: float, piece: float, **arguments: Any) -> Iterator[Trajectory]:
        """The same run in pieces of `piece` ms, one Trajectory each, bit for bit; see `run`.

        Inputs that change over time and `normals` are given whole.
        """
        steps, each = self._steps(duration, "duration"), self._steps(piece, "piece")
        state = arguments.pop("state", None)
        normals = arguments.pop("normals", None)
        arguments.setdefault("whole", steps * self.dt)
        drive = self._drive(arguments.pop("inputs", None) or {}, steps)
        names = self.network.node.inputs
        for begin in range(0, steps, each):
            count = min(each, steps - begin)
            inputs = {
                name: value if value.shape[1] == 1 else value[:, begin : begin + count]
                for name, value in zip(names, drive, strict=True)
                if value is not None
            }
            drawn = None if normals is None else normals[:, begin : begin + count]
            run = self.run(count * self.dt, inputs=inputs, state=state, normals=drawn, **arguments)
            arguments.pop("start", None)
            state = run.state
            yield run

    def _steps(self, duration: float, name: str) -> int:
        exact = duration / self.dt
        steps = round(exact) if math.isfinite(exact) else 0
        if steps < 1:
            raise SimulationError(f"{name} is {duration:g} ms; must be at least dt, {self.dt:g} ms")
        if abs(exact - steps) > 1e-6 * max(1.0, exact):
            steps = math.floor(exact)
            warnings.warn(
                f"{name} {duration:g} ms is no multiple of dt {self.dt:g} ms: {steps} steps, "
                f"{steps * self.dt:g} ms",
                SimulationWarning,
                stacklevel=3,
            )
        return max(steps, 1)

    def _values(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        resolved = self.network.values()
        for name, value in (values or {}).items():
            if name not in resolved:
                raise SimulationError(
                    f"values: no parameter {name!r}; one of {', '.join(resolved)}"
                )
            resolved[name] = value if isinstance(value, float | Tensor) else torch.as_tensor(value)
            _check_finite_numbers(f"values[{name!r}]", resolved[name])
        return {
            name: value.to(self.dtype) if isinstance(value, Tensor) else value
            for name, value in resolved.items()
        }

    def _drive(self, inputs: Mapping[str, Input], steps: int) -> tuple[Tensor | None, ...]:
        node = self.network.node
        for name in inputs:
            if name not in node.inputs:
                raise SimulationError(
                    f"inputs: {type(node).__name__} has no input {name!r}; "
                    f"one of {', '.join(node.inputs)}"
                )
        return tuple(self._input(name, inputs.get(name), steps) for name in node.inputs)

    def _input(self, name: str, value: Input | None, steps: int) -> Tensor | None:
        if value is None:
            return None
        tensor = torch.as_tensor(value, dtype=self.dtype)
        _check_finite_numbers(f"inputs[{name!r}]", tensor)
        if tensor.ndim == 0:
            return tensor.reshape(1, 1, 1)
        nodes = self.network.nodes
        fits = tensor.ndim == 3 and tensor.shape[1] in (1, steps) and tensor.shape[2] in (1, nodes)
        if not fits:
            raise SimulationError(
                f"inputs[{name!r}] is {tuple(tensor.shape)}; must be a number or (batch or 1, "
                f"{steps} steps or 1, {nodes} nodes or 1)"
            )
        return tensor

    def _batch(
        self,
        asked: int | None,
        values: dict[str, Any],
        drive: tuple[Tensor | None, ...],
        start: Mapping[str, Input] | None,
        state: SimulationState | None,
        normals: Tensor | None,
    ) -> int:
        """The batch size that arguments and parameters agree on."""
        sizes: dict[str, int] = {} if asked is None else {"batch_size": int(asked)}
        for name, value in values.items():
            if name != "weights" and getattr(value, "ndim", 0) == 2 and value.shape[0] > 1:
                sizes[name] = value.shape[0]
        for name, each in zip(self.network.node.inputs, drive, strict=True):
            if each is not None and each.shape[0] > 1:
                sizes[f"inputs[{name!r}]"] = each.shape[0]
        for name, given in (start or {}).items():
            shape = np.shape(given)
            if len(shape) == 2 and shape[0] > 1:
                sizes[f"start[{name!r}]"] = shape[0]
        if state is not None:
            sizes["state"] = state.carry[0].shape[0]
        if normals is not None:
            sizes["normals"] = normals.shape[0]
        if len(set(sizes.values())) > 1 or min(sizes.values(), default=1) < 1:
            found = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise SimulationError(f"batch sizes do not agree: {found}")
        return next(iter(sizes.values()), 1)

    def _start(
        self,
        system: System,
        batch: int,
        start: Mapping[str, Input] | None,
        seed: int,
        first_member: int,
        normals: Tensor | None,
    ) -> SimulationState:
        """The states before the first step: given, or drawn from the node's ranges."""
        node, nodes = self.network.node, self.network.nodes
        unknown = sorted(set(start or {}) - set(node.states))
        if unknown:
            raise SimulationError(
                f"start: {type(node).__name__} has no state {', '.join(unknown)}; "
                f"it has {', '.join(node.states)}"
            )
        begins = {name: (start or {}).get(name, node.start.get(name, 0.0)) for name in node.states}
        drawn_from = any(isinstance(each, tuple) for each in begins.values()) or system.noises
        members = range(first_member, first_member + batch) if drawn_from else ()
        generators = [start_generator(seed, member) for member in members]
        device = self._device()
        carry: list[Tensor] = []
        for name in node.states:
            given = begins[name]
            if isinstance(given, tuple):
                rows = [each.uniform(*given, nodes) for each in generators]
                value = torch.from_numpy(np.stack(rows))
            else:
                value = torch.as_tensor(given, dtype=self.dtype)
                _check_finite_numbers(f"start[{name!r}]", value)
            try:
                expanded = value.to(device, self.dtype).expand(batch, nodes)
            except RuntimeError:
                raise SimulationError(
                    f"start[{name!r}] is {tuple(value.shape)}; must broadcast to "
                    f"({batch}, {nodes}), (batch, node)"
                ) from None
            carry.append(expanded.clone() if expanded.requires_grad is False else expanded)
        for noise in system.noises:
            drawn = [
                torch.from_numpy(
                    np.stack([each.standard_normal(nodes, np.float32) for each in generators])
                ).to(device, self.dtype)
                for _ in range(noise.memory)
            ]
            carry += noise.start(tuple(drawn), self.dt)
        return SimulationState(tuple(carry), None, 0, seed, self.dt)

    def _check_state(
        self, system: System, state: SimulationState, batch: int, signals: int
    ) -> None:
        """Raise SimulationError where a run cannot go on from `state`."""
        if state.dt != self.dt:
            raise SimulationError(f"state was left by a run of dt {state.dt:g} ms, not {self.dt:g}")
        dtype = state.carry[0].dtype
        if dtype != self.dtype:
            raise SimulationError(f"state was left by a run of {dtype}, not {self.dtype}")
        count = len(system.node.states) + sum(noise.memory for noise in system.noises)
        shape = (batch, self.network.nodes)
        if len(state.carry) != count or any(each.shape != shape for each in state.carry):
            raise SimulationError(
                f"state was left by another network: {len(state.carry)} values of shape "
                f"{tuple(state.carry[0].shape)}, this one has {count} of {shape}"
            )
        if state.history is not None and state.history.shape[1:] != (signals, *shape):
            raise SimulationError(
                f"state was left by another network: {state.history.shape[1]} signals travel, in "
                f"this one {signals}"
            )

    def _history(self, system: System, state: SimulationState, length: int, batch: int) -> Tensor:
        """`length` steps of what travelled: of the run before, else the first state all along."""
        if state.history is None:
            sent = system.travelling(state.carry)
            now = torch.stack([each.expand(batch, self.network.nodes) for each in sent])
            return now.expand(length, *now.shape)
        missing = length - len(state.history)
        if missing > 0:
            oldest = state.history[:1].expand(missing, *state.history.shape[1:])
            return torch.cat([oldest, state.history])
        return state.history[-length:]

    def _normals(
        self, members: range, state: SimulationState, done: int, count: int, numbers: int
    ) -> Tensor:
        first = state.step + done
        drawn = standard_normals(state.seed, members, first, count, numbers, self.network.nodes)
        return torch.from_numpy(drawn).to(self._device(), self.dtype)

    def _device(self) -> torch.device:
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            return tensor.device
        return torch.device("cpu")

    def _trajectory(
        self,
        pieces: list[Result],
        state: SimulationState,
        first: int,
        steps: int,
        skip: int,
        every: int,
        names: tuple[str, ...],
    ) -> Trajectory:
        node = self.network.node
        single = [piece.samples for piece in pieces]
        whole = (
            single[0]
            if len(single) == 1
            else [torch.cat(own, dim=1) for own in zip(*single, strict=True)]
        )
        number = np.arange(first + 1, first + steps + 1)
        time = number[(number > skip) & ((number - skip) % every == 0)] * self.dt
        places = self._kept(names)
        states = dict(zip((node.states[k] for k in places), whole, strict=True))
        self._check_finite(states, state, time)
        if set(names) <= set(states):
            kept = {name: states[name] for name in names}
        else:
            kept = {name: node.output(name, tuple(whole)) for name in names}
        units = {name: node.state_units.get(name, "1") for name in names}
        return Trajectory(time, kept, state, self.network.labels, units)

    def _monitors(self, monitors: tuple[str, ...] | None) -> tuple[str, ...]:
        """What to keep: `monitors`, or all states."""
        node = self.network.node
        names = node.states if monitors is None else tuple(monitors)
        unknown = [name for name in names if name not in node.states + node.outputs]
        if unknown:
            raise SimulationError(
                f"monitors: {type(node).__name__} has no {unknown[0]!r}; "
                f"one of {', '.join(node.states + node.outputs)}"
            )
        return names

    def _kept(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Numbers of the states that monitors need: all of them where one is an output."""
        node = self.network.node
        if any(name in node.outputs for name in names):
            return tuple(range(len(node.states)))
        return tuple(k for k, name in enumerate(node.states) if name in names)

    def _check_finite(
        self, samples: dict[str, Tensor], state: SimulationState, time: np.ndarray
    ) -> None:
        """Raise SimulationError with the first state that is no finite number."""
        ends = state.carry[: len(self.network.node.states)]
        if any(torch._C._functorch.is_functorch_wrapped_tensor(end) for end in ends):
            return  # inside vmap or grad values cannot be looked at
        if all(bool(torch.isfinite(end.detach()).all()) for end in ends):
            return
        node, labels = self.network.node, self.network.labels
        found: list[tuple[float, str]] = []
        for name, end in zip(node.states, ends, strict=True):
            bad = (~torch.isfinite(samples[name].detach())).nonzero() if name in samples else []
            if len(bad):
                member, row, place = min((tuple(map(int, b)) for b in bad), key=lambda b: b[1])
                found.append((float(time[row]), f"{name} of {labels[place]!r} (member {member})"))
            elif not bool(torch.isfinite(end.detach()).all()):
                place = int((~torch.isfinite(end.detach())).nonzero()[0][1])
                found.append((state.step * self.dt, f"{name} of {labels[place]!r}"))
        when, what = min(found)
        raise SimulationError(
            f"the trajectory explodes: {what} is no finite number by {when:g} ms; a smaller dt "
            f"than {self.dt:g} ms, weaker coupling or inputs, or other parameters keep it finite"
        )


def _check_finite_numbers(name: str, value: float | Tensor) -> None:
    """Raise SimulationError for a value that is no finite number."""
    tensor = torch.as_tensor(value).detach()
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return  # inside vmap or grad values cannot be looked at
    if math.isfinite(float(tensor.sum())):
        return  # a sum is quick and holds every NaN and infinity
    bad = ~torch.isfinite(tensor)
    if bool(bad.any()):
        place = [int(k) for k in bad.nonzero()[0]]
        where = f" at {place}" if place else ""
        raise SimulationError(
            f"{name} is {tensor[tuple(place)].item()}{where}; must be a finite number"
        )


def _teller(
    on_steps: Callable[[int, int], None] | None, done: int, steps: int
) -> Callable[[int], None]:
    """What an engine calls with the steps since its last call."""
    count = done

    def tell(more: int) -> None:
        nonlocal count
        count += more
        if on_steps is not None:
            on_steps(count, steps)

    return tell

"""The engine that runs a stretch in one compiled C++ loop, with its own backward pass.

The step is traced and compiled once per model, step size and layout; sizes and values are given at
run time. Bits depend neither on the batch nor on how a run is cut.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.dynamics import kernel_build, kernel_source
from trainer.dynamics.kernel_source import Shape
from trainer.dynamics.layout import choose_layout, matrix
from trainer.dynamics.memory import room
from trainer.dynamics.stretch import Result, Stretch
from trainer.dynamics.system import System
from trainer.dynamics.tracing import (
    Program,
    Roles,
    TraceError,
    trace_backward,
    trace_forward,
)

# Steps of one call: bounds the memory of delays, and how rarely progress is told.
_STEPS = 16384
# Offsets of delays are int32.
_FARTHEST = 2**31 - 1
_NUMBERS = {torch.float32: "float", torch.float64: "double"}


def run(stretch: Stretch, advance: Callable[[int], None]) -> Result:
    """Run a stretch of steps; raises TraceError or CompilerError where it cannot be compiled."""
    tensors = tensors_of(stretch)
    gradient = torch.is_grad_enabled() and any(
        isinstance(each, Tensor) and each.requires_grad for each in tensors.values()
    )
    piece = stretch.checkpoint_every if gradient and stretch.checkpoint_every else _STEPS
    if gradient and not stretch.checkpoint_every:
        piece = stretch.steps
    samples: list[list[Tensor]] = []
    carry = [tensors.pop(f"carry {k}") for k in range(len(stretch.carry))]
    history = tensors.pop("history", None)
    for start in range(0, stretch.steps, piece):
        job = _Job(stretch, start, min(piece, stretch.steps - start), tuple(tensors), gradient)
        begun = [*carry] if history is None else [*carry, history]
        outputs = _Loop.apply(job, len(carry), *begun, *tensors.values())
        count = len(stretch.kept)
        samples.append(list(outputs[:count]))
        carry = list(outputs[count : count + len(carry)])
        history = outputs[-1] if history is not None else None
        advance(job.steps)
    whole = samples[0]
    if len(samples) > 1:
        whole = [torch.cat(own, dim=1) for own in zip(*samples, strict=True)]
    return Result(whole, tuple(carry), history)


def tensors_of(stretch: Stretch) -> dict[str, Tensor]:
    """Everything that a gradient may be asked of, by name."""
    dtype = stretch.carry[0].dtype
    tensors = {f"carry {k}": each for k, each in enumerate(stretch.carry)}
    if stretch.history is not None:
        tensors["history"] = stretch.history
    for k, each in enumerate(stretch.drive):
        if each is not None:
            tensors[f"drive {k}"] = each
    for name, value in stretch.values.items():
        if name not in ("weights", "speed"):
            tensors[f"parameter {name}"] = torch.as_tensor(value, dtype=dtype)
    system, delays = stretch.system, stretch.delays
    if system.row_sums is not None:
        tensors["parameter row_sums"] = system.row_sums
    if system.weights is not None:
        tensors["weights"] = system.weights
    if delays is not None:
        for k, tap in enumerate(delays.taps):
            tensors[f"tap {k}"] = tap.weights
    return tensors


@dataclass(frozen=True, eq=False)
class _Job:
    """One call of the loop: steps `start` … `start + steps` of a stretch."""

    stretch: Stretch
    start: int
    steps: int
    names: tuple[str, ...]
    gradient: bool

    @property
    def first_kept(self) -> int:
        """First step of this call after which the state is kept."""
        first, every = self.stretch.first_kept, self.stretch.every
        return first - self.start if first >= self.start else (first - self.start) % every

    @property
    def samples(self) -> int:
        """How many states are kept."""
        return max(0, -(-(self.steps - self.first_kept) // self.stretch.every))


class _Loop(torch.autograd.Function):
    """The compiled loop as one differentiable operation."""

    @staticmethod
    def forward(ctx: Any, job: _Job, carries: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """carry, [history], then the job's tensors → samples, carry, [history]."""
        ctx.job, ctx.carries = job, carries
        ctx.save_for_backward(*tensors)
        store = job.gradient and not job.stretch.checkpoint_every
        call = _Call(job, carries, tensors, store)
        call.forward()
        ctx.call = call if store else None
        return call.outputs()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Cotangents of every tensor that needs one."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "engine 'compiled' has first derivatives alone; use engine='plain' for create_graph"
            )
        tensors = ctx.saved_tensors  # refused where they were changed since
        call = ctx.call
        if call is None:
            call = _Call(ctx.job, ctx.carries, tensors, True)
            call.forward()
        ctx.call = None
        needed = ctx.needs_input_grad[2:]
        return (None, None, *call.backward(cotangents, needed))


class _Arguments(ctypes.Structure):
    """The struct of the same name in kernel_source."""

    _fields_ = [
        *[
            (name, ctypes.c_int64)
            for name in (
                "steps", "rows", "lanes", "nodes", "batch", "carries", "numbers", "arrivals",
                "signals", "past", "stored", "first_kept", "every", "outer", "taps", "kept",
                "count",
            )
        ],
        *[
            (name, ctypes.c_void_p)
            for name in (
                "carry", "samples", "history", "arrived", "temporary", "kept_states", "normals",
                "weights", "weights_back", "parameter", "drive", "drive_stride", "tap_weights",
                "tap_offsets", "lag_later", "lag_steps", "cotangent", "cotangent_history",
                "cotangent_arrived", "left", "right", "gradient", "cotangent_drive", "tap_gradient",
            )
        ],
    ]  # fmt: skip


_SIDES = ("left", "right")
_OUTER_STEPS = 64


class _Call:
    """The memory of one call: packs what goes in, runs the loop, unpacks what comes out."""

    def __init__(self, job: _Job, carries: int, tensors: tuple[Tensor, ...], store: bool) -> None:
        stretch = job.stretch
        self.job, self.carries, self.store = job, carries, store
        self.given = [each.detach() for each in tensors]
        delayed = stretch.history is not None
        head = carries + delayed
        self.named = dict(zip(job.names, self.given[head:], strict=True))
        self.history = self.given[carries] if delayed else None
        self.layout = choose_layout(
            stretch.batch, stretch.nodes, coupled="weights" in self.named, delayed=delayed
        )
        self.dtype = self.given[0].dtype
        self.kept: list[Any] = []  # what the arguments point to
        self.roles = roles_of(stretch, carries)
        self.arguments = _Arguments()
        self._fill()

    def forward(self) -> None:
        """Run the steps."""
        program = forward_program(self.job.stretch, self.roles)
        self._temporary(program)
        _function(program, self._shape(), "forward")(ctypes.byref(self.arguments))

    def outputs(self) -> tuple[Tensor, ...]:
        """samples (batch, sample, node) per state, carry (batch, node), history."""
        job, layout = self.job, self.layout
        kept = [each.movedim(0, 1) for each in self.samples]
        slot = job.steps if self.store else job.steps % 2
        carry = [each.contiguous() for each in layout.unpack(self.carry[slot])]
        if self.history is None:
            return (*kept, *carry)
        past = len(self.history)
        return (*kept, *carry, layout.unpack(self.travelled[-past:]).contiguous())

    def backward(
        self, cotangents: tuple[Tensor | None, ...], needed: tuple[bool, ...]
    ) -> list[Tensor | None]:
        """Cotangents of carry, history and the job's tensors, where they are needed."""
        job, layout, stretch = self.job, self.layout, self.job.stretch
        head = self.carries + (self.history is not None)
        names = [n for n, need in zip(job.names, needed[head:], strict=True) if need]
        wanted = _wanted(names, self.roles)
        program = _backward_program(stretch, self.roles, wanted)
        arguments = self.arguments
        new = functools.partial(torch.zeros, dtype=self.dtype)
        large = functools.partial(room, dtype=self.dtype)
        size, steps = layout.size, job.steps
        # Samples come in as their cotangents.
        states = len(stretch.kept)
        samples = large((states, job.samples, layout.batch, layout.nodes))
        for own, each in zip(samples, cotangents[:states], strict=True):
            _ = own.zero_() if each is None else own.copy_(each.movedim(1, 0))
        self._point("samples", samples)
        cotangent = new((2, self.carries, layout.rows, layout.width))
        for k, each in enumerate(cotangents[states : states + self.carries]):
            if each is not None:
                cotangent[steps % 2, k] = layout.pack(each)
        cotangent_history = None
        if self.history is not None:
            cotangent_history = torch.zeros_like(self.travelled)
            last = cotangents[-1]
            if last is not None:
                cotangent_history[-len(self.history) :] = layout.pack(last)
            self._point("cotangent_history", cotangent_history)
            self._point("cotangent_arrived", new((self.roles.arrived, size)))
        self._point("cotangent", cotangent)
        outer = sum(role == "left" for role, _, _ in program.outputs)
        arguments.outer = outer
        factors = {side: large((steps, outer, layout.rows, layout.width)) for side in _SIDES}
        for side, own in factors.items():
            self._point(side, own)
        parameters = [name for role, name, _ in program.outputs if role == "parameter"]
        gradient = new((len(parameters), size))
        self._point("gradient", gradient)
        drives = [name for role, name, _ in program.outputs if role == "drive"]
        of_drive = [large((steps, layout.rows, layout.width)) for _ in drives]
        self._points("cotangent_drive", of_drive)
        taps = any(name.startswith("tap ") for name in names)
        every_tap = [n for n in job.names if n.startswith("tap ")]
        if taps:
            side = layout.width if layout.lanes == "node" else layout.nodes
            of_taps = [new((layout.nodes, side)) for _ in every_tap]
            self._points("tap_gradient", of_taps)
        self._temporary(program)
        _function(program, self._shape(), "backward")(ctypes.byref(arguments))

        found: dict[str, Tensor] = {}
        for name, own in zip(parameters, gradient, strict=True):
            found[f"parameter {name}"] = layout.unpack(own.reshape(layout.rows, layout.width))
        for name, own in zip(drives, of_drive, strict=True):
            found[f"drive {name}"] = self._whole_drive(name, layout.unpack(own).movedim(0, 1))
        if outer:
            found["weights"] = self._outer(program, factors)
        if taps:
            if layout.lanes == "node":
                of_taps = [each[:, : layout.nodes].mT for each in of_taps]
            found |= dict(zip(every_tap, of_taps, strict=True))
        grads: list[Tensor | None] = list(layout.unpack(cotangent[0]))
        if cotangent_history is not None:
            grads.append(layout.unpack(cotangent_history[: len(self.history)]))
        for name, need in zip(job.names, needed[head:], strict=True):
            grad = found.get(name) if need else None
            if need and grad is None:
                grad = torch.zeros_like(self.named[name])
            grads.append(None if grad is None else grad.sum_to_size(self.named[name].shape))
        return [grad if need else None for grad, need in zip(grads, needed, strict=True)]

    def _outer(self, program: Program, factors: dict[str, Tensor]) -> Tensor:
        """Σ over steps and batch of left ⊗ right: (source, target)."""
        steps = self.job.steps
        sides: dict[str, list[Tensor]] = {side: [] for side in _SIDES}
        for role, name, ref in program.outputs:
            if role in sides:
                kept = kernel_source.kept_carry(program, ref)
                own = factors[role][:, int(name)] if kept is None else self.carry[:steps, kept]
                sides[role].append(self.layout.unpack(own))  # (step, batch, node)
        total = torch.zeros((self.layout.nodes,) * 2, dtype=self.dtype)
        for left, right in zip(sides["left"], sides["right"], strict=True):
            # Some steps at a time: products of views, without a copy of all steps.
            for start in range(0, steps, _OUTER_STEPS):
                few = slice(start, start + _OUTER_STEPS)
                total += torch.bmm(left[few].mT, right[few]).sum(dim=0)
        return total

    def _whole_drive(self, name: str, cotangent: Tensor) -> Tensor:
        """The cotangent (batch, step, node) of these steps, among zeros for the others."""
        given = self.named[f"drive {name}"]
        if given.shape[1] == 1 or given.shape[1] == self.job.steps:
            return cotangent
        whole = cotangent.new_zeros((cotangent.shape[0], given.shape[1], cotangent.shape[2]))
        whole[:, self.job.start : self.job.start + self.job.steps] = cotangent
        return whole

    def _fill(self) -> None:
        """Pack everything that a step reads, and the room for what it writes."""
        job, layout, stretch, arguments = self.job, self.layout, self.job.stretch, self.arguments
        empty = functools.partial(torch.empty, dtype=self.dtype)
        rows, width, size = layout.rows, layout.width, layout.size
        arguments.steps, arguments.rows, arguments.lanes = job.steps, rows, width
        arguments.nodes, arguments.batch = stretch.nodes, stretch.batch
        arguments.carries, arguments.numbers = self.carries, self.roles.normals
        arguments.arrivals, arguments.signals = self.roles.arrived, self.roles.sent
        arguments.stored = int(self.store)
        arguments.first_kept, arguments.every = job.first_kept, stretch.every
        slots = job.steps + 1 if self.store else 2
        self.carry = room((slots, self.carries, rows, width), self.dtype)
        for k in range(self.carries):
            self.carry[0, k] = layout.pack(self.given[k].expand(layout.batch, layout.nodes))
        self._point("carry", self.carry)
        self.samples = room(
            (len(stretch.kept), job.samples, layout.batch, stretch.nodes), self.dtype
        )
        arguments.kept, arguments.count = len(stretch.kept), job.samples
        self._point("samples", self.samples)
        self._point("kept_states", torch.tensor(stretch.kept, dtype=torch.int64))
        if self.roles.normals:
            assert stretch.normals is not None
            drawn = stretch.normals[:, job.start : job.start + job.steps]
            self._point("normals", layout.pack(drawn.permute(1, 2, 0, 3)))
        self.arrived = empty((job.steps if self.store else 1, self.roles.arrived, size))
        self._point("arrived", self.arrived)
        if self.history is not None:
            past = len(self.history)
            arguments.past = past
            self.travelled = empty((past + job.steps, self.roles.sent, rows, width))
            self.travelled[:past] = layout.pack(self.history)
            self._point("history", self.travelled)
        if "weights" in self.named:
            weights = self.named["weights"]
            self._point("weights", matrix(layout, weights, back=False))
            self._point("weights_back", matrix(layout, weights, back=True))
        self._parameters()
        self._drives()
        self._delays()

    def _parameters(self) -> None:
        packed = []
        for name in self.roles.parameters:
            value = self.named[f"parameter {name}"]
            kind = self.layout.kind(value.shape)
            packed.append(self.layout.pack_as(kind, _at_least_2d(value)))
        self._points("parameter", packed)

    def _drives(self) -> None:
        """Every driven input as (steps or 1, numbers), with the stride between steps."""
        job = self.job
        places: list[Tensor] = [torch.zeros(1, dtype=self.dtype)] * self.roles.inputs
        strides = [0] * self.roles.inputs
        for k in self.roles.drive:
            value = self.named[f"drive {k}"]
            if value.shape[1] > 1:
                value = value[:, job.start : job.start + job.steps]
            kind = self.layout.kind((value.shape[0], value.shape[2]))
            packed = self.layout.pack_as(kind, value.movedim(1, 0))
            places[k], strides[k] = packed, packed.shape[1] if value.shape[1] > 1 else 0
        self._points("drive", places)
        self._point("drive_stride", torch.tensor(strides, dtype=torch.int64))

    def _delays(self) -> None:
        delays = self.job.stretch.delays
        if delays is None:
            return
        self.arguments.taps = len(delays.taps)
        layout = self.layout
        age = self.roles.sent * layout.size
        weights = [self.named[f"tap {k}"] for k in range(len(delays.taps))]
        farthest = max((int(tap.steps.max()) for tap in delays.taps), default=0) * age
        if farthest > _FARTHEST:
            raise ValueError(
                f"delays reach {farthest} numbers back, more than the {_FARTHEST} that fit; run "
                "fewer members of the batch at a time"
            )
        offsets = [(tap.steps * age).to(torch.int32) for tap in delays.taps]
        if layout.lanes == "node":
            weights = [matrix(layout, each.mT, back=False) for each in weights]
            offsets = [matrix(layout, each.mT, back=False) for each in offsets]
        self._points("tap_weights", [each.contiguous() for each in weights])
        self._points("tap_offsets", [each.contiguous() for each in offsets])
        later = [lag[2].detach().to(self.dtype).expand(layout.nodes) for lag in delays.lags]
        self._points("lag_later", [each.contiguous() for each in later])
        steps = [lag[1].to(torch.int32).expand(layout.nodes) for lag in delays.lags]
        self._points("lag_steps", [each.contiguous() for each in steps])

    def _temporary(self, program: Program) -> None:
        count = kernel_source.temporaries(program, self._shape())
        self._point("temporary", torch.empty((count, self.layout.size), dtype=self.dtype))

    def _point(self, name: str, tensor: Tensor) -> None:
        self.kept.append(tensor)
        setattr(self.arguments, name, tensor.data_ptr())

    def _points(self, name: str, tensors: list[Tensor]) -> None:
        pointers = (ctypes.c_void_p * max(1, len(tensors)))(*[each.data_ptr() for each in tensors])
        self.kept += [tensors, pointers]
        setattr(self.arguments, name, ctypes.addressof(pointers))

    def _shape(self) -> Shape:
        kinds = [
            (("parameter", name), self.layout.kind(self.named[f"parameter {name}"].shape))
            for name in self.roles.parameters
        ]
        for k in self.roles.drive:
            value = self.named[f"drive {k}"]
            kinds.append((("drive", str(k)), self.layout.kind((value.shape[0], value.shape[2]))))
        delays = self.job.stretch.delays
        return Shape(
            kinds=tuple(kinds),
            lanes=self.layout.lanes,
            number=_NUMBERS[self.dtype],
            signals=self.roles.sent,
            taps=0 if delays is None else len(delays.taps),
            lags=() if delays is None else tuple(lag[0] for lag in delays.lags),
        )


def _at_least_2d(value: Tensor) -> Tensor:
    return value.reshape((1,) * (2 - value.ndim) + tuple(value.shape)) if value.ndim < 2 else value


def _role(name: str) -> tuple[str, str]:
    role, _, rest = name.partition(" ")
    return role, rest


def roles_of(stretch: Stretch, carries: int) -> Roles:
    """What goes into a step of a stretch."""
    system, delays = stretch.system, stretch.delays
    names = [name for name in stretch.values if name not in ("weights", "speed")]
    if system.row_sums is not None:
        names.append("row_sums")
    arrived = 0
    if delays is not None:
        arrived = len(delays.lags)
        if delays.taps:
            assert system.coupling is not None
            arrived += system.coupling.signals
    return Roles(
        carry=carries,
        drive=tuple(k for k, each in enumerate(stretch.drive) if each is not None),
        normals=sum(noise.normals for noise in system.noises),
        arrived=arrived,
        sent=0 if delays is None else delays.signals,
        parameters=tuple(names),
        inputs=len(stretch.drive),
        coupled=system.weights is not None,
    )


def _structure(system: System) -> tuple[Any, ...]:
    """What the traced step depends on apart from values."""
    parts = [system.node, *([] if system.coupling is None else [system.coupling]), *system.noises]
    described = []
    for part in parts:
        values = set(part.parameter_names())
        fixed = tuple(
            (each.name, _exactly(getattr(part, each.name)))
            for each in fields(part)  # type: ignore[arg-type]
            if each.name not in values
        )
        described.append((type(part), fixed))
    return (*described, system.coupling is None, system.delayed, system.dt, system.scheme)


def _exactly(value: Any) -> Any:
    """A key that is equal for equal values alone; arrays are shortened in print."""
    if isinstance(value, Tensor):
        value = value.detach().numpy()
    return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)


_programs: dict[Any, Program | TraceError] = {}


def prepare(stretch: Stretch, gradient: bool) -> None:
    """Trace what a run of the stretch needs; raises TraceError where that is impossible."""
    carries = len(stretch.carry)
    roles = roles_of(stretch, carries)
    forward_program(stretch, roles)
    if gradient:
        given = tensors_of(stretch)
        names = [name for name, each in given.items() if each.requires_grad]
        _backward_program(stretch, roles, _wanted(names, roles))


def forward_program(stretch: Stretch, roles: Roles) -> Program:
    """The traced step of a stretch, traced once per model, step size and roles."""
    key = (_structure(stretch.system), roles)
    return _program(key, lambda: trace_forward(stretch.system, roles))


def _backward_program(
    stretch: Stretch, roles: Roles, wanted: tuple[tuple[str, str], ...]
) -> Program:
    key = (_structure(stretch.system), roles, wanted)
    return _program(key, lambda: trace_backward(stretch.system, roles, wanted))


def _program(key: tuple[Any, ...], trace: Callable[[], Program]) -> Program:
    if key not in _programs:
        try:
            _programs[key] = trace()
        except TraceError as error:
            _programs[key] = error
    found = _programs[key]
    if isinstance(found, TraceError):
        raise TraceError(str(found))
    return found


def _wanted(names: list[str], roles: Roles) -> tuple[tuple[str, str], ...]:
    """(role, name) of what needs a cotangent, carries apart; names: tensors of the stretch."""
    begun = ("carry ", "history", "tap ")
    wanted = tuple(_role(name) for name in names if not name.startswith(begun))
    return wanted + tuple(("arrived", str(k)) for k in range(roles.arrived))


@functools.lru_cache(maxsize=256)
def _function(program: Program, shape: Shape, name: str) -> Any:
    made = kernel_build.library(kernel_source.source(program, shape, name))
    function = getattr(made, name)
    function.argtypes, function.restype = [ctypes.c_void_p], None
    return function

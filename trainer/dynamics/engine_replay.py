"""The engine that replays a traced step through numpy: no compiler, no gradients, no delays.

numpy writes into arrays that were made once, which halves the cost of a step against torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from trainer.dynamics.engine_compiled import forward_program, roles_of, tensors_of
from trainer.dynamics.memory import room
from trainer.dynamics.stretch import Result, Stretch
from trainer.dynamics.tracing import COMPARISONS, Instruction, Program, Ref

Operation = tuple[Callable[..., Any], tuple[Any, ...]]


def run(stretch: Stretch, advance: Callable[[int], None]) -> Result:
    """Run a stretch of steps without gradients; raises TraceError where it cannot be traced."""
    roles = roles_of(stretch, len(stretch.carry))
    program = forward_program(stretch, roles)
    # Infinities on the way, such as in a saturated sigmoid, are as silent as in torch.
    with torch.no_grad(), threadpool_limits(limits=1), np.errstate(all="ignore"):
        replay = _Replay(stretch, program)
        samples = replay.run(advance)
    carry = tuple(torch.from_numpy(each.copy()) for each in replay.carries[stretch.steps % 2])
    return Result(samples, carry, None)


class _Replay:
    """Arrays and operations of one stretch: the carry goes to and fro between two sets."""

    def __init__(self, stretch: Stretch, program: Program) -> None:
        self.stretch, self.program = stretch, program
        shape = (stretch.batch, stretch.nodes)
        dtype = _array(stretch.carry[0]).dtype
        first = [_array(each.expand(shape)).copy() for each in stretch.carry]
        self.carries = (first, [np.empty_like(each) for each in first])
        named = tensors_of(stretch)
        self.weights = _array(named["weights"]) if "weights" in named else None
        self.drives = {
            str(k): _array(each.movedim(1, 0))
            for k, each in enumerate(stretch.drive)
            if each is not None
        }
        self.inputs: dict[str, np.ndarray] = {
            name: np.empty(each.shape[1:], dtype) for name, each in self.drives.items()
        }
        if stretch.normals is not None:
            self.normals = np.ascontiguousarray(_array(stretch.normals).transpose(1, 2, 0, 3))
        parameters = {
            name: _array(named[f"parameter {name}"])
            for role, name in program.inputs
            if role == "parameter"
        }
        fixed = {ref: _whole(value, shape) for ref, value in self._fixed(parameters).items()}
        self.program, self.dropped = _without_units(program, fixed)
        self.buffers = _buffers(self.program, {*fixed, *self.dropped}, shape, dtype)
        self.programs = [self._operations(parameters, fixed, k, dtype) for k in (0, 1)]

    def run(self, advance: Callable[[int], None]) -> list[Tensor]:
        """Run all steps; the kept states (batch, sample, node)."""
        stretch, carries, programs = self.stretch, self.carries, self.programs
        shape = (stretch.samples, stretch.batch, stretch.nodes)
        kept = [room(shape, stretch.carry[0].dtype) for _ in stretch.kept]
        into = list(zip([each.numpy() for each in kept], stretch.kept, strict=True))
        sample, next_kept = 0, stretch.first_kept
        for step in range(stretch.steps):
            for name, drive in self.drives.items():
                np.copyto(self.inputs[name], drive[step if len(drive) > 1 else 0])
            if stretch.normals is not None:
                np.copyto(self.drawn, self.normals[step])
            for function, arguments in programs[step % 2]:
                function(*arguments)
            if step == next_kept:
                for own, number in into:
                    np.copyto(own[sample], carries[(step + 1) % 2][number])
                sample, next_kept = sample + 1, next_kept + stretch.every
            if (step + 1) % 1024 == 0:
                advance(1024)
        return [each.movedim(0, 1) for each in kept]

    @property
    def drawn(self) -> np.ndarray:
        """The standard normals of the current step, (number, batch, node)."""
        if not hasattr(self, "_drawn"):
            self._drawn = np.empty(self.normals.shape[1:], self.normals.dtype)
        return self._drawn

    def _fixed(self, parameters: dict[str, np.ndarray]) -> dict[int, np.ndarray]:
        """Values that parameters alone decide, computed once."""
        first = len(self.program.inputs)
        fixed: dict[int, np.ndarray] = {
            number: parameters[name]
            for number, (role, name) in enumerate(self.program.inputs)
            if role == "parameter"
        }
        for number, instruction in enumerate(self.program.instructions, start=first):
            refs = [ref for ref in instruction.args if isinstance(ref, int)]
            if instruction.op.startswith("product") or not all(ref in fixed for ref in refs):
                continue
            values = [fixed[ref] if isinstance(ref, int) else ref for ref in instruction.args]
            dtype = next(iter(parameters.values())).dtype
            typed = [
                np.asarray(each, dtype) if isinstance(each, float) else each for each in values
            ]
            fixed[number] = np.asarray(_PLAIN[instruction.op](*typed))
        return fixed

    def _operations(
        self,
        parameters: dict[str, np.ndarray],
        fixed: dict[int, np.ndarray],
        turn: int,
        dtype: np.dtype[Any],
    ) -> list[Operation]:
        """The calls of one step that reads the carry's set `turn` and writes the other."""
        first = len(self.program.inputs)
        values: dict[int, Any] = dict(fixed)
        for number, (role, name) in enumerate(self.program.inputs):
            if role == "carry":
                values[number] = self.carries[turn][int(name)]
            elif role == "normal":
                values[number] = self.drawn[int(name)]
            elif role == "drive":
                values[number] = self.inputs[name]
        moved = self.carries[1 - turn]
        target = {}
        for role, name, ref in self.program.outputs:
            if role == "carry" and isinstance(ref, int) and ref >= first and ref not in fixed:
                target.setdefault(ref, moved[int(name)])
        operations: list[Operation] = []
        for number, instruction in enumerate(self.program.instructions, start=first):
            if number in fixed or number in self.dropped:
                continue
            out = target.get(number, self.buffers.get(number))
            values[number] = out
            args = [
                values[ref] if isinstance(ref, int) else dtype.type(ref) for ref in instruction.args
            ]
            operations.append(self._operation(instruction, args, out))
        for role, name, ref in self.program.outputs:
            value = values[ref] if isinstance(ref, int) else dtype.type(ref)
            if role == "carry" and value is not moved[int(name)]:
                operations.append((np.copyto, (moved[int(name)], value)))
        return operations

    def _operation(self, instruction: Instruction, args: list[Any], out: Any) -> Operation:
        if instruction.op == "product":
            return np.matmul, (args[0], self.weights, out)
        if instruction.op == "where":
            return _choose, (*args, out)
        if instruction.op == "rsqrt":
            return _inverse_root, (*args, out)
        if instruction.op in ("maximum", "minimum"):
            # NumPy takes `out` of these two by its name alone.
            return functools.partial(_PLAIN[instruction.op], out=out), tuple(args)
        return _PLAIN[instruction.op], (*args, out)


def _whole(value: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A number as it is, any other array repeated to `shape`: numpy is slow along short rows."""
    return value if value.size == 1 else np.ascontiguousarray(np.broadcast_to(value, shape))


def _without_units(program: Program, fixed: dict[int, np.ndarray]) -> tuple[Program, set[int]]:
    """The program in which products with a parameter of 1 are their other factor, and these."""
    first = len(program.inputs)
    same: dict[Ref, Ref] = {}
    instructions = []
    for number, instruction in enumerate(program.instructions, start=first):
        args = tuple(
            same.get(ref, ref) if isinstance(ref, int) else ref for ref in instruction.args
        )
        instructions.append(Instruction(instruction.op, args))
        if instruction.op == "mul" and number not in fixed:
            for factor, kept in (args, args[::-1]):
                value = fixed.get(factor) if isinstance(factor, int) else None
                if value is not None and value.size == 1 and value.item() == 1:
                    same[number] = kept
    outputs = tuple(
        (role, name, same.get(ref, ref) if isinstance(ref, int) else ref)
        for role, name, ref in program.outputs
    )
    dropped = {ref for ref in same if isinstance(ref, int)}
    return Program(program.inputs, tuple(instructions), outputs), dropped


def _choose(condition: Any, yes: Any, no: Any, out: np.ndarray) -> None:
    np.copyto(out, np.where(condition, yes, no))


def _inverse_root(value: Any, out: np.ndarray) -> None:
    np.sqrt(value, out)
    np.reciprocal(out, out)


def _buffers(
    program: Program, without: set[int], shape: tuple[int, int], dtype: np.dtype[Any]
) -> dict[int, np.ndarray]:
    """An array for the result of every instruction, used again once nothing reads it any more."""
    first = len(program.inputs)
    last: dict[int, int] = {}
    for number, instruction in enumerate(program.instructions, start=first):
        for ref in instruction.args:
            if isinstance(ref, int):
                last[ref] = number
    end = first + len(program.instructions)
    last |= {ref: end for _, _, ref in program.outputs if isinstance(ref, int)}
    free: list[np.ndarray] = []
    taken: dict[int, np.ndarray] = {}
    for number, instruction in enumerate(program.instructions, start=first):
        if number in without:
            continue
        if instruction.op in COMPARISONS:
            taken[number] = np.empty(shape, bool)
            continue
        ended = [
            taken[ref]
            for ref in dict.fromkeys(instruction.args)
            if isinstance(ref, int) and last[ref] == number and ref in taken
        ]
        over = [own for own in ended if own.dtype != bool]
        # Element by element a result may take the place of an argument; a product may not.
        if not instruction.op.startswith("product"):
            free += over
        taken[number] = free.pop() if free else np.empty(shape, dtype)
        if instruction.op.startswith("product"):
            free += over
    return taken


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach())


_PLAIN: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
    "pow": np.power, "maximum": np.maximum, "minimum": np.minimum, "atan2": np.arctan2,
    "neg": np.negative, "abs": np.abs, "exp": np.exp, "expm1": np.expm1, "log": np.log,
    "log1p": np.log1p, "sin": np.sin, "cos": np.cos, "tan": np.tan, "tanh": np.tanh,
    "sqrt": np.sqrt, "floor": np.floor, "sign": np.sign, "where": np.where,
    "rsqrt": lambda value: 1 / np.sqrt(value),
    "gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal,
    "eq": np.equal, "ne": np.not_equal, "logical_and": np.logical_and,
    "logical_or": np.logical_or, "logical_not": np.logical_not,
    "bitwise_and": np.logical_and, "bitwise_or": np.logical_or, "bitwise_not": np.logical_not,
}  # fmt: skip

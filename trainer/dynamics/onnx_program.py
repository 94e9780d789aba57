"""A traced step as ONNX operators.

A `Program` holds the same instructions that the compiled engine runs; each becomes one or a few
operators. What is the same in all steps is computed before the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trainer.dynamics.tracing import COMPARISONS, Program, Ref

# Role and name of a value that goes into a program or comes out of it.
Label: TypeAlias = tuple[str, str]


class OperatorError(ValueError):
    """A step that has no ONNX form; the text names the operation."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph.

    name: empty for a constant. constant: its numbers, where they are known. moving: whether it
    changes from step to step. whole: whether it has the whole batch and all nodes, where others
    have axes of length 1 that broadcast. boolean: true and false rather than numbers.
    """

    name: str = ""
    constant: np.ndarray | None = None
    moving: bool = False
    whole: bool = False
    boolean: bool = False


def number(value: Any) -> Value:
    """Constant numbers, in single precision."""
    return Value(constant=np.asarray(value, np.float32))


def index(value: Any) -> Value:
    """Constant whole numbers."""
    return Value(constant=np.asarray(value, np.int64))


@dataclass
class Operators:
    """Operators as they are added: those of a step, those before all steps, and constants."""

    step: list[onnx.NodeProto] = field(default_factory=list)
    before: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    _known: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    _count: int = 0

    def add(self, operator: str, *operands: Value, **attributes: Any) -> Value:
        """The result of an operator; it stands before the steps where all its operands do."""
        moving = any(each.moving for each in operands)
        whole = any(each.whole for each in operands)
        self._count += 1
        name = f"v{self._count}"
        names = [self.name_of(each) for each in operands]
        node = helper.make_node(operator, names, [name], **attributes)
        (self.step if moving else self.before).append(node)
        return Value(name, None, moving, whole, operator in _BOOLEAN)

    def name_of(self, value: Value) -> str:
        """The name of a value in the graph; a constant is stored where it is first used."""
        if value.constant is None:
            return value.name
        array = np.asarray(value.constant, order="C")
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"c{len(self._known)}"
            self.constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def run(self, program: Program, given: Mapping[Label, Value]) -> dict[Label, Value]:
        """What a program computes, its inputs being `given`. Raises OperatorError."""
        values = [given[label] for label in program.inputs]

        def value(ref: Ref) -> Value:
            return values[ref] if isinstance(ref, int) else number(ref)

        for instruction in program.instructions:
            operands = [value(ref) for ref in instruction.args]
            if instruction.op == "product":
                values.append(self.add("MatMul", operands[0], given["weights", ""]))
                continue
            if instruction.op not in _LOGICAL:
                places = range(1, len(operands)) if instruction.op == "where" else range(9)
                operands = [
                    self._number(each) if place in places else each
                    for place, each in enumerate(operands)
                ]
            values.append(self._operator(instruction.op, operands))
        return {(role, name): value(ref) for role, name, ref in program.outputs}

    def _operator(self, op: str, operands: list[Value]) -> Value:
        if op in _OPERATORS:
            return self.add(_OPERATORS[op], *operands)
        if op in _COMPOSED:
            return _COMPOSED[op](self, *operands)
        raise OperatorError(f"a step that computes {op} has no ONNX form here")

    def _number(self, value: Value) -> Value:
        if not value.boolean:
            return value
        return self.add("Cast", value, to=onnx.TensorProto.FLOAT)


def _expm1(operators: Operators, x: Value) -> Value:
    """tanh(x/2) (eˣ + 1), which keeps its digits near 0."""
    half = operators.add("Tanh", operators.add("Mul", x, number(0.5)))
    return operators.add("Mul", half, operators.add("Add", operators.add("Exp", x), number(1.0)))


def _log1p(operators: Operators, x: Value) -> Value:
    """2 artanh(x / (2 + x)) near 0, where it keeps its digits; log(1 + x) elsewhere."""
    share = operators.add("Div", x, operators.add("Add", x, number(2.0)))
    near = operators.add("Mul", operators.add("Atanh", share), number(2.0))
    far = operators.add("Log", operators.add("Add", x, number(1.0)))
    close = operators.add("Less", operators.add("Abs", x), number(0.5))
    return operators.add("Where", close, near, far)


def _rsqrt(operators: Operators, x: Value) -> Value:
    return operators.add("Reciprocal", operators.add("Sqrt", x))


def _not_equal(operators: Operators, first: Value, second: Value) -> Value:
    return operators.add("Not", operators.add("Equal", first, second))


_COMPOSED: dict[str, Callable[..., Value]] = {
    "expm1": _expm1,
    "log1p": _log1p,
    "ne": _not_equal,
    "rsqrt": _rsqrt,
}
_OPERATORS = {
    "abs": "Abs",
    "add": "Add",
    "bitwise_and": "And",
    "bitwise_not": "Not",
    "bitwise_or": "Or",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logical_and": "And",
    "logical_not": "Not",
    "logical_or": "Or",
    "lt": "Less",
    "maximum": "Max",
    "minimum": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tan": "Tan",
    "tanh": "Tanh",
    "where": "Where",
}
_LOGICAL = COMPARISONS - {"gt", "ge", "lt", "le", "eq", "ne"}
_BOOLEAN = {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"}

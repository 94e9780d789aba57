"""The step function as a list of element-wise instructions, traced once.

`System.step` is run on symbols by torch's make_fx; what it did becomes a `Program`: element-wise
operations on (batch, node) values and products of such a value with the connectome. Its
vector–Jacobian product becomes a second one. Both are independent of every size.
"""

from __future__ import annotations

import operator
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from trainer.dynamics.node import Node, State
from trainer.dynamics.system import System

# A value of a program: the number of an input or instruction, or a constant.
Ref: TypeAlias = int | float


class TraceError(ValueError):
    """The step does something that is not element-wise; the text names the operation."""


@dataclass(frozen=True)
class Instruction:
    """`op` of `args`; "product" and "product_back" multiply by the connectome from the right."""

    op: str
    args: tuple[Ref, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """What one step does.

    inputs: (role, name) of the first values; instructions: the values after them, in order;
    outputs: (role, name, value). A key by identity: value 1 and constant 1.0 would be equal ones.
    """

    inputs: tuple[tuple[str, str], ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[tuple[str, str, Ref], ...]


@dataclass(frozen=True)
class Roles:
    """What goes into a step: names of parameters, of driven inputs, counts of the rest."""

    carry: int
    drive: tuple[int, ...]
    normals: int
    arrived: int
    sent: int
    parameters: tuple[str, ...]
    inputs: int
    coupled: bool


def trace_forward(system: System, roles: Roles) -> Program:
    """carry, drive, normals, arrived, parameters → carry, sent."""
    symbols = _symbols(roles)
    labels = list(symbols)

    def run(*tensors: Tensor) -> list[Tensor]:
        given = dict(zip(labels, tensors, strict=True))
        return list(_step(system, roles, given))

    names = [("carry", str(k)) for k in range(roles.carry)]
    names += [("sent", str(k)) for k in range(roles.sent)]
    return _program(run, symbols, names)


def trace_backward(system: System, roles: Roles, wanted: tuple[tuple[str, str], ...]) -> Program:
    """The same and cotangents of carry and sent → cotangents of carry and of what is wanted.

    wanted: (role, name) of parameters, drive and arrived whose cotangents are needed; the
    cotangent of the connectome comes as the two factors of an outer product, "left" and "right".
    """
    symbols = _symbols(roles)
    inputs = list(symbols)
    outputs = [("carry", str(k)) for k in range(roles.carry)]
    outputs += [("sent", str(k)) for k in range(roles.sent)]
    for role, name in outputs:
        symbols["cotangent_" + role, name] = _symbol()
    moved = [("carry", str(k)) for k in range(roles.carry)] + list(wanted)
    labels = list(symbols)

    def run(*tensors: Tensor) -> list[Tensor]:
        given = dict(zip(labels, tensors, strict=True))
        fixed = {label: given[label] for label in inputs}

        def of_moved(*values: Tensor) -> State:
            return _step(system, roles, fixed | dict(zip(moved, values, strict=True)))

        _, pull = torch.func.vjp(of_moved, *(given[label] for label in moved))
        cotangents = tuple(given["cotangent_" + role, name] for role, name in outputs)
        return list(pull(cotangents))

    return _program(run, symbols, moved)


def trace_output(node: Node, name: str, parameters: tuple[str, ...] = ()) -> Program:
    """carry, parameters "node.…" → what the node's output `name` is, role "output"."""
    labels = [("carry", str(k)) for k in range(len(node.states))]
    labels += [("parameter", each) for each in parameters]
    symbols = {label: _symbol() for label in labels}

    def run(*tensors: Tensor) -> list[Tensor]:
        given = dict(zip(labels, tensors, strict=True))
        own = {each.removeprefix("node."): given["parameter", each] for each in parameters}
        state = tuple(given[label] for label in labels if label[0] == "carry")
        return [node.having(own).output(name, state)]

    return _program(run, symbols, [("output", name)])


def _symbols(roles: Roles) -> dict[tuple[str, str], Tensor]:
    labels = [("carry", str(k)) for k in range(roles.carry)]
    labels += [("drive", str(k)) for k in roles.drive]
    labels += [("normal", str(k)) for k in range(roles.normals)]
    labels += [("arrived", str(k)) for k in range(roles.arrived)]
    labels += [("parameter", name) for name in roles.parameters]
    symbols = {label: _symbol() for label in labels}
    if roles.coupled:
        symbols["weights", ""] = torch.ones(_NODES, _NODES, dtype=torch.float64)
    return symbols


# Two sizes that no operation can mistake for one another.
_BATCH, _NODES = 3, 5


def _symbol() -> Tensor:
    return torch.ones(_BATCH, _NODES, dtype=torch.float64)


def _step(system: System, roles: Roles, given: dict[tuple[str, str], Tensor]) -> State:
    def part(prefix: str) -> dict[str, Tensor]:
        start = prefix + "."
        return {
            name.removeprefix(start): value
            for (role, name), value in given.items()
            if role == "parameter" and name.startswith(start)
        }

    bound = replace(
        system,
        node=system.node.having(part("node")),
        coupling=None if system.coupling is None else system.coupling.having(part("coupling")),
        noises=tuple(
            noise.having(part(f"noise.{number}")) for number, noise in enumerate(system.noises)
        ),
        weights=given.get(("weights", "")),
        row_sums=given.get(("parameter", "row_sums")),
    )
    carry = bound.step(
        tuple(given["carry", str(k)] for k in range(roles.carry)),
        tuple(given.get(("drive", str(k))) for k in range(roles.inputs)),
        tuple(given["normal", str(k)] for k in range(roles.normals)),
        tuple(given["arrived", str(k)] for k in range(roles.arrived)),
    )
    return carry + (bound.travelling(carry) if roles.sent else ())


# make_fx traces one function at a time.
_tracing = threading.RLock()


def _program(
    run: Callable[..., list[Tensor]],
    symbols: dict[tuple[str, str], Tensor],
    names: list[tuple[str, str]],
) -> Program:
    from torch._decomp import core_aten_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with _tracing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = make_fx(run, decomposition_table=core_aten_decompositions())(*symbols.values())
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(f"the step cannot be traced: {error}") from error
    graph.graph.eliminate_dead_code()
    return _Builder(list(symbols), names).build(graph)


@dataclass
class _Builder:
    """Turns a traced graph into a program: constants folded, equal instructions shared."""

    labels: list[tuple[str, str]]
    names: list[tuple[str, str]]
    instructions: list[Instruction] = field(default_factory=list)
    known: dict[tuple[str, tuple[Ref, ...], tuple[type, ...]], int] = field(default_factory=dict)
    values: dict[fx.Node, Any] = field(default_factory=dict)

    def build(self, graph: fx.GraphModule) -> Program:
        """The program of a graph."""
        place = 0
        outputs: list[tuple[str, str, Ref]] = []
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                weights = self.labels[place][0] == "weights"
                self.values[node] = _WEIGHTS if weights else place
                place += 1
            elif node.op == "get_attr":
                self.values[node] = _constant(getattr(graph, node.target))
            elif node.op == "call_function":
                self.values[node] = self._value(node)
            elif node.op == "output":
                for (role, name), out in zip(self.names, node.args[0], strict=True):
                    outputs += self._outputs(role, name, out)
        return _without_dead(Program(tuple(self.labels), tuple(self.instructions), tuple(outputs)))

    def _outputs(self, role: str, name: str, out: Any) -> list[tuple[str, str, Ref]]:
        value = 0.0 if out is None else self.values[out]
        if isinstance(value, _Outer):
            return [
                (side, str(number), ref)
                for number, pair in enumerate(value.pairs)
                for side, ref in zip(("left", "right"), pair, strict=True)
            ]
        return [(role, name, value)]

    def _value(self, node: fx.Node) -> Any:
        target: Any = node.target
        if target is operator.getitem:
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        name = target._schema.name.removeprefix("aten::")
        arguments = [self._argument(each) for each in node.args]
        shape = tuple(node.meta["val"].shape) if isinstance(node.meta.get("val"), Tensor) else ()
        if name in _SAME:
            return self._same(node, arguments[0])
        if name in _FILLED:
            return _FILLED[name](arguments)
        if name in ("t", "transpose", "permute"):
            return _turned(arguments[0])
        if name == "mm":
            return self._product(*arguments)
        if name == "add" and isinstance(arguments[0], _Outer):
            return _Outer(arguments[0].pairs + arguments[1].pairs)
        if name in _REWRITTEN:
            return _REWRITTEN[name](self, arguments, dict(node.kwargs))
        if name in OPERATIONS:
            if node.kwargs.get("alpha", 1) != 1:
                scaled = self.emit("mul", arguments[1], float(node.kwargs["alpha"]))
                arguments[1] = scaled
            return self.emit(name, *arguments)
        raise TraceError(
            f"{name} of shape {shape} is no element-wise operation on (batch, node); a step may "
            "hold such operations and the network's product alone"
        )

    def _same(self, node: fx.Node, value: Any) -> Any:
        """The value of an operation that leaves its numbers and their places as they are."""
        before, after = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
        if isinstance(value, int) and (
            before.shape != after.shape or after.dtype not in (before.dtype, *_REAL)
        ):
            raise TraceError(
                f"{node.target} from {tuple(before.shape)} {before.dtype} to {tuple(after.shape)} "
                f"{after.dtype}; a step may not cut, turn or round its (batch, node) values"
            )
        if before.dtype == torch.bool and after.dtype != torch.bool:
            return self.emit("where", value, 1.0, 0.0)
        return value

    def _argument(self, each: Any) -> Any:
        if isinstance(each, fx.Node):
            return self.values[each]
        return float(each) if isinstance(each, int | float | bool) else each

    def _product(self, left: Any, right: Any) -> Any:
        if isinstance(right, _Weights) and isinstance(left, int):
            return self.emit("product_back" if right.turned else "product", left)
        if isinstance(left, _Turned) and isinstance(right, int):
            return _Outer(((left.value, right),))
        if isinstance(left, float) and left == 0 and isinstance(right, _Weights):
            return 0.0
        raise TraceError("a matrix product that is not with the connectome")

    def emit(self, op: str, *args: Ref) -> Ref:
        """The value of an instruction: a constant, one that is there already, or a new one."""
        if op == "rsub":
            return self.emit("sub", args[1], args[0])
        folded = _folded(op, args)
        if folded is not None:
            return folded
        if op in ("add", "mul", "maximum", "minimum"):
            args = tuple(sorted(args, key=lambda ref: (isinstance(ref, float), ref)))
        # By type too: reference 2 and constant 2.0 are equal keys otherwise.
        key = (op, args, tuple(type(ref) for ref in args))
        if key not in self.known:
            self.instructions.append(Instruction(op, args))
            self.known[key] = len(self.labels) + len(self.instructions) - 1
        return self.known[key]


@dataclass(frozen=True)
class _Weights:
    turned: bool


@dataclass(frozen=True)
class _Turned:
    value: Ref


@dataclass(frozen=True)
class _Outer:
    """Cotangent of the connectome: a sum of outer products of (batch, node) pairs."""

    pairs: tuple[tuple[Ref, Ref], ...]


_WEIGHTS = _Weights(turned=False)


def _turned(value: Any) -> Any:
    if isinstance(value, _Weights):
        return _Weights(not value.turned)
    if isinstance(value, _Turned):
        return value.value
    if isinstance(value, _Outer):
        return _Outer(tuple((right, left) for left, right in value.pairs))
    return value if isinstance(value, float) else _Turned(value)


def _constant(tensor: Tensor) -> float:
    flat = tensor.reshape(-1)
    if not bool((flat == flat[0]).all()):
        raise TraceError("a constant array in a step; make it a parameter")
    return float(flat[0])


def _clamp(builder: _Builder, args: list[Any], options: dict[str, Any]) -> Ref:
    value = args[0]
    low = args[1] if len(args) > 1 else options.get("min")
    high = args[2] if len(args) > 2 else options.get("max")
    if low is not None:
        value = builder.emit("maximum", value, float(low) if not isinstance(low, int) else low)
    if high is not None:
        value = builder.emit("minimum", value, float(high) if not isinstance(high, int) else high)
    return value


def _sigmoid(builder: _Builder, args: list[Any], options: dict[str, Any]) -> Ref:
    grown = builder.emit("exp", builder.emit("neg", args[0]))
    return builder.emit("div", 1.0, builder.emit("add", grown, 1.0))


def _power(builder: _Builder, args: list[Any], options: dict[str, Any]) -> Ref:
    base, exponent = args
    if exponent == 2.0 and isinstance(exponent, float):
        return builder.emit("mul", base, base)
    if exponent == 3.0 and isinstance(exponent, float):
        return builder.emit("mul", builder.emit("mul", base, base), base)
    if exponent == 0.5 and isinstance(exponent, float):
        return builder.emit("sqrt", base)
    return builder.emit("pow", base, exponent)


def _quotient(builder: _Builder, args: list[Any], options: dict[str, Any]) -> Ref:
    if options.get("rounding_mode") is not None:
        raise TraceError("a division that rounds; a step may divide by / alone")
    return builder.emit("div", *args)


def _with(op: str, place: int, constant: float) -> Any:
    def rewritten(builder: _Builder, args: list[Any], options: dict[str, Any]) -> Ref:
        given = list(args)
        given.insert(place, constant)
        return builder.emit(op, *given)

    return rewritten


_SAME = {
    "expand", "clone", "detach", "alias", "_to_copy", "lift_fresh_copy", "view", "reshape",
    "_unsafe_view", "contiguous", "slice",
}  # fmt: skip
_REAL = (torch.float32, torch.float64)
_FILLED: dict[str, Callable[[list[Any]], float]] = {
    "zeros_like": lambda args: 0.0,
    "ones_like": lambda args: 1.0,
    "full_like": lambda args: float(args[1]),
    "full": lambda args: float(args[1]),
    "scalar_tensor": lambda args: float(args[0]),
    "new_zeros": lambda args: 0.0,
    "new_ones": lambda args: 1.0,
    "zeros": lambda args: 0.0,
    "ones": lambda args: 1.0,
    "_efficientzerotensor": lambda args: 0.0,
}
_REWRITTEN: dict[str, Any] = {
    "clamp": _clamp,
    "clamp_min": _clamp,
    "sigmoid": _sigmoid,
    "pow": _power,
    "div": _quotient,
    "relu": _with("maximum", 1, 0.0),
    "reciprocal": _with("div", 0, 1.0),
    # Of a clamp's backward pass: in place, on a value that nothing else reads.
    "logical_and_": lambda builder, args, options: builder.emit("logical_and", *args),
    "square": lambda builder, args, options: builder.emit("mul", args[0], args[0]),
}
# Every element-wise operation: how many arguments it takes.
OPERATIONS = {
    "add": 2, "sub": 2, "rsub": 2, "mul": 2, "div": 2, "pow": 2, "maximum": 2, "minimum": 2,
    "atan2": 2, "neg": 1, "abs": 1, "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sin": 1,
    "cos": 1, "tan": 1, "tanh": 1, "sqrt": 1, "rsqrt": 1, "floor": 1, "sign": 1, "where": 3,
    "gt": 2, "ge": 2, "lt": 2, "le": 2, "eq": 2, "ne": 2, "logical_and": 2, "logical_or": 2,
    "logical_not": 1, "bitwise_and": 2, "bitwise_or": 2, "bitwise_not": 1,
}  # fmt: skip
COMPARISONS = {
    "gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not",
    "bitwise_and", "bitwise_or", "bitwise_not",
}  # fmt: skip


def _folded(op: str, args: tuple[Ref, ...]) -> Ref | None:
    """The value of an instruction that needs none, or None."""
    constant = [arg if isinstance(arg, float) else None for arg in args]
    if op in ("product", "product_back"):
        return None
    if all(each is not None for each in constant) and op not in ("where",):
        tensors = [torch.tensor(each, dtype=torch.float64) for each in constant]
        function = getattr(torch, {"div": "true_divide", "neg": "neg"}.get(op, op))
        return float(function(*tensors))
    if op == "add" and 0.0 in constant:
        return args[1] if constant[0] == 0 else args[0]
    if op == "sub" and constant[1] == 0:
        return args[0]
    if op == "mul" and 0.0 in constant:
        return 0.0
    if op == "mul" and 1.0 in constant:
        return args[1] if constant[0] == 1 else args[0]
    if op == "div" and constant[1] == 1:
        return args[0]
    if op == "div" and constant[0] == 0:
        return 0.0
    if op == "where" and constant[0] is not None:
        return args[1] if constant[0] else args[2]
    return None


def _without_dead(program: Program) -> Program:
    """The program without instructions that no output needs, numbered anew."""
    first = len(program.inputs)
    needed = {ref for _, _, ref in program.outputs if isinstance(ref, int)}
    for number in range(len(program.instructions) - 1, -1, -1):
        if first + number in needed:
            needed |= {arg for arg in program.instructions[number].args if isinstance(arg, int)}
    kept = [n for n in range(len(program.instructions)) if first + n in needed]
    number_of: dict[Ref, Ref] = {k: k for k in range(first)}
    number_of |= {first + old: first + new for new, old in enumerate(kept)}

    def renumbered(refs: Iterable[Ref]) -> tuple[Ref, ...]:
        return tuple(number_of[ref] if isinstance(ref, int) else ref for ref in refs)

    return Program(
        program.inputs,
        tuple(
            Instruction(program.instructions[n].op, renumbered(program.instructions[n].args))
            for n in kept
        ),
        tuple((role, name, renumbered([ref])[0]) for role, name, ref in program.outputs),
    )

"""A network as an ONNX graph: one `Scan` over time around the traced step, for any number of steps.

The step is the `Program` that the compiled engine runs, so that an exported network moves as the
trained one. Noise is an input of standard normal numbers; the graph holds no random operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from trainer.dynamics.delays import Delays
from trainer.dynamics.network import Network
from trainer.dynamics.node import Node
from trainer.dynamics.onnx_program import Label, Operators, Value, index, number
from trainer.dynamics.simulator import SimulationState
from trainer.dynamics.system import System, lagged
from trainer.dynamics.tracing import Roles, trace_forward, trace_output

_END = 2**31 - 1


class ScanError(ValueError):
    """A network that cannot be exported; the text names the parameter, input or monitor."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What is observed of a network, as a model that the network drives.

    node: such as the Balloon model; input: of `node`, which `source`, a state or output of the
    network's node, enters. output: what is kept of `node`; every: steps from one value to the next.
    """

    node: Node
    source: str
    output: str
    every: int
    input: str | None = None
    scheme: str = "heun"
    start: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Exported:
    """What becomes of a network in a graph.

    values: of all parameters; dt in ms; scheme: see `Simulator`. start: one batch member's state
    and history, from which every run begins. driven: inputs of the node that take a stimulus;
    held: constants that enter inputs. parameters: names of the parameters that are inputs of the
    graph. monitors: states or outputs that are kept; every: steps from one kept value to the next.
    """

    network: Network
    values: Mapping[str, Any]
    dt: float
    scheme: str
    start: SimulationState
    driven: tuple[str, ...]
    held: Mapping[str, Any]
    parameters: tuple[str, ...]
    monitors: tuple[str, ...]
    every: int
    observed: Observed | None = None

    @property
    def numbers(self) -> int:
        """How many standard normal numbers a node takes a step."""
        return sum(noise.normals for noise in self.network.noise)

    def stimulus(self, name: str) -> str:
        """What the stimulus of an input of the node is called in the graph."""
        return "stimulus" if len(self.driven) == 1 else f"stimulus.{name}"

    def per_node(self, name: str) -> bool:
        """Whether a parameter has a value for each node, rather than one for all."""
        return bool(np.shape(_plain(self.values[name])))


NOISE = "noise"


def scan_graph(exported: Exported) -> onnx.GraphProto:
    """The graph of a network.

    Inputs: the stimulus of every driven input (batch, time, node), `noise` (batch, time, number,
    node) where the network has any, every parameter that is an input (batch, 1) or (batch, node).
    Outputs: every monitor and what is observed, (batch, time, node) at their own steps.
    Raises ScanError, OperatorError, TraceError.
    """
    return _Graph(exported).build()


class _Graph:
    """Puts the graph of a network together."""

    def __init__(self, exported: Exported) -> None:
        self.exported = exported
        self.operators = Operators()
        self.network = exported.network
        self.nodes = exported.network.nodes
        self.values = {name: _plain(value) for name, value in exported.values.items()}
        self._check()
        self.system = self.network.system(self._tensors(), exported.dt, exported.scheme)
        self.delays = self.network.delays(self._tensors(), exported.dt)
        self.scanned: list[tuple[str, str, list[Any]]] = []  # in the graph, in a step, its axes
        self.carried: list[tuple[str, Value, Value]] = []  # before a step, after it, at the start

    def build(self) -> onnx.GraphProto:
        """The whole graph."""
        exported = self.exported
        carry = self._begin(exported.start.carry, "carry")
        moved = self._step(carry)
        kept = self._outputs(self.network.node, "node", exported.monitors, moved)
        every = dict.fromkeys(kept, exported.every)
        if exported.observed is not None:
            kept |= self._observe(exported.observed, moved)
            every[exported.observed.output] = exported.observed.every
        return self._assemble(kept, every)

    def _check(self) -> None:
        exported, node = self.exported, self.network.node
        for name, value in self.values.items():
            if name != "weights" and np.ndim(value) == 2 and np.shape(value)[0] > 1:
                raise ScanError(
                    f"{name} has {np.shape(value)[0]} batch members; export one of them"
                )
        fixed = {"weights", "speed", *(f"node.{name}" for _, name in node.lags.values())}
        for name in exported.parameters:
            if name not in self.values or name in fixed:
                allowed = [each for each in self.values if each not in fixed]
                raise ScanError(
                    f"parameters: {name!r} cannot be an input; {', '.join(allowed)} can"
                )
        for name in (*exported.driven, *exported.held):
            if name not in node.inputs:
                raise ScanError(f"inputs: no {name!r}; one of {', '.join(node.inputs)}")
        for name in exported.monitors:
            if name not in node.states + node.outputs:
                known = ", ".join(node.states + node.outputs)
                raise ScanError(f"monitors: no {name!r}; one of {known}")
        if not exported.driven and not exported.numbers:
            raise ScanError("no stimulus and no noise: nothing says how many steps are wanted")

    def _tensors(self) -> dict[str, Any]:
        return {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in self.values.items()
        }

    def _begin(self, start: tuple[Tensor, ...], name: str) -> list[Value]:
        """Values that are carried from step to step, and where they begin."""
        carry = []
        for place, tensor in enumerate(start):
            first = _array(tensor).reshape(1, -1)
            carry.append(Value(f"{name}_{place}", moving=True, whole=True))
            self.carried.append((carry[-1].name, carry[-1], number(first)))
        return carry

    def _carry_on(self, before: Value, after: Value) -> None:
        place = next(k for k, (name, _, _) in enumerate(self.carried) if name == before.name)
        name, _, start = self.carried[place]
        self.carried[place] = (name, after, start)

    def _step(self, carry: list[Value]) -> list[Value]:
        """The step of the network; returns what is carried on."""
        exported, system, node = self.exported, self.system, self.network.node
        drive = {
            node.inputs.index(name): self._drive(name)
            for name in node.inputs
            if name in exported.driven or name in exported.held
        }
        arrived, history = self._arrivals()
        parameters = self._parameters()
        given: dict[Label, Value] = {("carry", str(k)): each for k, each in enumerate(carry)}
        given |= {("drive", str(k)): each for k, each in drive.items()}
        given |= {("normal", str(k)): each for k, each in enumerate(self._normals())}
        given |= {("arrived", str(k)): each for k, each in enumerate(arrived)}
        given |= {("parameter", name): each for name, each in parameters.items()}
        if system.weights is not None:
            given["weights", ""] = number(_array(system.weights))
        sent = 0 if history is None else len(system.travelling(exported.start.carry))
        roles = Roles(
            carry=len(carry),
            drive=tuple(drive),
            normals=exported.numbers,
            arrived=len(arrived),
            sent=sent,
            parameters=tuple(parameters),
            inputs=len(node.inputs),
            coupled=system.weights is not None,
        )
        found = self.operators.run(trace_forward(system, roles), given)
        moved = [self._whole(found["carry", str(k)]) for k in range(len(carry))]
        for before, after in zip(carry, moved, strict=True):
            self._carry_on(before, after)
        if history is not None:
            leaving = [self._whole(found["sent", str(k)]) for k in range(sent)]
            edges = [index([each]) for each in (sent * self.nodes, _END, 1)]
            kept = self.operators.add("Slice", history, *edges)
            self._carry_on(history, self.operators.add("Concat", kept, *leaving, axis=1))
        return moved

    def _drive(self, name: str) -> Value:
        held = self.exported.held.get(name)
        constant = None if held is None else number(_array(held))
        if name not in self.exported.driven:
            assert constant is not None
            return constant
        own = self.exported.stimulus(name)
        self.scanned.append((own, f"{own}_now", ["batch", self.nodes]))
        now = Value(f"{own}_now", moving=True, whole=True)
        return now if constant is None else self.operators.add("Add", now, constant)

    def _normals(self) -> list[Value]:
        numbers = self.exported.numbers
        if not numbers:
            return []
        self.scanned.append((NOISE, f"{NOISE}_now", ["batch", numbers, self.nodes]))
        now = Value(f"{NOISE}_now", moving=True, whole=True)
        return [self.operators.add("Gather", now, index(k), axis=1) for k in range(numbers)]

    def _parameters(self) -> dict[str, Value]:
        """What is no plain number: parameters with a value per node, and those that are inputs."""
        found = {
            name: number(value)
            for name, value in self.values.items()
            if isinstance(value, np.ndarray) and name not in ("weights", "speed")
        }
        found |= {name: Value(name) for name in self.exported.parameters}
        if self.system.row_sums is not None:
            found["row_sums"] = number(_array(self.system.row_sums))
        return found

    def _arrivals(self) -> tuple[list[Value], Value | None]:
        """What arrives in a step, as `delays.arrivals` has it, and the history it is read from.

        The history is (batch, time · signal · node), the newest step last.
        """
        delays = self.delays
        if delays is None:
            return [], None
        history = Value("history", moving=True, whole=True)
        self.carried.append((history.name, history, number(self._past(delays))))
        lags = lagged(self.network.node)
        arrived = []
        for signal in range(delays.signals - len(lags)):
            total: Value | None = None
            for tap in delays.taps:
                sent = self._sent(delays, history, signal, tap.steps)  # (batch, target, source)
                share = self.operators.add("Mul", sent, number(_array(tap.weights)))
                part = self.operators.add("ReduceSum", share, index([2]), keepdims=0)
                total = part if total is None else self.operators.add("Add", total, part)
            assert total is not None
            arrived.append(total)
        for signal, steps, later in delays.lags:
            near = self._sent(delays, history, signal, steps)
            far = self._sent(delays, history, signal, steps + 1)
            change = self.operators.add("Sub", far, near)
            part = self.operators.add("Mul", number(_array(later)), change)
            arrived.append(self.operators.add("Add", near, part))
        return arrived, history

    def _sent(self, delays: Delays, history: Value, signal: int, steps: Tensor) -> Value:
        """What left a node so many steps ago; the last axis of `steps` is the node."""
        ago = steps.numpy()
        place = ((delays.length - 1 - ago) * delays.signals + signal) * self.nodes
        return self.operators.add("Gather", history, index(place + np.arange(self.nodes)), axis=1)

    def _past(self, delays: Delays) -> np.ndarray:
        """The history at the start, (1, time · signal · node)."""
        start = self.exported.start
        if start.history is None:
            now = torch.stack(self.system.travelling(start.carry))[None]
            past = now.expand(delays.length, *now.shape[1:])
        elif len(start.history) < delays.length:
            missing = delays.length - len(start.history)
            oldest = start.history[:1].expand(missing, *start.history.shape[1:])
            past = torch.cat([oldest, start.history])
        else:
            past = start.history[-delays.length :]
        return _array(past)[:, :, 0].reshape(1, -1)

    def _observe(self, observed: Observed, moved: list[Value]) -> dict[str, Value]:
        """The step of what the network drives, and what is kept of it."""
        node = observed.node
        first = [_start(node, name, observed.start) for name in node.states]
        carry = self._begin(tuple(torch.full((1, self.nodes), each) for each in first), "observed")
        source = self._outputs(self.network.node, "node", (observed.source,), moved)
        place = node.inputs.index(observed.input or node.inputs[0])
        system = System(
            node=node,
            coupling=None,
            noises=(),
            weights=None,
            row_sums=None,
            delayed=False,
            dt=self.exported.dt,
            scheme=observed.scheme,
        )
        roles = Roles(len(carry), (place,), 0, 0, 0, (), len(node.inputs), coupled=False)
        given: dict[Label, Value] = {("carry", str(k)): each for k, each in enumerate(carry)}
        given["drive", str(place)] = source[observed.source]
        found = self.operators.run(trace_forward(system, roles), given)
        after = [self._whole(found["carry", str(k)]) for k in range(len(carry))]
        for before, each in zip(carry, after, strict=True):
            self._carry_on(before, each)
        return self._outputs(node, "", (observed.output,), after)

    def _outputs(
        self, node: Node, prefix: str, names: tuple[str, ...], state: list[Value]
    ) -> dict[str, Value]:
        """States or outputs of a node, by name."""
        own = self._parameters() if prefix else {}
        parameters = {k: v for k, v in own.items() if k.startswith(f"{prefix}.")}
        node = self.system.node if prefix else node
        kept: dict[str, Value] = {}
        for name in names:
            if name in node.states:
                kept[name] = state[node.states.index(name)]
                continue
            given: dict[Label, Value] = {
                ("carry", str(k)): state[k] for k in range(len(node.states))
            }
            given |= {("parameter", key): value for key, value in parameters.items()}
            program = trace_output(node, name, tuple(parameters))
            kept[name] = self._whole(self.operators.run(program, given)["output", name])
        return kept

    def _whole(self, value: Value) -> Value:
        """The value with all its rows and nodes, computed in every step."""
        if value.moving and value.whole:
            return value
        carry = Value("carry_0", moving=True, whole=True)
        found = self.operators.add("Expand", value, self.operators.add("Shape", carry))
        return replace(found, whole=True)

    def _assemble(self, kept: dict[str, Value], every: dict[str, int]) -> onnx.GraphProto:
        operators, sizes = self.operators, ["batch", self.nodes]
        self._once([after for _, after, _ in self.carried] + list(kept.values()))
        ends = [self._named(after, f"{name}_next") for name, after, _ in self.carried]
        ends += [self._named(value, f"{name}_kept") for name, value in kept.items()]
        widths = [start.constant.shape[1] for _, _, start in self.carried]  # type: ignore[union-attr]
        inside = [
            _info(name, ["batch", width])
            for (name, _, _), width in zip(self.carried, widths, strict=True)
        ]
        inside += [_info(now, axes) for _, now, axes in self.scanned]
        leaving = [_info(name, ["batch", width]) for name, width in zip(ends, widths, strict=False)]
        leaving += [_info(name, sizes) for name in ends[len(widths) :]]
        body = helper.make_graph(operators.step, "step", inside, leaving)
        starts = [self._started(start) for _, _, start in self.carried]
        whole = {name: name if every[name] == 1 else f"{name}_all" for name in kept}
        scan = helper.make_node(
            "Scan",
            starts + [name for name, _, _ in self.scanned],
            [f"{name}_end" for name, _, _ in self.carried] + list(whole.values()),
            body=body,
            num_scan_inputs=len(self.scanned),
            scan_input_axes=[1] * len(self.scanned),
            scan_output_axes=[1] * len(kept),
        )
        after = []
        for name, source in whole.items():
            if source != name:
                edges = [index([each]) for each in (every[name] - 1, _END, 1, every[name])]
                names = [source, *(operators.name_of(each) for each in edges)]
                after.append(helper.make_node("Slice", names, [name]))
        inputs = [_info(name, [axes[0], "time", *axes[1:]]) for name, _, axes in self.scanned]
        inputs += [
            _info(name, ["batch", self.nodes if self.exported.per_node(name) else 1])
            for name in self.exported.parameters
        ]
        outputs = [
            _info(name, ["batch", "time" if every[name] == 1 else f"{name}_time", self.nodes])
            for name in kept
        ]
        nodes = [*operators.before, scan, *after]
        return helper.make_graph(nodes, "network", inputs, outputs, operators.constants)

    def _once(self, values: list[Value]) -> None:
        assert all(each.moving and each.whole for each in values)

    def _named(self, value: Value, name: str) -> str:
        """A name of its own for what leaves the step: one value may leave under several."""
        self.operators.step.append(helper.make_node("Identity", [value.name], [name]))
        return name

    def _started(self, start: Value) -> str:
        """The name of a starting value in all rows of the batch."""
        operators = self.operators
        first = Value(self.scanned[0][0])
        batch = operators.add("Shape", first, start=0, end=1)
        width = start.constant.shape[1]  # type: ignore[union-attr]
        shape = operators.add("Concat", batch, index([width]), axis=0)
        return operators.add("Expand", start, shape).name


def _start(node: Node, name: str, given: Mapping[str, float]) -> float:
    value = given.get(name, node.start.get(name, 0.0))
    if isinstance(value, tuple):
        raise ScanError(f"{type(node).__name__}.{name} starts at random; say where it starts")
    return float(value)


def _plain(value: Any) -> Any:
    """A number where it is one for all nodes, else an array in single precision."""
    if isinstance(value, Tensor | np.ndarray):
        array = _array(value)
        return float(array.reshape(-1)[0]) if array.size == 1 and array.ndim < 2 else array
    return float(value)


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    return np.asarray(array, np.float32, order="C") if array.dtype.kind == "f" else array


def _info(name: str, axes: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)

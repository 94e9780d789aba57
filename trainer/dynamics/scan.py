"""A network as an ONNX graph: one `Scan` over time around the traced step, for any number of steps.

The step is the `Program` that the compiled engine runs, so that an exported network moves as the
trained one. Noise is an input of standard normal numbers; the graph holds no random operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from trainer.dynamics.delays import Delays
from trainer.dynamics.network import Network
from trainer.dynamics.node import Node
from trainer.dynamics.noise import Noise
from trainer.dynamics.onnx_program import Label, Operators, Value, index, number
from trainer.dynamics.scan_loop import END, Loop
from trainer.dynamics.simulator import SimulationState
from trainer.dynamics.system import System, lagged
from trainer.dynamics.tracing import Roles, trace_forward, trace_output

NOISE, STATE, FINAL_STATE = "noise", "state", "final_state"


class ScanError(ValueError):
    """A network that cannot be exported; the text names the parameter, input or monitor."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What is observed of a network: a model at every node that its activity drives.

    source: state or output of the network's node whose every `sampled`-th value is observed. mean:
    so many of these are averaged, and the average enters the first input of `node` for one step of
    `step` ms of `scheme`. output: state or output of `node` that is kept after every `every`-th of
    its steps.
    """

    node: Node
    source: str
    sampled: int
    mean: int
    step: float
    scheme: str
    output: str
    every: int

    @property
    def steps(self) -> int:
        """Steps of the network from one kept value to the next."""
        return self.sampled * self.mean * self.every


@dataclass(frozen=True, eq=False)
class Exported:
    """What becomes of a network in a graph.

    values: of all parameters; dt in ms; scheme: see `Simulator`. start: state and history of one
    batch member, from which every run begins. driven: inputs of the node that take a stimulus;
    held: constants that enter inputs, beside a stimulus too. parameters: names of those that are
    inputs of the graph. monitors: states or outputs that are kept after every `every`-th step.
    carries_on: the state at the start is an input and that at the end an output, so that a long run
    can be made in pieces; what is observed begins anew then, so there may be no `observed`.
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
    carries_on: bool = False

    @property
    def numbers(self) -> int:
        """How many standard normal numbers a node takes a step."""
        kinds = [noise for noise in self.network.noise if isinstance(noise, Noise)]
        return sum(noise.normals for noise in kinds)

    def stimulus(self, name: str) -> str:
        """What the stimulus of an input of the node is called in the graph."""
        return "stimulus" if len(self.driven) == 1 else f"stimulus.{name}"

    def width(self, name: str) -> int:
        """How many values a parameter has for a row: one, or one per node."""
        return self.network.nodes if np.shape(plain(name, self.values[name])) else 1


def scan_graph(exported: Exported) -> tuple[onnx.GraphProto, np.ndarray]:
    """The graph of a network, and the state (1, value) from which it starts.

    Inputs: the stimulus of every driven input (batch, time, node), `noise` (batch, time, number,
    node) where the network has any, every parameter that is an input (batch, 1) or (batch, node),
    and where runs carry on, `state` (batch, value). Outputs: every monitor and what is observed,
    (batch, time, node) at their own steps, and `final_state` (batch, value).
    Raises ScanError, OperatorError, TraceError.
    """
    return _Graph(exported).build()


class _Graph:
    """Puts the graph of a network together."""

    def __init__(self, exported: Exported) -> None:
        self.exported = exported
        self.network = exported.network
        self.nodes = exported.network.nodes
        self.values = {name: plain(name, value) for name, value in exported.values.items()}
        self._check()
        tensors = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in self.values.items()
        }
        self.system = self.network.system(tensors, exported.dt, exported.scheme)
        self.delays = self.network.delays(tensors, exported.dt)
        self.operators = Operators()
        self.loop = Loop(self.operators, "carry", self.nodes)
        self.outputs: list[onnx.ValueInfoProto] = []

    def build(self) -> tuple[onnx.GraphProto, np.ndarray]:
        """The whole graph, and where it starts."""
        exported, observed = self.exported, self.exported.observed
        moved = self._step()
        names = dict.fromkeys(exported.monitors)
        if observed is not None:
            names[observed.source] = None
        kept = {
            f"{name}_all": self._output(self.system.node, name, moved, self._parameters())
            for name in names
        }
        state = Value(STATE, whole=True) if exported.carries_on else None
        nodes = self.loop.close(kept, state)
        start = np.concatenate([each.start for each in self.loop.carried], axis=1)
        for name in exported.monitors:
            self._keep(name, Value(f"{name}_all"), exported.every)
        if observed is not None:
            nodes += self._observe(observed)
        if exported.carries_on:
            end = self.loop.end()
            self._result(FINAL_STATE, end, [start.shape[1]])
        nodes += self.operators.before
        inputs = [_info(each.name, "time", *each.axes) for each in self.loop.scanned] + [
            _info(name, exported.width(name)) for name in exported.parameters
        ]
        if exported.carries_on:
            inputs.append(_info(STATE, start.shape[1]))
        constants = self.operators.constants
        return helper.make_graph(nodes, "network", inputs, self.outputs, constants), start

    def _check(self) -> None:
        exported, node = self.exported, self.network.node
        for name, value in self.values.items():
            if name != "weights" and np.ndim(value) == 2 and np.shape(value)[0] > 1:
                members = np.shape(value)[0]
                raise ScanError(f"{name} has {members} batch members; export one of them")
        fixed = {"weights", "speed", *(f"node.{name}" for _, name in node.lags.values())}
        for name in exported.parameters:
            if name not in self.values or name in fixed:
                allowed = ", ".join(each for each in self.values if each not in fixed)
                raise ScanError(f"parameters: {name!r} cannot be an input; one of {allowed}")
        for name in (*exported.driven, *exported.held):
            if name not in node.inputs:
                raise ScanError(f"inputs: no {name!r}; one of {', '.join(node.inputs)}")
        observed = () if exported.observed is None else (exported.observed.source,)
        for name in exported.monitors + observed:
            if name not in node.states + node.outputs:
                known = ", ".join(node.states + node.outputs)
                raise ScanError(f"monitors: no {name!r}; one of {known}")
        if not exported.driven:
            raise ScanError("no stimulus: nothing says how many steps are wanted")
        if exported.carries_on and observed:
            raise ScanError("what is observed begins anew in every run: it cannot carry on")

    def _step(self) -> list[Value]:
        """The step of the network; returns the states after it."""
        exported, system, node = self.exported, self.system, self.network.node
        carry = [self.loop.carry(_array(each).reshape(1, -1)) for each in exported.start.carry]
        drive = {
            place: self._drive(name)
            for place, name in enumerate(node.inputs)
            if name in exported.driven or name in exported.held
        }
        history, arrived = None, []
        if self.delays is not None:
            history = self.loop.carry(self._past(self.delays))
            arrived = self._arrivals(self.delays, history)
        parameters = self._parameters()
        given = _labelled("carry", carry) | _labelled("normal", self._normals())
        given |= _labelled("arrived", arrived)
        given |= {("drive", str(place)): value for place, value in drive.items()}
        given |= {("parameter", name): value for name, value in parameters.items()}
        if system.weights is not None:
            given["weights", ""] = number(_array(system.weights))
        sent = 0 if self.delays is None else self.delays.signals
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
        for place, before in enumerate(carry):
            self.loop.move(before, found["carry", str(place)])
        if history is not None:
            leaving = [self.loop.whole(found["sent", str(k)]) for k in range(sent)]
            edges = [index([each]) for each in (sent * self.nodes, END, 1)]
            rest = self.operators.add("Slice", history, *edges)
            self.loop.move(history, self.operators.add("Concat", rest, *leaving, axis=1))
        return [each.after for each in self.loop.carried[: len(node.states)]]

    def _drive(self, name: str) -> Value:
        """What enters an input of the node in a step."""
        held = self.exported.held.get(name)
        constant = None if held is None else number(np.squeeze(_array(held)))
        if name not in self.exported.driven:
            assert constant is not None
            return constant
        now = self.loop.scan(self.exported.stimulus(name), self.nodes)
        return now if constant is None else self.operators.add("Add", now, constant)

    def _normals(self) -> list[Value]:
        numbers = self.exported.numbers
        if not numbers:
            return []
        now = self.loop.scan(NOISE, numbers, self.nodes)
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

    def _arrivals(self, delays: Delays, history: Value) -> list[Value]:
        """What arrives in a step, as `delays.arrivals` has it.

        The history is (batch, time · signal · node), the newest step last.
        """
        operators = self.operators
        arrived = []
        for signal in range(delays.signals - len(lagged(self.network.node))):
            total: Value | None = None
            for tap in delays.taps:
                sent = self._sent(delays, history, signal, tap.steps)  # (batch, target, source)
                share = operators.add("Mul", sent, number(_array(tap.weights)))
                part = operators.add("ReduceSum", share, index([2]), keepdims=0)
                total = part if total is None else operators.add("Add", total, part)
            assert total is not None
            arrived.append(total)
        for signal, steps, later in delays.lags:
            near = self._sent(delays, history, signal, steps)
            far = self._sent(delays, history, signal, steps + 1)
            change = operators.add("Sub", far, near)
            part = operators.add("Mul", number(_array(later)), change)
            arrived.append(operators.add("Add", near, part))
        return arrived

    def _sent(self, delays: Delays, history: Value, signal: int, steps: Tensor) -> Value:
        """What left a node so many steps ago; the last axis of `steps` is that node."""
        place = ((delays.length - 1 - steps.numpy()) * delays.signals + signal) * self.nodes
        return self.operators.add("Gather", history, index(place + np.arange(self.nodes)), axis=1)

    def _past(self, delays: Delays) -> np.ndarray:
        """The history at the start, (1, time · signal · node)."""
        start = self.exported.start
        if start.history is None:
            now = torch.stack(self.system.travelling(start.carry))[None]
            past = now.expand(delays.length, *now.shape[1:])
        else:
            missing = max(0, delays.length - len(start.history))
            oldest = start.history[:1].expand(missing, *start.history.shape[1:])
            past = torch.cat([oldest, start.history])[-delays.length :]
        return _array(past)[:, :, 0].reshape(1, -1)

    def _observe(self, observed: Observed) -> list[onnx.NodeProto]:
        """The second loop: what is observed of the first one's activity."""
        node, operators = observed.node, self.operators
        activity = self._every(Value(f"{observed.source}_all"), observed.sampled)
        mean = self._and_one(self._mean(activity, observed.mean))
        loop = Loop(operators, "observed", self.nodes)
        carry = [loop.carry(np.full((1, self.nodes), _start(node, k))) for k in node.states]
        system = System(node, None, (), None, None, False, observed.step, observed.scheme)
        roles = Roles(len(carry), (0,), 0, 0, 0, (), len(node.inputs), coupled=False)
        given = _labelled("carry", carry)
        given["drive", "0"] = loop.scan(mean.name, self.nodes)
        found = operators.run(trace_forward(system, roles), given)
        for place, before in enumerate(carry):
            loop.move(before, found["carry", str(place)])
        after = [each.after for each in loop.carried]
        name = observed.output
        nodes = loop.close({f"{name}_all": self._output(node, name, after, {})})
        self._keep(name, Value(f"{name}_all"), observed.every, end=-1)
        return nodes

    def _and_one(self, mean: Value) -> Value:
        """One step more, which nobody sees: there is no loop over no steps."""
        operators = self.operators
        batch = operators.add("Shape", mean, start=0, end=1)
        shape = operators.add("Concat", batch, index([1, self.nodes]), axis=0)
        return operators.add("Concat", mean, operators.add("Expand", number(0.0), shape), axis=1)

    def _mean(self, activity: Value, many: int) -> Value:
        """Means of `many` values each, (batch, time, node); an incomplete one is left out."""
        if many == 1:
            return activity
        operators = self.operators
        time = operators.add("Shape", activity, start=1, end=2)
        count = operators.add("Div", time, index([many]))
        whole = operators.add("Mul", count, index([many]))
        used = operators.add("Slice", activity, index([0]), whole, index([1]), index([1]))
        batch = operators.add("Shape", activity, start=0, end=1)
        sizes = [batch, count, index([many]), index([self.nodes])]
        parts = operators.add("Reshape", used, operators.add("Concat", *sizes, axis=0))
        # Over the last axis, where a row's sum is the same among others.
        turned = operators.add("Transpose", parts, perm=[0, 1, 3, 2])
        return operators.add("ReduceMean", turned, index([3]), keepdims=0)

    def _output(
        self, node: Node, name: str, state: list[Value], parameters: dict[str, Value]
    ) -> Value:
        """A state or output of a node, of its states; parameters: those that are no numbers."""
        if name in node.states:
            return state[node.states.index(name)]
        own = {key: value for key, value in parameters.items() if key.startswith("node.")}
        given = _labelled("carry", state[: len(node.states)])
        given |= {("parameter", key): value for key, value in own.items()}
        return self.operators.run(trace_output(node, name, tuple(own)), given)["output", name]

    def _every(self, value: Value, every: int, end: int = END) -> Value:
        """Every so many-th value along time, the first of them after `every` steps."""
        if every == 1 and end == END:
            return value
        edges = [index([each]) for each in (every - 1, end, 1, every)]
        return self.operators.add("Slice", value, *edges)

    def _keep(self, name: str, value: Value, every: int, end: int = END) -> None:
        """Let every so many-th value be a result of the graph."""
        time = "time" if every == 1 and self.exported.observed is None else f"{name}_time"
        self._result(name, self._every(value, every, end), [time, self.nodes])

    def _result(self, name: str, value: Value, axes: list[Any]) -> None:
        self.operators.before.append(helper.make_node("Identity", [value.name], [name]))
        self.outputs.append(_info(name, *axes))


def _labelled(role: str, values: list[Value]) -> dict[Label, Value]:
    return {(role, str(place)): value for place, value in enumerate(values)}


def _start(node: Node, name: str) -> float:
    value = node.start.get(name, 0.0)
    if isinstance(value, tuple):
        raise ScanError(f"{type(node).__name__}.{name} starts at random: it cannot observe")
    return float(value)


def plain(name: str, value: Any) -> Any:
    """A parameter as a number where it is one for all nodes, else as an array, (node,) or wider."""
    if not isinstance(value, Tensor | np.ndarray):
        return float(value)
    array = _array(value)
    if name == "weights":
        return array
    if array.size == 1:
        return float(array.reshape(-1)[0])
    return array[0] if array.ndim == 2 and len(array) == 1 else array


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    return np.asarray(array, np.float32, order="C") if array.dtype.kind == "f" else array


def _info(name: str, *axes: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *axes])

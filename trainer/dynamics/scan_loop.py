"""One ONNX `Scan`: a loop over time whose body is made of the operators of a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from trainer.dynamics.onnx_program import Operators, Value, index, number

END = 2**31 - 1


@dataclass
class Carried:
    """What goes from step to step: its value before and after a step, its size, where it begins.

    start: (1, width) the same for all rows, or None where it is part of the input `state`.
    """

    before: Value
    after: Value
    width: int
    start: np.ndarray | None


@dataclass(frozen=True)
class Scanned:
    """An input with a time axis: its name, its name within a step, its axes there."""

    name: str
    now: str
    axes: tuple[Any, ...]


class Loop:
    """A loop that is put together piece by piece.

    operators: where its step is built, empty of steps at first. name: part of all names inside.
    nodes: size of the last axis of what it keeps.
    """

    def __init__(self, operators: Operators, name: str, nodes: int) -> None:
        self.operators = operators
        self.name = name
        self.nodes = nodes
        self.carried: list[Carried] = []
        self.scanned: list[Scanned] = []

    def carry(self, start: np.ndarray) -> Value:
        """What a new value that is carried is before a step; start: (1, width)."""
        name = f"{self.name}_{len(self.carried)}"
        value = Value(name, moving=True, whole=True)
        self.carried.append(Carried(value, value, start.shape[1], start))
        return value

    def move(self, before: Value, after: Value) -> None:
        """Say what a carried value is after a step."""
        own = next(each for each in self.carried if each.before is before)
        own.after = self.whole(after)

    def scan(self, name: str, *axes: Any) -> Value:
        """What an input (batch, time, …) of the graph is in a step; axes: those after time."""
        now = f"{name}_now"
        self.scanned.append(Scanned(name, now, axes))
        return Value(now, moving=True, whole=True)

    def whole(self, value: Value) -> Value:
        """The value with all its rows and nodes, computed in every step."""
        if value.moving and value.whole:
            return value
        shape = self.operators.add("Shape", self.carried[0].before)
        return replace(self.operators.add("Expand", value, shape), whole=True)

    def close(self, kept: dict[str, Value], state: Value | None = None) -> list[onnx.NodeProto]:
        """The nodes before the loop and the loop itself; its operators are taken.

        kept: name of a result (batch, time, node) → its value in a step. state: (batch, all carried
        values one after the other), where the loop begins; None for the stored start.
        """
        operators = self.operators
        kept = {name: self.whole(value) for name, value in kept.items()}
        widths = [each.width for each in self.carried]
        starts = self._split(state) if state is not None else list(map(self._started, self.carried))
        inside = [_info(each.before.name, each.width) for each in self.carried]
        inside += [_info(each.now, *each.axes) for each in self.scanned]
        ends = [self._leaving(each.after, f"{each.before.name}_next") for each in self.carried]
        ends += [self._leaving(value, f"{name}_now") for name, value in kept.items()]
        leaving = list(map(_info, ends, widths + [self.nodes] * len(kept)))
        scan = helper.make_node(
            "Scan",
            starts + [each.name for each in self.scanned],
            [f"{each.before.name}_end" for each in self.carried] + list(kept),
            body=helper.make_graph(operators.step, f"{self.name}_step", inside, leaving),
            num_scan_inputs=len(self.scanned),
            scan_input_axes=[1] * len(self.scanned),
            scan_output_axes=[1] * len(kept),
        )
        nodes = [*operators.before, scan]
        operators.step, operators.before = [], []
        return nodes

    def end(self) -> Value:
        """All carried values after the last step, (batch, width)."""
        ends = [Value(f"{each.before.name}_end", whole=True) for each in self.carried]
        return self.operators.add("Concat", *ends, axis=1)

    def _split(self, state: Value) -> list[str]:
        edges = np.cumsum([0] + [each.width for each in self.carried])
        pairs = pairwise(map(int, edges))
        return [
            self.operators.add(
                "Slice", state, index([start]), index([stop]), index([1]), index([1])
            ).name
            for start, stop in pairs
        ]

    def _started(self, carried: Carried) -> str:
        """The name of a stored start in all rows of the batch."""
        batch = self.operators.add("Shape", Value(self.scanned[0].name), start=0, end=1)
        shape = self.operators.add("Concat", batch, index([carried.width]), axis=0)
        return self.operators.add("Expand", number(carried.start), shape).name

    def _leaving(self, value: Value, name: str) -> str:
        """A name of its own for what leaves the step: one value may leave under several."""
        self.operators.step.append(helper.make_node("Identity", [value.name], [name]))
        return name


def _info(name: str, *axes: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *axes])

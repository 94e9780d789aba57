"""What a neural mass is: states, inputs, parameters and their time derivative.

A model is a dataclass of parameters with a pure function `derivative(state, input)`:

    @node("hopf")
    class Hopf(Node):
        states = ("x", "y")
        inputs = ("x", "y")
        a: Value = parameter(0.25, "1/ms", "distance to the bifurcation")

        def derivative(self, state, input):
            x, y = state
            ...
            return dx, dy

Time is in ms. Every state and every input is a tensor (batch, node).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias, TypeVar, dataclass_transform

from torch import Tensor

from trainer.dynamics.parameters import Parametrized, Value, parameter, parametrized
from trainer.registry import Registry

__all__ = ["NODES", "Node", "State", "Value", "node", "parameter"]

NODES = Registry("neural mass", "axonnx.nodes")

State: TypeAlias = tuple[Tensor, ...]
Start: TypeAlias = float | tuple[float, float]

Kind = TypeVar("Kind", bound=type)


@dataclass_transform(kw_only_default=True, field_specifiers=(parameter,))
def node(name: str) -> Callable[[Kind], Kind]:
    """Decorator that makes a class of parameters a neural mass and registers it under `name`."""

    def decorate(kind: Kind) -> Kind:
        return NODES.register(name)(parametrized(kind))

    return decorate


class Node(Parametrized):
    """A neural mass.

    states: names of the state variables. inputs: names of what may be put in; coupling, noise and
    stimulus add up per input. start: where each state begins, a number or a range of uniform
    draws. outputs: names that `output` computes from the states. limits: ranges to which states are
    clipped after each step. lags: input name → (state, parameter), the node's own state so many ms
    ago. state_units: unit of each state, "1" where it is left out. source: where it was published.
    """

    states: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[str, ...]]
    start: ClassVar[Mapping[str, Start]] = {}
    outputs: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}
    lags: ClassVar[Mapping[str, tuple[str, str]]] = {}
    state_units: ClassVar[Mapping[str, str]] = {}
    source: ClassVar[str] = ""

    def derivative(self, state: State, input: State) -> State:
        """Time derivative of each state, per ms; all tensors are (batch, node).

        Pure: no branch on values, no memory, torch operations that work element by element.
        """
        raise NotImplementedError

    def output(self, name: str, state: State) -> Tensor:
        """The state or output called `name`, shape as the states."""
        return state[self.states.index(name)]

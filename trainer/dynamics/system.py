"""One step of a network as a pure function of tensors: what every engine runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.dynamics.coupling import Coupling
from trainer.dynamics.integrators import SCHEMES
from trainer.dynamics.node import Node, State
from trainer.dynamics.noise import Noise
from trainer.dynamics.sparse import SparseProduct


@dataclass(frozen=True, eq=False)
class System:
    """A network whose parameters are numbers and tensors, with step size and scheme.

    node, coupling, noises: with their values in place. weights: (source, target), the transpose of
    the connectome, None where signals are delayed or nothing is coupled. row_sums: (node,).
    delayed: whether `arrived` holds the coupling's sums. dt in ms; scheme: a name of SCHEMES.
    sparse: the product with the weights where that is the faster form, for the plain engine alone.
    """

    node: Node
    coupling: Coupling | None
    noises: tuple[Noise, ...]
    weights: Tensor | None
    row_sums: Tensor | None
    delayed: bool
    dt: float
    scheme: str
    sparse: SparseProduct | None = None

    def travelling(self, carry: State) -> State:
        """The signals that are delayed: of the coupling, then the lagged states."""
        state = carry[: len(self.node.states)]
        sent: State = ()
        if self.coupling is not None and self.delayed:
            sent = self.coupling.emit(self.node.output(self._source(), state))
        return sent + tuple(state[self.node.states.index(name)] for name in lagged(self.node))

    def step(
        self,
        carry: State,
        drive: tuple[Tensor | None, ...],
        normals: State,
        arrived: State,
    ) -> State:
        """The carry (states, then memories of noise; each (batch, node)) after one step.

        drive: what enters each input from outside, (batch, node) or None; normals: the standard
        normal numbers of this step; arrived: what came through delays, see `delays.arrivals`.
        """
        node, count = self.node, len(self.node.states)
        state, memory = carry[:count], carry[count:]
        inputs = list(drive)
        increments: list[Tensor | None] = [None] * count
        memories = self._noise(memory, normals, inputs, increments)
        if self.coupling is not None and (self.delayed or self.scheme in _HELD):
            place = self._target()
            inputs[place] = _sum(inputs[place], self._current(state, arrived))
        for number, name in enumerate(node.lags):
            place = node.inputs.index(name)
            inputs[place] = _sum(inputs[place], arrived[len(arrived) - len(node.lags) + number])

        def derivative(state: State) -> State:
            held = list(inputs)
            if self.coupling is not None and not self.delayed and self.scheme not in _HELD:
                place = self._target()
                held[place] = _sum(held[place], self._current(state, ()))
            given = (state[0].new_zeros(()) if each is None else each for each in held)
            return node.derivative(state, tuple(given))

        moved = SCHEMES[self.scheme](derivative, state, tuple(increments), self.dt)
        return self._limited(moved) + memories

    def _noise(
        self,
        memory: State,
        normals: State,
        inputs: list[Tensor | None],
        increments: list[Tensor | None],
    ) -> State:
        """Add every noise to the inputs or increments; returns the memories after the step."""
        after: State = ()
        for noise in self.noises:
            own, memory = memory[: noise.memory], memory[noise.memory :]
            drawn, normals = normals[: noise.normals], normals[noise.normals :]
            kept, value = noise.step(own, drawn, self.dt)
            after += kept
            names = self.node.states if noise.enters == "state" else self.node.inputs
            place = names.index(noise.target or names[0])
            onto = increments if noise.enters == "state" else inputs
            onto[place] = _sum(onto[place], value)
        return after

    def _current(self, state: State, arrived: State) -> Tensor:
        assert self.coupling is not None
        source = self.node.output(self._source(), state)
        if self.delayed:
            sums = arrived[: self.coupling.signals]
        else:
            sums = tuple(self._product(signal) for signal in self.coupling.emit(source))
        return self.coupling.receive(sums, source, self.row_sums)  # type: ignore[arg-type]

    def _product(self, signal: Tensor) -> Tensor:
        # Sparse products know nothing of vmap and jvp.
        if self.sparse is None or torch._C._functorch.peek_interpreter_stack() is not None:
            return signal @ self.weights
        return self.sparse(signal)

    def _limited(self, state: State) -> State:
        limits = self.node.limits
        named = zip(self.node.states, state, strict=True)
        return tuple(x.clamp(*limits[name]) if name in limits else x for name, x in named)

    def _source(self) -> str:
        assert self.coupling is not None
        return self.coupling.source or self.node.states[0]

    def _target(self) -> int:
        assert self.coupling is not None
        return self.node.inputs.index(self.coupling.target or self.node.inputs[0])


# Schemes with one slope per state, or whose Jacobian leaves the coupling out: it is held over the
# step.
_HELD = ("euler", "exponential_euler", "symplectic_euler")


def lagged(node: Node) -> tuple[str, ...]:
    """The states of which a node reads the past, in the order of its states."""
    names = {state for state, _ in node.lags.values()}
    return tuple(name for name in node.states if name in names)


def _sum(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b

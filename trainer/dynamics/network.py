"""A network of neural masses: one model at every node, a connectome, a coupling and noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.dynamics.connectome import Connectome
from trainer.dynamics.coupling import Coupling, Diffusive
from trainer.dynamics.delays import (
    Delays,
    check_delays,
    check_speed,
    lag_steps,
    longest,
    tap_delays,
)
from trainer.dynamics.integrators import SCHEMES
from trainer.dynamics.node import Node
from trainer.dynamics.noise import Noise
from trainer.dynamics.parameters import Param, Value
from trainer.dynamics.sparse import pays, sparse_product
from trainer.dynamics.system import System, lagged


class NetworkError(ValueError):
    """Parts of a network that do not fit one another; the text names the part."""


class Network(nn.Module):
    """Neural masses at the nodes of a connectome.

    node: the model of every node. connectome: who is connected to whom; `nodes` in its place gives
    that many nodes without a connection. coupling: by default diffusive on the first state. noise:
    one process or several. speed: conduction speed in mm/ms, which delays what travels by
    lengths / speed; None for no delays. interpolate: delays between steps, differentiable in the
    speed, in place of the nearest step. weights: in place of the connectome's, (target, source), a
    `Param` to fit them; their diagonal has no effect unless the connectome has self-connections.
    sparse: whether the plain engine sums over connections alone; None where that is faster; the
    other engines never do, and weights that get gradients stay dense.

    Its parameters go by names such as "node.a", "coupling.k", "noise.0.sigma", "speed", "weights".
    Raises NetworkError, ParameterError.
    """

    def __init__(
        self,
        node: Node,
        connectome: Connectome | None = None,
        *,
        nodes: int | None = None,
        coupling: Coupling | None = None,
        noise: Noise | Sequence[Noise] = (),
        speed: Value | None = None,
        interpolate: bool = False,
        weights: Param | Tensor | None = None,
        sparse: bool | None = None,
    ) -> None:
        super().__init__()
        if connectome is None and coupling is not None:
            raise NetworkError("coupling: needs a connectome")
        if connectome is not None and nodes not in (None, len(connectome)):
            raise NetworkError(f"nodes is {nodes}; the connectome has {len(connectome)}")
        self.node = node
        self.connectome = connectome
        self.nodes = len(connectome) if connectome is not None else nodes or 1
        self.coupling = coupling or (Diffusive() if connectome is not None else None)
        self.noise = nn.ModuleList([noise] if isinstance(noise, Noise) else list(noise))
        self.interpolate = interpolate
        self.sparse = sparse
        if weights is not None and connectome is None:
            raise NetworkError("weights: need a connectome")
        if isinstance(speed, Param) and speed.fit and not interpolate:
            raise NetworkError("speed: fitting it needs interpolate=True, else it has no gradient")
        self._own("speed", speed)
        self._own("weights", connectome.weights if weights is None and connectome else weights)
        if connectome is not None and connectome.lengths is not None:
            self.register_buffer("lengths", torch.from_numpy(connectome.lengths))
        self._check_names()
        values = self.values()
        self._check_shapes(values)
        if speed is not None:
            check_speed(torch.as_tensor(values["speed"]))
        self._check_weights(values.get("weights"))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the nodes."""
        if self.connectome is not None:
            return self.connectome.labels
        return tuple(f"node {k}" for k in range(self.nodes))

    def values(self) -> dict[str, float | Tensor]:
        """Current value of every parameter by its dotted name, Params through their transform."""
        read: dict[str, float | Tensor] = {}
        for prefix, part in self._parts():
            read |= {f"{prefix}.{name}": value for name, value in part.values().items()}
        for name in ("speed", "weights"):
            value = getattr(self, name)
            if value is not None:
                read[name] = value.value() if isinstance(value, Param) else value
        return read

    def params(self) -> dict[str, Param]:
        """Every `Param` by its dotted name, fitted or not."""
        named = self.named_modules()
        return {name: module for name, module in named if isinstance(module, Param)}

    def fitted(self) -> dict[str, Param]:
        """The Params that an optimiser may move."""
        return {name: param for name, param in self.params().items() if param.fit}

    def system(self, values: dict[str, Any], dt: float, scheme: str) -> System:
        """The step function at `values`, a full set of values as `values()` gives it."""
        if scheme not in SCHEMES:
            raise NetworkError(f"scheme {scheme!r} is none of {', '.join(SCHEMES)}")
        self._check_shapes(values)
        weights = self._connections(values)
        delayed = values.get("speed") is not None and weights is not None
        parts = {prefix: part.having(_below(values, prefix)) for prefix, part in self._parts()}
        row_sums = None
        if weights is not None:
            weights, row_sums = parts["coupling"].prepare(weights)
        sparse = weights is not None and not delayed and self._sums_connections(weights)
        return System(
            node=parts["node"],
            coupling=parts.get("coupling"),
            noises=tuple(parts[f"noise.{k}"] for k in range(len(self.noise))),
            weights=None if weights is None or delayed else weights.mT.contiguous(),
            row_sums=row_sums,
            delayed=delayed,
            dt=dt,
            scheme=scheme,
            sparse=sparse_product(weights) if sparse else None,
        )

    def delays(self, values: dict[str, Any], dt: float) -> Delays | None:
        """What travels at `values`, or None where nothing is delayed; warns of delays below dt."""
        taps, lags, signals, edges = [], [], 0, None
        weights = self._connections(values)
        if values.get("speed") is not None and weights is not None:
            speed = torch.as_tensor(values["speed"], dtype=weights.dtype, device=weights.device)
            check_speed(speed)
            milliseconds = self.lengths.to(weights) / speed
            check_delays(milliseconds, weights, dt, self.labels)
            assert self.coupling is not None
            prepared, _ = self.coupling.having(_below(values, "coupling")).prepare(weights)
            taps = tap_delays(milliseconds, prepared, dt, self.interpolate)
            signals = self.coupling.signals
            if self._sums_connections(prepared):
                edges = prepared.detach().nonzero(as_tuple=True)
        states = lagged(self.node)
        for state, name in self.node.lags.values():
            lag = torch.as_tensor(values[f"node.{name}"])
            if lag.ndim > 1:
                raise NetworkError(
                    f"node.{name}: shape {tuple(lag.shape)}; a lag is (), or ({self.nodes},), the "
                    "same for all of a batch"
                )
            lag = lag.expand(self.nodes)
            lags.append((signals + states.index(state), *lag_steps(lag, dt, f"node.{name}")))
        if not taps and not lags:
            return None
        length = longest(taps, lags)
        return Delays(tuple(taps), tuple(lags), signals + len(states), length, edges)

    def _connections(self, values: dict[str, Any]) -> Any:
        """The weights at `values`, with a diagonal of 0 unless there are self-connections."""
        weights = values.get("weights")
        if weights is None or self.connectome is None or self.connectome.self_connections:
            return weights
        return weights * (1 - torch.eye(self.nodes, dtype=weights.dtype, device=weights.device))

    def _sums_connections(self, weights: Tensor) -> bool:
        """Whether sums go over the connections alone."""
        if torch._C._functorch.is_functorch_wrapped_tensor(weights) or weights.requires_grad:
            return False
        return pays(weights) if self.sparse is None else self.sparse

    def _own(self, name: str, value: Any) -> None:
        if value is None or isinstance(value, Param):
            setattr(self, name, value)
        else:
            given = isinstance(value, Tensor) and value.is_floating_point()
            dtype = value.dtype if given else torch.float64  # a run takes them to its own
            self.register_buffer(name, torch.as_tensor(value, dtype=dtype))

    def _parts(self) -> list[tuple[str, Any]]:
        parts: list[tuple[str, Any]] = [("node", self.node)]
        if self.coupling is not None:
            parts.append(("coupling", self.coupling))
        return parts + [(f"noise.{k}", noise) for k, noise in enumerate(self.noise)]

    def _check_names(self) -> None:
        """Raise NetworkError where coupling or noise names a state or input that is not there."""
        node = self.node
        kind = type(node).__name__
        if self.coupling is not None:
            sources = node.states + node.outputs
            if self.coupling.source not in (None, *sources):
                raise NetworkError(
                    f"coupling.source: {kind} has no {self.coupling.source!r}; "
                    f"one of {', '.join(sources)}"
                )
            if self.coupling.target not in (None, *node.inputs):
                raise NetworkError(
                    f"coupling.target: {kind} has no input {self.coupling.target!r}; "
                    f"one of {', '.join(node.inputs)}"
                )
        for number, noise in enumerate(self.noise):
            names = node.states if noise.enters == "state" else node.inputs
            if noise.target not in (None, *names):
                raise NetworkError(
                    f"noise.{number}.target: {kind} has no {noise.enters} {noise.target!r}; "
                    f"one of {', '.join(names)}"
                )
        if self.speed is not None and self.connectome is None:
            raise NetworkError("speed: needs a connectome")
        if self.speed is not None and self.connectome.lengths is None:
            raise NetworkError(
                f"speed: {self.connectome.name} has no lengths; give them, or leave speed out"
            )

    def _check_weights(self, weights: Tensor | None) -> None:
        """Raise NetworkError for a weight that is no finite number."""
        if weights is None:
            return
        bad = (~torch.isfinite(weights.detach())).nonzero()
        if len(bad):
            i, j = (int(k) for k in bad[0])
            raise NetworkError(
                f"weights from {self.labels[j]!r} to {self.labels[i]!r} is {weights[i, j].item()}"
            )

    def _check_shapes(self, values: dict[str, Any]) -> None:
        """Raise NetworkError where a parameter does not broadcast to (batch, node)."""
        for name, value in values.items():
            shape = tuple(getattr(value, "shape", ()))
            if name == "weights":
                allowed = shape == (self.nodes, self.nodes)
                wanted = f"({self.nodes}, {self.nodes}), (target, source)"
            elif name == "speed":
                allowed, wanted = shape == (), "one number, the same for all of a batch"
            else:
                allowed = len(shape) <= 2 and (not shape or shape[-1] in (1, self.nodes))
                wanted = f"(), ({self.nodes},), (batch, 1) or (batch, {self.nodes})"
            if not allowed:
                raise NetworkError(f"{name}: shape {shape}; must be {wanted}")


def _below(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    start = prefix + "."
    return {name.removeprefix(start): v for name, v in values.items() if name.startswith(start)}

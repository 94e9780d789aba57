"""How the state of some nodes becomes an input of others: one matrix product per step and signal.

Every coupling is three steps: `emit` turns the source state into the signals that travel, the
network forms sums_i = Σ_j W_ij signal_j(t − delay_ij) (row i is the target), and `receive` turns
the sums into the current that enters the input `target`. Once per run `prepare` may scale the
weights. Constants of `emit` that differ between nodes belong to the source, those of `receive` to
the target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar, dataclass_transform, get_args

import torch
from torch import Tensor

from trainer.dynamics.parameters import (
    ParameterError,
    Parametrized,
    Value,
    parameter,
    parametrized,
)
from trainer.registry import Registry

COUPLINGS = Registry("coupling", "axonnx.couplings")

Kind = TypeVar("Kind", bound=type)


@dataclass_transform(kw_only_default=True, field_specifiers=(parameter,))
def coupling(name: str) -> Callable[[Kind], Kind]:
    """Decorator that makes a class of parameters a coupling and registers it under `name`."""

    def decorate(kind: Kind) -> Kind:
        return COUPLINGS.register(name)(parametrized(kind))

    return decorate


class Coupling(Parametrized):
    """A coupling.

    source: state or output of the node that travels; None for its first state. target: the input
    that the current enters; None for its first input. signals: how many signals travel.
    """

    signals: ClassVar[int] = 1

    source: str | None = None
    target: str | None = None

    def prepare(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The weights (target, source) that a run uses, and the `row_sums` of `receive` (node,).

        Called once per run with the connectome's weights; differentiable in them.
        """
        return weights, weights.sum(dim=1)

    def emit(self, source: Tensor) -> tuple[Tensor, ...]:
        """The signals (batch, node) that travel, of the source (batch, node)."""
        return (source,)

    def receive(self, sums: tuple[Tensor, ...], source: Tensor, row_sums: Tensor) -> Tensor:
        """The current (batch, node).

        sums: one (batch, node) per signal; source: the target's own source state now (batch, node);
        row_sums: Σ_j W_ij (node,), or what `prepare` makes of it.
        """
        raise NotImplementedError


@coupling("diffusive")
class Diffusive(Coupling):
    """k Σ_j W_ij (x_j(t − τ_ij) − x_i(t))."""

    source: str | None = None
    target: str | None = None
    k: Value = parameter(1.0, "1", "global coupling")

    def receive(self, sums: tuple[Tensor, ...], source: Tensor, row_sums: Tensor) -> Tensor:
        """See the class."""
        return self.k * (sums[0] - row_sums * source)


@coupling("additive")
class Additive(Coupling):
    """k Σ_j W_ij x_j(t − τ_ij) + b."""

    source: str | None = None
    target: str | None = None
    k: Value = parameter(1.0, "1", "global coupling")
    b: Value = parameter(0.0, "1", "constant current")

    def receive(self, sums: tuple[Tensor, ...], source: Tensor, row_sums: Tensor) -> Tensor:
        """See the class."""
        return self.k * sums[0] + self.b


@coupling("sigmoidal")
class Sigmoidal(Coupling):
    """k / (1 + exp(−slope (a Σ_j W_ij x_j(t − τ_ij) + b − midpoint)))."""

    source: str | None = None
    target: str | None = None
    k: Value = parameter(1.0, "1", "global coupling, the largest current")
    a: Value = parameter(1.0, "1", "gain of the sum")
    b: Value = parameter(0.0, "1", "shift of the sum")
    slope: Value = parameter(1.0, "1", "steepness")
    midpoint: Value = parameter(0.0, "1", "shifted sum at which the current is k/2")

    def receive(self, sums: tuple[Tensor, ...], source: Tensor, row_sums: Tensor) -> Tensor:
        """See the class."""
        return self.k * torch.sigmoid(self.slope * (self.a * sums[0] + self.b - self.midpoint))


@coupling("tanh")
class HyperbolicTangent(Coupling):
    """k tanh(scale Σ_j W_ij x_j(t − τ_ij))."""

    source: str | None = None
    target: str | None = None
    k: Value = parameter(1.0, "1", "global coupling, the largest current")
    scale: Value = parameter(2.0, "1", "gain of the sum")

    def receive(self, sums: tuple[Tensor, ...], source: Tensor, row_sums: Tensor) -> Tensor:
        """See the class."""
        return self.k * torch.tanh(self.scale * sums[0])


@coupling("jansen_rit_sigmoidal")
class JansenRitSigmoidal(Coupling):
    """k Σ_j W_ij S(x_j(t − τ_ij)): every node sends the firing rate of its potential x, in mV.

    S(x) = cmin + (cmax − cmin) / (1 + exp(r (midpoint − x))), in 1/ms.
    Source: Jansen and Rit 1995, Biol. Cybern. 73:357.
    """

    source: str | None = None
    target: str | None = None
    k: Value = parameter(1.0, "1", "global coupling")
    cmin: Value = parameter(0.0, "1/ms", "lowest rate")
    cmax: Value = parameter(0.005, "1/ms", "highest rate")
    midpoint: Value = parameter(6.0, "mV", "potential at the middle of the two rates")
    r: Value = parameter(0.56, "1/mV", "steepness")

    def emit(self, source: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        share = torch.sigmoid(self.r * (source - self.midpoint))
        return (self.cmin + (self.cmax - self.cmin) * share,)

    def receive(self, sums: tuple[Tensor, ...], source: Tensor, row_sums: Tensor) -> Tensor:
        """See the class."""
        return self.k * sums[0]


Normalize = Literal["none", "random_walk", "symmetric"]


@coupling("laplacian")
class Laplacian(Coupling):
    """k Σ_j L_ij x_j: diffusion along the graph's Laplacian L, of degrees d_i = Σ_j W_ij.

    normalize: "none" L = W − D, "random_walk" L = D⁻¹W − I, "symmetric" L = D^(−½)WD^(−½) − I. What
    comes from other nodes is delayed, a node's own share is not. A node without connections has
    zeros in its row. Raises ParameterError where a normalised row adds up to 0 or less.
    """

    source: str | None = None
    target: str | None = None
    normalize: Normalize = "none"
    k: Value = parameter(1.0, "1", "global coupling")

    def __post_init__(self) -> None:
        if self.normalize not in get_args(Normalize):
            raise ParameterError(
                f"Laplacian.normalize is {self.normalize!r}; must be one of "
                f"{', '.join(get_args(Normalize))}"
            )
        super().__post_init__()

    def prepare(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; the second is the diagonal of −L, the matrix's own weights apart."""
        degrees = weights.sum(dim=1)
        if self.normalize == "none":
            return weights, degrees
        _check_degrees(weights, degrees)
        connected = degrees > 0
        own = connected.to(weights)
        # The division of an isolated node must have a finite gradient too.
        safe = torch.where(connected, degrees, torch.ones_like(degrees))
        if self.normalize == "random_walk":
            return weights / safe[:, None], own
        root = safe.sqrt()
        return weights / (root[:, None] * root), own

    def receive(self, sums: tuple[Tensor, ...], source: Tensor, row_sums: Tensor) -> Tensor:
        """See the class."""
        return self.k * (sums[0] - row_sums * source)


@coupling("kuramoto")
class KuramotoCoupling(Coupling):
    """k/N Σ_j W_ij sin(θ_j(t − τ_ij) − θ_i − α), for phases θ in rad.

    Two signals travel, sin θ_j and cos θ_j. divide_by_nodes: whether the sum is divided by the
    number of nodes N. Source: Sakaguchi and Kuramoto 1986, Prog. Theor. Phys. 76:576.
    """

    signals = 2

    source: str | None = None
    target: str | None = None
    divide_by_nodes: bool = True
    k: Value = parameter(1.0, "rad/ms", "global coupling")
    alpha: Value = parameter(0.0, "rad", "phase lag of the target")

    def prepare(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        scaled = weights / len(weights) if self.divide_by_nodes else weights
        return super().prepare(scaled)

    def emit(self, source: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return torch.sin(source), torch.cos(source)

    def receive(self, sums: tuple[Tensor, ...], source: Tensor, row_sums: Tensor) -> Tensor:
        """See the class; sin(θ_j − φ) = sin θ_j cos φ − cos θ_j sin φ with φ = θ_i + α."""
        own = source + self.alpha
        return self.k * (sums[0] * torch.cos(own) - sums[1] * torch.sin(own))


def _check_degrees(weights: Tensor, degrees: Tensor) -> None:
    """Raise ParameterError for a node with connections whose weights add up to 0 or less."""
    if torch._C._functorch.is_functorch_wrapped_tensor(weights):
        return  # inside vmap or grad values cannot be looked at
    bad = ((degrees <= 0) & (weights != 0).any(dim=1)).nonzero()
    if len(bad):
        row = int(bad[0])
        raise ParameterError(
            f"Laplacian: the weights into node {row} add up to {degrees[row].item():g}; "
            "normalize needs a sum above 0, or none of them"
        )

"""How the state of some nodes becomes an input of others: one matrix product per step and signal.

Every coupling is three steps: `emit` turns the source state into the signals that travel, the
network forms sums_i = Σ_j W_ij signal_j(t − delay_ij) (row i is the target), and `receive` turns
the sums into the current that enters the input `target`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar, dataclass_transform

from torch import Tensor

from trainer.dynamics.parameters import Parametrized, Value, parameter, parametrized
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

    def emit(self, source: Tensor) -> tuple[Tensor, ...]:
        """The signals (batch, node) that travel, of the source (batch, node)."""
        return (source,)

    def receive(self, sums: tuple[Tensor, ...], source: Tensor, row_sums: Tensor) -> Tensor:
        """The current (batch, node).

        sums: one (batch, node) per signal; source: the target's own source state now (batch, node);
        row_sums: Σ_j W_ij (node,).
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

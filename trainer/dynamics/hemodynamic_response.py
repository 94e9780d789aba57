"""Hemodynamic response functions, and BOLD as activity convolved with one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from trainer.dynamics.observation import (
    OBSERVATIONS,
    Observation,
    ObservationError,
    check_interval,
    check_period,
    check_values,
    join,
    whole_ratio,
)
from trainer.dynamics.parameters import Param, Parametrized, Value, parameter, parametrized
from trainer.dynamics.temporal_average import at_step, check_step

# Kernels whose peak is no closed form are searched for it at this spacing.
PEAK_SPACING_S = 0.01


class Response(Parametrized):
    """A hemodynamic response: what a short burst of activity does to the signal, over time.

    duration: seconds after which it is over. Parameters are numbers, Params, or one value per node.
    """

    duration: ClassVar[float] = 20.0

    def at(self, seconds: Tensor) -> Tensor:
        """The response (time, 1 or node) at times (time, 1) in seconds after the burst."""
        raise NotImplementedError


@parametrized
class Volterra(Response):
    """First-order Volterra kernel of the balloon: g e^(−t/2τs) sin(ωt)/ω, ω² = 1/τf − 1/4τs².

    Its integral is g τf. Source: Friston et al. 2000, NeuroImage 12:466.
    """

    tau_s: Value = parameter(0.8, "s", "decay of the signal to the vessels")
    tau_f: Value = parameter(0.4, "s²", "feedback of the flow on that signal")
    scale: Value = parameter(1 / 3, "1", "size g")

    def at(self, seconds: Tensor) -> Tensor:
        """See Response."""
        decay, feedback = _like(self.tau_s, seconds), _like(self.tau_f, seconds)
        omega = torch.sqrt(1 / feedback - 1 / (4 * decay * decay))
        wave = torch.sin(omega * seconds) / omega
        return _like(self.scale, seconds) * torch.exp(-seconds / (2 * decay)) * wave


@parametrized
class Gamma(Response):
    """Gamma function of order n, (t/τ)^(n−1) e^(−t/τ), scaled to its peak at (n − 1) τ.

    Source: Boynton et al. 1996, J. Neurosci. 16:4207.
    """

    tau: Value = parameter(1.08, "s", "time constant")
    n: Value = parameter(3.0, "1", "order, above 1")
    peak: Value = parameter(0.1, "1", "largest value")

    def at(self, seconds: Tensor) -> Tensor:
        """See Response."""
        power = _like(self.n, seconds) - 1
        ratio = seconds / _like(self.tau, seconds)
        return _like(self.peak, seconds) * torch.exp(
            power * (1 + _log(ratio) - torch.log(power)) - ratio
        )


@parametrized
class DoubleExponential(Response):
    """Two damped waves, a1 e^(−t/τ1) sin(2π f1 t) − a2 e^(−t/τ2) sin(2π f2 t), scaled to a peak.

    Source: Polonsky et al. 2000, Nat. Neurosci. 3:1153.
    """

    duration = 40.0

    tau_1: Value = parameter(7.22, "s", "decay of the first wave")
    tau_2: Value = parameter(7.4, "s", "decay of the second wave")
    f_1: Value = parameter(0.03, "Hz", "frequency of the first wave")
    f_2: Value = parameter(0.12, "Hz", "frequency of the second wave")
    a_1: Value = parameter(0.1, "1", "size of the first wave")
    a_2: Value = parameter(0.1, "1", "size of the second wave")
    peak: Value = parameter(0.1, "1", "largest value")

    def at(self, seconds: Tensor) -> Tensor:
        """See Response."""
        count = round(self.duration / PEAK_SPACING_S)
        times = torch.arange(count, dtype=seconds.dtype, device=seconds.device) * PEAK_SPACING_S
        highest = self._waves(times[:, None]).amax(dim=0)
        return _like(self.peak, seconds) * self._waves(seconds) / highest

    def _waves(self, seconds: Tensor) -> Tensor:
        waves = []
        for size, tau, frequency in (
            (self.a_1, self.tau_1, self.f_1),
            (self.a_2, self.tau_2, self.f_2),
        ):
            phase = 2 * math.pi * _like(frequency, seconds) * seconds
            decay = torch.exp(-seconds / _like(tau, seconds))
            waves.append(_like(size, seconds) * decay * torch.sin(phase))
        return waves[0] - waves[1]


@parametrized
class MixtureOfGammas(Response):
    """A peak and an undershoot: g(a1) − c g(a2), g(a) = (λt)^(a−1) e^(−λt) / Γ(a).

    Source: Glover 1999, NeuroImage 9:416.
    """

    a_1: Value = parameter(6.0, "1", "order of the peak")
    a_2: Value = parameter(13.0, "1", "order of the undershoot")
    rate: Value = parameter(1.0, "1/s", "λ")
    c: Value = parameter(0.4, "1", "size of the undershoot")

    def at(self, seconds: Tensor) -> Tensor:
        """See Response."""
        scaled = _like(self.rate, seconds) * seconds
        gammas = []
        for order in (_like(self.a_1, seconds), _like(self.a_2, seconds)):
            gammas.append(torch.exp((order - 1) * _log(scaled) - scaled - torch.lgamma(order)))
        return gammas[0] - _like(self.c, seconds) * gammas[1]


RESPONSES: dict[str, type[Response]] = {
    "volterra": Volterra,
    "gamma": Gamma,
    "double_exponential": DoubleExponential,
    "mixture_of_gammas": MixtureOfGammas,
}


@dataclass(frozen=True, eq=False)
class ResponseState:
    """Where a convolution stands.

    rest: samples that do not fill a step yet; history: means of the steps before, as many as the
    response is long less one; both (batch, time, node). done: steps so far; interval of the samples
    in ms.
    """

    rest: Tensor
    history: Tensor
    done: int
    interval: float


@OBSERVATIONS.register("hemodynamic_response")
class HemodynamicResponse(Observation):
    """BOLD every `period` ms as activity convolved with a response.

    response: "volterra", "gamma", "double_exponential", "mixture_of_gammas", one of these as
    {"name": …} with parameters, or a `Response`. step: ms over which activity is averaged before;
    duration in s: where the response is cut off, by default its own. Activity before the first
    sample is 0.

    convention "integral": k1 V0 ∫ h(u) x(t − u) du, u in seconds, by the midpoint rule: 0 for no
    activity, and the same for any step. "sum": k1 V0 (Σ h x − 1) without the length of the step,
    the form in which the kernels were first published with these sizes, whose values grow as the
    step shrinks.
    """

    def __init__(
        self,
        *,
        response: str | Mapping[str, Any] | Response = "volterra",
        period: float = 1000.0,
        step: float = 4.0,
        duration: float | None = None,
        k1: float = 5.6,
        V0: float = 0.02,
        convention: Literal["integral", "sum"] = "integral",
    ) -> None:
        super().__init__()
        check_period("period", period)
        check_period("step", step)
        self.response = _response(response)
        self.period, self.step = float(period), float(step)
        seconds = self.response.duration if duration is None else duration
        check_period("duration", 1000 * seconds)
        self.taps = math.ceil(round(1000 * seconds / step, 6))
        self.duration = seconds
        self.scale = k1 * V0
        self.convention = convention

    def kernel(self, like: Tensor) -> Tensor:
        """The response at the steps of the convolution, (time, 1 or node), newest first."""
        if self.convention == "sum":
            times = torch.linspace(
                0, self.duration, self.taps, dtype=like.dtype, device=like.device
            )
            return self.response.at(times[:, None])
        place = torch.arange(self.taps, dtype=like.dtype, device=like.device)
        seconds = self.step / 1000
        return seconds * self.response.at(((place + 0.5) * seconds)[:, None])

    def observe(
        self, values: Tensor, interval: float, state: ResponseState | None = None
    ) -> tuple[Tensor, float, ResponseState]:
        """See Observation."""
        check_values(values, interval)
        if state is not None:
            check_interval(interval, state.interval)
            interval = state.interval
        check_step(self.step, interval, self.period)
        means, rest = at_step(join(state.rest if state else None, values), interval, self.step)
        batch, count, nodes = means.shape
        done = state.done if state else 0
        history = state.history if state else values.new_zeros(batch, self.taps - 1, nodes)
        means = torch.cat([history, means], dim=1)
        every = whole_ratio(self.period, self.step)
        assert every is not None
        kernel = self.kernel(values).flip(0)
        # One volume at a time, so that its bits do not depend on how many there are.
        volumes = [
            (means[:, end - 1 : end - 1 + self.taps] * kernel).sum(dim=1)
            for end in range(every - done % every, count + 1, every)
        ]
        observed = torch.stack(volumes, dim=1) if volumes else means[:, :0]
        observed = self.scale * (observed - 1 if self.convention == "sum" else observed)
        after = ResponseState(rest, means[:, count:], done + count, interval)
        return observed, self.period, after


def _response(given: str | Mapping[str, Any] | Response) -> Response:
    if isinstance(given, Response):
        return given
    settings = {"name": given} if isinstance(given, str) else dict(given)
    name = settings.pop("name", None)
    if name not in RESPONSES:
        raise ObservationError(f"response {name!r} is none of {', '.join(RESPONSES)}")
    made = RESPONSES[name]
    unknown = sorted(set(settings) - set(made.parameter_names()))
    if unknown:
        raise ObservationError(
            f"response {name!r} has no {', '.join(unknown)}; "
            f"it has {', '.join(made.parameter_names())}"
        )
    return made(**settings)


def _like(value: Value, like: Tensor) -> Tensor:
    if isinstance(value, Param):
        value = value.value()
    if isinstance(value, Tensor):
        return value.to(like)
    return torch.tensor(value, dtype=like.dtype, device=like.device)


def _log(ratio: Tensor) -> Tensor:
    """The logarithm, of 0 that of a number so small that its powers above 1 are 0."""
    return torch.log(ratio.clamp(min=torch.finfo(ratio.dtype).tiny))

"""Causal band power: nothing in a feature comes from a later sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from recording.contract import Piece, Recording
from recording.errors import RecordingError
from recording.preparation.channels import potential_only
from recording.preparation.filters import CausalFilter
from recording.preparation.piece_parts import Part, finite_parts
from recording.preparation.steps import Step, step
from recording.signals import Derived

MAX_SPAN = 10_000  # samples of smoothing: each of them is one sum


@step("bands")
class Bands(Step):
    """Log power between consecutive `edges` (Hz) as features, the potential before them.

    Butterworth band-passes of `order`, then the mean power over the trailing `smoothing` seconds,
    then the natural logarithm of it plus `floor` (unit²). Causal, piece by piece; power comes some
    smoothing / 2 s late. `potential: false` leaves the potential out.
    """

    step: Literal["bands"] = "bands"
    edges: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=2, max_length=65)
    smoothing: float = Field(default=0.1, gt=0)
    order: int = Field(default=2, ge=1, le=8)
    floor: float = Field(default=1e-3, gt=0)
    potential: bool = True

    def apply(self, recording: Recording) -> Recording:
        """The recording with values (time, channel, feature), computed when they are read."""
        neural = recording.neural
        potential_only(neural, self.step)
        check_edges(self.edges, neural.rate)
        span = max(1, round(self.smoothing * neural.rate))
        if span > MAX_SPAN:
            raise RecordingError(
                f"smoothing: {self.smoothing:g} s are {span} samples, more than {MAX_SPAN}; "
                "resample first",
                stream="neural",
            )
        names = tuple(f"{low:g}-{high:g} Hz" for low, high in pairwise(self.edges))
        features = (*neural.features, *names) if self.potential else names
        shape = (len(neural.values), len(neural.channels), len(features))

        def produce() -> Iterator[np.ndarray]:
            parts = finite_parts(neural, self.step, recording.source)
            for part, power in _powers(
                parts, neural.rate, self.edges, span, self.order, self.floor
            ):
                block = part.values.astype(np.float32)[:, :, np.newaxis]
                yield np.concatenate([block, power], axis=2) if self.potential else power

        series = neural.with_values(Derived(shape, produce), features=features)
        return recording.with_modality("neural", series)


def band_power(
    potential: np.ndarray,
    *,
    rate: float,
    edges: Sequence[float],
    smoothing: float,
    order: int,
    floor: float,
) -> np.ndarray:
    """Log of trailing-mean power between consecutive `edges` (Hz): (time, channel, band) float32.

    `potential` (time, channel); `smoothing` in seconds, over fewer samples at the very start;
    natural logarithm of power plus `floor` (unit²). Butterworth band-passes of `order`, as
    second-order sections that start settled on the first sample. Raises RecordingError.
    """
    check_edges(edges, rate)
    span = max(1, round(smoothing * rate))
    part = Part(Piece(0.0, 0, len(potential)), 0, potential.astype(np.float64))
    ((_, power),) = _powers([part], rate, edges, span, order, floor)
    return power


def check_edges(edges: Sequence[float], rate: float) -> None:
    """Raise RecordingError where band edges do not rise between 0 and half the rate."""
    if list(edges) != sorted(set(edges)) or len(edges) < 2:
        raise RecordingError(f"edges: {list(edges)} must rise, and be two or more")
    if not 0 < edges[0] < edges[-1] < rate / 2:
        raise RecordingError(
            f"edges: {list(edges)} must lie between 0 and {rate / 2:g} Hz, half the rate"
        )


def _powers(
    parts: Iterable[Part],
    rate: float,
    edges: Sequence[float],
    span: int,
    order: int,
    floor: float,
) -> Iterator[tuple[Part, np.ndarray]]:
    """Each part with its log power (time, channel, band) float32."""
    from scipy.signal import butter

    bands = [
        _TrailingPower(butter(order, passed, btype="bandpass", fs=rate, output="sos"), span)
        for passed in pairwise(edges)
    ]
    for part in parts:
        counts = np.minimum(np.arange(part.offset, part.offset + len(part.values)) + 1, span)
        power = np.empty((*part.values.shape, len(bands)), np.float32)
        for index, band in enumerate(bands):
            power[:, :, index] = np.log(band(part) / counts[:, np.newaxis] + floor)
        yield part, power


class _TrailingPower:
    """Sum of a band's power over the last `span` samples, part after part."""

    def __init__(self, sections: np.ndarray, span: int) -> None:
        self._filter, self._span = CausalFilter(sections), span
        self._last: np.ndarray = np.empty((0, 0))

    def __call__(self, part: Part) -> np.ndarray:
        filtered = self._filter(part)
        if part.begins:
            self._last = filtered[:0]
        power = np.concatenate([self._last, np.square(filtered)])
        total, before = power[len(self._last) :].copy(), len(self._last)
        # One shifted sum per lag: a running sum would carry rounding from sample to sample.
        for lag in range(1, min(self._span, len(power))):
            first = max(0, lag - before)
            total[first:] += power[before + first - lag : len(power) - lag]
        self._last = power[max(0, len(power) - self._span + 1) :]
        return total

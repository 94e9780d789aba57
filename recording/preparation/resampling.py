"""The step that changes the rate of the neural series, each piece on its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import Field

from recording.contract import Piece, Recording
from recording.errors import RecordingError
from recording.preparation.filters import CausalFilter, Phase
from recording.preparation.piece_parts import Part, finite_parts
from recording.preparation.steps import Step, step
from recording.signals import Derived

# Old and new rate are as whole numbers up to this.
MAX_FACTOR = 10_000
# The FIR low-pass: half its length in samples of the lower rate, its corner as a part of the lower
# Nyquist frequency, its Kaiser window. It passes up to 0.8 of that frequency and stops from it on.
HALF_LENGTH, CORNER, KAISER = 20, 0.9, 6.0
# The elliptic low-pass of causal whole factors: order, ripple in dB, attenuation in dB, corner.
ELLIPTIC = (8, 0.05, 60.0, 0.8)


@step("resample")
class Resample(Step):
    """Bring `neural`, features too, to `rate` Hz; what that cannot hold is filtered out first.

    Up to 0.8 of the lower Nyquist frequency passes within 1 %; from that frequency on 60 dB less.
    `phase: causal` uses past samples alone and comes late: by some 3 samples of the new rate where
    the old rate is a multiple of it, else by 20 samples of the lower rate (`delay`). `phase: zero`
    has no delay, and 20 future samples of the lower rate enter. Pieces keep their start; before and
    after a piece its edge values are held. A piece of n samples gives floor((n - 1) · new / old) +
    1: none lies after the last one recorded.
    """

    step: Literal["resample"] = "resample"
    rate: float = Field(gt=0)
    phase: Phase = "causal"

    def apply(self, recording: Recording) -> Recording:
        """The resampled recording, computed when it is read."""
        neural = recording.neural
        ratio = self.ratio(neural.rate)
        if ratio == 1:
            return recording
        pieces, at = [], 0
        for piece in neural.pieces:
            count = _length(len(piece), ratio)
            pieces.append(Piece(piece.start, at, at + count))
            at += count
        rate = float(neural.rate) * ratio.numerator / ratio.denominator
        if math.isclose(rate, self.rate, rel_tol=1e-12):
            rate = self.rate
        shape = neural.values.shape

        def produce() -> Iterator[np.ndarray]:
            whole = finite_parts(neural, self.step, recording.source)
            for block in self._blocks(whole, ratio):
                yield block.astype(np.float32).reshape(-1, *shape[1:])

        values = Derived((at, *shape[1:]), produce)
        series = neural.with_values(values, rate=rate, pieces=tuple(pieces))
        return recording.with_modality("neural", series)

    def ratio(self, rate: float) -> Fraction:
        """New over old rate as whole numbers; raises RecordingError where there are none."""
        rate = float(rate)
        if not 1 / MAX_FACTOR <= self.rate / rate <= MAX_FACTOR:
            raise RecordingError(
                f"rate: {self.rate:g} Hz is more than {MAX_FACTOR} times away from {rate:g} Hz",
                stream="neural",
            )
        if self.rate <= rate:
            ratio = Fraction(self.rate / rate).limit_denominator(MAX_FACTOR)
        else:
            ratio = 1 / Fraction(rate / self.rate).limit_denominator(MAX_FACTOR)
        reached = rate * ratio.numerator / ratio.denominator
        if not math.isclose(reached, self.rate, rel_tol=5e-7):
            raise RecordingError(
                f"rate: {self.rate!r} Hz is no ratio of whole numbers up to {MAX_FACTOR} of "
                f"{rate!r} Hz; the nearest is {reached!r} Hz",
                stream="neural",
            )
        return ratio

    def delay(self, rate: float) -> float:
        """Seconds by which slow changes come late, of a series at `rate` Hz."""
        ratio = self.ratio(rate)
        if self.phase == "zero" or ratio == 1:
            return 0.0
        if ratio.numerator == 1:
            return _group_delay(_elliptic(ratio.denominator)) / rate
        return _Low.of(ratio, "causal").half / (ratio.numerator * rate)

    def _blocks(self, parts: Iterable[Part], ratio: Fraction) -> Iterator[np.ndarray]:
        if self.phase == "causal" and ratio.numerator == 1:
            return _decimated(parts, ratio.denominator)
        return _interpolated(parts, _Low.of(ratio, self.phase))


def _length(count: int, ratio: Fraction) -> int:
    return (count - 1) * ratio.numerator // ratio.denominator + 1


def _decimated(parts: Iterable[Part], factor: int) -> Iterator[np.ndarray]:
    """Every `factor`-th sample of the low-passed piece, from its first one on."""
    low = CausalFilter(_elliptic(factor))
    for part in parts:
        yield low(part)[-part.offset % factor :: factor]


def _elliptic(factor: int) -> np.ndarray:
    from scipy.signal import ellip

    order, ripple, attenuation, corner = ELLIPTIC
    sections = np.array(ellip(order, ripple, attenuation, corner / factor, output="sos"))
    # An even order passes a constant at the bottom of its ripple.
    gain = (sections[:, :3].sum(axis=1) / sections[:, 3:].sum(axis=1)).prod()
    sections[0, :3] /= gain
    return sections


def _group_delay(sections: np.ndarray) -> float:
    """Delay in samples at frequency 0."""
    index = np.arange(3)
    rows = zip(sections[:, :3], sections[:, 3:], strict=True)
    return float(sum(b @ index / b.sum() - a @ index / a.sum() for b, a in rows))


@dataclass(frozen=True, eq=False)
class _Low:
    """The low-pass between samples: output k is the sum of x[j] · taps[k·down - j·up + lead]."""

    up: int
    down: int
    half: int
    lead: int
    taps: np.ndarray

    @classmethod
    def of(cls, ratio: Fraction, phase: Phase) -> _Low:
        from scipy.signal import firwin

        up, down = ratio.numerator, ratio.denominator
        half = HALF_LENGTH * max(up, down)
        taps = firwin(2 * half + 1, CORNER / max(up, down), window=("kaiser", KAISER))
        return cls(up, down, half, half if phase == "zero" else 0, taps * up)

    @property
    def before(self) -> int:
        """Samples in front of the one at or before an output that it takes."""
        return -(-(2 * self.half - self.lead) // self.up)

    @property
    def after(self) -> int:
        """Samples after it."""
        return -(-self.lead // self.up) + 1


def _interpolated(parts: Iterable[Part], low: _Low) -> Iterator[np.ndarray]:
    """Polyphase filter: outputs in groups of `up`, each group `down` samples further on."""
    first = rows = np.empty((0, 0))
    given = 0
    for part in parts:
        if part.begins:
            # A piece starts from 0 and its level is added at the end, so that edges hold exactly.
            first, given = part.values[:1], 0
            rows = np.zeros((low.before, part.values.shape[1]))
        rows = np.concatenate([rows, part.values - first])
        if part.ends:
            wanted = _length(len(part.piece), Fraction(low.up, low.down)) - given
            groups = -(-wanted // low.up)
            rows = np.concatenate([rows, np.repeat(rows[-1:], low.after + low.down, axis=0)])
        else:
            groups = max(0, (len(rows) - low.before - low.after) // low.down)
            wanted = groups * low.up
        if wanted:
            yield _outputs(rows, wanted, low) + first
            rows, given = rows[groups * low.down :], given + wanted


def _outputs(rows: np.ndarray, count: int, low: _Low) -> np.ndarray:
    """The next `count` outputs; row `before` of `rows` is at the time of the first of them."""
    from scipy.signal import upfirdn

    place = low.before * low.up + low.lead
    # Leading zeros bring the first output onto an index that upfirdn keeps.
    taps = np.concatenate([np.zeros(-place % low.down), low.taps])
    first = -(-place // low.down)
    return np.asarray(upfirdn(taps, rows, low.up, low.down, axis=0)[first : first + count])

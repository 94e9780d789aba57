"""Steps that filter the neural series in time, each piece on its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from recording.contract import Piece, Recording, Series
from recording.errors import RecordingError
from recording.preparation.channels import potential_only
from recording.preparation.piece_parts import Part, finite_parts
from recording.preparation.steps import Step, step
from recording.signals import Derived

# A piece that is filtered in both directions is held in memory, as float32, up to this size.
ZERO_PHASE_BYTES = 512 * 2**20

Phase = Literal["causal", "zero"]
Hertz = Annotated[float, Field(gt=0)]
# Every so many samples of a piece, a state below this is 0: far below what a float32 shows.
FLUSHED, NOTHING = 2**14, 1e-200


@step("filter")
class Filter(Step):
    """Butterworth filter: high-pass from `low`, low-pass up to `high` (Hz), or band-pass with both.

    `order` is that of each flank. `phase: causal` uses past samples alone, starts settled on each
    piece's first sample, and delays what passes (a low-pass by about order / (10 · high) seconds);
    `phase: zero` runs forward and backward: no delay, twice the order, and future samples enter.
    """

    step: Literal["filter"] = "filter"
    low: Hertz | None = None
    high: Hertz | None = None
    order: int = Field(default=4, ge=1, le=12)
    phase: Phase = "causal"

    @model_validator(mode="after")
    def _has_a_corner(self) -> Filter:
        if self.low is None and self.high is None:
            raise ValueError("low or high: give one or both, in Hz")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low: {self.low:g} Hz must be below high, {self.high:g} Hz")
        return self

    def apply(self, recording: Recording) -> Recording:
        """The filtered recording, computed when it is read."""
        neural = recording.neural
        for corner, name in ((self.low, "low"), (self.high, "high")):
            if corner is not None:
                below_nyquist(corner, name, neural.rate)
        return filtered(recording, self.sections(neural.rate), self.phase, self.step)

    def sections(self, rate: float) -> np.ndarray:
        """Second-order sections at `rate` Hz: (section, 6) float64."""
        # Imported here: it takes longer than all other imports together.
        from scipy.signal import butter

        kind = "lowpass" if self.low is None else "highpass" if self.high is None else "bandpass"
        corners = [corner for corner in (self.low, self.high) if corner is not None]
        passed = corners if len(corners) == 2 else corners[0]
        return np.asarray(butter(self.order, passed, btype=kind, fs=rate, output="sos"))


@step("notch")
class Notch(Step):
    """Remove a narrow line, such as the mains, and its harmonics: `frequency`, `width` in Hz.

    `width` is that at half power. `phase: causal` uses past samples alone, starts settled on each
    piece's first sample and rings for some 1 / width s; `phase: zero` runs forward and backward: no
    delay, and future samples enter.
    """

    step: Literal["notch"] = "notch"
    frequency: Hertz = 50.0
    width: Hertz = 2.0
    harmonics: int = Field(default=1, ge=1, le=40)
    phase: Phase = "causal"

    @model_validator(mode="after")
    def _is_narrow(self) -> Notch:
        if self.width >= self.frequency:
            raise ValueError(f"width: {self.width:g} Hz must be below {self.frequency:g} Hz")
        return self

    def apply(self, recording: Recording) -> Recording:
        """The filtered recording, computed when it is read."""
        neural = recording.neural
        for harmonic in range(1, self.harmonics + 1):
            name = "frequency" if harmonic == 1 else f"harmonic {harmonic}"
            below_nyquist(harmonic * self.frequency, name, neural.rate)
        return filtered(recording, self.sections(neural.rate), self.phase, self.step)

    def sections(self, rate: float) -> np.ndarray:
        """A second-order section for each harmonic at `rate` Hz: (section, 6) float64."""
        from scipy.signal import iirnotch

        rows = []
        for harmonic in range(1, self.harmonics + 1):
            line = harmonic * self.frequency
            rows.append(np.concatenate(iirnotch(line, line / self.width, fs=rate)))
        return np.array(rows)


def below_nyquist(frequency: float, name: str, rate: float) -> None:
    """Raise RecordingError where a frequency is not below half the rate."""
    if frequency >= rate / 2:
        raise RecordingError(
            f"{name}: {frequency:g} Hz must be below {rate / 2:g} Hz, half the rate of {rate:g} Hz",
            stream="neural",
        )


def filtered(recording: Recording, sections: np.ndarray, phase: Phase, name: str) -> Recording:
    """The recording with `neural` filtered lazily by second-order sections, piece by piece."""
    neural = recording.neural
    potential_only(neural, name)
    if phase == "zero":
        _fits(neural, sections, name)
    shape = neural.values.shape

    def produce() -> Iterator[np.ndarray]:
        whole = finite_parts(neural, name, recording.source)
        causal = phase == "causal"
        for block in (
            map(CausalFilter(sections), whole) if causal else _zero_phase_blocks(whole, sections)
        ):
            yield block.astype(np.float32, copy=False).reshape(-1, *shape[1:])

    return recording.with_modality("neural", neural.with_values(Derived(shape, produce)))


class CausalFilter:
    """Second-order sections over parts (time, channel) in order, settled on a piece's first sample.

    The state goes from part to part: how a piece is cut into parts changes no bit.
    """

    def __init__(self, sections: np.ndarray) -> None:
        from scipy.signal import sosfilt, sosfilt_zi

        self.sections, self._run = sections, sosfilt
        self._settled = sosfilt_zi(sections)[:, :, np.newaxis]
        self._state = self._settled

    def __call__(self, part: Part) -> np.ndarray:
        """The part after the filter: (time, channel) float64."""
        if part.begins:
            self._state = self._settled * part.values[0]
        block, at = np.empty(part.values.shape), 0
        while at < len(block):
            stop = at + FLUSHED - (part.offset + at) % FLUSHED
            values = part.values[at:stop]
            block[at:stop], self._state = self._run(self.sections, values, axis=0, zi=self._state)
            if at + len(values) == stop:
                # Where a recording is 0 for long, the state fades into numbers that are too small
                # to be normal ones, and with these a processor is a hundred times slower.
                self._state[np.abs(self._state) < NOTHING] = 0
            at = stop
        return block


def _zero_phase_blocks(parts: Iterator[Part], sections: np.ndarray) -> Iterator[np.ndarray]:
    from scipy.signal import sosfiltfilt

    held: np.ndarray = np.empty((0, 0), np.float32)
    for part in parts:
        if part.begins:
            held = np.empty((len(part.piece), part.values.shape[1]), np.float32)
        held[part.offset : part.offset + len(part.values)] = part.values
        if part.ends:
            for column in range(held.shape[1]):
                # One channel at a time: only one is in memory as float64.
                values = held[:, column].astype(np.float64)
                held[:, column] = sosfiltfilt(sections, values)
            yield held


def _fits(neural: Series, sections: np.ndarray, name: str) -> None:
    """Whether every piece can be filtered in both directions: long enough, and fits in memory."""
    shortest = _padding(sections) + 1
    per_sample = len(neural.channels) * 4
    for piece in neural.pieces:
        if len(piece) < shortest:
            raise _wrong(
                piece,
                f"a piece of {len(piece)} samples is too short for {name} with phase: zero, which "
                f"needs {shortest}; take phase: causal",
            )
        if len(piece) * per_sample > ZERO_PHASE_BYTES:
            raise _wrong(
                piece,
                f"a piece of {len(piece)} samples × {len(neural.channels)} channels does not fit "
                f"in the {ZERO_PHASE_BYTES / 2**20:g} MiB that {name} with phase: zero may take; "
                "take phase: causal, or resample or select channels first",
            )


def _padding(sections: np.ndarray) -> int:
    """How far scipy's sosfiltfilt continues a signal at both ends, in samples."""
    zeros = min(int((sections[:, 2] == 0).sum()), int((sections[:, 5] == 0).sum()))
    return 3 * (2 * len(sections) + 1 - zeros)


def _wrong(piece: Piece, problem: str) -> RecordingError:
    return RecordingError(problem, stream="neural", at=piece.start)

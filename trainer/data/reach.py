"""How far a preparation mixes samples over time, in both directions: what parts must be apart.

A causal filter leaves the samples in front of a part alone. One that runs in both directions, or
behaviour that is interpolated, lets what comes later into what is earlier: a forecast would see
what it is to tell, and the end of one part the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from recording.contract import Recording, Series
from recording.preparation import Step
from recording.preparation.behavior import Align
from recording.preparation.filters import Filter, Notch
from recording.preparation.resampling import HALF_LENGTH, Resample
from recording.preparation.spikes import Bin
from recording.preparation.time import Segment, SplitMissing
from trainer.data.blocks import Block
from trainer.data.errors import DataError, SplitError

FADED = 0.01  # of the response to an impulse: what is left of it beyond its reach


def seconds_reached(steps: Sequence[Step], recording: Recording) -> float:
    """Seconds of future and past that two-way filters let into a sample, all steps together."""
    return sum(seconds for seconds, _ in _two_way(steps, recording))


def check_forecast(steps: Sequence[Step], recording: Recording) -> None:
    """Raise DataError where steps show a forecast what it is to tell."""
    for _, index in _two_way(steps, recording):
        raise DataError(
            f"preparation[{index}] ({steps[index].step}): phase: zero lets future samples into "
            "those that a forecast sees; take phase: causal"
        )


def seconds_apart(steps: Sequence[Step], recording: Recording) -> float:
    """Seconds that parts must be apart to share nothing that steps mix, behaviour included."""
    aligned = [one.gap for one in steps if isinstance(one, Align) and one.method != "previous"]
    return max([seconds_reached(steps, recording), *aligned])


def check_reach(
    parts: Mapping[str, Sequence[Block]],
    steps: Sequence[Step],
    recordings: Sequence[Recording],
    rate: float,
) -> None:
    """Raise SplitError where a two-way filter mixes samples of two parts; `rate` is the blocks'."""
    seconds = max(seconds_reached(steps, recording) for recording in recordings)
    if seconds == 0:
        return
    apart = _across_pieces(steps)
    placed = sorted(
        ((block.session, 0 if apart else block.segment), block.start, block.stop, part)
        for part, own in parts.items()
        for block in own
    )
    for (place, _, stop, part), (other_place, start, _, other) in pairwise(placed):
        if place == other_place and part != other and start - stop < seconds * rate - 1e-6:
            raise SplitError(
                f"{part} and {other} are {max(0, start - stop) / rate:.3g} s apart at sample "
                f"{start} of session {place[0]!r}, and filters with phase: zero mix "
                f"{seconds:.3g} s on both sides: take phase: causal, or a larger gap "
                "(split by time or fold)"
            )


def _two_way(steps: Sequence[Step], recording: Recording) -> Iterator[tuple[float, int]]:
    """Seconds that each two-way filter reaches, and its place among the steps."""
    neural = recording.modalities.get("neural")
    rate = neural.rate if isinstance(neural, Series) else np.nan
    for index, one in enumerate(steps):
        if isinstance(one, Filter | Notch) and one.phase == "zero":
            yield _fading(one.sections(rate)) / rate, index
        elif isinstance(one, Resample):
            if one.phase == "zero" and one.rate != rate:
                yield HALF_LENGTH / min(rate, one.rate), index
            rate = one.rate
        elif isinstance(one, Bin):
            rate = 1 / one.width


def _fading(sections: np.ndarray) -> float:
    """Samples until what second-order sections answer to an impulse has faded."""
    slowest = max(float(np.abs(np.roots(row[3:])).max()) for row in sections)
    return float(np.log(FADED) / np.log(slowest))


def _across_pieces(steps: Sequence[Step]) -> bool:
    """Whether a series is cut into pieces after a two-way filter has run over the borders."""
    filters = [
        index
        for index, one in enumerate(steps)
        if isinstance(one, Filter | Notch | Resample) and one.phase == "zero"
    ]
    cuts = [index for index, one in enumerate(steps) if isinstance(one, Segment | SplitMissing)]
    return bool(filters) and bool(cuts) and min(filters) < max(cuts)

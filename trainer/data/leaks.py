"""What must not be in two parts of a data set at once."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from trainer.data.errors import SplitError
from trainer.data.windows import Windows


def check_disjoint(parts: Mapping[str, Windows]) -> None:
    """Raise SplitError where windows of two parts share a sample of a session."""
    for first, second in combinations(parts, 2):
        a, b = parts[first], parts[second]
        for session in np.intersect1d(a.sessions, b.sessions):
            clash = _overlap(
                a.starts[a.sessions == session], a.steps, b.starts[b.sessions == session], b.steps
            )
            if clash is not None:
                raise SplitError(
                    f"sample {clash} of session {session} is in both {first} and {second}: "
                    "windows of two parts must not overlap"
                )


def _overlap(a: np.ndarray, a_steps: int, b: np.ndarray, b_steps: int) -> int | None:
    """First sample that windows from `a` and from `b` share, None if there is none."""
    b = np.sort(b)
    after = np.searchsorted(b, a - b_steps, side="right")
    near = after < len(b)
    hit = np.flatnonzero(near & (b[np.minimum(after, len(b) - 1)] < a + a_steps))
    if len(hit) == 0:
        return None
    return int(max(a[hit[0]], b[after[hit[0]]]))

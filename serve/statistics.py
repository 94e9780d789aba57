"""What happened to the requests of a model, counted without a library on the way of a request."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


class Histogram:
    """Counts of values by upper bound (inclusive), the last one for all above; and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)


@dataclass(eq=False)
class Statistics:
    """Requests, waits and runs of one name and version since it was first loaded.

    `requests` counts answers by (protocol, status); `errors` failed ones by error type; waits,
    requests and runs are in seconds, `failed` those spent on answers that are no 200, `rows` per
    run. The engine's threads write `waits`, `rows` and `runs` under the engine's lock; the event
    loop writes the rest.
    """

    requests: dict[tuple[str, int], int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    waits: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    runs: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batches: dict[int, tuple[int, float]] = field(default_factory=dict)
    failed: float = 0.0
    last: float = 0.0

    def count_answer(
        self, protocol: str, status: int, seconds: float, error: str | None = None
    ) -> None:
        """Count one answer; `error` is the error's type."""
        key = (protocol, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.seconds.add(seconds)
        if status != 200:
            self.failed += seconds
        if error is not None:
            self.count_error(error)

    def count_error(self, kind: str) -> None:
        """Count one error of this type, such as a connection refused before it was a request."""
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def count_run(self, rows: int, waits: list[float], seconds: float, now: float) -> None:
        """Count one run of the model: its rows, what each request waited, how long it took.

        `now` is the time of day in seconds since 1970.
        """
        for wait in waits:
            self.waits.add(wait)
        self.rows.add(rows)
        self.runs.add(seconds)
        runs, spent = self.batches.get(rows, (0, 0.0))
        self.batches[rows] = (runs + 1, spent + seconds)
        self.last = now

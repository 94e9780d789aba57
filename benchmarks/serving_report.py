"""From the points of a run to rows with goals, a table and a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

from serving_servers import OURS

COMMAND = "uv run python benchmarks/serving.py"
# Case -> largest processor time of a request in units of the raw run's.
RATIO_GOALS = {
    "v2_binary/c8": 1.15,
    "v2_binary/c32": 1.15,
    "npy/c8": 1.15,
    "npy/c32": 1.15,
    "json/c8": 1.8,
    "json/c32": None,
}
BEST_PEER_GOAL = 0.5
TAIL_GOAL = 3.0
IDLE_GOALS = {"resident_mb": 150.0, "ready_s": 3.0}
# Metric -> unit, as a point holds them.
POINT_METRICS = {
    "cpu_ms_per_request": "ms",
    "requests_per_second": "1/s",
    "p50_ms": "ms",
    "p99_ms": "ms",
}
START_METRICS = {"resident_mb": "10^6 bytes", "proportional_mb": "10^6 bytes", "start_s": "s"}

Sample = dict[str, Any]


def report_rows(
    points: Sequence[Sample], starts: Sequence[Sample], raws: Sequence[Sample]
) -> list[dict[str, Any]]:
    """All rows: those with goals first, then every measurement, medians over the rounds.

    `points`: one sample per round, server, protocol and concurrency; `starts`: one per round and
    server; `raws`: those of the raw loop. A row whose samples are missing is left out.
    """
    rows = [*_ratio_rows(points), *_best_peer_rows(points), *_idle_rows(starts)]
    rows += _tail_rows(points)
    rows += _raw_rows(raws)
    for (server, protocol, concurrency), samples in _groups(points).items():
        for metric, unit in POINT_METRICS.items():
            values = [sample[metric] for sample in samples]
            rows.append(row(case(server, protocol, concurrency), metric, unit, values))
    for server in _unique(sample["server"] for sample in starts):
        name = "idle" if server == OURS else f"{server}/idle"
        for metric, unit in START_METRICS.items():
            if (name, metric) != ("idle", "resident_mb"):
                values = [sample[metric] for sample in starts if sample["server"] == server]
                rows.append(row(name, metric, unit, values))
    return rows


def row(
    name: str,
    metric: str,
    unit: str,
    values: Sequence[float],
    *,
    goal: float | None = None,
    peer: str | None = None,
    peer_value: float | None = None,
) -> dict[str, Any]:
    """One row: the median over rounds, and (largest - smallest) / median as its spread."""
    middle = median(values)
    return {
        "case": name,
        "metric": metric,
        "unit": unit,
        "value": middle,
        "spread": (max(values) - min(values)) / middle if middle else 0.0,
        "peer": peer,
        "peer_value": peer_value,
        "goal": None if goal is None else f"<= {goal:g}",
        "met": None if goal is None else middle <= goal,
        "command": COMMAND,
    }


def case(server: str, protocol: str, concurrency: int) -> str:
    """`npy/c8` for this service, `bentoml/raw/c8` for a peer."""
    place = f"{protocol}/c{concurrency}"
    return place if server == OURS else f"{server}/{place}"


def best_peer(points: Sequence[Sample], concurrency: int) -> tuple[str, str] | None:
    """Server and protocol of the peer with the least processor time per request."""
    return _cheapest(points, concurrency, lambda server: server != OURS)


def _ratio_rows(points: Sequence[Sample]) -> list[dict[str, Any]]:
    rows = []
    for (server, protocol, concurrency), samples in _groups(points).items():
        name = case(server, protocol, concurrency)
        for threads, key in (("", "raw_ms"), ("_2_threads", "raw_2_threads_ms")):
            ratios = [sample["cpu_ms_per_request"] / sample[key] for sample in samples]
            rows.append(
                row(
                    name,
                    f"cpu_ratio_to_raw_run{threads}",
                    "ratio",
                    ratios,
                    goal=None if threads or server != OURS else RATIO_GOALS.get(name),
                    peer=f"session.run, {'two threads' if threads else 'one thread'}, ms",
                    peer_value=median(sample[key] for sample in samples),
                )
            )
    return sorted(rows, key=lambda found: found["goal"] is None)


def _best_peer_rows(points: Sequence[Sample]) -> list[dict[str, Any]]:
    """Our best protocol against the best peer, each in units of the raw run beside it.

    Both are divided by the raw figure of their own minute, because the machine's speed drifts.
    """
    rows = []
    for concurrency in _unique(sample["concurrency"] for sample in points):
        ours = _cheapest(points, concurrency, lambda server: server == OURS)
        peer = best_peer(points, concurrency)
        if ours and peer:
            groups = _groups(points)
            own, other = groups[(*ours, concurrency)], groups[(*peer, concurrency)]
            ratios = [
                mine["cpu_ms_per_request"]
                / mine["raw_ms"]
                / (theirs["cpu_ms_per_request"] / theirs["raw_ms"])
                for mine, theirs in zip(own, other, strict=False)
            ]
            rows.append(
                row(
                    f"best_peer/c{concurrency}",
                    "cpu_ratio_to_best_peer",
                    "ratio",
                    ratios,
                    goal=BEST_PEER_GOAL if concurrency == 8 else None,
                    peer=f"{peer[0]}, {peer[1]}, ms (here: {ours[1]})",
                    peer_value=median(sample["cpu_ms_per_request"] for sample in other),
                )
            )
    return rows


def _idle_rows(starts: Sequence[Sample]) -> list[dict[str, Any]]:
    own = [sample for sample in starts if sample["server"] == OURS]
    units = {"resident_mb": "10^6 bytes", "ready_s": "s"}
    return [
        row("idle", metric, units[metric], [sample[metric] for sample in own], goal=goal)
        for metric, goal in IDLE_GOALS.items()
        if own
    ]


def _tail_rows(points: Sequence[Sample]) -> list[dict[str, Any]]:
    rows = []
    for (server, protocol, concurrency), samples in _groups(points).items():
        if server == OURS and concurrency == 8:
            tails = [sample["p99_ms"] / sample["p50_ms"] for sample in samples]
            rows.append(row(f"{protocol}/c8", "p99_to_p50", "ratio", tails, goal=TAIL_GOAL))
    return rows


def _raw_rows(raws: Sequence[Sample]) -> list[dict[str, Any]]:
    rows = []
    for key, name in (("raw", "raw/1_thread"), ("raw_2_threads", "raw/2_threads")):
        times = [sample[f"{key}_ms"] for sample in raws]
        rates = [sample[f"{key}_per_second"] for sample in raws]
        rows.append(row(name, "cpu_ms_per_request", "ms", times))
        rows.append(row(name, "requests_per_second", "1/s", rates))
    return rows


def _cheapest(
    points: Sequence[Sample], concurrency: int, wanted: Callable[[str], bool]
) -> tuple[str, str] | None:
    ratios = {
        key[:2]: median(sample["cpu_ms_per_request"] / sample["raw_ms"] for sample in samples)
        for key, samples in _groups(points).items()
        if key[2] == concurrency and wanted(key[0])
    }
    return min(ratios, key=ratios.__getitem__) if ratios else None


def _groups(points: Iterable[Sample]) -> dict[tuple[str, str, int], list[Sample]]:
    groups: dict[tuple[str, str, int], list[Sample]] = {}
    for sample in points:
        key = (sample["server"], sample["protocol"], sample["concurrency"])
        groups.setdefault(key, []).append(sample)
    return groups


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))

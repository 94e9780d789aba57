"""From the points of a run to rows with goals, and a table of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from rich.table import Table
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
# At most half of every peer's.
PEER_GOAL = 0.5
COMPARED = 8
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
# Shown in the table, goal or not.
SHOWN = ("cpu_ratio_to_raw_run", "raw_run_ratio_to_best_peer", "cpu_ratio_to_best_json_peer")

Sample = dict[str, Any]
Way = tuple[str, str]  # server, protocol
Ways = Mapping[Way, Sequence[Sample]]


def report_rows(
    points: Sequence[Sample], starts: Sequence[Sample], raws: Sequence[Sample]
) -> list[dict[str, Any]]:
    """All rows: those with goals first, then every measurement, medians over the rounds.

    `points`: one sample per round, server, protocol and concurrency; `starts`: one per round and
    server; `raws`: those of the raw loop. A row whose samples are missing is left out.
    """
    rows = [*_ratio_rows(points), *_peer_rows(points), *_idle_rows(starts)]
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


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows that have a goal, and those that compare with the raw run or with a peer."""
    shown = Table()
    for head in ("case", "metric", "value", "spread", "goal", "met", "peer"):
        shown.add_column(head)
    for found in rows:
        if found["goal"] or found["metric"] in SHOWN or found["case"].startswith("raw/"):
            value = "" if found["peer_value"] is None else f"{found['peer_value']:.3f} "
            peer = f"{value}{found['peer'] or ''}"
            met = "" if found["met"] is None else "yes" if found["met"] else "NO"
            values = (
                f"{found['value']:.3f}",
                f"{found['spread']:.3f}",
                found["goal"] or "",
                met,
                peer,
            )
            shown.add_row(found["case"], found["metric"], *values)
    return shown


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


def _peer_rows(points: Sequence[Sample]) -> list[dict[str, Any]]:
    """Our cheapest protocol against every peer's cheapest way, and JSON against JSON, at c8.

    Each is taken in units of the raw run beside it, because the machine's speed drifts.
    """
    groups = {key[:2]: samples for key, samples in _groups(points).items() if key[2] == COMPARED}
    ours = {key: samples for key, samples in groups.items() if key[0] == OURS}
    peers = {key: samples for key, samples in groups.items() if key[0] != OURS}
    if not ours or not peers:
        return []
    best = _cheapest(ours)
    way = _cheapest(peers)
    rows = [_against("best_peer", "cpu_ratio_to_best_peer", ours, best, peers, way)]
    # What a server without any cost of its own would reach, one row per run.
    floor = [1 / cost for cost in _in_raw_runs(peers[way])]
    rows.append(
        row(
            f"best_peer/c{COMPARED}",
            "raw_run_ratio_to_best_peer",
            "ratio",
            floor,
            peer=", ".join(way),
        )
    )
    for name in _unique(server.split()[0] for server, _ in peers):
        way = _cheapest({key: found for key, found in peers.items() if key[0].split()[0] == name})
        rows.append(_against(name, "cpu_ratio_to_peer", ours, best, peers, way))
    in_json = {key: found for key, found in peers.items() if "json" in key[1]}
    if in_json and (OURS, "json") in ours:
        way = _cheapest(in_json)
        own = (OURS, "json")
        metric = "cpu_ratio_to_best_json_peer"
        rows.append(_against("json", metric, ours, own, peers, way, goal=None))
    return rows


def _against(
    name: str,
    metric: str,
    ours: Ways,
    way: Way,
    peers: Ways,
    peer_way: Way,
    goal: float | None = PEER_GOAL,
) -> dict[str, Any]:
    own, other = ours[way], peers[peer_way]
    pairs = zip(_in_raw_runs(own), _in_raw_runs(other), strict=False)
    return row(
        f"{name}/c{COMPARED}",
        metric,
        "ratio",
        [mine / theirs for mine, theirs in pairs],
        goal=goal,
        peer=f"{', '.join(peer_way)}, ms (here {way[1]})",
        peer_value=median(sample["cpu_ms_per_request"] for sample in other),
    )


def _in_raw_runs(samples: Sequence[Sample]) -> list[float]:
    """Processor time of a request in units of the raw run's, round by round."""
    return [sample["cpu_ms_per_request"] / sample["raw_ms"] for sample in samples]


def _cheapest(ways: Ways) -> Way:
    return min(ways, key=lambda way: median(_in_raw_runs(ways[way])))


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
        if server == OURS and concurrency == COMPARED:
            tails = [sample["p99_ms"] / sample["p50_ms"] for sample in samples]
            rows.append(
                row(f"{protocol}/c{COMPARED}", "p99_to_p50", "ratio", tails, goal=TAIL_GOAL)
            )
    return rows


def _raw_rows(raws: Sequence[Sample]) -> list[dict[str, Any]]:
    rows = []
    for key, name in (("raw", "raw/1_thread"), ("raw_2_threads", "raw/2_threads")):
        times = [sample[f"{key}_ms"] for sample in raws]
        rates = [sample[f"{key}_per_second"] for sample in raws]
        rows.append(row(name, "cpu_ms_per_request", "ms", times))
        rows.append(row(name, "requests_per_second", "1/s", rates))
    return rows


def _groups(points: Iterable[Sample]) -> dict[tuple[str, str, int], list[Sample]]:
    groups: dict[tuple[str, str, int], list[Sample]] = {}
    for sample in points:
        key = (sample["server"], sample["protocol"], sample["concurrency"])
        groups.setdefault(key, []).append(sample)
    return groups


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))

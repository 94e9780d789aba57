"""What an answer costs: the raw `session.run` loop, this service and its peers, side by side.

    uv run python benchmarks/serving.py                      # all; an idle machine, Linux
    uv run python benchmarks/serving.py --only raw,axonnx --seconds 1 --rounds 1

One ONNX model of 0.81 million parameters, input (1, 10, 64, 9), answers compared byte for byte; the
same closed-loop load at 1, 8 and 32 connections. Every server runs in an environment of its own,
made with pinned versions below `benchmarks/.cache`, and is started anew in every round; all have
the same session options. The raw loop is measured before and after each point, and a point's ratio
is taken against those two. Processor time is user + system of the server's whole process tree.
Writes results/serving.json and .png beside this file (with --only: not unless --output says where).
Ends with 1 where a server or an endpoint is missing or an answer was wrong.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import serving_model
from environments import BuildError, installed, make_environment
from rich.console import Console
from serving_figure import draw
from serving_measure import Raw, Running, ServerError, Workplace, prepare, running
from serving_report import report_rows, table
from serving_servers import CACHE, OURS, Server, servers

from artifact.bundle import write_file
from artifact.manifest import canonical_json
from artifact.providers import processor

RESULTS = Path(__file__).resolve().parent / "results"
CONCURRENCIES = (1, 8, 32)
RAW = "raw"
RAW_SHARE = 8  # of a point's length, on one thread and on two
SHOWN = (
    *("onnxruntime", "numpy", "uvicorn", "uvloop", "httptools", "fastapi", "starlette", "pydantic"),
    *("orjson", "aiohttp", "litserve", "bentoml", "mlserver", "ray"),
)


@dataclass
class Findings:
    """What a run has found so far: samples per point and per start, and what is missing."""

    points: list[dict[str, Any]] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)

    def miss(self, server: str, why: Exception) -> None:
        """Note that a server, or one of its endpoints, could not be measured."""
        self.missing.append({"server": server, "why": str(why)})


def main() -> int:
    """Build environments, measure in rounds, write rows and picture; 1 where something lacks."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are stopped on the way out
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
    header = len(serving_model.bodies()["v2_binary_header"])
    chosen = [server for server in servers(header) if server.name in options.only]
    findings = Findings()
    pythons = _environments(chosen, options, findings, console)
    chosen = [server for server in chosen if server.name in pythons]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        workplace = prepare(Path(folder))
        with Raw(pythons.get(OURS, Path(sys.executable)), workplace) as raw:
            for number, server in _order(chosen, options.rounds, console):
                try:
                    with running(server, pythons[server.name], workplace) as found:
                        _measure(found, raw, workplace, options.seconds, number, findings, console)
                except ServerError as error:
                    findings.miss(server.label, error)
            raw.sample(options.seconds)
    rows = report_rows(findings.points, findings.starts, raw.samples)
    if options.output:
        report = _report(options, pythons, findings, rows)
        write_file(options.output / "serving.json", canonical_json(report))
        draw(findings.points, raw.samples, options.output / "serving.png")
    console.print(table(rows))
    wrong = [point for point in findings.points if point["server"] == OURS and _failed(point)]
    for point in wrong:
        console.print(f"failed requests: {point}", style="red")
    for entry in findings.missing:
        console.print(f"missing: {entry['server']}: {entry['why']}", style="red")
    return 1 if findings.missing or wrong else 0


def _order(chosen: Sequence[Server], rounds: int, console: Console) -> Iterator[tuple[int, Server]]:
    """Round and server, one after the other, saying how long the rest will take."""
    began, done = time.monotonic(), 0
    total = rounds * sum(map(_weight, chosen))
    for number in range(rounds):
        for server in chosen:
            spent = time.monotonic() - began
            left = f", {spent / done * (total - done) / 60:.0f} min left" if done else ""
            console.print(f"round {number + 1} of {rounds}, {server.label}{left}")
            yield number, server
            done += _weight(server)


def _weight(server: Server) -> int:
    """How long a server takes, in points; its start takes as long as about two."""
    return len(server.endpoints) * len(CONCURRENCIES) + 2


def _measure(
    found: Running,
    raw: Raw,
    workplace: Workplace,
    seconds: float,
    number: int,
    findings: Findings,
    console: Console,
) -> None:
    """All points of one server in one round, the raw loop before and after each."""
    label = found.server.label
    findings.starts.append({"server": label, "round": number, **found.facts})
    before = raw.sample(seconds / RAW_SHARE)
    for endpoint in found.server.endpoints:
        for concurrency in CONCURRENCIES:
            try:
                point = found.load(endpoint, workplace, concurrency, seconds)
            except (ServerError, OSError) as error:
                findings.miss(label, error)
                break
            after = raw.sample(seconds / RAW_SHARE)
            point |= {name: (before[name] + after[name]) / 2 for name in before}
            point |= {"server": label, "protocol": endpoint.protocol}
            point |= {"concurrency": concurrency, "round": number}
            before = after
            findings.points.append(point)
            console.print(_line(point))


def _line(point: dict[str, Any]) -> str:
    """A point in one line."""
    failed = _failed(point)
    return (
        f"  {point['protocol']} c{point['concurrency']}: "
        f"{point['cpu_ms_per_request']:.3f} ms CPU, "
        f"{point['cpu_ms_per_request'] / point['raw_ms']:.3f} x raw, "
        f"{point['requests_per_second']:.0f}/s, p50 {point['p50_ms']:.2f} ms, "
        f"p99 {point['p99_ms']:.2f} ms{f', FAILED {failed}' if failed else ''}"
    )


def _report(
    options: argparse.Namespace,
    pythons: dict[str, Path],
    findings: Findings,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "benchmark": "serving",
        "machine": _machine(),
        "versions": {name: _versions(python) for name, python in pythons.items()},
        "settings": {
            "seconds": options.seconds,
            "rounds": options.rounds,
            "concurrencies": list(CONCURRENCIES),
            "input": [1, serving_model.STEPS, serving_model.CHANNELS, serving_model.FEATURES],
            "body_bytes": {name: len(body) for name, body in serving_model.bodies().items()},
        },
        "rows": rows,
        "missing": findings.missing,
        "points": findings.points,
        "starts": findings.starts,
    }


def _failed(point: dict[str, Any]) -> dict[str, Any]:
    """What went wrong under load, nothing where nothing did."""
    return {name: point[name] for name in ("refused", "wrong", "broken") if point[name]}


def _environments(
    chosen: list[Server],
    options: argparse.Namespace,
    findings: Findings,
    console: Console,
) -> dict[str, Path]:
    """The Python of every server's environment, by name; what cannot be made is missing."""
    pythons: dict[str, Path] = {}
    for server in chosen:
        if server.name in pythons:
            continue
        if server.name == OURS and options.current_interpreter:
            pythons[OURS] = Path(sys.executable)
            continue
        console.print(f"environment of {server.name}: {', '.join(server.requirements)}")
        try:
            pythons[server.name] = make_environment(server.name, server.requirements, CACHE)
        except BuildError as error:
            findings.miss(server.name, error)
    return pythons


def _machine() -> dict[str, Any]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": processor(),
        "name": names[0] if names else "",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _versions(python: Path) -> dict[str, str]:
    found = installed(python)
    return {name: found[name] for name in SHOWN if name in found}


def _options() -> argparse.Namespace:
    known = (RAW, *dict.fromkeys(server.name for server in servers(0)))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help=f"some of {','.join(known)}; default: all")
    parser.add_argument("--seconds", type=float, default=4.0, help="a point's length (4)")
    parser.add_argument("--rounds", type=int, default=3, help="times that all is measured (3)")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results")
    parser.add_argument(
        "--current-interpreter",
        action="store_true",
        help=f"run {OURS} with this Python rather than in an environment of its own",
    )
    options = parser.parse_args()
    if options.output is None and options.only is None:
        options.output = RESULTS
    options.only = options.only.split(",") if options.only else list(known)
    if unknown := [name for name in options.only if name not in known]:
        parser.error(f"--only {unknown[0]}: unknown; there are {', '.join(known)}")
    if options.seconds <= 0 or options.rounds < 1:
        parser.error("--seconds must be above 0, --rounds at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())

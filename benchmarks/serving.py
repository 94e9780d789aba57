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
import time
from pathlib import Path
from typing import Any

import serving_model
from rich.console import Console
from serving_figure import draw
from serving_measure import Raw, Running, ServerError, Workplace, prepare, running
from serving_report import report_rows, table
from serving_servers import CACHE, OURS, BuildError, Server, installed, make_environment, servers

from artifact.bundle import write_file
from artifact.manifest import canonical_json
from artifact.providers import processor

RESULTS = Path(__file__).resolve().parent / "results"
CONCURRENCIES = (1, 8, 32)
RAW = "raw"
SHOWN = (
    *("onnxruntime", "numpy", "uvicorn", "uvloop", "httptools", "fastapi", "starlette", "pydantic"),
    *("orjson", "aiohttp", "litserve", "bentoml", "mlserver", "ray"),
)


def main() -> int:
    """Build environments, measure in rounds, write rows and picture; 1 where something lacks."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are stopped on the way out
    console = Console(highlight=False)
    header = len(serving_model.bodies()["v2_binary_header"])
    chosen = [server for server in servers(header) if server.name in options.only]
    missing: list[dict[str, str]] = []
    pythons = _environments(chosen, options, missing, console)
    workplace = prepare(CACHE / "work")
    raw = Raw(pythons.get(OURS, Path(sys.executable)), workplace)
    points: list[dict[str, Any]] = []
    starts: list[dict[str, Any]] = []
    chosen = [server for server in chosen if server.name in pythons]
    began, total = time.monotonic(), options.rounds * len(chosen)
    for number in range(options.rounds):
        for index, server in enumerate(chosen):
            done = number * len(chosen) + index
            spent = time.monotonic() - began
            left = f", {spent / done * (total - done) / 60:.0f} min left" if done else ""
            console.print(f"round {number + 1}/{options.rounds}, {server.label}{left}")
            try:
                with running(server, pythons[server.name], workplace) as found:
                    points += _measure(found, raw, workplace, options, number, missing, console)
                    starts.append({"server": server.label, "round": number, **found.facts})
            except ServerError as error:
                missing.append({"server": server.label, "why": str(error)})
    raw.sample(options.seconds)
    raw.close()
    rows = report_rows(points, starts, raw.samples)
    report = {
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
        "missing": missing,
        "points": points,
        "starts": starts,
    }
    if options.output:
        write_file(options.output / "serving.json", canonical_json(report))
        draw(points, raw.samples, options.output / "serving.png")
    console.print(table(rows))
    wrong = [point for point in points if point["server"] == OURS and _failed(point)]
    for point in wrong:
        console.print(f"failed requests: {point}", style="red")
    for entry in missing:
        console.print(f"missing: {entry['server']}: {entry['why']}", style="red", markup=False)
    return 1 if missing or wrong else 0


def _measure(
    found: Running,
    raw: Raw,
    workplace: Workplace,
    options: argparse.Namespace,
    number: int,
    missing: list[dict[str, str]],
    console: Console,
) -> list[dict[str, Any]]:
    """All points of one server in one round."""
    points = []
    before = raw.sample(options.seconds / 4)
    for endpoint in found.server.endpoints:
        for concurrency in CONCURRENCIES:
            try:
                point = found.load(endpoint, workplace, concurrency, options.seconds)
            except (ServerError, OSError) as error:
                missing.append({"server": found.server.label, "why": str(error)})
                break
            after = raw.sample(options.seconds / 4)
            point |= {name: (before[name] + after[name]) / 2 for name in before}
            before = after
            point |= {
                "server": found.server.label,
                "protocol": endpoint.protocol,
                "concurrency": concurrency,
                "round": number,
            }
            points.append(point)
            console.print(
                f"  {endpoint.protocol} c{concurrency}: {point['cpu_ms_per_request']:.3f} ms CPU, "
                f"{point['cpu_ms_per_request'] / point['raw_ms']:.3f} x raw, "
                f"{point['requests_per_second']:.0f}/s, p50 {point['p50_ms']:.2f} ms, "
                f"p99 {point['p99_ms']:.2f} ms"
                + (f", FAILED {_failed(point)}" if _failed(point) else "")
            )
    return points


def _failed(point: dict[str, Any]) -> dict[str, Any]:
    """What went wrong under load, nothing where nothing did."""
    return {name: point[name] for name in ("refused", "wrong", "broken") if point[name]}


def _environments(
    chosen: list[Server],
    options: argparse.Namespace,
    missing: list[dict[str, str]],
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
            pythons[server.name] = make_environment(server.name, server.requirements)
        except BuildError as error:
            missing.append({"server": server.name, "why": str(error)})
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

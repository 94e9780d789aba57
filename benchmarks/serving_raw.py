"""The floor: a loop around `session.run`, alone in its process, on order.

    python serving_raw.py MODEL.onnx INPUT.npy

Reads `THREADS SECONDS` from standard input, one order a line, and answers each with one line of
JSON: runs, processor seconds, seconds. The session has the service's own options.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from artifact.providers import create_session


def main(model: str, example: str) -> None:
    """Answer orders until standard input ends."""
    session = create_session(Path(model).read_bytes())
    feed = {"x": np.load(example)}

    def loop(seconds: float) -> int:
        runs, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            session.run(["y"], feed)
            runs += 1
        return runs

    for line in sys.stdin:
        threads, seconds = int(line.split()[0]), float(line.split()[1])
        with ThreadPoolExecutor(threads) as pool:
            loop(0.02)
            cpu, began = time.process_time(), time.perf_counter()
            runs = sum(pool.map(loop, [seconds] * threads))
            cpu, taken = time.process_time() - cpu, time.perf_counter() - began
        print(json.dumps({"runs": runs, "cpu_seconds": cpu, "seconds": taken}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

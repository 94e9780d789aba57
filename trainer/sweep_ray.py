"""Trials of a sweep as Ray tasks: on this machine, or on those of a running cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trainer.sweep_config import Plan
from trainer.sweep_trial import run_one

LOCAL = "local"


def run(
    plan: Plan, output: Path, url: str, count: int, wanted: int, *, address: str, workers: int
) -> Iterator[None]:
    """Run `count` of `wanted` trials, yielding after each.

    `address` is a cluster's, or "local" for a Ray of `workers` processors within this command; a
    Ray that this process has started already is taken as it is. Each task claims the threads that
    the run trains with.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    own = not ray.is_initialized()
    threads = plan.base.training.threads
    if own and address == LOCAL:
        ray.init(num_cpus=workers * threads, include_dashboard=False, log_to_driver=False)
    elif own:
        ray.init(address=address, log_to_driver=False)
    try:
        task = ray.remote(num_cpus=threads, max_retries=0)(run_one)
        pending = [task.remote(plan, output.resolve(), url, wanted) for _ in range(count)]
        while pending:
            ready, pending = ray.wait(pending)
            ray.get(ready)
            yield
    finally:
        if own:
            ray.shutdown()

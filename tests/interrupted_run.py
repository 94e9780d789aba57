"""A training run in a process of its own that can be killed at a chosen call or by its parent.

Processes come from a fork server that has trained and exported once (`warm_up`), so that dozens of
them take little time.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["warm_up"])
# What a run does to the disk, and once per minibatch: the instants at which it is killed.
DISK_CALLS = ("replace", "rename", "fsync", "mkdir")


def start(config: Path, output: Path, kill_at: int | None = None) -> BaseProcess:
    """Begin or resume the run; `kill_at` counts disk calls and minibatches, before and after."""
    process = CONTEXT.Process(target=_run, args=(config, output, kill_at))
    path = os.environ.get("PYTHONPATH", "")
    # The fork server learns from the environment alone where `warm_up` is.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), path]).strip(os.pathsep)
    process.start()
    os.environ["PYTHONPATH"] = path
    return process


def finish(process: BaseProcess) -> int:
    """Wait for the end and return the exit code, negative for a signal."""
    process.join(timeout=120)
    code = process.exitcode
    process.close()
    assert code is not None, "the run did not end"
    return code


def instants(config: Path, output: Path) -> int:
    """Train without a kill and return the number of instants at which one could happen."""
    process = start(config, output, kill_at=-1)
    assert finish(process) == 0
    return int((output / "instants").read_text())


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run folder by its path within."""
    paths = (path for path in sorted(run.rglob("*")) if path.is_file())
    return {str(p.relative_to(run)): p.read_bytes() for p in paths if p.name != "instants"}


def _run(config: Path, output: Path, kill_at: int | None) -> None:
    from rich.console import Console

    from trainer.config import load_config
    from trainer.pipeline import train_and_export
    from trainer.training import Trainer

    count = 0

    def tick() -> None:
        nonlocal count
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def around(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        tick()
        result = call(*args, **kwargs)
        tick()
        return result

    for name in DISK_CALLS:
        setattr(os, name, partial(around, getattr(os, name)))
    run_step = Trainer._run_step
    Trainer._run_step = lambda *args: around(run_step, *args)  # type: ignore[method-assign]
    train_and_export(
        load_config(config, []), output, resume=True, console=Console(file=io.StringIO())
    )
    if kill_at == -1:
        (output / "instants").write_text(str(count))

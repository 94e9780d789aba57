"""Deadlines of runs: each clock ends its own run in time; one thread looks after all of them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from odd_artifacts import write_endless

import artifact
from artifact.deadline import Clock
from artifact.errors import DeadlineError

SLACK = 20.0  # a shared machine may be slow


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SLACK
    while not condition():
        assert time.monotonic() < limit, "it never came about"
        time.sleep(0.002)


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "deadlines"]


def test_each_clock_is_ended_at_its_own_deadline_and_none_before() -> None:
    start = time.monotonic()
    wanted = [start + 0.1 + 0.4 * float(part) for part in np.random.default_rng(0).random(100)]
    clocks = [Clock(deadline) for deadline in wanted]
    ended: dict[int, float] = {}
    with ExitStack() as stack:
        for clock in clocks:
            stack.enter_context(clock)
        while len(ended) < len(clocks):
            for index, clock in enumerate(clocks):
                if index not in ended and clock.options.terminate:
                    ended[index] = time.monotonic()
            assert time.monotonic() < start + SLACK
            time.sleep(0.001)
    assert all(ended[index] >= deadline for index, deadline in enumerate(wanted))
    assert len(watchers()) == 1


def test_a_nearer_deadline_overtakes_a_farther_one() -> None:
    now = time.monotonic()
    with Clock(now + 1000) as far, Clock(now + 0.05) as near, Clock(now + 2000) as farther:
        until(lambda: near.options.terminate)
        with Clock(time.monotonic() + 0.05) as again:
            until(lambda: again.options.terminate)
        assert not far.options.terminate
        assert not farther.options.terminate


def test_a_run_that_ended_in_time_is_left_alone() -> None:
    with Clock(time.monotonic() + 0.05) as clock:
        pass
    with Clock(time.monotonic() + 0.1) as later:
        until(lambda: later.options.terminate)
    assert not clock.options.terminate
    with pytest.raises(DeadlineError):
        clock.refuse_late()
    with pytest.raises(DeadlineError):
        Clock(time.monotonic()).__enter__()


def test_without_a_deadline_there_is_nothing_to_watch() -> None:
    with Clock(None) as clock:
        clock.refuse_late()
    assert not clock.options.terminate


def test_many_threads_share_one_watcher() -> None:
    def work() -> None:
        for _ in range(200):
            with Clock(time.monotonic() + 100):
                pass
        with Clock(time.monotonic() + 0.05) as clock:
            until(lambda: clock.options.terminate)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(watchers()) == 1


def test_concurrent_endless_runs_end_each_at_its_own_deadline(tmp_path: Path) -> None:
    model = artifact.load(write_endless(tmp_path / "a"))
    took: dict[float, float] = {}

    def work(seconds: float) -> None:
        start = time.monotonic()
        with pytest.raises(DeadlineError):
            model.predict({"x": np.ones((1, 1), np.float32)}, start + seconds)
        took[seconds] = time.monotonic() - start

    threads = [threading.Thread(target=work, args=(seconds,)) for seconds in (0.1, 0.4, 0.7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(took) == [0.1, 0.4, 0.7]
    assert all(seconds <= passed < SLACK for seconds, passed in took.items())
    assert took[0.1] < took[0.7]


def test_a_fork_gets_a_watcher_of_its_own() -> None:
    """A fork takes no threads along; its first deadline starts one."""
    program = f"""
import os, sys, threading, time
sys.path.insert(0, {str(Path(artifact.__file__).parent.parent)!r})
from artifact.deadline import Clock

def ended(clock):
    limit = time.monotonic() + {SLACK}
    while not clock.options.terminate:
        if time.monotonic() > limit:
            return False
        time.sleep(0.002)
    return True

with Clock(time.monotonic() + 1000), Clock(time.monotonic() + 0.05) as clock:
    assert ended(clock)
    child = os.fork()
    with Clock(time.monotonic() + 0.05) as clock:
        good = ended(clock) and threading.active_count() == 2
    if child == 0:
        os._exit(0 if good else 3)
    assert good
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

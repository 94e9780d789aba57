"""Deadlines of runs: one thread terminates the runs that outlive theirs.

A run that ends in time costs two passes of a lock: the thread sleeps until the earliest deadline
that it knows of, and most runs are long gone by then.
"""

from __future__ import annotations

import math
import os
import threading
import time

import onnxruntime

from artifact.errors import DeadlineError


class Clock:
    """Terminates the runs made with its `options` at the deadline, a `time.monotonic()` value."""

    def __init__(self, deadline: float | None) -> None:
        self.options = onnxruntime.RunOptions()
        self.deadline = deadline

    def __enter__(self) -> Clock:
        if self.deadline is not None:
            self.refuse_late()
            _watch.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self.deadline is not None:
            _watch.remove(self)

    def refuse_late(self) -> None:
        """Raise DeadlineError once the deadline has passed."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineError("the deadline passed before the answer was there")


class _Watch:
    """The clocks of the runs under way, and the thread that looks after them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._clocks: set[Clock] = set()
        self._next_look = math.inf
        self._thread: threading.Thread | None = None

    def add(self, clock: Clock) -> None:
        with self._changed:
            self._clocks.add(clock)
            if clock.deadline is not None and clock.deadline < self._next_look:
                self._next_look = clock.deadline
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._look, name="deadlines", daemon=True
                    )
                    self._thread.start()
                self._changed.notify()

    def remove(self, clock: Clock) -> None:
        with self._changed:
            self._clocks.discard(clock)

    def _look(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                deadlines = [math.inf]
                for clock in list(self._clocks):
                    assert clock.deadline is not None
                    if clock.deadline <= now:
                        clock.options.terminate = True
                        self._clocks.discard(clock)
                    else:
                        deadlines.append(clock.deadline)
                self._next_look = min(deadlines)
                wait = self._next_look - now
                self._changed.wait(None if wait == math.inf else min(wait, threading.TIMEOUT_MAX))


def _renew() -> None:
    global _watch
    _watch = _Watch()


_watch = _Watch()
if hasattr(os, "register_at_fork"):  # a fork takes no threads along
    os.register_at_fork(after_in_child=_renew)

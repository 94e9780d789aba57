"""Bars on standard error with the time left; lines instead where it is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY = 5.0  # seconds between lines


class Bars:
    """Several steps, one after another; `add` gives what to call with what was done."""

    def __init__(self, display: Progress | None) -> None:
        self._display = display

    def add(self, text: str, total: int | None) -> Callable[[int], None]:
        """A step of `total` things, None where their number is not known."""
        if self._display is None:
            return _Lines(text, total)
        display = self._display
        task = display.add_task(text, total=total)
        return lambda count: display.advance(task, count)


class _Lines:
    def __init__(self, text: str, total: int | None) -> None:
        self.text, self.total, self.done = text, total, 0
        self.begun = self.told = time.monotonic()

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.told < EVERY:
            return
        self.told = now
        left = ""
        if self.total and self.done:
            seconds = (now - self.begun) * (self.total - self.done) / self.done
            left = f" of {self.total}, {seconds:.0f} s left"
        print(f"{self.text}: {self.done}{left}", file=sys.stderr)


@contextmanager
def progress() -> Iterator[Bars]:
    """Bars while the block runs; gone afterwards."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Bars(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as display:
        yield Bars(display)

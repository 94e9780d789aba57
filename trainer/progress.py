"""What a person sees while a run goes on: a bar in a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

EVERY = 2.0  # seconds between lines of a fit


def plain_console() -> Console:
    """A console that shows texts as they are: a path may hold [brackets] or :colons:."""
    return Console(markup=False, emoji=False, highlight=False)


def fit_teller(console: Console) -> Callable[[str, int, int, float], None]:
    """Says every two seconds or more seldom how far a fit is and how long the rest may take."""
    told = time.monotonic()

    def tell(text: str, done: int, total: int, seconds: float) -> None:
        nonlocal told
        if time.monotonic() - told < EVERY:
            return
        told = time.monotonic()
        left = f", some {math.ceil(seconds / done * (total - done))} s left" if done < total else ""
        console.print(f"{text}: {done} of {total}{left}", highlight=False, soft_wrap=True)

    return tell


@contextmanager
def steps_teller(console: Console, text: str) -> Iterator[Callable[[int, int], None]]:
    """What to call with steps done and steps of all: says so once it has taken two seconds.

    A bar in a terminal, elsewhere a line every two seconds.
    """
    bar = Bar(
        TextColumn(text),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(text, total=None)
    started = told = time.monotonic()
    first: tuple[int, float] | None = None

    def tell(done: int, total: int) -> None:
        nonlocal told, first
        now = time.monotonic()
        # What the first steps wait for, such as a compiler, says nothing about the others.
        since, then = first = first or (done, now)
        if console.is_terminal:
            if now - started >= EVERY:
                bar.start()
                bar.update(task, completed=done, total=total)
        elif now - told >= EVERY:
            told = now
            left = ""
            if since < done < total:
                seconds = (now - then) / (done - since) * (total - done)
                left = f", some {math.ceil(seconds)} s left"
            console.print(f"{text}: {done} of {total}{left}", highlight=False, soft_wrap=True)

    try:
        yield tell
    finally:
        bar.stop()


class Progress:
    """Progress over `total` optimizer steps; use it as a context manager around the epochs.

    `metric` is the name of the metric of the validation part, which is `held_out` unless the model
    was fitted on it; `done` are the steps that a resumed run has behind it.
    """

    def __init__(
        self,
        console: Console,
        *,
        total: int,
        done: int,
        epochs: int,
        metric: str,
        held_out: bool = True,
    ):
        self.console = console
        self.metric = metric
        self.said = f"{'held-out' if held_out else 'fitted-on'} {metric}"
        self.epochs = epochs
        self.total = total
        self.done = self.first = done
        self.started = time.monotonic()
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  " + self.said + " {task.fields[held_out]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(
            "training", total=total, completed=done, loss="–", held_out="–"
        )

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def step(self, epoch: int, loss: float) -> None:
        """One optimizer step of `epoch` is done; `loss` is its minibatch's."""
        self.done += 1
        self.bar.update(
            self.task,
            advance=1,
            loss=f"{loss:.4f}",
            description=f"epoch {epoch}/{self.epochs}",
        )

    def epoch(self, row: dict[str, Any], best: float) -> None:
        """An epoch is done; `row` is its line of metrics.jsonl, `best` the best metric so far."""
        score = f"{row[self.metric]:.4f} (best {best:.4f})"
        self.bar.update(self.task, held_out=score)
        if self.console.is_terminal:
            return
        loss = "" if row["loss"] is None else f"  loss {row['loss']:.4f}"
        self.console.print(
            f"epoch {row['epoch']}/{self.epochs}{loss}  {self.said} {score}" + self._time_left(),
            highlight=False,
            soft_wrap=True,
        )

    def _time_left(self) -> str:
        seconds = time.monotonic() - self.started
        if self.done == self.first:
            return ""
        left = seconds / (self.done - self.first) * (self.total - self.done)
        return f"  {seconds:.0f} s, at most {left:.0f} s left"

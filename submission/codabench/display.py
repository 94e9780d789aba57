"""What a person sees of uploads, downloads and a submission that runs."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from submission.codabench.answers import plain
from submission.codabench.client import CodabenchClient
from submission.codabench.follow import State, follow
from submission.codabench.records import Records
from submission.codabench.transport import Advance
from submission.codabench.upload import record_state
from submission.errors import PlatformError


class Transfers:
    """Bars for bytes that travel; use it as a context manager. Nothing moves off a terminal."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def begin(self, name: str) -> Advance:
        """The function that moves the bar of the file `name`; the bar appears with its bytes."""
        bar: list[TaskID] = []

        def advance(done: int, total: int | None) -> None:
            if not bar:
                self._bars.start()  # not before: it would swallow a question on the terminal
                bar.append(self._bars.add_task(plain(name, 60), total=total))
            self._bars.update(bar[0], completed=done, total=total)

        return advance


def watch(
    client: CodabenchClient, records: Records, submission: int, interval: float, console: Console
) -> State:
    """Follow a submission: one live line on a terminal, a line per change elsewhere."""
    begun, seen = time.monotonic(), [""]
    live = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = live.add_task(f"submission {submission}", total=None)

    def notify(state: State) -> None:
        record_state(records, client.url, state)
        text = describe(state)
        if text != seen[-1]:
            seen.append(text)
            if not console.is_terminal:
                console.print(f"{time.monotonic() - begun:5.0f} s  {text}", soft_wrap=True)
        live.update(task, description=f"submission {submission}: " + " → ".join(seen[1:][-6:]))

    try:
        with live:
            return follow(client, submission, notify=notify, interval=interval)
    except PlatformError as error:
        advice = (
            "If it was deleted there, `upload --again` submits its file once more"
            if error.status == 404
            else "The submission goes on at CodaBench: "
            f"axonnx submission status {submission} --watch"
        )
        raise PlatformError(f"{error}. {advice}", error.status) from None


def describe(state: State) -> str:
    """Statuses of a submission and of its tasks, on one line."""
    text = state.submission.status
    if state.ended and state.unscored:
        text += ", waiting for its scores"
    if text == "Submitting" and state.submission.auto_run is False:
        text += ", until an organiser starts it"
    if state.children:
        text += f" ({', '.join(f'{child.id} {child.status}' for child in state.children)})"
    return text

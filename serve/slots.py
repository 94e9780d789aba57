"""Bounded run slots: predictions run in a thread pool, never in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from serve.errors import DeadlineExceeded, Overloaded

Result = TypeVar("Result")


class Slots:
    """`count` predictions run at a time; at most `max_pending` are read, wait or run."""

    def __init__(self, count: int, max_pending: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="predict")
        self._max_pending = max_pending
        self.pending = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one of the pending places; raises Overloaded where none is left."""
        if self.pending >= self._max_pending:
            raise Overloaded(
                f"{self.pending} predictions are pending; send it again a little later"
            )
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1

    async def run(self, work: Callable[[], Result], deadline: float) -> Result:
        """Run `work` in a slot and wait for it until `deadline`, a `time.monotonic()` value.

        Work that still waits for its slot then is dropped; work that runs must heed the deadline
        itself, and keeps its slot until it does. Raises DeadlineExceeded.
        """
        try:
            async with asyncio.timeout(deadline - monotonic()):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TimeoutError:
            raise DeadlineExceeded("the answer was not there in time; send fewer rows") from None

    def close(self) -> None:
        """Drop what waits; what runs ends by its own deadline."""
        self._pool.shutdown(wait=False, cancel_futures=True)

"""One thread for what callers change in the repository: loading may take long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from serve.errors import Overloaded

MAX_PENDING = 8
Result = TypeVar("Result")


class Changes:
    """Changes that run or wait; they follow one another and hold up nothing else."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "changes")
        self._pending: set[Future[Any]] = set()

    @property
    def busy(self) -> bool:
        """Whether a change runs or waits."""
        return bool(self._pending)

    async def run(self, change: Callable[[], Result]) -> Result:
        """What a change gives once it has had its turn; called in the event loop.

        Raises Overloaded where MAX_PENDING others run or wait, and what the change raises.
        """
        if len(self._pending) >= MAX_PENDING:
            raise Overloaded(f"{MAX_PENDING} changes of the models run or wait already")
        future = self._pool.submit(change)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Forget what waits; what runs goes on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

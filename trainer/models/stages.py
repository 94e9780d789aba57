"""How far a fit in closed form is, for whoever listens: models know of no console."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

# Called with what is done stage by stage, stages done, all of them, and seconds since the first.
Listener = Callable[[str, int, int, float], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block, `listener` hears of every stage that is over."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def stages(text: str, items: Sequence[T]) -> Iterator[T]:
    """`items`, one after the other, each a stage of what `text` says."""
    listener, begun = _listener.get(), time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if listener is not None:
            listener(text, done, len(items), time.monotonic() - begun)

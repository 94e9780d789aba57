"""Room for large results, taken again from results that are gone.

The first use of fresh memory costs as much as writing it, or more: a run that is repeated would pay
for that every time.
"""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

# Bytes from which room is kept, and the most that is kept while nothing uses it.
LEAST, MOST = 1 << 20, 1 << 30

_free: list[np.ndarray] = []
# Of the thread, not of the call: memory may be given back in the middle of taking some.
_lock = threading.RLock()


def room(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor; its memory serves again once nothing refers to it."""
    count = math.prod(shape) * dtype.itemsize
    kind = str(dtype).removeprefix("torch.")
    if count < LEAST:
        return torch.from_numpy(np.empty(shape, kind))
    memory = _taken(count)
    view = memory[:count].view(kind).reshape(shape)
    weakref.finalize(view, _give_back, memory)
    return torch.from_numpy(view)


def _taken(count: int) -> np.ndarray:
    """The smallest kept memory that is large enough and not twice too large, or fresh memory."""
    with _lock:
        fitting = [k for k, each in enumerate(_free) if count <= each.nbytes <= 2 * count]
        if fitting:
            return _free.pop(min(fitting, key=lambda k: _free[k].nbytes))
    return np.empty(count, np.uint8)


def _give_back(memory: np.ndarray) -> None:
    with _lock:
        if memory.nbytes + sum(each.nbytes for each in _free) <= MOST:
            _free.append(memory)

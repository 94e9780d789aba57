"""Large results take the memory of results that are gone, never of one that is still there."""

from __future__ import annotations

import gc
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import torch

from trainer.dynamics import memory


def test_memory_serves_again_once_nothing_refers_to_it(monkeypatch):
    monkeypatch.setattr(memory, "_free", [])
    first = memory.room((1024, 1024), torch.float32)
    place = first.data_ptr()
    row = first[3:4]  # a view keeps it
    del first
    gc.collect()
    second = memory.room((1024, 1024), torch.float32)
    assert second.data_ptr() != place
    row.fill_(7.0)
    second.fill_(1.0)
    assert float(row.sum()) == 7.0 * 1024
    del row
    gc.collect()
    third = memory.room((700, 1024), torch.float32)
    assert third.data_ptr() == place


def test_little_memory_and_too_much_of_it_is_not_kept(monkeypatch):
    monkeypatch.setattr(memory, "_free", [])
    monkeypatch.setattr(memory, "MOST", 3 * memory.LEAST)
    memory.room((16,), torch.float64)
    gc.collect()
    assert memory._free == []
    several = [memory.room((memory.LEAST // 4,), torch.float32) for _ in range(5)]
    del several
    gc.collect()
    assert len(memory._free) == 3
    # Half of what is kept would be wasted on a small result.
    small = memory.room((memory.LEAST // 4 + 1,), torch.float32)
    assert len(memory._free) == 3
    assert small.shape == (memory.LEAST // 4 + 1,)


def test_threads_take_and_give_back_at_once(monkeypatch):
    monkeypatch.setattr(memory, "_free", [])
    monkeypatch.setattr(memory, "LEAST", 1)

    def take_and_drop(number: int) -> None:
        draws, mine = random.Random(number), []
        for _ in range(2500):
            mine.append(memory.room((draws.randint(1 << 14, 1 << 16),), torch.float32))
            mine[-1][-1] = number
            if len(mine) > 3:
                gone = mine.pop(draws.randrange(4))
                assert gone[-1] == number

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(take_and_drop, range(8)))
    finally:
        sys.setswitchinterval(before)

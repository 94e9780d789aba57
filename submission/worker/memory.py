"""Processes and their memory, as `/proc` of this machine shows them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(pid: int, depth: int = 64) -> list[int]:
    """`pid` and the processes below it, `depth` generations at most."""
    found, layer = [pid], [pid]
    for _ in range(depth):
        layer = [child for parent in layer for child in _children(parent)]
        if not layer:
            break
        found += layer
    return found


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        threads = os.listdir(f"/proc/{pid}/task")
        return [int(text) for thread in threads for text in _words(pid, thread)]
    return []


def _words(pid: int, thread: str) -> list[str]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
        return file.read().split()
    return []


def session(leader: int) -> list[int]:
    """The processes whose session has that leader."""
    found = []
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.getsid(int(name)) == leader:
                    found.append(int(name))
    return found


def resident(pids: Iterable[int]) -> int | None:
    """Bytes in the resident sets of processes together; None where `/proc` shows none.

    Pages that several of them share count several times.
    """
    sizes = [size for pid in pids if (size := _resident(pid)) is not None]
    return sum(sizes) if sizes else None


def _resident(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return None

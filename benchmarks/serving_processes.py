"""Processor time and memory of a process and everything it started, read from /proc (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MEGABYTE = 1e6
# Places in /proc/PID/stat, counted from the field `state`.
STATE, PARENT, SESSION, TIMES, STARTED = 0, 1, 3, slice(11, 15), 19


def family(root: int) -> dict[int, list[str]]:
    """Process `root`, its descendants, and what else runs in its session: fields by number.

    A server that was started in a session of its own keeps its orphans there.
    """
    table = {int(name): _fields(name) for name in os.listdir("/proc") if name.isdecimal()}
    found = {pid for pid, fields in table.items() if fields and root in (pid, int(fields[SESSION]))}
    size = 0
    while size != len(found):
        size = len(found)
        found |= {pid for pid, fields in table.items() if fields and int(fields[PARENT]) in found}
    return {pid: table[pid] for pid in found}


def cpu_seconds(root: int) -> float:
    """User and system time of the family, children that ended included."""
    return sum(sum(map(int, fields[TIMES])) for fields in family(root).values()) / TICKS


def memory_mb(root: int) -> tuple[float, float]:
    """Resident and proportional memory of the family, each summed, in 10^6 bytes.

    A page that several processes share counts for each in the first sum, once in the second.
    """
    kilobytes = {"Rss": 0, "Pss": 0}
    for pid in family(root):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in kilobytes:
                    kilobytes[key] += int(value.split()[0])
    return kilobytes["Rss"] * 1024 / MEGABYTE, kilobytes["Pss"] * 1024 / MEGABYTE


def stop(process: subprocess.Popen[bytes], grace: float = 15.0) -> None:
    """End a process that leads its own session, and its family."""
    members = family(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    members |= family(process.pid)
    for pid, fields in members.items():
        if _runs(pid, fields[STARTED]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(grace)
    limit = time.monotonic() + grace
    while any(_runs(pid, fields[STARTED]) for pid, fields in members.items()):
        if time.monotonic() > limit:
            raise RuntimeError(f"processes of {process.args!r} do not end")
        time.sleep(0.02)


def _runs(pid: int, started: str) -> bool:
    """Whether the process of this number still is the one that started then, and is no zombie."""
    fields = _fields(str(pid))
    return bool(fields) and fields[STARTED] == started and fields[STATE] not in "ZX"


def _fields(pid: str) -> list[str]:
    """The fields of /proc/PID/stat from `state` on; none where the process is gone."""
    try:
        text = Path("/proc", pid, "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()

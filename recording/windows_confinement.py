"""What a process may still do that reads a stranger's file: little memory and time, no other file.

Limits hold everywhere. What Linux alone has (no other files: Landlock; no network: a namespace of
its own) is taken where the kernel and the container give it, and left where they do not: then the
readers' own rules remain, which follow no link out of a file.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MEMORY_BYTES = 6 * 2**30  # of addresses: libraries reserve far more than they touch
FILE_BYTES = 2 * 2**30  # of any file it writes
_ROOT = Path(__file__).resolve().parent.parent
_OWN = ("recording", "artifact")
# What libraries look at while they start; of /proc its own part alone.
_LOOKED_AT = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/dev/null", "/dev/urandom"),
)

# linux/prctl.h, linux/sched.h
_PDEATHSIG, _NO_NEW_PRIVS = 1, 38
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
# linux/landlock.h, whose system calls have the same numbers on all architectures
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_OF_FILES = 1 << 0 | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
# How many rights on files each version of Landlock knows, from version 1 on.
_RIGHTS = (13, 14, 15, 15, 16)
_NO_TCP, _SCOPED = 0b11, 0b11


def confine(folder: Path, seconds: float) -> None:
    """Leave this process `folder`, its packages and so many seconds of processor time.

    It ends with the thread that started it, and is the first to go where memory runs out.
    """
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, max(1, round(seconds) + 1))
    if sys.platform != "linux":
        return
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    system = ctypes.CDLL(None, use_errno=True)
    system.unshare(_NEW_USER | _NEW_NETWORK)  # refused in most containers
    system.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # forgotten by what was done before
    system.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    _close_files(system, folder)


def _limit(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))


def _close_files(system: ctypes.CDLL, folder: Path) -> None:
    """Everything but `folder` and what is imported becomes unreadable, by Landlock."""
    version = system.syscall(_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    handled = (1 << _RIGHTS[min(version, len(_RIGHTS)) - 1]) - 1
    words = (handled, _NO_TCP, _SCOPED)[: 1 + (version >= 4) + (version >= 6)]
    rules = (ctypes.c_uint64 * len(words))(*words)
    ruleset = system.syscall(_CREATE, rules, ctypes.c_size_t(ctypes.sizeof(rules)), 0)
    if ruleset < 0:
        return
    try:
        for path, rights in _allowed(folder, handled):
            _allow(system, ruleset, path, rights & handled)
        system.syscall(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allowed(folder: Path, handled: int) -> Iterator[tuple[str | Path, int]]:
    reading = _READ_FILE | _READ_DIR
    yield folder, handled & ~1  # but not to execute
    yield _ROOT, _READ_DIR  # where packages are looked for, and other things may lie beside them
    for name in _OWN:
        yield _ROOT / name, reading
    for path in {sys.prefix, sys.base_prefix, *sys.path, *_LOOKED_AT} - {"", str(_ROOT)}:
        yield path, reading | (_WRITE_FILE if path == "/dev/null" else 0)


def _allow(system: ctypes.CDLL, ruleset: int, path: str | Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # it is not there
    try:
        if not Path(path).is_dir():
            rights &= _OF_FILES
        rule = rights.to_bytes(8, sys.byteorder) + place.to_bytes(4, sys.byteorder)
        system.syscall(_ADD, ruleset, 1, rule, 0)
    finally:
        os.close(place)

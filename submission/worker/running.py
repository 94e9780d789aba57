"""A started command: its streams written to bounded files, its memory watched, its end awaited."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from submission.errors import RunError

MAX_STREAM_BYTES = 64 << 20
POLL_SECONDS = 0.02
GRACE_SECONDS = 5.0
KILLED = 137  # 128 + SIGKILL


@dataclass(frozen=True)
class End:
    """How a command ended: exit status (128 + n for signal n), whether memory ended it."""

    status: int
    out_of_memory: bool


class Command(Protocol):
    """What an engine knows of a command that the watch does not."""

    def memory(self, pid: int) -> int | None:
        """Bytes that the program holds now; None when that is not known."""

    def stop(self, pid: int) -> None:
        """Kill the program and everything it started."""

    def sweep(self, pid: int) -> None:
        """Kill what is left when the process itself has ended and is not reaped yet."""

    def ended(self, status: int, peak: int | None) -> tuple[End, int | None]:
        """After the end of the process: how the program ended, and its peak memory in bytes."""


class Watch:
    """Starts `words` and watches over them, in threads of its own.

    Of each stream the first 64 MiB are kept and the rest is read and dropped, so that a program
    which floods its output neither fills the disk nor blocks. The first of the threads starts the
    process and lives as long as it: a parent-death signal is bound to the thread that forked.

    Raises RunError when the command cannot be started.
    """

    def __init__(
        self,
        command: Command,
        words: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path,
        cap: int | None = None,
    ) -> None:
        self.peak_bytes: int | None = None
        self.out_of_memory = False
        self._command, self._cap, self._status = command, cap, 0
        self._failure: Exception | None = None
        self._reaped = self._killed = False
        self._lock = threading.Lock()
        self._started, self._done = threading.Event(), threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        arguments = (list(words), folder, dict(environment), stdout, stderr)
        threading.Thread(target=self._live, args=arguments, daemon=True).start()
        self._started.wait()
        if self._failure is not None:
            raise RunError(f"{words[0]}: does not start: {self._failure}")

    def wait(self, seconds: float) -> int | None:
        """Exit status, or None when the program still runs after `seconds`.

        Raises the engine's error when it cannot say how the program ended.
        """
        if not self._done.wait(max(0.0, seconds)):
            return None
        if self._failure is not None:
            raise self._failure
        return self._status

    def kill(self) -> None:
        """End everything, and wait until it has ended."""
        while not self._done.is_set():
            with self._lock:
                if self._process is not None and not self._reaped:
                    self._killed = True
                    self._command.stop(self._process.pid)
            self._done.wait(GRACE_SECONDS)

    def _live(
        self, words: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path
    ) -> None:
        try:
            process = self._process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as failure:
            self._failure = failure
            return
        finally:
            self._started.set()
        assert process.stdout is not None
        assert process.stderr is not None
        pairs = ((process.stdout, out), (process.stderr, err))
        readers = [threading.Thread(target=_drain, args=pair, daemon=True) for pair in pairs]
        sampler = threading.Thread(target=self._sample, args=(process.pid,), daemon=True)
        for thread in (*readers, sampler):
            thread.start()
        # The process is left a zombie until `kill` cannot mistake another one for it.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._command.sweep(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            self._reaped = True
        process.returncode = os.waitstatus_to_exitcode(status)
        for reader in readers:
            reader.join(GRACE_SECONDS)
        self._finish(process.returncode, usage)

    def _finish(self, code: int, usage: resource.struct_rusage) -> None:
        peak = max(self.peak_bytes or 0, _own_peak(usage)) or None
        try:
            end, self.peak_bytes = self._command.ended(code if code >= 0 else 128 - code, peak)
            self.out_of_memory = self.out_of_memory or end.out_of_memory
            self._status = KILLED if self._killed else end.status
        except Exception as failure:
            self._failure = failure
        finally:
            self._done.set()

    def _sample(self, pid: int) -> None:
        while not self._done.wait(POLL_SECONDS):
            with self._lock:
                if self._reaped:
                    return
                held = self._command.memory(pid)
                if held is None:
                    continue
                self.peak_bytes = max(self.peak_bytes or 0, held)
                if self._cap is not None and held > self._cap:
                    self.out_of_memory = self._killed = True
                    self._command.stop(pid)


def _own_peak(usage: resource.struct_rusage) -> int:
    """The largest resident set among ended processes, in bytes; 0 when that is not known.

    A process that was forked from this one starts with this one's figure: it says something only
    where it is larger.
    """
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage.ru_maxrss * 1024 if usage.ru_maxrss > here else 0


def _drain(stream: IO[bytes], path: Path) -> None:
    """Copy a stream to a file up to the limit, and read on to its end."""
    left, dropped = MAX_STREAM_BYTES, 0
    with stream, open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while chunk := os.read(stream.fileno(), 1 << 16):
            file.write(chunk[:left])
            dropped += max(0, len(chunk) - left)
            left = max(0, left - len(chunk))
        if dropped:
            file.write(f"\n[{dropped} bytes more were dropped]\n".encode())

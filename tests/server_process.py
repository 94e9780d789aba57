"""A real server process on a free port, for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent


class Server:
    """`axonnx serve …` in a process of its own."""

    def __init__(
        self, log: Path, *paths: Path, python: Path | str = sys.executable, **environment: object
    ) -> None:
        settings = {f"AXONNX_{key.upper()}": str(value) for key, value in environment.items()}
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [python, ROOT / "axonnx.py", "serve", *paths, "--port", "0"],
                env={"AXONNX_DRAIN_SECONDS": "0", **os.environ, **settings},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.strip())
            if found := re.search(r'listening on (https?://[^\s"]+)', line):
                self.url = found[1]
            if line == "axonnx: ready\n" or '"message": "ready"' in line:
                break
        else:
            self.process.wait(10)
            raise AssertionError(f"no server: {log.read_text()}")
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def wait_for_pending(self, count: int) -> None:
        """Wait until this many predictions wait or run; bodies on their way do not count."""
        limit = time.monotonic() + 20
        while self.client.get("/health/ready").json()["pending"] != count:
            assert time.monotonic() < limit, f"never {count} predictions pending"
            time.sleep(0.01)

    def wait_for_bytes(self, count: int) -> None:
        """Wait until bodies of this many bytes are held."""
        limit = time.monotonic() + 20
        line = f"axonnx_pending_bytes {count}.0\n"
        while line not in self.client.get("/metrics").text:
            assert time.monotonic() < limit, f"never {count} bytes held"
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; the exit code. `last_words` is what it printed since it listened."""
        self.client.close()
        self.process.send_signal(number)
        self.last_words, _ = self.process.communicate(timeout=30)
        return self.process.returncode


@contextmanager
def running(
    folder: Path, *paths: Path, python: Path | str = sys.executable, **environment: object
) -> Iterator[Server]:
    """A server that must still be alive at the end, stop with 0 and have logged nothing."""
    server = Server(folder / "server.log", *paths, python=python, **environment)
    try:
        yield server
        assert server.process.poll() is None, server.log.read_text()
    finally:
        code = server.stop()
    logged = server.log.read_text()
    assert (code, logged) == (0, "")

"""Where the programs of a job run: in Docker containers, or in processes of this machine.

Both show a program the same `/app` tree and the environment of CodaBench's compute worker, with
no capabilities, no new privileges and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from submission.worker.docker import DockerEngine
from submission.worker.process import ProcessEngine

__all__ = ["DockerEngine", "Engine", "Mount", "ProcessEngine", "Running"]


@dataclass(frozen=True)
class Mount:
    """A folder of this machine and the absolute path at which the program sees it."""

    host: Path
    container: str
    writable: bool


class Running(Protocol):
    """A program that was started."""

    @property
    def peak_bytes(self) -> int | None:
        """The most memory it was seen to hold; None where that is not known."""

    @property
    def out_of_memory(self) -> bool:
        """Whether it was ended for holding more than the engine's cap."""

    def wait(self, seconds: float) -> int | None:
        """Exit status, 128 + n for signal n; None when it still runs after `seconds`."""

    def kill(self) -> None:
        """End the program and everything it started; harmless when it has ended."""


class Engine(Protocol):
    """A way to run programs."""

    @property
    def name(self) -> str:
        """What a user calls it: "docker" or "process"."""

    def describe(self) -> str:
        """One line for a report: what is and what is not isolated here."""

    def start(
        self, words: Sequence[str], mounts: Sequence[Mount], stdout: Path, stderr: Path
    ) -> Running:
        """Start a command in the folder `/app/program`; its streams go to files.

        Raises ConfigError when the engine cannot be used.
        """

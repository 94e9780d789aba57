"""A Python traceback, read: what was raised, and in which of the participant's lines."""

from __future__ import annotations

import re
from dataclasses import dataclass

HEADER = "Traceback (most recent call last):"
FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+)(?:, in (?P<function>.+))?')
# Where a submission lies: in a container, or below a job's folder where nothing is mounted.
OWN = re.compile(
    r"/(?:app/output|app/ingested_program|app/input/res|prediction/output|prediction/program"
    r"|scoring/input/res)/(?P<name>.+)"
)
CARRIED = ("vendor/", "artifact/")  # what `build` puts beside the participant's code
MAX_ERROR = 600


@dataclass(frozen=True)
class Frame:
    """One line that was being run; `function` is "" where the file itself cannot be parsed."""

    file: str
    line: int
    function: str
    code: str

    @property
    def own(self) -> str | None:
        """The file's name in the zip; None where it is not the participant's."""
        match = OWN.search(self.file)
        if match is None or match["name"].startswith(CARRIED):
            return None
        return match["name"]

    def __str__(self) -> str:
        """ "model.py:12 in predict: return X @ self.weights"."""
        where = f" in {self.function}" if self.function else ""
        return f"{self.own or self.file}:{self.line}{where}" + (f": {self.code}" * bool(self.code))


@dataclass(frozen=True)
class Crash:
    """What ended a program: its frames, outermost first, and the error as Python prints it.

    `said` holds the errors of the whole chain, the last one first.
    """

    frames: tuple[Frame, ...]
    error: str
    said: str

    @property
    def own(self) -> tuple[Frame, ...]:
        """The frames in files of the participant's, the vendored ones left out."""
        return tuple(frame for frame in self.frames if frame.own)


def read(text: str) -> Crash | None:
    """The last traceback in `text`; None where there is none."""
    _, *blocks = text.split(HEADER)
    found = [_block(block) for block in blocks]
    if not found or not found[-1][1]:
        return None
    frames, error = found[-1]
    return Crash(tuple(frames), error, "\n".join(error for _, error in reversed(found)))


def _block(text: str) -> tuple[list[Frame], str]:
    """Frames and error of one traceback, without its header."""
    frames: list[Frame] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if match := FRAME.fullmatch(line):
            following = lines[number + 1 : number + 2]
            code = following[0].strip() if following and following[0].startswith("    ") else ""
            frame = Frame(match["file"], int(match["line"]), match["function"] or "", code[:120])
            frames.append(frame)
        elif line and not line.startswith(" "):
            error = "\n".join(lines[number:]).split("\n\n", 1)[0].strip()
            return frames, error[:MAX_ERROR]
    return frames, ""

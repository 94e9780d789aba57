"""docs/your-recording.md: every command of it, as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "your-recording.md"
URL = "http://127.0.0.1:8000"
SECTIONS = {
    title: re.findall(r"```bash\n(.*?)```", body, re.DOTALL)
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.S | re.M)
}
RUN = [title for title, blocks in SECTIONS.items() if blocks]


def axonnx(words: list[str], cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "axonnx.py"), *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def service(words: list[str], cwd: Path) -> Iterator[str]:
    """`axonnx serve …` on a free port, ready; its address."""
    command = [sys.executable, str(ROOT / "axonnx.py"), *words, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield found.group()
                    break
            else:
                pytest.fail(f"{shlex.join(words)} did not start")
        finally:
            process.terminate()


def words_of(command: str) -> list[str]:
    program, *words = shlex.split(os.path.expandvars(command))
    assert program == "axonnx"
    return words


@pytest.mark.slow
@pytest.mark.parametrize("title", RUN)
def test_every_command_of_the_page(title: str, tmp_path: Path, shared_data: Path) -> None:
    said = ""
    for block in SECTIONS[title]:
        commands = [line for line in block.splitlines() if line and not line.startswith("#")]
        if " serve " not in commands[0]:
            for command in commands:
                said += axonnx(words_of(command), tmp_path)
            continue
        with service(words_of(commands[0]), tmp_path) as address:
            for command in commands[1:]:
                said += axonnx(words_of(command.replace(URL, address)), tmp_path)
    check(title, said, tmp_path)


def check(title: str, said: str, folder: Path) -> None:
    """What the page promises of a section."""
    pairs = [(path, path.with_name(f"{path.stem}_http{path.suffix}")) for path in folder.iterdir()]
    compared = [(one, other) for one, other in pairs if other.exists()]
    assert compared, sorted(path.name for path in folder.iterdir())
    for one, other in compared:
        assert one.read_bytes() == other.read_bytes(), (one, other)
    pictures = list(folder.glob("*.png"))
    assert any(".inspect" in picture.name for picture in pictures), pictures
    promised = {
        "EEG with joined segments: forecast": ("80 segments", "skill"),
        "Local field potentials and grip force: decode": ("declare", "R²"),
        "Spikes and position: decode": ("R²",),
        "Trials: classify": ("balanced",),
    }
    for text in promised[title]:
        assert text in said, said

"""The workflow of docs/data_driven: every block of a page in order, and what it prints."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainer.dynamics import NODES, kernel_build

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "data_driven"
PAGES = ("workflow.md", "discovery.md", "inference.md")
BLOCK = re.compile(
    r"^(?:<!-- needs (?P<needs>[\w ]+) -->\n)?```python\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<printed>.*?)^```\n)?",
    re.S | re.M,
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Block:
    """One block of code: what it needs, the line it begins at, and what it prints."""

    needs: str
    code: str
    line: int
    printed: str


def blocks(text: str) -> list[Block]:
    """The blocks of code of a page, in order."""
    return [
        Block(
            found["needs"] or "",
            found["code"],
            text.count("\n", 0, found.start("code")),
            found["printed"] or "",
        )
        for found in BLOCK.finditer(text)
    ]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names of the page, in an empty folder; its models are taken back at the end."""
    monkeypatch.chdir(tmp_path)
    before = dict(NODES._constructors)
    yield {"__name__": "__main__"}
    NODES._constructors.clear()
    NODES._constructors.update(before)


def there(needs: str) -> bool:
    """Whether what a block needs is on this machine."""
    if needs == "a compiler":
        return kernel_build.compiler() is not None
    return importlib.util.find_spec(needs) is not None


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page(page: str, session: dict[str, Any]) -> None:
    text = (FOLDER / page).read_text(encoding="utf-8")
    found = blocks(text)
    assert len(found) == text.count("```python") > 0
    assert sum(bool(block.printed) for block in found) == text.count("```text")
    for block in found:
        if block.needs and not there(block.needs):
            continue
        said = io.StringIO()
        code = compile("\n" * block.line + block.code, page, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(said):
            exec(code, session)
        same_print(said.getvalue(), block.printed, f"{page}:{block.line + 1}")


@pytest.mark.slow
def test_every_command_of_the_workflow(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    text = (FOLDER / "workflow.md").read_text(encoding="utf-8")
    commands = "".join(re.findall(r"```bash\n(.*?)```", text, re.S)).splitlines()
    assert len(commands) > 2
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "axonnx"
        run = [sys.executable, str(ROOT / "axonnx.py"), *words]
        done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    for artifact in ("network_artifact", "fit_adam/artifact", "fit_simplex/artifact"):
        assert (tmp_path / "runs" / artifact / "manifest.json").is_file(), artifact


def test_another_number_or_word_is_no_equal_print() -> None:
    same_print("g 2.007", "g 2.006", "here")
    for said in ("g 2.016", "h 2.006", "g 2.006 2"):
        with pytest.raises(AssertionError, match="here prints"):
            same_print(said, "g 2.006", "here")


def same_print(said: str, stated: str, where: str) -> None:
    """Equal text, and numbers equal up to one in the last digit that is stated."""
    assert NUMBER.sub("#", said) == NUMBER.sub("#", stated), f"{where} prints {said}"
    for one, other in zip(NUMBER.findall(said), NUMBER.findall(stated), strict=True):
        digits = len(other.partition(".")[2])
        last = 10.0**-digits if digits else 0.0
        close = math.isclose(float(one), float(other), rel_tol=0, abs_tol=1.01 * last)
        assert close, f"{where} prints {said}"


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing, f"{page.name}: no {', '.join(missing)}"

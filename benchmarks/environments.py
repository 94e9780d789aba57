"""Environments of their own for what a benchmark compares with, below `benchmarks/.cache`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# The day after which no package counts, so that an environment is the same on every machine.
EXCLUDE_NEWER = "2026-11-22T00:00:00Z"


class BuildError(Exception):
    """An environment cannot be made; the text ends with what uv said."""


def make_environment(name: str, requirements: tuple[str, ...], cache: Path) -> Path:
    """The Python of an environment below `cache` that holds `requirements`, made if it is missing.

    Raises BuildError.
    """
    contents = [sys.version, *requirements]
    if any(requirement.startswith("--editable") for requirement in requirements):
        contents.append((ROOT / "pyproject.toml").read_text())
    digest = hashlib.sha256("\n".join(contents).encode()).hexdigest()[:12]
    folder = cache / f"{name}-{digest}"
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        options = ("--compile-bytecode", "--exclude-newer", EXCLUDE_NEWER, "--python", str(python))
        _uv("pip", "install", "--quiet", *options, *requirements)
        done.touch()
    return python


def installed(python: Path) -> dict[str, str]:
    """Versions, by name, of the packages of an environment."""
    listed = _uv("pip", "list", "--quiet", "--format", "json", "--python", str(python))
    return {entry["name"]: entry["version"] for entry in json.loads(listed)}


def _uv(*words: str) -> str:
    done = subprocess.run(["uv", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"uv {words[0]} {words[1]}: {done.stderr.strip()[-600:]}")
    return done.stdout

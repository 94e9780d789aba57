"""Running a submission away from everything it must not depend on.

A fresh interpreter (`python -I`) of an environment that holds numpy and what is named, in an empty
folder, with the few variables that CodaBench sets, without network where the system lets us, under
a time limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from submission.errors import ConfigError, RunError
from submission.wheels import cache_folder, uv_command

NUMPY = {"3.10": "2.2.6"}  # the last one for that Python, and the image's
NUMPY_ELSE = "2.4.6"
TAIL = 3000
PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[A-Za-z0-9._,-]+\])?==([A-Za-z0-9.!+_-]+)")


@dataclass(frozen=True)
class Interpreter:
    """A Python to run submissions with: the executable of its environment, and its version."""

    path: Path
    version: str  # "3.10"


def find_python(version: str) -> Path | None:
    """An installed CPython of that version ("3.10"), or None; nothing is downloaded."""
    for path in _candidates(version):
        if _version_of(path) == version:
            return path
    return None


def _candidates(version: str) -> Iterable[Path]:
    yield Path(sys.executable)
    command = [uv_command(), "python", "find", "--no-python-downloads", "--no-project", version]
    found = subprocess.run(command, capture_output=True, text=True, cwd="/")
    if found.returncode == 0:
        yield Path(found.stdout.strip())
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    with contextlib.suppress(OSError):  # of another user
        yield from sorted(pyenv.glob(f"{version}.*/bin/python{version}"))


@cache
def _version_of(path: Path) -> str | None:
    """ "3.10" for a CPython that starts, else None."""
    code = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", code], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    name, _, version = done.stdout.strip().partition(" ")
    return version if done.returncode == 0 and name == "cpython" else None


def environment(python: Path, packages: tuple[str, ...] = ()) -> Interpreter:
    """The environment of numpy and `packages` for an interpreter, made once, kept in the cache.

    `packages` are pinned requirements such as "torch==2.2.2"; numpy may be among them.
    Raises ConfigError when `python` is no CPython, a package is not pinned, or one cannot be had.
    """
    version = _version_of(python)
    if version is None:
        raise ConfigError(f"{python}: is no CPython interpreter that starts")
    pins = _pins(packages)
    numpy = pins.pop("numpy", f"numpy=={NUMPY.get(version, NUMPY_ELSE)}")
    key = hashlib.sha256(os.fsencode(python.resolve())).hexdigest()[:12]
    name = f"python{version}-{numpy.replace('==', '')}-{key}"
    if pins:
        name += "-" + hashlib.sha256("\n".join(sorted(pins.values())).encode()).hexdigest()[:12]
    place = cache_folder() / "environments" / name
    if not (place / "complete").is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        # An environment names its own folder and cannot be renamed: one writer at a time.
        lock = place.with_name(place.name + ".lock")
        with open(lock, "w") as stream:
            _lock(stream.fileno())
            if not (place / "complete").is_file():
                _make_environment(python, [numpy, *sorted(pins.values())], place)
    return Interpreter(place / "bin" / "python", version)


def _pins(packages: tuple[str, ...]) -> dict[str, str]:
    """Requirements by their package's name."""
    pins: dict[str, str] = {}
    for text in packages:
        match = PINNED.fullmatch(text)
        if match is None:
            raise ConfigError(f"package {text!r}: must be pinned, such as torch==2.2.2")
        name = re.sub(r"[._-]+", "-", match[1]).lower()
        if pins.setdefault(name, text) != text:
            raise ConfigError(f"package {text!r}: {pins[name]!r} is asked for as well; keep one")
    return pins


def _lock(descriptor: int) -> None:
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _make_environment(python: Path, packages: list[str], place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    uv, common = uv_command(), ["--no-python-downloads", "-q"]
    make = [uv, "venv", *common, "--no-project", "--python", str(python), str(place)]
    fill = [uv, "pip", "install", *common, "--python", str(place / "bin" / "python")]
    for command in (make, [*fill, "--compile-bytecode", "--only-binary", ":all:", *packages]):
        done = subprocess.run(command, capture_output=True, text=True, cwd=place.parent)
        if done.returncode:
            wanted = ", ".join(packages)
            raise ConfigError(f"no environment with {wanted}; uv says:\n{done.stderr.strip()}")
    (place / "complete").touch()


@cache
def network_off() -> tuple[str, ...] | None:
    """The command prefix that takes the network away, or None where the system allows none."""
    if shutil.which("unshare") is None:
        return None
    own = ("--net", "--pid", "--fork", "--kill-child")  # a process space, so that nothing stays
    for rights in ((), ("--user", "--map-root-user")):
        prefix = ("unshare", *rights, *own, "--")
        if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    return None


def run(interpreter: Interpreter, script: Path, *words: str, folder: Path, limit: float) -> float:
    """Run a script in the sandbox, in `folder`; the seconds it took.

    Raises RunError with the end of its stderr when it fails, or when `limit` seconds are over.
    """
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    command = [*(network_off() or ()), str(interpreter.path), "-I", str(script), *words]
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "http_proxy": "",
        "https_proxy": "",
    }
    start = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise RunError(f"ran out of time: the limit was {limit:g} seconds") from None
        finally:
            _end(process)
        seconds = time.monotonic() - start
        if status:
            size = errors.seek(0, os.SEEK_END)
            errors.seek(max(0, size - TAIL))
            text = errors.read().decode(errors="replace").strip()
            raise RunError(f"ended with status {status}:\n{text}")
    return seconds


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing that the script started may outlive it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

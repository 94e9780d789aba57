"""Compile C++ once and keep it: a folder of shared libraries named after what they hold.

A library is rebuilt when its source, the compiler, its flags or the processor change.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno",
    "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd",
)  # fmt: skip


class CompilerError(RuntimeError):
    """No C++ compiler, or one that does not compile; the text says what to install."""


@functools.cache
def compiler() -> str | None:
    """The C++ compiler: of $CXX, else the first of g++, c++, clang++; None where there is none."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def library(source: str) -> ctypes.CDLL:
    """The compiled source, from the folder of libraries where it is there already.

    Raises CompilerError.
    """
    program = compiler()
    if program is None:
        named = f"; CXX is {os.environ['CXX']!r}" if os.environ.get("CXX") else ""
        raise CompilerError(
            f"no C++ compiler (g++ or clang++) was found{named}: install one, or name it in CXX"
        )
    identity = "\n".join((source, program, _version(program), " ".join(FLAGS), _processor()))
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    path = folder() / f"{name}.so"
    try:
        if not _whole(path):
            _compile(program, source, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CompilerError(f"{error}; name another folder in AXONNX_CACHE") from error


@functools.cache
def obstacle() -> str | None:
    """What keeps this machine from compiling, or None."""
    try:
        library(_PROBE)
    except CompilerError as error:
        return str(error)
    return None


_PROBE = '#include <cstdint>\nextern "C" void nothing() {}\n'


def folder() -> Path:
    """Where libraries are kept: $AXONNX_CACHE, else axonnx in the user's cache folder.

    Raises CompilerError where it cannot be made or others may write to it: what lies there is run.
    """
    base = os.environ.get("AXONNX_CACHE")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = (Path(base) if base else caches / "axonnx") / "kernels"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CompilerError(f"{error}; name another folder in AXONNX_CACHE") from error
    status = path.stat()
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or others):
        raise CompilerError(
            f"{path} belongs to another user or others may write to it; run chmod 700 on it, or "
            "name another folder in AXONNX_CACHE"
        )
    return path


def _whole(path: Path) -> bool:
    """Whether a library is there as it was written: its digest stands at its end."""
    content = path.read_bytes() if path.exists() else b""
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


_DIGEST = hashlib.sha256().digest_size


def _compile(program: str, source: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        code, made = Path(scratch) / "kernel.cpp", Path(scratch) / "kernel.so"
        code.write_text(source)
        tries = ([], ["-DSCALAR_FUNCTIONS"])
        for extra in tries:
            # Vector functions are in libmvec where the C library has them, and are then linked.
            vector = [] if extra or platform.machine() != "x86_64" else ["-lmvec"]
            command = [program, *FLAGS, *extra, str(code), "-o", str(made), *vector, "-lm"]
            done = subprocess.run([*command, "-Wl,--no-undefined"], capture_output=True, text=True)
            if done.returncode == 0:
                content = made.read_bytes()
                made.write_bytes(content + hashlib.sha256(content).digest())
                os.replace(made, path)
                return
    raise CompilerError(f"{program} does not compile the step:\n{done.stderr[-2000:]}")


@functools.cache
def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True).stdout


@functools.cache
def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    keys = ("vendor_id", "cpu family", "model\t", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(keys)))

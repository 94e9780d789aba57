"""The process that reads a recording for the service, one at a time, and what it may take."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

from serve.errors import BodyTooLarge, DeadlineExceeded, InvalidInput, NotSupported, Overloaded

# Those that wait hold bodies, and places that predictions want as well.
MOST_WAITING = 8
LATE = "the recording was not read in time; send less of it, or a stretch with start and stop"
_CHUNK = 1 << 20
_MOST_TEXT = 1000
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:'\"]+/)+")
_ROOT = Path(__file__).resolve().parent.parent
logger = logging.getLogger("axonnx.serve")


class Turns:
    """One recording is read at a time, in the order in which they came; few wait."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._here = 0

    @asynccontextmanager
    async def take(self, deadline: float) -> AsyncIterator[None]:
        """Wait for the turn and hold it; raises Overloaded, and DeadlineExceeded by `deadline`."""
        if self._here > MOST_WAITING:
            raise Overloaded(
                f"{MOST_WAITING} recordings wait to be read; send it again a little later"
            )
        self._here += 1
        try:
            try:
                async with asyncio.timeout(deadline - monotonic()):
                    await self._turn.acquire()
            except TimeoutError:
                raise DeadlineExceeded(LATE) from None
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._here -= 1


async def read_recording(
    body: bytes,
    filename: str,
    request: Mapping[str, Any],
    deadline: float,
    hold: Callable[[int], None],
) -> bytes:
    """What `recording.windows_process` writes of a file, an NPZ.

    `hold` is told the bytes that are there so far. Nothing of the process or its files remains,
    however this ends. Raises InvalidInput, NotSupported, BodyTooLarge, DeadlineExceeded, and what
    `hold` raises.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="axonnx-recording-"))
    except OSError:
        raise NotSupported("this service has no temporary folder, so it reads no files") from None
    try:
        await _write(folder, body, filename, {**request, "seconds": deadline - monotonic()})
        code, content = await _run(folder, filename, 2 * request["bytes"], deadline, hold)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if code != 0:
        raise _failure(code, content, filename, str(folder))
    return content


async def _write(folder: Path, body: bytes, filename: str, request: Mapping[str, Any]) -> None:
    given = folder / "given"

    def write() -> None:
        (folder / "request.json").write_text(json.dumps(request))
        given.mkdir()
        (given / filename).write_bytes(body)

    writing = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        with suppress(OSError):
            await writing  # a folder does not go while something is being put into it
        raise
    except OSError as error:
        text = f"{len(body)} bytes do not fit into the service's temporary folder"
        raise BodyTooLarge(f"{text}: {error.strerror}") from None


async def _run(
    folder: Path, filename: str, most: int, deadline: float, hold: Callable[[int], None]
) -> tuple[int, bytes]:
    """Exit code and output of the process; it and its children are gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        # -P: what lies in the folder is never imported.
        *(sys.executable, "-P", "-s", "-m", "recording.windows_process", str(folder), filename),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=folder,
        env=_environment(folder),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(deadline - monotonic()):
            content = await _read(process, most, hold)
            return await process.wait(), content
    except TimeoutError:
        raise DeadlineExceeded(LATE) from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _read(
    process: asyncio.subprocess.Process, most: int, hold: Callable[[int], None]
) -> bytes:
    assert process.stdout is not None
    chunks, size = [], 0
    while chunk := await process.stdout.read(_CHUNK):
        size += len(chunk)
        if size > most:
            raise InvalidInput("it becomes too large; choose a stretch with start and stop", "body")
        hold(size)
        chunks.append(chunk)
    return b"".join(chunks)


def _failure(code: int, content: bytes, filename: str, folder: str) -> Exception:
    """What the caller is told; paths of this machine are cut to their last part."""
    text = content.decode(errors="replace").strip()
    told = _FOLDERS.sub("", text.replace(folder, ""))[:_MOST_TEXT]
    if code == 2:
        return InvalidInput(told, "body")
    if code == 3:
        return NotSupported(
            f"this service cannot read or prepare {filename}: the Python package {told!r} is not "
            "installed here; send it through `axonnx call`, which reads it where it lies"
        )
    if code == -signal.SIGXCPU:
        return DeadlineExceeded(LATE)
    if code == -signal.SIGKILL:  # not by us: the machine's memory ran out
        return InvalidInput(f"{filename}: takes more memory than one request may", "body")
    logger.warning("a recording could not be read: the process ended with %d\n%s", code, text)
    return InvalidInput(f"{filename}: cannot be read", "body")


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the service's own environment, where its keys are, but where packages lie."""
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(_ROOT),
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }

"""An artifact asked from outside: by HTTP, and from a submission zip, in processes of their own.

The service and the submission are run as a user runs them; this module imports neither.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console

from artifact.arrays import Array, decode_npz, encode_npz
from artifact.bundle import write_file
from trainer import yaml_source

REQUIRED = ("serve", "submission", "fastapi", "uvicorn", "pydantic_settings", "orjson", "uv")
JSON_WINDOWS = 4
START_SECONDS = 60.0
CALL_SECONDS = 120.0
# Runs inside the unpacked zip: python -I -c SCRIPT <folder> <name> <inputs.npz> <outputs.npz>
SCRIPT = """
import sys
folder, name, source, target = sys.argv[1:]
sys.path.insert(0, folder)
import numpy as np
import model
neural = np.load(source)["neural"]
subject = model.Model(name)
subject.load()
np.savez(target, forecast=subject.predict(neural))
import artifact, onnxruntime
for module in (artifact, onnxruntime):
    if not module.__file__.startswith(folder):
        sys.exit(module.__file__ + " is not the submission's")
"""


class OutsideError(Exception):
    """A process outside failed; the text says which, and shows what it printed."""


def over_http(path: Path, neural: Array, console: Console) -> Array:
    """Ask a service of this artifact by `/predict`, all windows as .npz and some as JSON."""
    with service(path) as address:
        body = encode_npz({"neural": neural})
        whole = decode_npz(_post(address, body, "application/x-npz"))["forecast"]
        text = json.dumps({"inputs": {"neural": neural[:JSON_WINDOWS].tolist()}}).encode()
        some = json.loads(_post(address, text, "application/json"))["outputs"]["forecast"]
    console.print(
        f"POST {address}/predict: {len(neural)} windows as .npz, {JSON_WINDOWS} as JSON",
        highlight=False,
    )
    if not same(np.asarray(some, np.float32), whole[:JSON_WINDOWS]):
        raise OutsideError("the service answers otherwise in JSON than in .npz")
    return whole


@contextmanager
def service(path: Path) -> Iterator[str]:
    """A service of one artifact on a free port; yields its address, stops it on any exit."""
    command = [sys.executable, "-m", "axonnx", "serve", str(path), "--port", "0"]
    log = path.parent / "serve.log"
    with log.open("w+", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the service prints once it answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines():
            _, found, address = line.partition("listening on ")
            if found and _ready(address):
                return address
        time.sleep(0.1)
    raise OutsideError(f"the service does not start; it says:\n{log.read_text()}")


def _ready(address: str) -> bool:
    try:
        with _open(urllib.request.Request(f"{address}/health/ready")) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _post(address: str, body: bytes, kind: str) -> bytes:
    headers = {"Content-Type": kind, "Accept": kind}
    request = urllib.request.Request(f"{address}/predict", body, headers, method="POST")
    try:
        with _open(request) as answer:
            return bytes(answer.read())
    except OSError as error:
        raise OutsideError(f"POST {address}/predict failed: {error}") from None


def _open(request: urllib.request.Request) -> Any:
    # A proxy in the environment must not come between this machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=CALL_SECONDS)


def missing_packages() -> list[str]:
    """What a service and a submission need, besides what the trainer does, and is not installed."""
    return [name for name in REQUIRED if importlib.util.find_spec(name) is None]


def no_zip_because() -> str:
    """Why a submission cannot be built and run here without a download; empty where it can."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "its runtime is for Linux on x86-64"
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    try:
        found = version("onnxruntime")
    except PackageNotFoundError:
        return "it carries the CPU's ONNX Runtime, and the GPU's is installed"
    place = importlib.util.find_spec("submission")
    folders = (place.submodule_search_locations or []) if place else []
    rows = [
        row for at in folders for row in json.loads((Path(at) / "wheels.json").read_text("utf-8"))
    ]
    if (python, found) not in [(row["python"], row["onnxruntime"]) for row in rows]:
        return f"submission/wheels.json has no ONNX Runtime {found} for Python {python}"
    return ""


def build_zip(artifacts: Mapping[str, Path], channels: int, output: Path, console: Console) -> Path:
    """Build the forecasting challenge's zip in the folder `output`, for this Python."""
    config = {
        "challenge": {"name": "neural_forecasting", "channels": dict.fromkeys(artifacts, channels)},
        "models": {name: str(path) for name, path in artifacts.items()},
        "python": [f"{sys.version_info[0]}.{sys.version_info[1]}"],
        "onnxruntime": onnxruntime.__version__,
    }
    source = write_file(output / "submission.yaml", yaml_source.dump(config).encode())
    target = output / "submission.zip"
    words = ["submission", "build", str(source), "--output", str(target)]
    with console.status("building"):
        _call([sys.executable, "-m", "axonnx", *words], "axonnx " + " ".join(words))
    size = target.stat().st_size / 1e6
    console.print(f"{target}: {size:.0f} MB, with its own ONNX Runtime", highlight=False)
    return target


def from_zip(
    target: Path, names: Iterable[str], neural: Array, console: Console
) -> dict[str, Array]:
    """Answers of the models in a submission, each from a fresh process that sees the zip alone."""
    answers = {}
    with tempfile.TemporaryDirectory(prefix="axonnx-") as work:
        place = Path(work).resolve()
        with zipfile.ZipFile(target) as archive:
            archive.extractall(place / "submission")
        rows = write_file(place / "windows.npz", encode_npz({"neural": neural}))
        for name in names:
            result = place / f"{name}.npz"
            words = [str(place / "submission"), name, str(rows), str(result)]
            with console.status(f"running {name} from the zip"):
                _call([sys.executable, "-I", "-c", SCRIPT, *words], f"{name} in the submission")
            answers[name] = decode_npz(result.read_bytes())["forecast"]
            console.print(f"{name}: {len(neural)} windows from the zip alone", highlight=False)
    return answers


def _call(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise OutsideError(f"{what} took more than {CALL_SECONDS:.0f} s") from None
    if done.returncode:
        raise OutsideError(f"{what} failed:\n{done.stdout}{done.stderr}")


def same(first: Array, second: Array) -> bool:
    """Whether two arrays have the same dtype, shape and bytes."""
    return (first.dtype, first.shape, first.tobytes()) == (
        second.dtype,
        second.shape,
        second.tobytes(),
    )

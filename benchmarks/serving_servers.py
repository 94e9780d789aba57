"""The servers of the serving benchmark: what each needs, how it starts, how it is asked.

Every server runs in an environment of its own below `benchmarks/.cache`, made by `uv` with pinned
versions, and gets its session from `artifact.providers.create_session`, so that all have the same
session options.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PROGRAMS = HERE / "serving_peers"
CACHE = HERE / ".cache" / "serving"
# The day after which no package counts, so that an environment is the same on every machine.
EXCLUDE_NEWER = "2026-11-22T00:00:00Z"
ONNXRUNTIME = "onnxruntime==1.31.1"
OURS = "axonnx"

Headers = Mapping[str, str]


class BuildError(Exception):
    """An environment cannot be made; the text ends with what uv said."""


@dataclass(frozen=True)
class Endpoint:
    """One way to ask: `body` names a body of `serving_model.bodies`; `read` gives (1, 6) float32.

    `read` takes the answer's headers, names in lower case, and its body.
    """

    protocol: str
    path: str
    body: str
    content_type: str
    read: Callable[[Headers, bytes], np.ndarray]
    headers: Headers = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """One server in one configuration; `{port}` … in its words are filled in at the start."""

    name: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    ready: str
    endpoints: tuple[Endpoint, ...]
    variant: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name and variant."""
        return f"{self.name} {self.variant}".strip()


def make_environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The Python of an environment that holds `requirements`, made where it is not there yet.

    Raises BuildError.
    """
    digest = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{digest}"
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
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


def _row(values: Any) -> np.ndarray:
    """Numbers, nested as they come, as (1, 6) float32."""
    return np.asarray(values, np.float32).reshape(1, -1)


def _read_json(*keys: str) -> Callable[[Headers, bytes], np.ndarray]:
    def read(_: Headers, body: bytes) -> np.ndarray:
        value = json.loads(body)
        for key in keys:
            value = value[key]
        return _row(value)

    return read


def _read_npy(_: Headers, body: bytes) -> np.ndarray:
    return _row(np.load(io.BytesIO(body), allow_pickle=False))


def _read_v2_json(_: Headers, body: bytes) -> np.ndarray:
    return _row(json.loads(body)["outputs"][0]["data"])


def _read_v2_binary(headers: Headers, body: bytes) -> np.ndarray:
    return _row(np.frombuffer(body[int(headers["inference-header-content-length"]) :], "<f4"))


JSON, NPY, BYTES = "application/json", "application/x-npy", "application/octet-stream"


def servers(v2_header: int) -> tuple[Server, ...]:
    """Every server and variant; `v2_header`: bytes of the JSON part of the V2 binary body."""
    ours = Server(
        OURS,
        (f"--editable={ROOT}[serve,cpu]", ONNXRUNTIME),
        (str(ROOT / "axonnx.py"), "serve", "{artifact}", "--port", "{port}"),
        "/health/ready",
        (
            Endpoint(
                "v2_binary",
                "/v2/models/{model}/infer",
                "v2_binary",
                BYTES,
                _read_v2_binary,
                {"Inference-Header-Content-Length": str(v2_header)},
            ),
            Endpoint("npy", "/predict", "npy", NPY, _read_npy),
            Endpoint("json", "/predict", "json", JSON, _read_json("outputs", "y")),
        ),
    )
    return (ours,)

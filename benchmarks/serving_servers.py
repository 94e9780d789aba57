"""The servers of the serving benchmark: what each needs, how it starts, how it is asked.

Every server runs in an environment of its own below `benchmarks/.cache`, made by `uv` with pinned
versions, and gets its session from `artifact.providers.create_session`, so that all have the same
session options. Access logs and metrics of the peers are off; where a peer can join requests it is
measured with and without; BentoML and MLServer get the event loop and parser that they can use and
do not ask for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from environments import HERE, ROOT

PROGRAMS = HERE / "serving_peers"
CACHE = HERE / ".cache" / "serving"
ONNXRUNTIME = "onnxruntime==1.31.1"
OURS = "axonnx"
# Way of running the model -> the variant's name.
MODES = {"alone": "", "batched": "batched"}

Headers = Mapping[str, str]


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


def _read_raw(_: Headers, body: bytes) -> np.ndarray:
    return _row(np.frombuffer(body, "<f4"))


JSON, NPY, BYTES = "application/json", "application/x-npy", "application/octet-stream"
READ_Y = _read_json("y")


def servers(v2_header: int) -> tuple[Server, ...]:
    """Every server and variant; `v2_header`: bytes of the JSON part of the V2 binary body."""
    return (_ours(v2_header), *_litserve(), *_bentoml(), *_mlserver(), *_ray())


def _ours(v2_header: int) -> Server:
    infer = "/v2/models/{model}/infer"
    header = {"Inference-Header-Content-Length": str(v2_header)}
    return Server(
        OURS,
        (f"--editable={ROOT}[serve,cpu]", ONNXRUNTIME),
        (str(ROOT / "axonnx.py"), "serve", "{artifact}", "--port", "{port}"),
        "/health/ready",
        (
            Endpoint("v2_binary", infer, "v2_binary", BYTES, _read_v2_binary, header),
            Endpoint("npy", "/predict", "npy", NPY, _read_npy),
            Endpoint("json", "/predict", "json", JSON, _read_json("outputs", "y")),
            Endpoint("v2_json", infer, "v2_json", JSON, _read_v2_json),
        ),
    )


def _litserve() -> Iterator[Server]:
    """One form of body per server: its API class decides."""
    ways = {
        "json": Endpoint("json", "/predict", "plain_json", JSON, READ_Y),
        "raw": Endpoint("raw", "/predict", "raw", BYTES, _read_raw),
    }
    program = str(PROGRAMS / "serve_litserve.py")
    for mode in MODES:
        for form, endpoint in ways.items():
            yield Server(
                "litserve",
                ("litserve==0.2.19", ONNXRUNTIME),
                (program, "{graph}", "{port}", form, mode),
                "/health",
                (endpoint,),
                MODES[mode],
            )


def _bentoml() -> Iterator[Server]:
    """Batches only of what it decodes itself: arrays in JSON."""
    listen = ("--working-dir", str(PROGRAMS), "--host", "127.0.0.1", "--port", "{port}")
    as_json = Endpoint("json", "/json", "plain_json", JSON, _read_json())
    raw = Endpoint("raw", "/raw", "raw", BYTES, _read_raw)
    for mode in MODES:
        yield Server(
            "bentoml",
            ("bentoml==1.4.39", "uvloop==0.23.0", "httptools==0.9.0", ONNXRUNTIME),
            ("-m", "bentoml", "serve", "serve_bentoml:Peer", *listen),
            "/readyz",
            (as_json, raw) if mode == "alone" else (as_json,),
            MODES[mode],
            {
                "PEER_MODEL": "{graph}",
                "PEER_MODE": mode,
                "BENTOML_HOME": "{folder}/bentoml",
                "BENTOML_DO_NOT_TRACK": "True",
            },
        )


def _mlserver() -> Iterator[Server]:
    for mode in MODES:
        yield Server(
            "mlserver",
            ("mlserver==1.7.1", "uvloop<0.22", "httptools==0.9.0", ONNXRUNTIME),
            (str(PROGRAMS / "serve_mlserver.py"), "{graph}", "{port}", mode),
            "/v2/health/ready",
            (Endpoint("v2_json", "/v2/models/benchmark/infer", "v2_json", JSON, _read_v2_json),),
            MODES[mode],
        )


def _ray() -> Iterator[Server]:
    """As it comes, and with the HAProxy that it ships and the settings it has for throughput."""
    fast = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    variants = {"": ("alone", {}), "haproxy": ("alone", fast), "haproxy batched": ("batched", fast)}
    for variant, (mode, settings) in variants.items():
        yield Server(
            "ray",
            ("ray[serve]==2.60.0", ONNXRUNTIME),
            (str(PROGRAMS / "serve_ray.py"), "{graph}", "{port}", mode),
            "/-/healthz",
            (
                Endpoint("json", "/json", "plain_json", JSON, READ_Y),
                Endpoint("raw", "/raw", "raw", BYTES, _read_raw),
            ),
            variant,
            {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "{folder}", **settings},
        )

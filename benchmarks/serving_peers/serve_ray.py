"""Ray Serve: one replica behind a proxy, Ray's or its HAProxy; JSON or raw bytes.

python serve_ray.py MODEL.onnx PORT batched|alone
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

BATCH_ROWS, BATCH_SECONDS = 16, 0.002
CORES = 2
LOGGING = {"enable_access_log": False}


@serve.deployment(num_replicas=1, max_ongoing_requests=64, logging_config=LOGGING)
class Peer:
    """/json: {"x": nested lists} -> {"y": [six numbers]}; /raw: 23,040 bytes -> 24 bytes."""

    def __init__(self, model: str, batched: bool) -> None:
        from artifact.providers import create_session  # the worker's own import

        self.session = create_session(Path(model).read_bytes())
        self.joins = batched

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        raw = request.url.path.endswith("/raw")
        if raw:
            x = np.frombuffer(await request.body(), np.float32).reshape(1, 10, 64, 9)
        else:
            x = np.asarray((await request.json())["x"], np.float32)
        y = await self.batched(x) if self.joins else self.run(x)
        if raw:
            return Response(y.tobytes(), media_type="application/octet-stream")
        return JSONResponse({"y": y.ravel().tolist()})

    @serve.batch(max_batch_size=BATCH_ROWS, batch_wait_timeout_s=BATCH_SECONDS)
    async def batched(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        """Several requests in one run."""
        y = self.run(np.concatenate(rows))
        return [y[i : i + 1] for i in range(len(rows))]

    def run(self, x: np.ndarray) -> Any:
        """x: (batch, 10, 64, 9) -> (batch, 6)."""
        return self.session.run(["y"], {"x": x})[0]


def main(model: str, port: int, batched: bool) -> None:
    """Serve until stopped."""
    ray.init(num_cpus=CORES, include_dashboard=False, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=LOGGING)
    serve.run(Peer.bind(model, batched), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "batched")

"""BentoML: one service, one worker process; JSON or raw bytes, alone or in adaptive batches.

PEER_MODEL=MODEL.onnx PEER_MODE=batched|alone bentoml serve serve_bentoml:Peer
"""

import os
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType, DType

from artifact.providers import create_session

BATCHED = os.environ["PEER_MODE"] == "batched"
BATCH = {"batchable": True, "max_batch_size": 16, "max_latency_ms": 10_000} if BATCHED else {}
Octets = Annotated[bytes, ContentType("application/octet-stream")]
Rows = Annotated[np.ndarray, DType("float32")]


@bentoml.service(
    workers=1,
    threads=2,
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Peer:
    """Two ways to ask for the same six numbers."""

    def __init__(self) -> None:
        self.session = create_session(Path(os.environ["PEER_MODEL"]).read_bytes())

    @bentoml.api(**BATCH)
    def json(self, x: Rows) -> Rows:
        """x: (batch, 10, 64, 9) -> (batch, 6)."""
        return self.session.run(["y"], {"x": x})[0]

    @bentoml.api
    def raw(self, x: Octets, /) -> Octets:
        """23,040 bytes -> 24 bytes."""
        rows = np.frombuffer(x, np.float32).reshape(1, 10, 64, 9)
        return self.session.run(["y"], {"x": rows})[0].tobytes()

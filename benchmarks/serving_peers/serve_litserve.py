"""LitServe: one worker process behind one HTTP process, JSON or raw bytes.

python serve_litserve.py MODEL.onnx PORT json|raw batched|alone
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body, Response

from artifact.providers import create_session

BATCH = {"max_batch_size": 16, "batch_timeout": 0.002}


class JsonApi(litserve.LitAPI):
    """{"x": nested lists} -> {"y": [six numbers]}."""

    def setup(self, device: str) -> None:
        """One session per worker."""
        self.session = create_session(Path(sys.argv[1]).read_bytes())

    # LitServe looks at the annotation of `request`: none stands for parsed JSON.
    def decode_request(self, request) -> np.ndarray:
        """A request's rows: (1, 10, 64, 9)."""
        return np.asarray(request["x"], np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Rows of several requests, one after the other."""
        return np.concatenate(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """x: (batch, 10, 64, 9) -> (batch, 6)."""
        y: np.ndarray = self.session.run(["y"], {"x": x})[0]
        return y

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """One answer per request: (1, 6)."""
        return [output[i : i + 1] for i in range(len(output))]

    def encode_response(self, output: np.ndarray) -> Any:
        """Six numbers."""
        return {"y": output.ravel().tolist()}


class RawApi(JsonApi):
    """23,040 bytes -> 24 bytes."""

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> np.ndarray:
        """A request's rows: (1, 10, 64, 9)."""
        return np.frombuffer(request, np.float32).reshape(1, 10, 64, 9)

    def encode_response(self, output: np.ndarray) -> Response:
        """The bytes of six numbers."""
        return Response(output.tobytes(), media_type="application/octet-stream")


def main(port: int, form: str, batched: bool) -> None:
    """Serve until stopped."""
    api = {"json": JsonApi, "raw": RawApi}[form]
    lit_api = api(**BATCH) if batched else api()
    server = litserve.LitServer(lit_api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main(int(sys.argv[2]), sys.argv[3], sys.argv[4] == "batched")

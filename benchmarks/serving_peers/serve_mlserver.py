"""MLServer: the model in the server's own process (no parallel workers); V2 JSON.

python serve_mlserver.py MODEL.onnx PORT batched|alone
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mlserver import MLModel, MLServer, ModelSettings, Settings, types
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters

from artifact.providers import create_session

BATCH = {"max_batch_size": 16, "max_batch_time": 0.002}


class Peer(MLModel):
    """x (batch, 10, 64, 9) -> y (batch, 6)."""

    async def load(self) -> bool:
        """One session."""
        self.session = create_session(Path(sys.argv[1]).read_bytes())
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """Answer one request, or several that were joined."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = self.session.run(["y"], {"x": x})[0]
        outputs = [NumpyCodec.encode_output("y", y)]
        return types.InferenceResponse(model_name=self.name, outputs=outputs)


async def main(port: int, batched: bool) -> None:
    """Serve until stopped."""
    settings = Settings(
        debug=False,
        parallel_workers=0,
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,
        metrics_endpoint=None,
        gzip_enabled=False,
    )
    model = ModelSettings(
        name="benchmark",
        implementation=Peer,
        parameters=ModelParameters(),
        **(BATCH if batched else {}),
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[2]), sys.argv[3] == "batched"))

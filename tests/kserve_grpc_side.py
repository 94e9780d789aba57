"""What runs under a Python that has `kserve`: its client for gRPC.

    python kserve_grpc_side.py ADDRESS MODEL FOLDER    inputs.npz of FOLDER; answers beside it

It imports nothing of this project.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient


async def infer(address: str, name: str, folder: Path) -> dict[str, Any]:
    """Raw and typed contents; what the answers said beside the arrays."""
    with np.load(folder / "inputs.npz") as stored:
        neural = stored["neural"]
    said: dict[str, Any] = {}
    async with InferenceGRPCClient(address) as client:
        said["live"] = await client.is_server_live()
        said["ready"] = await client.is_server_ready()
        said["model"] = await client.is_model_ready(name)
        said["stranger"] = await client.is_model_ready("stranger")
        for binary in (True, False):
            tensor = InferInput("neural", list(neural.shape), "FP32")
            tensor.set_data_from_numpy(neural, binary_data=binary)
            request = InferRequest(name, [tensor], request_id=f"{binary}")
            answer = await client.infer(request)
            said[f"{binary}"] = answer.id
            np.save(folder / f"{binary}.npy", answer.outputs[0].as_numpy())
    return said


if __name__ == "__main__":
    print(json.dumps(asyncio.run(infer(sys.argv[1], sys.argv[2], Path(sys.argv[3])))))

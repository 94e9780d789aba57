"""What runs under a Python that has `kserve`: its client, and its classes of KServe's resources.

    python kserve_side.py infer URL MODEL FOLDER    inputs.npz of FOLDER; answers beside it
    python kserve_side.py manifests FILE…           complaints, one per line

It imports nothing of this project.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import kserve.models
import numpy as np
import yaml
from kserve import InferInput, InferRequest, RESTConfig
from kserve.inference_client import InferenceRESTClient
from kserve.protocol.infer_type import RequestedOutput

DATATYPES = {"float32": "FP32", "bool": "BOOL", "int64": "INT64"}
PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "object": (object,),
    "ResourceQuantity": (str, int),
}


async def infer(url: str, name: str, folder: Path) -> dict[str, Any]:
    """Every mix of binary and JSON; what the answers said beside the arrays."""
    with np.load(folder / "inputs.npz") as stored:
        inputs = {key: stored[key] for key in stored.files}
    said: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=1)) as client:
        said["live"] = await client.is_server_live(url)
        said["ready"] = await client.is_server_ready(url)
        said["model"] = await client.is_model_ready(url, name)
        said["stranger"] = await client.is_model_ready(url, "stranger")
        for sent in (True, False):
            for wanted in (None, True, False):
                case = f"{sent}-{wanted}"
                headers: dict[str, str] = {}
                request = make_request(name, inputs, sent, wanted, case)
                answer = await client.infer(url, request, name, response_headers=headers)
                arrays = {output.name: output.as_numpy() for output in answer.outputs}
                np.savez(folder / f"{case}.npz", **arrays)
                said[case] = {
                    "id": answer.id,
                    "model": answer.model_name,
                    "artifact": headers["x-artifact-id"],
                    "binary": "inference-header-content-length" in headers,
                }
        wrong = {key: value[:, :-1] for key, value in inputs.items()}
        try:
            await client.infer(url, make_request(name, wrong, True, None, "wrong"), name)
        except Exception as error:
            said["error"] = f"{type(error).__name__}: {error}"
    return said


def make_request(
    name: str, inputs: dict[str, np.ndarray], sent: bool, wanted: bool | None, case: str
) -> InferRequest:
    """Inputs as binary or JSON; outputs as asked for, or as the server likes for None."""
    tensors = []
    for key, value in inputs.items():
        tensor = InferInput(key, list(value.shape), DATATYPES[str(value.dtype)])
        tensor.set_data_from_numpy(value, binary_data=sent)
        tensors.append(tensor)
    outputs = None
    if wanted is not None:
        outputs = [RequestedOutput("forecast", parameters={"binary_data": wanted})]
    return InferRequest(name, tensors, request_id=case, request_outputs=outputs)


def build(value: Any, kind: str, where: str, complaints: list[str]) -> Any:
    """`value` as KServe's class or type `kind`; types of Kubernetes itself stay as they are."""
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        return [build(v, match[1], f"{where}[{i}]", complaints) for i, v in enumerate(value)]
    if match := re.fullmatch(r"dict\(\w+, (.*)\)", kind):
        return {k: build(v, match[1], f"{where}.{k}", complaints) for k, v in value.items()}
    if kind in PLAIN:
        if not isinstance(value, PLAIN[kind]):
            complaints.append(f"{where}: {value!r} is no {kind}")
        return value
    cls = getattr(kserve.models, kind, None)
    if cls is None:
        return value
    attributes = {key: attribute for attribute, key in cls.attribute_map.items()}
    for key in set(value) - set(attributes):
        complaints.append(f"{where}: {kind} has no field {key!r}")
    fields = {
        attributes[key]: build(v, cls.openapi_types[attributes[key]], f"{where}.{key}", complaints)
        for key, v in value.items()
        if key in attributes
    }
    try:
        return cls(**fields)
    except ValueError as error:  # a required field is missing
        complaints.append(f"{where}: {kind}: {error}")
        return None


def check(path: Path) -> list[str]:
    """What is wrong with a manifest of KServe, by KServe's own classes."""
    complaints: list[str] = []
    document = yaml.safe_load(path.read_text())
    group, version = document["apiVersion"].split("/")
    if group != "serving.kserve.io":
        return [f"{path.name}: {group} is not KServe's"]
    build(document, version.capitalize() + document["kind"], path.name, complaints)
    return complaints


if __name__ == "__main__":
    if sys.argv[1] == "infer":
        url, model, place = sys.argv[2:]
        print(json.dumps(asyncio.run(infer(url, model, Path(place)))))
    else:
        for name in sys.argv[2:]:
            print(*check(Path(name)), sep="\n", end="")

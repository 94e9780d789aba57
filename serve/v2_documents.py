"""What the V2 protocol tells of the server and its models: metadata, configuration, statistics.

Sources: the Open Inference Protocol's REST text; Triton's extensions for model configuration,
statistics and the model repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import metadata
from typing import Any

from artifact.manifest import TensorSpec
from serve.repository import Listing, Served
from serve.v2_tensors import DATATYPES

PLATFORM = "onnx_onnxv1"


@cache
def package_version() -> str:
    """The version of this package; `0` where it runs from a folder that is not installed."""
    try:
        return metadata.version("axonnx")
    except metadata.PackageNotFoundError:
        return "0"


def server_metadata(model_control: bool) -> dict[str, Any]:
    """Name, version and the extensions that work.

    `model_control` says whether callers may load and unload models.
    """
    extensions = ["binary_tensor_data", "model_configuration", "statistics", "parameters"]
    if model_control:
        extensions.append("model_repository")
    return {"name": "axonnx", "version": package_version(), "extensions": extensions}


def model_metadata(served: Served, versions: Sequence[str]) -> dict[str, Any]:
    """Inputs and outputs of one version, -1 where an axis may vary, and all versions there are."""
    manifest = served.model.manifest
    return {
        "name": served.name,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": [_tensor_metadata(spec) for spec in manifest.inputs],
        "outputs": [_tensor_metadata(spec) for spec in manifest.outputs],
    }


def model_config(served: Served) -> dict[str, Any]:
    """Triton's model configuration, as far as it has a meaning here.

    `max_batch_size` is how many rows run at a time (a request may have more), and so `dims` leave
    out the batch axis.
    """
    manifest = served.model.manifest
    return {
        "name": served.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"all": {}},
        "max_batch_size": served.model.max_rows,
        "input": [_tensor_config(spec) for spec in manifest.inputs],
        "output": [_tensor_config(spec) for spec in manifest.outputs],
    }


def model_statistics(served: Served) -> dict[str, Any]:
    """Counts and nanoseconds of one version since it was loaded.

    `success` and `fail` count answers, `queue` what requests waited for a run, `compute_infer`
    runs, which several requests may share. Reading and writing bodies is not measured.
    """
    statistics = served.statistics
    answers = list(statistics.requests.items())
    good = sum(count for (_, status), count in answers if status == 200)
    bad = sum(count for (_, status), count in answers if status != 200)
    runs = sorted(dict(statistics.batches).items())
    return {
        "name": served.name,
        "version": served.version,
        "last_inference": int(statistics.last * 1000),
        "inference_count": sum(rows * count for rows, (count, _) in runs),
        "execution_count": statistics.runs.count,
        "inference_stats": {
            "success": _duration(good, statistics.seconds.total - statistics.failed),
            "fail": _duration(bad, statistics.failed),
            "queue": _duration(statistics.waits.count, statistics.waits.total),
            "compute_input": _duration(),
            "compute_infer": _duration(statistics.runs.count, statistics.runs.total),
            "compute_output": _duration(),
            "cache_hit": _duration(),
            "cache_miss": _duration(),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(),
                "compute_infer": _duration(count, seconds),
                "compute_output": _duration(),
            }
            for rows, (count, seconds) in runs
        ],
    }


def index_line(listing: Listing) -> dict[str, str]:
    """A line of the repository index."""
    return {
        "name": listing.name,
        "version": listing.version,
        "state": listing.state,
        "reason": listing.reason,
    }


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": DATATYPES[spec.dtype][0],
        "shape": [-1 if size is None else size for size in spec.shape],
    }


def _tensor_config(spec: TensorSpec) -> dict[str, Any]:
    dims = [-1 if size is None else size for size in spec.shape[1:]]
    config: dict[str, Any] = {
        "name": spec.name,
        "data_type": f"TYPE_{DATATYPES[spec.dtype][0]}",
        "dims": dims or [1],
    }
    if spec.default is not None:
        config["optional"] = True
    # A configuration must not have a tensor without axes: one value per row is told as a reshape.
    return config if dims else config | {"reshape": {"shape": []}}


def _duration(count: int = 0, seconds: float = 0.0) -> dict[str, int]:
    return {"count": count, "ns": max(0, round(seconds * 1e9))}

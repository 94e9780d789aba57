"""The V2 protocol of a real server, as Triton's own clients and plain requests see it."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import orjson
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pydantic import TypeAdapter
from server_process import Server, running
from small_artifacts import write_artifact, write_decoder, write_forecaster
from tritonclient.utils import InferenceServerException

import artifact
from artifact.manifest import Axis, TensorSpec
from serve import v2_schemas as schemas
from serve.schemas import ErrorBody, Live
from serve.v2 import HEADER_LENGTH
from serve.v2_tensors import DATATYPES

WINDOW = np.random.default_rng(0).normal(100, 50, (2, 20, 4, 9)).astype(np.float32)
SPACED = "small forecaster"
LIMIT = 1 << 20


def write_every_type(folder: Path) -> Path:
    """Inputs of every dtype come back as they are; `log` is the logarithm of the first."""
    axes = (Axis("batch"), Axis("width"))
    dims: dict[str, list[int | str]] = {}
    inputs, outputs, golden = [], [], {}
    drawn = np.random.default_rng(4).uniform(1, 100, (4, 3))
    for dtype in DATATYPES:
        own = axes[:1] if dtype == "uint8" else axes
        golden[dtype] = (drawn[:, 0] if dtype == "uint8" else drawn).astype(dtype)
        if dtype == "bool":
            golden[dtype] = drawn > 50
        inputs.append(TensorSpec(dtype, dtype, own, "", ""))
        outputs.append(TensorSpec(f"{dtype}_out", dtype, own, "", ""))
        dims[dtype] = [axis.name for axis in own]
    outputs.append(TensorSpec("log", "float32", axes, "", ""))
    nodes = [helper.make_node("Identity", [dtype], [f"{dtype}_out"]) for dtype in DATATYPES]
    nodes.append(helper.make_node("Log", ["float32"], ["log"]))
    element = {dtype: helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for dtype in DATATYPES}
    values = [helper.make_tensor_value_info(d, element[d], dims[d]) for d in DATATYPES]
    results = [helper.make_tensor_value_info(f"{d}_out", element[d], dims[d]) for d in DATATYPES]
    results.append(helper.make_tensor_value_info("log", TensorProto.FLOAT, dims["float32"]))
    graph = helper.make_graph(nodes, "graph", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return write_artifact(folder, model, tuple(inputs), tuple(outputs), golden, name="every type")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("v2")
    first = write_forecaster(folder / "first", name=SPACED)
    bundle = artifact.read(first)
    newer = dataclasses.replace(bundle.manifest, version="2", files=())
    files = {k: v for k, v in bundle.files.items() if k != artifact.bundle.MANIFEST}
    return {
        "1": first,
        "2": artifact.write(folder / "second", newer, files),
        "decoder": write_decoder(folder / "decoder"),
        "every": write_every_type(folder / "every"),
    }


@pytest.fixture(scope="module")
def server(paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running(folder, *paths.values(), model_control=True, max_body_bytes=LIMIT) as made:
        yield made


@pytest.fixture(scope="module")
def models(paths: dict[str, Path]) -> dict[str, artifact.Model]:
    return {name: artifact.load(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as made:
        yield made


def aio(server: Server, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `use` gives with Triton's asyncio client."""

    async def run() -> Any:
        async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as made:
            return await use(made)

    return asyncio.run(run())


def tensors(arrays: dict[str, np.ndarray], binary: bool | dict[str, bool]) -> list[Any]:
    made = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), DATATYPES[array.dtype.name][0])
        form = binary if isinstance(binary, bool) else binary[name]
        made.append(tensor.set_data_from_numpy(array, binary_data=form))
    return made


def ask(client: Any, name: str, arrays: dict[str, np.ndarray], **options: Any) -> Any:
    return client.infer(name, tensors(arrays, options.pop("binary", True)), **options)


def same(result: Any, expected: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        got = result.as_numpy(name)
        assert (got.shape, got.dtype) == (array.shape, array.dtype)
        assert got.tobytes() == array.tobytes()


def test_health_and_metadata(server: Server, client: Any) -> None:
    async def everything(other: Any) -> list[Any]:
        return [
            await other.is_server_live(),
            await other.is_server_ready(),
            await other.is_model_ready(SPACED),
            await other.is_model_ready(SPACED, "2"),
            await other.is_model_ready(SPACED, "3"),
            await other.is_model_ready("stranger"),
            await other.get_server_metadata(),
            await other.get_model_metadata(SPACED),
            await other.get_model_metadata("every type", "1"),
            await other.get_model_config("every type"),
            await other.get_model_config(SPACED, "1"),
        ]

    found = aio(server, everything)
    assert found[:6] == [True, True, True, True, False, False]
    assert found == [
        client.is_server_live(),
        client.is_server_ready(),
        client.is_model_ready(SPACED),
        client.is_model_ready(SPACED, "2"),
        client.is_model_ready(SPACED, "3"),
        client.is_model_ready("stranger"),
        client.get_server_metadata(),
        client.get_model_metadata(SPACED),
        client.get_model_metadata("every type", "1"),
        client.get_model_config("every type"),
        client.get_model_config(SPACED, "1"),
    ]
    about = found[6]
    assert about["name"] == "axonnx"
    assert {"binary_tensor_data", "statistics", "model_repository"} <= set(about["extensions"])
    assert found[7] == {
        "name": SPACED,
        "versions": ["1", "2"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "neural", "datatype": "FP32", "shape": [-1, 20, 4, 9]}],
        "outputs": [{"name": "forecast", "datatype": "FP32", "shape": [-1, 20, 4]}],
    }
    assert len(orjson.dumps(found[8])) > 500  # compressed, the asyncio client could not read it
    config = {item["name"]: item for item in found[9]["input"]}
    assert config["bool"] == {"name": "bool", "data_type": "TYPE_BOOL", "dims": [-1]}
    assert config["uint8"]["dims"] == [1]
    assert config["uint8"]["reshape"] == {"shape": []}
    assert found[10]["max_batch_size"] == 16
    assert found[10]["input"][0]["dims"] == [20, 4, 9]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v2", schemas.ServerMetadata),
        ("/v2/", schemas.ServerMetadata),
        ("/v2/health/live", Live),
        ("/v2/health/ready", schemas.Ready),
        ("/v2/models", schemas.ModelNames),
        ("/v2/models/stats", schemas.ModelStatistics),
        *(
            (f"/v2/models/{name}{version}{path}", model)
            for path, model in (
                ("", schemas.ModelMetadata),
                ("/ready", schemas.ModelReady),
                ("/config", schemas.ModelConfig),
                ("/stats", schemas.ModelStatistics),
            )
            for name, version in (("small-decoder", ""), ("every%20type", "/versions/1"))
        ),
    ],
)
def test_answers_are_as_documented(server: Server, path: str, model: Any) -> None:
    response = server.client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    model.model_validate_json(response.content, strict=True)
    documented = server.client.get("/openapi.json").json()["components"]["schemas"]
    assert model.__name__ in documented


def test_answers_about_a_model_name_its_artifact(
    server: Server, models: dict[str, artifact.Model]
) -> None:
    for version in ("1", "2"):
        response = server.client.get(f"/v2/models/{SPACED}/versions/{version}")
        assert response.headers["x-artifact-id"] == models[version].id


def test_statistics_count_rows_and_runs(server: Server, client: Any) -> None:
    def counts() -> dict[str, Any]:
        (found,) = client.get_inference_statistics(SPACED, "2")["model_stats"]
        return dict(found)

    before = counts()
    ask(client, SPACED, {"neural": WINDOW})
    with pytest.raises(InferenceServerException):
        ask(client, SPACED, {"neural": WINDOW[:, :5]})
    after = counts()
    assert (after["name"], after["version"]) == (SPACED, "2")
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["execution_count"] > before["execution_count"]
    assert after["last_inference"] > before["last_inference"]
    for name, more in (("success", 1), ("fail", 1), ("queue", 1)):
        first, second = before["inference_stats"][name], after["inference_stats"][name]
        assert second["count"] - first["count"] == more
        assert second["ns"] > first["ns"]
    whole = {(s["name"], s["version"]) for s in client.get_inference_statistics()["model_stats"]}
    assert {(SPACED, "1"), (SPACED, "2"), ("small-decoder", "1"), ("every type", "1")} == whole
    rows = after["batch_stats"]
    assert (
        sum(item["batch_size"] * item["compute_infer"]["count"] for item in rows)
        == (after["inference_count"])
    )


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("wanted", [None, True, False])
def test_the_same_bytes_as_the_model_gives(
    server: Server, client: Any, models: dict[str, artifact.Model], sent: bool, wanted: bool | None
) -> None:
    expected = models["2"].predict({"neural": WINDOW})
    outputs = None
    if wanted is not None:
        outputs = [triton.InferRequestedOutput("forecast", binary_data=wanted)]
    result = ask(client, SPACED, {"neural": WINDOW}, binary=sent, outputs=outputs, request_id="q")
    same(result, expected)
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (SPACED, "2", "q")
    assert ("data" in answer["outputs"][0]) == (wanted is False)
    question = tensors({"neural": WINDOW}, sent)
    same(aio(server, lambda other: other.infer(SPACED, question, outputs=outputs)), expected)


def test_several_inputs_in_both_forms(client: Any, models: dict[str, artifact.Model]) -> None:
    generator = np.random.default_rng(5)
    arrays = {
        "behavior_mask": generator.random((3, 20)) < 0.5,
        "neural": generator.normal(size=(3, 20, 6, 1)).astype(np.float32),
        "behavior": generator.normal(size=(3, 20, 2)).astype(np.float32),
    }
    expected = models["decoder"].predict(arrays)
    for binary in (
        True,
        False,
        {"behavior_mask": True, "neural": False, "behavior": True},
        {"behavior_mask": False, "neural": True, "behavior": False},
    ):
        same(ask(client, "small-decoder", arrays, binary=binary), expected)


@pytest.mark.parametrize("binary", [True, False])
def test_every_type_there_and_back(client: Any, binary: bool) -> None:
    arrays = {
        "float32": np.array([[0.1, 3.4e38, 1e-45]], np.float32),
        "float64": np.array([[0.1, 1e300, 5e-324]]),
        "int32": np.array([[0, -(2**31), 2**31 - 1]], np.int32),
        "int64": np.array([[0, -(2**63), 2**63 - 1]]),
        "uint8": np.array([255], np.uint8),
        "bool": np.array([[True, False, True]]),
    }
    outputs = [triton.InferRequestedOutput(f"{name}_out", binary_data=binary) for name in arrays]
    result = ask(client, "every type", arrays, binary=binary, outputs=outputs)
    same(result, {f"{name}_out": array for name, array in arrays.items()})
    assert result.as_numpy("log") is None


def every_type(value: float) -> dict[str, np.ndarray]:
    return {
        name: np.full((1,) if name == "uint8" else (1, 1), value).astype(name) for name in DATATYPES
    }


def test_answers_that_are_not_finite(client: Any) -> None:
    arrays = every_type(0)
    result = ask(client, "every type", arrays)
    assert result.as_numpy("log").item() == -np.inf
    outputs = [triton.InferRequestedOutput("log", binary_data=False)]
    with pytest.raises(InferenceServerException, match=r"log: holds NaN or infinity.*binary_data"):
        ask(client, "every type", arrays, outputs=outputs)
    outputs = [triton.InferRequestedOutput("int64_out", binary_data=False)]
    assert ask(client, "every type", arrays, outputs=outputs).as_numpy("int64_out").item() == 0


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_questions(
    server: Server, client: Any, models: dict[str, artifact.Model], algorithm: str
) -> None:
    # Zeros, so that the JSON part alone is longer than the whole compressed body.
    window = np.zeros_like(WINDOW)
    expected = models["2"].predict({"neural": window})
    options = {
        "request_compression_algorithm": algorithm,
        "response_compression_algorithm": algorithm,
    }
    for binary in (True, False):
        same(ask(client, SPACED, {"neural": window}, binary=binary, **options), expected)
        question = tensors({"neural": window}, binary)
        same(aio(server, lambda other, q=question: other.infer(SPACED, q, **options)), expected)


def test_explicit_versions_and_the_newest(
    server: Server, client: Any, models: dict[str, artifact.Model]
) -> None:
    for asked, version in (("", "2"), ("1", "1"), ("2", "2")):
        result = ask(client, SPACED, {"neural": WINDOW}, model_version=asked)
        assert result.get_response()["model_version"] == version
        path = f"/versions/{asked}" if asked else ""
        response = server.client.post(
            f"/v2/models/{SPACED}{path}/infer", content=body(), headers=sized()
        )
        assert response.headers["x-artifact-id"] == models[version].id


def test_several_requests_at_once(client: Any, models: dict[str, artifact.Model]) -> None:
    expected = [models["2"].predict({"neural": WINDOW[i % 2 :]}) for i in range(4)]
    waiting = [
        client.async_infer(SPACED, tensors({"neural": WINDOW[i % 2 :]}, True)) for i in range(4)
    ]
    for request, answer in zip(waiting, expected, strict=True):
        same(request.get_result(), answer)


def refused(call: Callable[[], object], status: int) -> str:
    """The text of the error that the client raises, which must have this status."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert caught.value.status() == str(status)
    assert "exception" not in str(caught.value.message())
    return str(caught.value.message())


def test_errors_arrive_as_text(server: Server, client: Any) -> None:
    wrong = {"neural": WINDOW[:, :, :, :8]}
    text = refused(lambda: ask(client, SPACED, wrong), 400)
    assert text.startswith("neural: axis feature has 8; must have 9")
    nothing = refused(lambda: ask(client, SPACED, {"neural": WINDOW[:0]}), 400)
    assert nothing.startswith("neural: axis batch is empty")
    text = refused(lambda: ask(client, SPACED, {"neural": WINDOW.astype(np.float64)}), 400)
    assert text == "neural: datatype must be FP32, is 'FP64'"
    text = refused(lambda: ask(client, SPACED, {"other": WINDOW}), 400)
    assert text == "inputs[0].name: 'other' is unknown; there are neural"
    text = refused(lambda: ask(client, "small-decoder", {"neural": WINDOW[..., :1]}), 400)
    assert "missing" in text
    text = refused(lambda: ask(client, "stranger", {"neural": WINDOW}), 404)
    assert text.startswith("no model 'stranger'; there are: every type, small forecaster")
    text = refused(lambda: ask(client, SPACED, {"neural": WINDOW}, model_version="7"), 404)
    assert text == "model 'small forecaster' has no version '7'; there are 1, 2"
    text = refused(lambda: client.get_model_metadata("stranger"), 404)
    assert text.startswith("no model 'stranger'")
    large = {"neural": np.repeat(WINDOW, 200, axis=0)}
    assert f"at most {LIMIT} are read" in refused(lambda: ask(client, SPACED, large), 413)
    zeros = {"neural": np.zeros((400, 20, 4, 9), np.float32)}
    for algorithm in ("gzip", "deflate"):
        options = {"request_compression_algorithm": algorithm}
        text = refused(lambda o=options: ask(client, SPACED, zeros, **o), 413)
        assert text == f"the body inflates to more than the {LIMIT} bytes that are read"
    assert "/v2/logging: not found" in refused(client.get_log_settings, 404)

    async def wrong_twice(other: Any) -> list[str]:
        texts = []
        for name, array in ((SPACED, wrong["neural"]), ("stranger", WINDOW)):
            try:
                await other.infer(name, tensors({"neural": array}, True))
            except InferenceServerException as error:
                texts.append(str(error))
        return texts

    first, second = aio(server, wrong_twice)
    assert first.startswith("[400] neural: axis feature has 8")
    assert second.startswith("[404] no model 'stranger'")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite(client: Any, value: float) -> None:
    window = WINDOW.copy()
    window[1, 2, 3, 4] = value
    text = refused(lambda: ask(client, SPACED, {"neural": window}), 400)
    assert text == "neural: not a finite number at batch 1, time 2, channel 3, feature 4"
    text = refused(lambda: ask(client, SPACED, {"neural": window}, binary=False), 400)
    assert "NaN and infinity are no JSON numbers" in text


def test_what_is_not_served(client: Any) -> None:
    tensor = triton.InferInput("neural", list(WINDOW.shape), "FP32")
    tensor.set_shared_memory("region", WINDOW.nbytes)
    text = refused(lambda: client.infer(SPACED, [tensor]), 501)
    assert text == "neural: parameters.shared_memory_region is not served"
    outputs = [triton.InferRequestedOutput("forecast", class_count=3)]
    text = refused(lambda: ask(client, SPACED, {"neural": WINDOW}, outputs=outputs), 501)
    assert text == "forecast: parameters.classification is not served"
    text = refused(lambda: ask(client, SPACED, {"neural": WINDOW}, sequence_id=5), 501)
    assert "sequences of requests are not served" in text


def test_parameters(client: Any, models: dict[str, artifact.Model]) -> None:
    expected = models["2"].predict({"neural": WINDOW})
    given = {"subject": "s1", "trial": 4, "flag": True, "gain": 0.5}
    options = {"timeout": 20_000_000, "priority": 2, "parameters": given}
    same(ask(client, SPACED, {"neural": WINDOW}, **options), expected)
    text = refused(lambda: ask(client, SPACED, {"neural": WINDOW}, timeout=1), 504)
    assert "in time" in text or "deadline" in text


def document(**changes: Any) -> dict[str, Any]:
    item = {
        "name": "neural",
        "shape": [2, 20, 4, 9],
        "datatype": "FP32",
        "parameters": {"binary_data_size": WINDOW.nbytes},
    }
    return {"inputs": [item | changes]}


HEAD = orjson.dumps(document())


def body() -> bytes:
    return HEAD + WINDOW.tobytes()


def sized(length: object = len(HEAD)) -> dict[str, str]:
    return {HEADER_LENGTH: str(length)}


def post(server: Server, content: bytes, headers: dict[str, str], path: str = "") -> httpx.Response:
    url = path or f"/v2/models/{SPACED}/infer"
    response = server.client.post(url, content=content, headers=headers)
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/json"
        ErrorBody.model_validate_json(response.content, strict=True)
    return response


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (-1, "must be a decimal number"),
        ("1_0", "must be a decimal number"),
        ("+170", "must be a decimal number"),
        (10**6, "but the body has only"),
        (0, "the raw body has"),
        (len(HEAD) - 1, "the request is not JSON"),
        (len(HEAD) + 1, "the request is not JSON"),
    ],
)
def test_wrong_header_lengths(server: Server, length: object, text: str) -> None:
    response = post(server, body(), sized(length))
    assert response.status_code == 400
    assert text in response.json()["error"]


def test_wrong_bodies(server: Server) -> None:
    for content, headers, text in (
        (body(), {}, HEADER_LENGTH),
        (body()[:-1], sized(), "but only 5759 bytes are left"),
        (body() + b"\0", sized(), "holds 1 bytes beyond"),
        (b"", {}, "the body is empty"),
        (gzip.compress(b""), {"Content-Encoding": "gzip"}, "the body is empty"),
        (b"{}", {}, "inputs: must be a list"),
        (orjson.dumps(document(shape=[0, 20, 4, 9], parameters=None, data=[])), {}, "is empty"),
    ):
        response = post(server, content, headers)
        assert response.status_code == 400
        assert text in response.json()["error"]
    response = post(server, body(), sized() | {"Content-Encoding": "br"})
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "text/plain", "nonsense"])
def test_the_content_type_is_not_heeded(
    server: Server, models: dict[str, artifact.Model], kind: str | None
) -> None:
    expected = models["2"].predict({"neural": WINDOW})["forecast"]
    headers = {} if kind is None else {"Content-Type": kind}
    response = post(server, body(), sized() | headers)
    assert response.headers["content-type"] == "application/json"  # no outputs, no wish for binary
    values = np.array(response.json()["outputs"][0]["data"], np.float32)
    assert values.tobytes() == expected.tobytes()
    nested = orjson.dumps(document(parameters=None, data=WINDOW.tolist()))
    assert post(server, nested, headers).content == response.content


def test_a_raw_body_is_one_row(server: Server, models: dict[str, artifact.Model]) -> None:
    expected = models["2"].predict({"neural": WINDOW[:1]})["forecast"]
    response = post(server, WINDOW[0].tobytes(), sized(0))
    assert response.headers["content-type"] == "application/octet-stream"
    size = int(response.headers[HEADER_LENGTH])
    schemas.InferResponse.model_validate_json(response.content[:size])
    assert response.content[size:] == expected.tobytes()


def test_answers_of_infer_are_as_documented(server: Server) -> None:
    response = post(server, body(), sized())
    schemas.InferResponse.model_validate_json(response.content, strict=True)


def test_paths_and_methods(server: Server) -> None:
    for method, path, status in (
        ("GET", f"/v2/models/{SPACED}/infer", 405),
        ("POST", "/v2/models", 405),
        ("POST", "/v2/models/stats", 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/models/a%2Fb/infer", 404),
        ("GET", "/v2/models/a%2Fb", 404),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/models/stats/infer", 404),
    ):
        response = server.client.request(method, path)
        assert response.status_code == status, path
        ErrorBody.model_validate_json(response.content, strict=True)


def test_loading_and_unloading(server: Server, client: Any, paths: dict[str, Path]) -> None:
    index = TypeAdapter(list[schemas.IndexLine])

    def states() -> dict[tuple[str, str], tuple[str, str]]:
        lines = client.get_model_repository_index()
        index.validate_python(lines, strict=True)
        return {(line["name"], line["version"]): (line["state"], line["reason"]) for line in lines}

    everything = dict.fromkeys(
        [(SPACED, "1"), (SPACED, "2"), ("small-decoder", "1"), ("every type", "1")], ("READY", "")
    )
    assert states() == everything
    client.unload_model(SPACED)
    try:
        assert states() == everything | dict.fromkeys(
            [(SPACED, "1"), (SPACED, "2")], ("UNAVAILABLE", "unloaded")
        )
        ready = server.client.post("/v2/repository/index", json={"ready": True}).json()
        assert {line["name"] for line in ready} == {"small-decoder", "every type"}
        assert not client.is_model_ready(SPACED)
        assert client.is_model_ready("small-decoder")
        text = refused(lambda: ask(client, SPACED, {"neural": WINDOW}), 503)
        assert text == "model 'small forecaster' is not ready: unloaded"
        assert post(server, body(), sized()).headers["retry-after"] == "1"
        text = refused(lambda: client.unload_model(SPACED), 404)
        assert text == "no model 'small forecaster' is loaded"
    finally:
        client.load_model(SPACED)
    assert states() == everything
    client.load_model(SPACED)
    ask(client, SPACED, {"neural": WINDOW})
    text = refused(lambda: client.load_model("stranger"), 404)
    assert text == "no artifact in the model paths has the name 'stranger'"
    text = refused(lambda: client.load_model(SPACED, config="{}"), 501)
    assert text.startswith("parameters.config: models are loaded from the paths")
    for action in ("load", "unload"):
        path = f"/v2/repository/models/{SPACED}/{action}"
        response = post(server, b'{"parameters": {"unload_dependents": []}}', {}, path)
        assert response.status_code == 400


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"[]", 400, "must be a JSON object"),
        (b"{", 400, "not JSON"),
        (b'{"ready": 1}', 400, "ready: must be a boolean"),
        (b" " * (LIMIT + 1), 413, "more than"),
    ],
)
def test_wrong_bodies_of_the_index(server: Server, content: bytes, status: int, text: str) -> None:
    response = post(server, content, {}, "/v2/repository/index")
    assert response.status_code == status
    assert text in response.json()["error"]


def test_loading_needs_leave(forecast_server: Server) -> None:
    with triton.InferenceServerClient(forecast_server.url.removeprefix("http://")) as client:
        for call in (client.load_model, client.unload_model):
            text = refused(lambda call=call: call("small-forecaster"), 403)
            assert "AXONNX_MODEL_CONTROL=true" in text
        assert "model_repository" not in client.get_server_metadata()["extensions"]
        assert client.get_model_repository_index()[0]["state"] == "READY"


def test_a_full_queue_arrives_as_text(forecaster: Path, tmp_path: Path) -> None:
    with running(tmp_path, forecaster, max_pending_bytes=1000) as server:
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port), timeout=20) as connection:
            head = "POST /v2/models/small-forecaster/infer HTTP/1.1\r\nHost: x\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n".encode() + b"x" * 99)
            server.wait_for_bytes(99)
            with triton.InferenceServerClient(f"{url.host}:{url.port}") as client:
                question = {"neural": WINDOW}
                text = refused(lambda: ask(client, "small-forecaster", question), 503)
        assert text == "bodies of 99 bytes are pending; send it again a little later"
        server.wait_for_bytes(0)


@settings(max_examples=150)
@given(st.data())
def test_mutated_bodies_never_fail_the_service(server: Server, data: st.DataObject) -> None:
    content = bytearray(body())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(HEAD) + 8))
        change = data.draw(st.sampled_from(["set", "insert", "delete"]))
        if change == "set":
            content[place] = data.draw(st.integers(0, 255))
        elif change == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=6))
        else:
            del content[place : place + data.draw(st.integers(1, 6))]
    length = data.draw(st.sampled_from([len(HEAD), len(HEAD) + 1, len(HEAD) - 1, 0]))
    assert post(server, bytes(content), sized(length)).status_code in (200, 400, 406, 501)

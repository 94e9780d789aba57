"""The clients against real servers: the bytes of `Model.predict`, attempts, every kind of error."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from server_process import ROOT, Server, running
from small_artifacts import write_artifact

import artifact
from artifact.arrays import Array
from artifact.manifest import Axis, TensorSpec
from serve import client as module
from serve.client import AsyncClient, Client, Prediction

NAME = "small-forecaster"
KINDS = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


def windows(rows: int, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 3, (rows, 20, 4, 9)).astype(np.float32)


def decoding(rows: int) -> dict[str, Array]:
    generator = np.random.default_rng(5)
    return {
        "neural": generator.normal(size=(rows, 20, 6, 1)).astype(np.float32),
        "behavior": generator.normal(size=(rows, 20, 2)).astype(np.float32),
        "behavior_mask": generator.random((rows, 20)) < 0.5,
    }


@pytest.fixture(scope="module")
def client(forecast_server: Server) -> Iterator[Client]:
    with Client(forecast_server.url) as client:
        yield client


def in_async(url: str, ask: Callable[[AsyncClient], Awaitable[Any]], **arguments: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, **arguments) as client:
            return await ask(client)

    return asyncio.run(run())


# What a prediction is


@pytest.mark.parametrize("rows", [1, 37])
def test_answers_are_those_of_predict(
    client: Client, forecaster_model: artifact.Model, rows: int
) -> None:
    neural = windows(rows)
    expected = forecaster_model.predict({"neural": neural})["forecast"]
    prediction = client.predict(NAME, neural=neural, request_id="mine.1")
    forecast = prediction["forecast"]
    assert (forecast.dtype, forecast.shape) == (expected.dtype, expected.shape)
    assert forecast.tobytes() == expected.tobytes()
    assert prediction.artifact == forecaster_model.id
    assert (prediction.model, prediction.version, prediction.request_id) == (NAME, "1", "mine.1")
    assert list(prediction) == ["forecast"]
    assert "forecast" in prediction
    assert "neural" not in prediction
    forecast += 1  # the caller's own
    assert forecast.flags.aligned
    with pytest.raises(KeyError, match="no output 'spikes'; there are forecast"):
        prediction["spikes"]


def test_several_inputs_by_name_and_by_mapping(
    decode_server: Server, decoder_model: artifact.Model
) -> None:
    inputs = decoding(5)
    expected = decoder_model.predict(inputs)["probability"].tobytes()

    async def ask(client: AsyncClient) -> list[Prediction]:
        return [
            await client.predict("small-decoder", **inputs),
            await client.predict(None, inputs, version=1),
        ]

    with Client(f"{decode_server.url}/") as client:
        answers = [
            client.predict("small-decoder", **inputs),
            client.predict("small-decoder", inputs),
            client.predict(None, {"neural": inputs.pop("neural")}, version="1", **inputs),
        ]
    inputs = decoding(5)
    answers += in_async(decode_server.url, ask)
    assert [answer["probability"].tobytes() for answer in answers] == [expected] * 5


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One input and output of every dtype: what goes in comes out."""
    folder = tmp_path_factory.mktemp("echo")
    specs = {
        side: tuple(
            TensorSpec(f"{side}_{kind}", kind, (Axis("batch"), Axis("n")), "", "", "allow")
            for kind in KINDS
        )
        for side in ("in", "out")
    }
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"in_{kind}"], [f"out_{kind}"]) for kind in KINDS],
        "graph",
        *(
            [
                helper.make_tensor_value_info(f"{side}_{kind}", code, ["batch", f"{kind}_n"])
                for kind, code in KINDS.items()
            ]
            for side in ("in", "out")
        ),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    golden = {f"in_{kind}": np.arange(8).reshape(4, 2).astype(kind) for kind in KINDS}
    path = write_artifact(
        folder / "echo", model, specs["in"], specs["out"], golden, name="echo", bound=0.0
    )
    with running(folder, path) as server, Client(server.url) as client:
        yield client


@st.composite
def any_inputs(draw: st.DrawFn) -> dict[str, Array]:
    """Arrays of every dtype, in every order of bytes and axes in memory."""
    rows, size = draw(st.integers(1, 3)), draw(st.sampled_from([1, 4]))
    inputs = {}
    for kind in KINDS:
        dtype = np.dtype(kind)
        array = draw(hnp.arrays(dtype, (rows, size), elements=hnp.from_dtype(dtype)))
        change = draw(st.sampled_from(["C", "F", "big", "steps", "read-only"]))
        if change == "F":
            array = np.asfortranarray(array)
        elif change == "big":
            array = array.astype(dtype.newbyteorder(">"))
        elif change == "steps":
            array = np.repeat(array, 2, axis=1)[:, ::2]
        elif change == "read-only":
            array.flags.writeable = False
        inputs[f"in_{kind}"] = array
    return inputs


@settings(max_examples=40)
@given(inputs=any_inputs())
def test_every_dtype_and_order_goes_there_and_back(echo: Client, inputs: dict[str, Array]) -> None:
    before = {name: array.copy() for name, array in inputs.items()}
    prediction = echo.predict("echo", inputs)
    for kind in KINDS:
        sent, came = inputs[f"in_{kind}"], prediction[f"out_{kind}"]
        native = sent.astype(kind)
        assert (came.dtype, came.shape) == (native.dtype, native.shape)
        assert came.tobytes() == native.tobytes()
        assert sent.tobytes() == before[f"in_{kind}"].tobytes()


def test_many_threads_share_a_client(client: Client, forecaster_model: artifact.Model) -> None:
    def ask(seed: int) -> bool:
        neural = windows(1 + seed % 5, seed)
        expected = forecaster_model.predict({"neural": neural})["forecast"]
        return client.predict(NAME, neural=neural)["forecast"].tobytes() == expected.tobytes()

    with ThreadPoolExecutor(48) as pool:
        assert all(pool.map(ask, range(200)))


def test_many_tasks_share_a_client(
    forecast_server: Server, forecaster_model: artifact.Model
) -> None:
    many = [windows(1 + seed % 3, seed) for seed in range(50)]

    async def ask(client: AsyncClient) -> list[Prediction]:
        return await asyncio.gather(*(client.predict(NAME, neural=neural) for neural in many))

    answers = in_async(forecast_server.url, ask)
    for neural, answer in zip(many, answers, strict=True):
        expected = forecaster_model.predict({"neural": neural})["forecast"]
        assert answer["forecast"].tobytes() == expected.tobytes()


def test_a_cancelled_call_leaves_the_client_whole(forecast_server: Server) -> None:
    async def ask(client: AsyncClient) -> None:
        for pause in (0.0, 0.001, 0.005, 0.02):
            calls = [asyncio.create_task(client.predict(NAME, neural=windows(9))) for _ in range(8)]
            await asyncio.sleep(pause)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        answers = [client.predict(NAME, neural=windows(1)) for _ in range(40)]
        assert len(await asyncio.gather(*answers)) == 40

    in_async(forecast_server.url, ask)


# What the service says of itself


def test_health_models_and_metadata(forecast_server: Server, client: Client) -> None:
    async def ask(client: AsyncClient) -> list[Any]:
        return [
            await client.live(),
            await client.ready(),
            await client.ready(NAME, version=1),
            await client.models(),
            await client.metadata(),
        ]

    tensor = {"name": "neural", "datatype": "FP32", "shape": [-1, 20, 4, 9]}
    expected = [client.live(), client.ready(), client.ready(NAME, version=1), client.models()]
    assert expected == [True, True, True, [NAME]]
    assert client.metadata(NAME)["inputs"] == [tensor]
    assert in_async(forecast_server.url, ask) == [*expected, client.metadata(NAME)]
    with pytest.raises(module.NotFound, match="no model 'other'"):
        client.ready("other")


def test_load_and_unload(forecaster: Path, decoder: Path, tmp_path: Path) -> None:
    async def ask(client: AsyncClient) -> list[str]:
        await client.unload(NAME)
        unloaded = await client.models()
        await client.load(NAME)
        return unloaded

    paths = (forecaster, decoder)
    with running(tmp_path, *paths, model_control=True) as server, Client(server.url) as client:
        with pytest.raises(module.NotFound, match="name one of small-decoder, small-forecaster"):
            client.predict(neural=windows(1))
        client.unload("small-decoder")
        assert client.models() == [NAME]
        assert not client.ready("small-decoder")
        assert client.predict(neural=windows(1)).model == NAME
        with pytest.raises(module.NotFound):
            client.unload("small-decoder")
        client.load("small-decoder")
        assert client.ready("small-decoder")
        assert in_async(server.url, ask) == ["small-decoder"]
        assert client.ready(NAME)


# What goes wrong


@pytest.mark.parametrize(
    ("inputs", "kind", "type", "field", "text"),
    [
        (
            {"neural": windows(1).astype(float)},
            "InvalidInput",
            "invalid_input",
            "neural",
            r"must be FP32, is .*FP64.*; \.astype\(np\.float32\) makes it so \(400 invalid_input, ",
        ),
        ({"neural": windows(1)[:, :3]}, "InvalidInput", "invalid_input", "neural", "time has 3"),
        ({"neural": windows(1)[0]}, "InvalidInput", "invalid_input", "neural", "3 axes"),
        ({"other": windows(1)}, "InvalidInput", "invalid_input", "other", "neural"),
        ({"neural": windows(1) * np.nan}, "InvalidInput", "invalid_input", "neural", "finite"),
        ({"neural": windows(30_000)}, "TooLarge", "body_too_large", None, "at most 67108864"),
        ({}, "InvalidInput", None, None, "no inputs"),
        ({"neural": [1.0]}, "InvalidInput", None, "neural", "numpy array, is list"),
        ({"neural": np.array(["a"])}, "InvalidInput", None, "neural", "dtype <U1 has no datatype"),
    ],
)
def test_inputs_that_are_refused(
    client: Client, inputs: Any, kind: str, type: str | None, field: str | None, text: str
) -> None:
    with pytest.raises(getattr(module, kind), match=text) as caught:
        client.predict(NAME, inputs, request_id="wrong-one")
    error = caught.value
    assert isinstance(error, module.RequestRefused)
    assert error.type == type
    assert error.attempts == 1
    if type is None:
        assert (error.status, error.request_id) == (None, None)
    else:
        assert error.request_id == "wrong-one"
        assert error.status == (413 if kind == "TooLarge" else 400)
    assert error.field == field
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.field) == (str(error), error.status, error.field)


def test_models_that_are_not_there(client: Client, forecast_server: Server) -> None:
    for model, version in (("a/b ü", None), (NAME, 7), ("", None)):
        with pytest.raises(module.NotFound) as caught:
            client.predict(model, version=version, neural=windows(1))
        assert caught.value.status == 404
    with pytest.raises(module.Forbidden, match="AXONNX_MODEL_CONTROL"):
        client.load(NAME)
    with pytest.raises(module.NotFound):
        in_async(forecast_server.url, lambda client: client.predict("no", neural=windows(1)))
    with pytest.raises(TypeError, match="must be a name, is ndarray"):
        client.predict(windows(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="given twice: neural"):
        client.predict(NAME, {"neural": windows(1)}, neural=windows(1))
    with pytest.raises(ValueError, match="request_id"):
        client.predict(NAME, neural=windows(1), request_id="a b")
    with pytest.raises(ValueError, match="timeout"):
        client.predict(NAME, neural=windows(1), timeout=0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"url": "127.0.0.1:8000"}, "must be an address such as"),
        ({"url": "ftp://host"}, "must be an address such as"),
        ({"url": "http://"}, "must be an address such as"),
        ({"url": "http://host:port"}, "url 'http://host:port'"),
        ({"url": "http://me:secret@host"}, "no user"),
        ({"url": "http://host?a=b"}, "no user, query"),
        ({"api_key": "two words"}, "api_key: must be visible ASCII"),
        ({"api_key": "line\n"}, "api_key: must be visible ASCII"),
        ({"timeout": 0}, "timeout 0: must be"),
        ({"timeout": float("nan")}, "timeout nan: must be"),
        ({"retries": -1}, "retries -1: must be"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_arguments_that_cannot_be_right(
    kind: type[Client | AsyncClient], arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        kind(**{"url": "http://host", **arguments})
    assert "secret" not in str(caught.value)
    assert "words" not in str(caught.value)


def test_a_client_without_the_server() -> None:
    """No framework and no ONNX Runtime is imported, nor anything else that a laptop may lack."""
    code = (
        "import sys, serve.client, serve.call\n"
        "heavy = 'fastapi starlette uvicorn pydantic onnxruntime artifact torch onnx'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"

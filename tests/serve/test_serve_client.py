"""The clients against real servers: the bytes of `Model.predict`, attempts, every kind of error."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
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
from serve.client import AsyncClient, Client, Prediction, ServiceError

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


def test_keys_and_certificates(forecaster: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(tmp_path / "chain.pem", append=True)
    key = "a-key-of-many-letters"
    with serving(
        forecaster,
        tls_certificate=tmp_path / "chain.pem",
        tls_key=tmp_path / "key.pem",
        api_keys=key,
    ) as url:
        start = time.monotonic()
        with Client(url, api_key=key) as client, pytest.raises(module.Untrusted):
            client.predict(NAME, neural=windows(1))
        assert time.monotonic() - start < 5  # and not tried again
        with Client(url, api_key=key, verify=tmp_path / "ca.pem") as client:
            assert client.predict(NAME, neural=windows(1)).model == NAME
            assert key not in repr(vars(client))
        with Client(url, verify=False) as client:
            assert client.ready()
            with pytest.raises(module.Unauthorized, match="a key is needed") as caught:
                client.predict(NAME, neural=windows(1))
            assert caught.value.status == 401
        with pytest.raises(module.Unauthorized, match="none of those"):
            in_async(url, lambda client: client.models(), api_key="wrong", verify=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return int(place.getsockname()[1])


@contextlib.contextmanager
def serving(
    path: Path, port: int = 0, number: int = signal.SIGTERM, **environment: object
) -> Iterator[str]:
    """A server on a given port, its address; at the end it gets the signal."""
    variables = {f"AXONNX_{key.upper()}": str(value) for key, value in environment.items()}
    process = subprocess.Popen(
        [sys.executable, ROOT / "axonnx.py", "serve", path, "--port", str(port)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "listening on" in line:
                url = line.split()[-1]
            if line == "axonnx: ready\n":
                break
        yield url
    finally:
        process.send_signal(number)
        process.communicate(timeout=30)


# Attempts


def test_overloaded_services_are_asked_again(forecaster: Path, tmp_path: Path) -> None:
    with running(tmp_path, forecaster, max_pending=1) as server:
        host, port = server.url.removeprefix("http://").split(":")

        @contextlib.contextmanager
        def full() -> Iterator[socket.socket]:
            """A prediction whose body stops coming takes the only place."""
            with socket.create_connection((host, int(port))) as half:
                half.sendall(
                    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"
                    b"Content-Length: 99\r\n\r\nx"
                )
                server.wait_for_pending(1)
                yield half
            server.wait_for_pending(0)

        with full(), Client(server.url, retries=0) as client:
            with pytest.raises(module.Overloaded) as caught:
                client.predict(NAME, neural=windows(1))
            assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
            assert client.ready()
        with full(), Client(server.url, retries=1) as client:
            start = time.monotonic()
            with pytest.raises(module.Overloaded, match="2 attempts") as caught:
                client.predict(NAME, neural=windows(1))
            assert 1.0 < time.monotonic() - start < 8
        with full(), Client(server.url, timeout=0.9) as client:  # no second attempt fits into it
            start = time.monotonic()
            with pytest.raises(module.Overloaded):
                client.predict(NAME, neural=windows(1))
            assert time.monotonic() - start < 0.9
        with full() as half, Client(server.url) as client:
            threading.Timer(0.4, half.close).start()
            assert client.predict(NAME, neural=windows(1)).model == NAME
        with full() as half:
            threading.Timer(0.4, half.close).start()
            ask = in_async(server.url, lambda client: client.predict(NAME, neural=windows(1)))
            assert ask.model == NAME
        with Client(server.url, retries=1000) as client, ThreadPoolExecutor(6) as pool:
            answers = pool.map(lambda _: client.predict(NAME, neural=windows(1)), range(30))
            assert all(answer.model == NAME for answer in answers)


def test_a_server_that_comes_back(
    forecaster: Path, forecaster_model: artifact.Model, tmp_path: Path
) -> None:
    port, neural = free_port(), windows(3)
    expected = forecaster_model.predict({"neural": neural})["forecast"].tobytes()
    stop = threading.Event()
    answers: list[bool] = []

    def keep_asking() -> None:
        while not stop.is_set():
            answer = client.predict(NAME, neural=neural)["forecast"]
            answers.append(answer.tobytes() == expected)

    with Client(f"http://127.0.0.1:{port}", retries=1000) as client, ThreadPoolExecutor(4) as pool:
        assert not client.live()
        callers = [pool.submit(keep_asking) for _ in range(4)]
        with serving(forecaster, port, signal.SIGKILL):
            while len(answers) < 20:
                time.sleep(0.02)
        with serving(forecaster, port):
            stop.set()
            for caller in callers:
                caller.result()
        assert len(answers) >= 24
    assert all(answers)


def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    start = time.monotonic()
    with Client(url, retries=2) as client:
        assert not client.live()
        assert not client.ready(NAME)
        with pytest.raises(module.Unreachable, match=f"no connection to {url}.*3 attempts"):
            client.predict(NAME, neural=windows(1))
    with pytest.raises(module.Unreachable, match="2 attempts"):
        in_async(url, lambda client: client.predict(NAME, neural=windows(1)), retries=1)
    assert time.monotonic() - start < 5


def test_the_deadline_is_the_services_too(tiny: Path, tmp_path: Path) -> None:
    neural = np.zeros((100_000, 20, 1, 1), np.float32)
    with running(tmp_path, tiny, slots=1, max_rows=1) as server:
        with Client(server.url) as client, pytest.raises(module.DeadlineExceeded):
            client.predict("tiny", neural=neural, timeout=0.5)
        server.wait_for_pending(0)
        with pytest.raises(module.DeadlineExceeded):
            in_async(server.url, lambda client: client.predict("tiny", neural=neural, timeout=0.5))
        server.wait_for_pending(0)
    assert isinstance(module.DeadlineExceeded("late"), ServiceError)


# Others that answer in the place of the service


class Peer(BaseHTTPRequestHandler):
    """Answers every request with the next of `script`: status, headers, body pieces."""

    protocol_version = "HTTP/1.1"
    script: list[tuple[int, dict[str, str], list[bytes]]]
    connections = requests = 0

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_POST(self) -> None:
        type(self).requests += 1
        self.rfile.read(int(self.headers["content-length"]))
        status, headers, pieces = self.script.pop(0)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.close_connection = "Content-Length" in headers  # a length that does not come
        headers = {"Content-Length": str(sum(map(len, pieces))), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            for place, piece in enumerate(pieces):
                time.sleep(0.2 if place else 0)
                self.wfile.write(piece)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def peer(*script: tuple[int, dict[str, str], list[bytes]]) -> Iterator[tuple[str, type[Peer]]]:
    handler = type("Scripted", (Peer,), {"script": list(script)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
        server.shutdown()


HEAD = b'{"model_name":"m","outputs":[]}'
GOOD: tuple[int, dict[str, str], list[bytes]] = (200, {}, [HEAD])


@pytest.mark.parametrize(
    ("answer", "attempts", "kind", "text"),
    [
        ((502, {}, [b"<html>Bad Gateway\n</html>"]), 2, "Unreachable", "Bad Gateway, not in the"),
        ((503, {}, [b""]), 2, "Unavailable", r"Service Unavailable \(503"),
        ((503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, []), 2, "Unavailable", "503"),
        ((503, {"Retry-After": "3600"}, []), 1, "Unavailable", "503"),
        ((0, {}, []), 2, "Unreachable", "broke before the answer"),
        ((200, {"Content-Length": "99"}, [HEAD, b"x"]), 2, "Unreachable", "broke before"),
        ((500, {}, [b'{"error":"oh"}']), 1, "ServerFault", r"oh \(500"),
        ((504, {}, [b"[]"]), 1, "DeadlineExceeded", "Gateway Timeout"),
        ((429, {"Retry-After": "1"}, [b"slow down"]), 1, "RequestRefused", "slow down"),
        ((501, {}, [b""]), 1, "RequestRefused", "Not Implemented"),
        ((301, {"Location": "http://other"}, [b""]), 1, "BadAnswer", "http://other"),
        ((200, {}, [b"<html>"]), 1, "BadAnswer", "not JSON"),
        ((799, {}, [b"\xff\xfe"]), 1, "ServerFault", "unknown status"),
    ],
)
def test_balancers_and_strangers(answer: Any, attempts: int, kind: str, text: str) -> None:
    with peer(answer, answer) as (url, seen), Client(url, retries=1, timeout=20) as client:
        with pytest.raises(getattr(module, kind), match=text) as caught:
            client.predict("m", x=windows(1), request_id="mine")
        assert seen.requests == caught.value.attempts == attempts
        assert caught.value.request_id == "mine"
    with peer(answer, GOOD) as (url, seen):
        if attempts == 2:
            answered = in_async(url, lambda client: client.predict("m", x=windows(1)))
            assert (answered.version, answered.artifact, answered.outputs) == (None, None, {})
        else:
            with pytest.raises(getattr(module, kind), match=text):
                in_async(url, lambda client: client.predict("m", x=windows(1)))


def test_connections_are_kept() -> None:
    with peer(*[GOOD] * 5) as (url, seen), Client(url) as client:
        for _ in range(5):
            client.predict("m", x=windows(1))
        assert (seen.connections, seen.requests) == (1, 5)


def test_an_answer_that_trickles() -> None:
    slow = (200, {}, [HEAD[:1], *[b" "] * 20, HEAD[1:]])
    for ask in (
        lambda url: Client(url).predict("m", x=windows(1), timeout=0.5),
        lambda url: in_async(url, lambda c: c.predict("m", x=windows(1), timeout=0.5)),
    ):
        with peer(slow) as (url, _):
            start = time.monotonic()
            with pytest.raises(module.DeadlineExceeded, match=r"no answer within 0\.5 s"):
                ask(url)
            assert time.monotonic() - start < 2


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

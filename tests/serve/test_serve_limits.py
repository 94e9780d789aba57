"""What a request may take of everyone's time, memory and places before it is refused."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
import tracemalloc
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from server_process import Server, running
from starlette.requests import Request

from artifact.arrays import Array, decode_npy, encode_npy, encode_npz
from artifact.manifest import Axis, TensorSpec
from serve import cli
from serve.errors import BodyTooLarge, Overloaded
from serve.formats import decode
from serve.json_bodies import MAX_PARTS
from serve.negotiation import JSON, NPY, NPZ
from serve.settings import Settings
from serve.v2 import HEADER_LENGTH, decode_request

WINDOW: Array = np.random.default_rng(0).normal(size=(2, 20, 4, 9)).astype(np.float32)
AXES = Axis("batch"), Axis("time"), Axis("channel"), Axis("feature")
SPEC = TensorSpec("neural", "float32", AXES, "", "")
INFER = "/v2/models/small-forecaster/infer"


def v2_json(array: Array) -> bytes:
    item = {
        "name": "neural",
        "datatype": "FP32",
        "shape": array.shape,
        "data": array.ravel().tolist(),
    }
    return json.dumps({"inputs": [item]}).encode()


def native_json(array: Array) -> bytes:
    return json.dumps({"inputs": {"neural": array.tolist()}}).encode()


def refusal(response: httpx.Response) -> str:
    assert (response.status_code, response.json()["type"]) == (413, "body_too_large")
    return str(response.json()["error"])


def connect(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), timeout=20)


def head(length: int) -> bytes:
    text = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {NPY}\r\nContent-Length: {length}"
    return text.encode() + b"\r\n\r\n"


# JSON


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b"[]," * MAX_PARTS + b"[]]",
        b"[" + b"[[[1]]]," * (MAX_PARTS // 3) + b"[]]",
        b"[" + b"{}," * MAX_PARTS + b"{}]",
        b"[" + b'"",' * (MAX_PARTS // 2) + b'""]',
        b"[" * (MAX_PARTS + 1),
    ],
)
def test_json_of_too_many_parts_is_not_parsed(text: bytes) -> None:
    native = b'{"inputs":{"neural":' + text + b"}}"
    v2 = b'{"inputs":[{"data":' + text + b"}]}"
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match=r"lists, objects and quotation marks.*npy"):
            decode(native, JSON, [SPEC], 1 << 26)
        with pytest.raises(BodyTooLarge, match="binary tensor data"):
            decode_request(v2, None, [SPEC], [])
        with pytest.raises(BodyTooLarge):
            decode_request(v2 + b"data", str(len(v2)), [SPEC], [])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_as_many_parts_as_are_read() -> None:
    rows = (MAX_PARTS - 20) // 3
    lists = b"[" + b",".join([b"[[[1.5]]]"] * rows) + b"]"
    got = decode(b'{"inputs":{"neural":' + lists + b"}}", JSON, [SPEC], 1 << 26)["neural"]
    assert got.shape == (rows, 1, 1, 1)
    assert (got == 1.5).all()


def test_json_is_bounded_apart_from_the_rest(forecaster: Path, tmp_path: Path) -> None:
    native, v2 = native_json(WINDOW), v2_json(WINDOW)
    limit = max(len(native), len(v2))
    json_type = {"Content-Type": JSON}
    with running(tmp_path, forecaster, max_json_bytes=limit) as server:
        post = server.client.post
        for path, body in (("/predict", native), (INFER, v2)):
            assert post(path, content=body.ljust(limit), headers=json_type).status_code == 200
            long = body.ljust(limit + 1)
            text = refusal(post(path, content=long, headers=json_type))
            assert f"has {limit + 1} bytes; at most {limit} are read; send numbers as" in text
            text = refusal(post(path, content=iter([long]), headers=json_type))
            assert text.endswith(".npy or .npz, in V2 binary tensor data")
            packed = json_type | {"Content-Encoding": "gzip"}
            text = refusal(post(path, content=gzip.compress(long), headers=packed))
            assert f"inflates to more than the {limit} bytes that are read; send" in text
        part = {HEADER_LENGTH: str(limit + 1)}
        text = refusal(post(INFER, content=v2.ljust(limit + 1) + b"data", headers=part))
        assert f"the JSON has {limit + 1} bytes" in text
        many = encode_npy(np.repeat(WINDOW, 100, axis=0))
        assert len(many) > limit
        assert post("/predict", content=many, headers={"Content-Type": NPY}).status_code == 200


def test_hostile_json_neither_stops_nor_bloats_the_service(forecast_server: Server) -> None:
    def resident() -> int:
        text = Path(f"/proc/{forecast_server.process.pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) // 1024

    lists = b'{"inputs":{"neural":[' + b"[]," * 2_700_000 + b"[]]}}"
    slowest, done = 0.0, threading.Event()

    def live() -> None:
        nonlocal slowest
        while not done.is_set():
            start = time.monotonic()
            assert httpx.get(f"{forecast_server.url}/health/live").status_code == 200
            slowest = max(slowest, time.monotonic() - start)

    before = resident()
    prober = threading.Thread(target=live)
    prober.start()
    packed = {"Content-Encoding": "gzip"}
    for path, content, headers in (
        ("/predict", lists, {"Content-Type": JSON}),
        (INFER, lists, {}),
        (INFER, gzip.compress(lists, 1), packed),
        ("/predict", gzip.compress(lists, 1), packed | {"Content-Type": JSON}),
    ):
        refusal(forecast_server.client.post(path, content=content, headers=headers))
    done.set()
    prober.join()
    assert slowest < 1
    assert resident() - before < 100


# Places and bytes


def test_callers_that_send_nothing_take_nothing(forecaster: Path, tmp_path: Path) -> None:
    limits = {"max_pending": 2, "max_pending_bytes": 100_000}
    with running(tmp_path, forecaster, **limits) as server, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connect(server)).sendall(head(60_000))
        time.sleep(0.2)
        for _ in range(3):
            good = server.client.post(
                "/predict", content=encode_npy(WINDOW), headers={"Content-Type": NPY}
            )
            assert good.status_code == 200
        assert server.client.get("/health/ready").json()["pending"] == 0


def test_bytes_count_once_they_are_there(forecaster: Path, tmp_path: Path) -> None:
    content = encode_npy(np.repeat(WINDOW, 10, axis=0))
    kind = {"Content-Type": NPY}
    with running(tmp_path, forecaster, max_pending_bytes=60_000 + len(content) - 1) as server:
        with connect(server) as slow:
            slow.sendall(head(80_000) + b"x" * 60_000)
            server.wait_for_bytes(60_000)
            for body in (content, iter([content])):
                refused = server.client.post("/predict", content=body, headers=kind)
                assert (refused.status_code, refused.json()["type"]) == (503, "overloaded")
        server.wait_for_bytes(0)
        assert server.client.post("/predict", content=content, headers=kind).status_code == 200


def test_a_chunked_body_in_one_piece_is_bounded_too(forecaster: Path, tmp_path: Path) -> None:
    with running(tmp_path, forecaster, max_body_bytes=10_000) as server:
        for size, status in ((10_000, b"400"), (10_001, b"413")):
            with connect(server) as connection:
                connection.sendall(
                    f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {NPY}\r\n"
                    f"Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n".encode()
                    + b"x" * size
                    + b"\r\n0\r\n\r\n"
                )
                assert connection.recv(100).split()[1] == status


# Compressed bodies


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "identity", "Identity"])
@pytest.mark.parametrize("form", [JSON, NPY, NPZ])
def test_encodings_of_the_own_protocol(forecast_server: Server, form: str, encoding: str) -> None:
    plain = {
        JSON: native_json(WINDOW),
        NPY: encode_npy(WINDOW),
        NPZ: encode_npz({"neural": WINDOW}),
    }[form]
    body = plain
    if "dentity" not in encoding:
        body = zlib.compress(plain) if encoding == "deflate" else gzip.compress(plain)
    headers = {"Content-Type": form, "Accept": NPY}
    post = forecast_server.client.post
    expected = post("/predict", content=plain, headers=headers)
    got = post("/predict", content=body, headers=headers | {"Content-Encoding": encoding})
    assert (got.status_code, got.content) == (200, expected.content), got.text
    assert decode_npy(got.content).shape == (2, 20, 4)


def test_an_unknown_encoding_names_those_that_are_known(forecast_server: Server) -> None:
    for path in ("/predict", INFER):
        headers = {"Content-Type": NPY, "Content-Encoding": "br"}
        answer = forecast_server.client.post(path, content=b"x", headers=headers)
        assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")


@pytest.fixture
def request_of_zeros() -> Request:
    """A body of 30 KB that inflates to 30 MB."""
    packed = gzip.compress(bytes(30_000_000))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": packed, "more_body": False}

    fields = {b"content-encoding": b"gzip"}
    return Request({"type": "http", "headers": [], "fields": fields, "whole": True}, receive)


def test_inflated_bytes_are_counted_while_they_are_inflated(request_of_zeros: Request) -> None:
    service = cli.create_service(Settings(max_pending_bytes=10_000_000, slots=1))
    engine = service.engine

    async def read() -> None:
        with engine.admit() as other, engine.admit() as place:
            other.hold(5_000_000)
            await service.read_body(request_of_zeros, place, service.deadline(), only_json=False)

    tracemalloc.start()
    try:
        with pytest.raises(Overloaded, match="bytes are pending"):
            asyncio.run(read())
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
        assert (engine.pending, engine.pending_bytes) == (0, 0)
    finally:
        tracemalloc.stop()
        engine.close()

"""Hostile payloads never give a 5xx and never end the process."""

from __future__ import annotations

import http.client
import io
import socket
import struct
import zipfile
from collections.abc import Callable

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_process import Server

from artifact.arrays import encode_npy, encode_npz
from serve.negotiation import JSON, NPY, NPZ

WINDOW = np.random.default_rng(0).normal(size=(2, 20, 4, 9)).astype(np.float32)
many = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def compressed() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, neural=np.zeros_like(WINDOW))
    return stream.getvalue()


GOOD = {
    JSON: [orjson.dumps({"inputs": {"neural": WINDOW[:1, :, :, :].tolist()}})],
    NPY: [encode_npy(WINDOW)],
    NPZ: [encode_npz({"neural": WINDOW}), compressed()],
}


def check(server: Server, form: str, body: bytes) -> int:
    """Send; the answer is right or a 4xx with the one error body."""
    response = server.client.post("/predict", content=body, headers={"Content-Type": form})
    if response.status_code != 200:
        assert 400 <= response.status_code < 500, (form, body[:200], response.text)
        answer = response.json()
        assert set(answer) == {"error", "type", "field", "request_id"}
        assert len(answer["error"]) < 1000
    return response.status_code


@many
@given(form=st.sampled_from([JSON, NPY, NPZ]), body=st.binary(max_size=400))
def test_random_bytes(forecast_server: Server, form: str, body: bytes) -> None:
    assert check(forecast_server, form, body) == 400


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good body with bytes changed, removed, doubled or cut off."""
    form = draw(st.sampled_from([JSON, NPY, NPZ]))
    body = bytearray(draw(st.sampled_from(GOOD[form])))
    ends = st.one_of(st.integers(0, 160), st.integers(len(body) - 120, len(body) - 1))
    for _ in range(draw(st.integers(1, 4))):
        place = min(draw(ends), max(len(body) - 1, 0))
        change = draw(st.sampled_from(["set", "insert", "delete", "cut"]))
        if change == "set" and body:
            body[place] = draw(st.integers(0, 255))
        elif change == "insert":
            body[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif change == "delete":
            del body[place : place + draw(st.integers(1, 8))]
        else:
            del body[place:]
    return form, bytes(body)


@many
@given(mutated())
def test_mutated_bodies(forecast_server: Server, question: tuple[str, bytes]) -> None:
    check(forecast_server, *question)


SIZES = st.sampled_from([-1, 0, 1, 2, 4, 9, 20, 2**31, 2**40, 2**47, 2**62, 2**63, 2**64, 10**30])
DTYPES = st.sampled_from(
    [
        "<f4",
        ">f4",
        "=f4",
        "<f8",
        "|O",
        "<U8",
        "|V4",
        "<M8[s]",
        "<f2",
        "|b1",
        "<i8",
        "f4",
        "",
        "<f4x",
    ]
)


def npy(header: bytes, data: bytes, version: bytes = b"\x01\x00") -> bytes:
    width = "<H" if version[0] == 1 else "<I"
    return b"\x93NUMPY" + version + struct.pack(width, len(header)) + header + data


@many
@given(
    dtype=DTYPES,
    order=st.sampled_from(["False", "True", "0", "None"]),
    shape=st.lists(SIZES, max_size=6),
    data=st.sampled_from([b"", b"\0" * 4, WINDOW.tobytes()]),
    version=st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"]),
    wrap=st.booleans(),
)
def test_npy_headers_that_lie(
    forecast_server: Server,
    dtype: str,
    order: str,
    shape: list[int],
    data: bytes,
    version: bytes,
    wrap: bool,
) -> None:
    header = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {tuple(shape)}, }}"
    body = npy(header.encode() + b"\n", data, version)
    if not wrap:
        check(forecast_server, NPY, body)
        return
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("neural.npy", body)
    check(forecast_server, NPZ, stream.getvalue())


def archive(*members: tuple[str, bytes], how: int = zipfile.ZIP_STORED, note: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as made:
        made.comment = note
        for name, data in members:
            made.writestr(name, data)
    return stream.getvalue()


def big_endian() -> bytes:
    stream = io.BytesIO()
    np.save(stream, WINDOW.astype(">f4"))
    return stream.getvalue()


def objects() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    return stream.getvalue()


def crowded() -> bytes:
    return archive(*((f"{index}.npy", b"") for index in range(3000)))


def lying_size() -> bytes:
    body = bytearray(archive(("neural.npy", encode_npy(WINDOW)), how=zipfile.ZIP_DEFLATED))
    place = body.rfind(b"PK\x01\x02")
    body[place + 24 : place + 28] = struct.pack("<I", 0xFFFFFFF0)
    return bytes(body)


@pytest.mark.parametrize(
    ("form", "make"),
    [
        (NPY, big_endian),
        (NPY, objects),
        (NPY, lambda: npy(b"(" * 4000, b"")),
        (NPY, lambda: npy(b"[" * 60_000, b"")),
        (NPY, lambda: npy(b"{" + b" " * (1 << 20) + b"}", b"", b"\x02\x00")),
        (NPY, lambda: b"\x93NUMPY\x02\x00\xff\xff\xff\xff"),
        (NPY, lambda: npy(b"__import__('os').abort()", b"")),
        (NPY, lambda: npy(b"{'descr': '\\d', 'fortran_order': 1is 1, 'shape': (0xfor 1,)}", b"")),
        (NPY, lambda: encode_npy(WINDOW)[:-1]),
        (NPY, lambda: encode_npy(WINDOW) + b"\0"),
        (NPY, lambda: encode_npz({"neural": WINDOW})),
        (NPY, lambda: encode_npy(WINDOW[:0])),
        (NPY, lambda: encode_npy(WINDOW.astype(np.float64))),
        (NPY, lambda: encode_npy(np.where(WINDOW > 2, np.float32("nan"), WINDOW))),
        (NPZ, lambda: encode_npy(WINDOW)),
        (NPZ, objects),
        (NPZ, crowded),
        (NPZ, lying_size),
        (NPZ, lambda: archive()),
        (NPZ, lambda: archive(("neural.npy", objects()))),
        (NPZ, lambda: archive(("neural.npy", big_endian()))),
        (NPZ, lambda: archive(("neural", encode_npy(WINDOW)))),
        (NPZ, lambda: archive(("../neural.npy", encode_npy(WINDOW)))),
        (NPZ, lambda: archive(("neural.npy", encode_npy(WINDOW)), how=zipfile.ZIP_LZMA)),
        (NPZ, lambda: archive(("neural.npy", encode_npy(WINDOW)), how=zipfile.ZIP_BZIP2)),
        (NPZ, lambda: archive(("neural.npy", encode_npy(WINDOW)), note=b"x" * 60_000)),
        (NPZ, lambda: archive(("behavior.npy", encode_npy(WINDOW)))),
        (JSON, lambda: b"[" * 100_000),
        (JSON, lambda: b'{"inputs":{"neural":' + b"[" * 900 + b"]" * 900 + b"}}"),
        (JSON, lambda: b'{"inputs":{"neural":' + b"9" * 100_000 + b"}}"),
        (JSON, lambda: b'{"inputs":{"' + b"n" * 100_000 + b'":1}}'),
        (JSON, lambda: b'{"inputs":{"neural":"' + b"n" * 100_000 + b'"}}'),
        (JSON, lambda: b'{"inputs":{"\\ud800":1}}'),
    ],
)
def test_known_tricks(forecast_server: Server, form: str, make: Callable[[], bytes]) -> None:
    assert check(forecast_server, form, make()) == 400
    assert check(forecast_server, form, GOOD[form][0]) == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"gibberish\r\n\r\n",
        b"GET /health/live\x00 HTTP/1.1\r\n\r\n",
        b"CONNECT example:443 HTTP/1.1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnever\r\n",
    ],
)
def test_what_is_no_http_gets_the_same_error_body(forecast_server: Server, sent: bytes) -> None:
    url = httpx.URL(forecast_server.url)
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        answer = orjson.loads(response.read())
        assert connection.recv(1) == b""
    assert response.status == 400
    assert response.headers["content-type"] == JSON
    assert set(answer) == {"error", "type", "field", "request_id"}
    assert answer["type"] == "malformed_request"
    assert response.headers["x-request-id"] == answer["request_id"]
    assert forecast_server.client.get("/health/live").status_code == 200


@many
@given(st.text(max_size=40), st.text(max_size=40))
def test_hostile_headers(forecast_server: Server, kind: str, accept: str) -> None:
    # The client itself refuses what is not ASCII, and spaces at the ends.
    kind, accept = (text.encode("unicode_escape").decode().strip() for text in (kind, accept))
    headers = {"Content-Type": kind, "Accept": accept, "X-Request-Id": accept}
    response = forecast_server.client.post("/predict", content=GOOD[NPY][0], headers=headers)
    assert response.status_code < 500

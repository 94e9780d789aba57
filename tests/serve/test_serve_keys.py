"""API keys: who gets in, on every route, and what is never shown."""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
import string
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_process import Server, running
from starlette.routing import Route

import artifact
from artifact.arrays import encode_npy
from serve import keys
from serve.app import create_app
from serve.engine import Engine
from serve.repository import Repository
from serve.service import Service
from serve.settings import Settings, SettingsError, forget_secrets, read_settings

FIRST, SECOND = "the-first-key-of-two", "the-second-key-of-two"
NPY = {"Content-Type": "application/x-npy"}
WINDOW = encode_npy(np.ones((1, 20, 4, 9), np.float32))
VISIBLE = st.text(string.ascii_letters + string.digits + string.punctuation.replace(",", ""))


@given(known=st.lists(VISIBLE.filter(lambda key: len(key) >= 16), min_size=1), other=st.binary())
def test_only_known_keys_are_known(known: list[str], other: bytes) -> None:
    read = keys.read_keys(" , ".join(known))
    assert read is not None
    for key in known:
        assert read.fault({b"x-api-key": key.encode()}) is None
        assert read.fault({b"authorization": b"bEARER  " + key.encode()}) is None
        assert read.fault({b"authorization": b"Basic " + key.encode()}) == keys.MISSING
        assert read.fault({b"x-api-key": key.encode(), b"authorization": other}) is None
    if other.strip() not in {key.encode() for key in known}:
        assert read.fault({b"x-api-key": other}) == keys.UNKNOWN
        assert read.fault({b"authorization": b"Bearer " + other}) == keys.UNKNOWN
        assert read.fault({b"authorization": other}) is not None
    assert read.fault({}) == keys.MISSING


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    read = keys.read_keys(f"{FIRST},{SECOND}")
    assert read is not None
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for sent in (FIRST, SECOND, "neither", "n" * 5000):
        compared.clear()
        read.fault({b"x-api-key": sent.encode()})
        assert len(compared) == 2
        assert {len(one) + len(other) for one, other in compared} == {64}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("too-short", "key 1 of 1 has 9 characters; at least 16 are needed"),
        (f"{FIRST},", "key 2 of 2 has 0 characters"),
        (" ", "key 1 of 1 has 0 characters"),
        (f"{FIRST},sëcond-key-with-an-accent", "key 2 of 2 has other characters"),
        ("two words in one key", "key 1 of 1 has other characters"),
    ],
)
def test_unfit_keys_are_refused_and_not_shown(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONNX_API_KEYS", text)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value).startswith(f"AXONNX_API_KEYS: {words}")
    assert len(str(caught.value).splitlines()) == 1
    for key in text.split(","):
        assert not key.strip() or key.strip() not in str(caught.value)


def test_empty_keys_do_not_open_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONNX_API_KEYS", "")
    with pytest.raises(SettingsError, match=r"^AXONNX_API_KEYS: is set and empty; name"):
        read_settings()
    monkeypatch.delenv("AXONNX_API_KEYS")
    assert keys.read_keys(read_settings().api_keys.get_secret_value()) is None


def test_secrets_leave_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("axonnx_Api_Keys", FIRST)
    monkeypatch.setenv("AXONNX_TLS_KEY_PASSWORD", "secret")
    settings = read_settings()
    forget_secrets()
    assert not {FIRST, "secret"} & set(os.environ.values())
    assert settings.api_keys.get_secret_value() == FIRST
    assert FIRST not in repr(settings)


@pytest.fixture
def service() -> Iterator[Service]:
    engine = Engine(1, 1)
    settings = Settings(api_keys=FIRST, model_control=True)  # type: ignore[arg-type]
    yield Service(Repository((), artifact.load), engine, settings)
    engine.close()
    assert engine.join(5)


def test_every_route_but_the_open_ones_needs_a_key(service: Service) -> None:
    """Also those that will be added: a route is closed unless it is named here."""
    app = create_app(service)
    routes = [
        (method, route.path)
        for route in app.app.routes
        if isinstance(route, Route)
        for method in (route.methods or ())
    ]
    assert len(routes) > 20

    async def ask(method: str, path: str, key: str) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.request(method, path, headers={"X-API-Key": key})).status_code

    opened = {
        path for method, path in routes if asyncio.run(ask(method, path, "unknown-key")) != 401
    }
    assert opened <= {
        *("/", "/docs", "/openapi.json", "/page/{file}"),
        *("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"),
    }
    assert {"/health/live", "/v2/health/ready"} <= opened
    for method, path in routes:
        assert asyncio.run(ask(method, path, FIRST)) != 401, path
    for path in ("/nothing", "/page", "/health/live/", "//health/live", "/docs/../models"):
        assert asyncio.run(ask("GET", path, "unknown-key")) == 401
    assert asyncio.run(ask("GET", "/page/%2e%2e/models", "unknown-key")) == 404
    assert asyncio.run(ask("POST", "/", "unknown-key")) == 401


@pytest.fixture(scope="module")
def server(forecaster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keys")
    with running(folder, forecaster, api_keys=f"{FIRST},{SECOND}", drain_seconds=0) as server:
        yield server


def test_predictions_need_a_key(server: Server) -> None:
    for path in (
        "/predict",
        "/models/small-forecaster/predict",
        "/v2/models/small-forecaster/infer",
    ):
        response = server.client.post(path, content=WINDOW, headers=NPY)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["type"] == "unauthorized"
        assert response.json()["request_id"] == response.headers["x-request-id"]
        assert "x-artifact-id" not in response.headers
    for key in (FIRST, SECOND):
        for sent in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
            response = server.client.post("/predict", content=WINDOW, headers={**NPY, **sent})
            assert response.status_code == 200
    assert server.client.get("/models").status_code == 401
    assert server.client.get("/metrics").status_code == 401
    assert server.client.get("/health/ready").json()["ready"]


def test_any_bytes_in_a_header_are_an_unknown_key(server: Server) -> None:
    for sent in (b"\xff\xfe\x80", "schlüssel".encode(), b"", b"x" * 30_000):
        for header in (b"X-API-Key: " + sent, b"Authorization: Bearer " + sent):
            with socket.create_connection(server.url.removeprefix("http://").split(":")) as caller:
                caller.sendall(b"GET /models HTTP/1.1\r\nHost: h\r\n" + header + b"\r\n\r\n")
                assert caller.recv(12) == b"HTTP/1.1 401"


def test_a_refused_body_does_not_spoil_the_connection(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        first = client.post("/predict", content=b"x" * 5_000_000, headers=NPY)
        assert first.status_code == 401
        headers = {**NPY, "X-API-Key": FIRST}
        assert client.post("/predict", content=WINDOW, headers=headers).status_code == 200

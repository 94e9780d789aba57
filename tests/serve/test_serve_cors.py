"""Pages of other origins: none by default, those that are named, all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest

import artifact
from serve.app import create_app
from serve.engine import Engine
from serve.front import Front
from serve.repository import Repository
from serve.service import Service
from serve.settings import Settings, SettingsError, read_settings

LAB, KEY = "https://lab.example:8443", "a-key-of-many-letters"
ASKED = "authorization,content-type,x-api-key,x-request-id,inference-header-content-length"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(1, 1)
    yield engine
    engine.close()
    assert engine.join(5)


def ask(engine: Engine, method: str, path: str, origin: str, **settings: object) -> httpx.Response:
    """One request of a page of `origin`; OPTIONS asks whether it may POST with our headers."""
    service = Service(Repository((), artifact.load), engine, Settings(**settings))  # type: ignore[arg-type]
    headers = {"Origin": origin}
    if method == "OPTIONS":
        headers["Access-Control-Request-Method"] = "POST"
        headers["Access-Control-Request-Headers"] = ASKED

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def test_off_by_default(engine: Engine) -> None:
    for method in ("GET", "OPTIONS"):
        response = ask(engine, method, "/health/live", LAB)
        assert not [name for name in response.headers if name.startswith("access-control")]
    service = Service(Repository((), artifact.load), engine, Settings())
    assert isinstance(create_app(service), Front)


def test_named_origins_may_ask(engine: Engine) -> None:
    """A browser asks without the key whether it may send it, and must be able to read a 401."""
    settings = {"cors_origins": (LAB,), "api_keys": KEY}
    response = ask(engine, "OPTIONS", "/v2/models/m/infer", LAB, **settings)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == LAB
    assert "POST" in response.headers["access-control-allow-methods"]
    allowed = response.headers["access-control-allow-headers"].lower().split(", ")
    assert {*ASKED.split(","), "accept"} <= set(allowed)
    response = ask(engine, "POST", "/predict", LAB, **settings)
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == LAB
    exposed = response.headers["access-control-expose-headers"].lower().split(", ")
    assert set(exposed) == {
        *("x-request-id", "x-artifact-id", "retry-after", "inference-header-content-length"),
    }
    assert "access-control-allow-credentials" not in response.headers


def test_others_may_not(engine: Engine) -> None:
    for origin in ("https://lab.example", "http://lab.example:8443", "null", f"{LAB}.evil.example"):
        response = ask(engine, "OPTIONS", "/predict", origin, cors_origins=(LAB,))
        assert response.status_code == 400
        assert "access-control-allow-origin" not in response.headers
        assert set(response.json()) == {"error", "type", "field", "request_id"}
        assert response.json()["type"] == "invalid_request"
        assert "origin" in response.json()["error"]
        assert response.json()["request_id"] == response.headers["x-request-id"]
        response = ask(engine, "GET", "/health/live", origin, cors_origins=(LAB,))
        assert "access-control-allow-origin" not in response.headers
    response = ask(engine, "GET", "/health/live", "null", cors_origins=("*",))
    assert response.headers["access-control-allow-origin"] == "*"


def test_every_answer_to_a_question_before_has_a_request_id(engine: Engine) -> None:
    response = ask(engine, "OPTIONS", "/predict", LAB, cors_origins=(LAB,))
    assert response.status_code == 200
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("origin", "origins", "status"),
    [
        ("https://evil.example", (), 403),
        ("null", (), 403),
        ("", (), 403),
        ("http://test.evil.example", (), 403),
        ("http://test:8000", (), 403),
        ("https://evil.example", (LAB,), 403),
        ("http://[", (), 403),
        ("http://test", (), 404),
        ("https://test", (), 404),  # what ends TLS before the service calls it by http
        (LAB, (LAB,), 404),
        ("https://evil.example", ("*",), 404),
    ],
)
def test_strange_pages_change_nothing(
    engine: Engine, origin: str, origins: tuple[str, ...], status: int
) -> None:
    """A browser sends a POST without a body, or with a plain text, without asking first."""
    for word in ("load", "unload"):
        path = f"/v2/repository/models/some/{word}"
        response = ask(engine, "POST", path, origin, cors_origins=origins, model_control=True)
        assert response.status_code == status
        if status == 403:
            assert response.json()["type"] == "forbidden"
            assert "AXONNX_CORS_ORIGINS" in response.json()["error"]


def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXONNX_CORS_ORIGINS", f"{LAB}, http://localhost:3000 ,")
    assert read_settings().cors_origins == (LAB, "http://localhost:3000")
    for wrong in (f"{LAB}/", "lab.example", "https://Lab.example", "https://", f"{LAB} {LAB}"):
        monkeypatch.setenv("AXONNX_CORS_ORIGINS", wrong)
        with pytest.raises(SettingsError, match=r"AXONNX_CORS_ORIGINS: .* is no origin: scheme://"):
            read_settings()

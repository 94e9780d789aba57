"""Our own routes for programs: health, models, and the document that describes all routes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from server_process import Server, running

import artifact
from artifact.arrays import encode_npy
from serve import schemas, v2_schemas
from serve.app import create_app
from serve.engine import Engine
from serve.front import Front
from serve.keys import HEALTH
from serve.repository import Repository
from serve.service import Service
from serve.settings import Settings

NPY = {"Content-Type": "application/x-npy"}
WINDOW = np.ones((2, 20, 4, 9), np.float32)


@pytest.fixture(scope="module")
def server(forecaster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("routes"), forecaster) as server:
        yield server


@pytest.mark.parametrize("path", sorted(HEALTH))
def test_health_answers_head_as_get_without_a_body(server: Server, path: str) -> None:
    head, get = server.client.head(path), server.client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == get.headers["content-length"]
    server.client.post("/predict", content=b"", headers=NPY)  # the connection is still in order


def test_head_says_not_ready(server: Server, tmp_path: Path, forecaster: Path) -> None:
    with running(tmp_path, forecaster, model_control="true") as other:
        other.client.post("/v2/repository/models/small-forecaster/unload")
        for path in ("/health/ready", "/v2/health/ready"):
            assert other.client.head(path).status_code == 503
            error = other.client.get(path).json()
            assert (error["type"], error["error"]) == ("not_ready", "no model is loaded")
        assert other.client.head("/health/live").status_code == 200


def test_only_predictions_count_as_predictions(server: Server) -> None:
    def statistics() -> Any:
        path = "/v2/models/small-forecaster/stats"
        return server.client.get(path).json()["model_stats"][0]["inference_stats"]

    before = statistics()
    known = server.client.get("/models").json()["models"]["small-forecaster"]
    about = "/models/small-forecaster"
    for path in ("/model", about, f"{about}/card", f"{about}/golden"):
        response = server.client.get(path)
        assert response.status_code == 200
        assert response.headers.get_list("x-artifact-id") == [known]
    assert statistics() == before
    content = encode_npy(WINDOW)
    assert server.client.post("/predict", content=content, headers=NPY).status_code == 200
    assert statistics()["success"]["count"] == before["success"]["count"] + 1


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/health/live", schemas.Live),
        ("/health/ready", schemas.ServiceReady),
        ("/v2/health/live", schemas.Live),
        ("/v2/health/ready", v2_schemas.Ready),
        ("/models", schemas.Models),
        ("/model", schemas.Description),
        ("/models/small-forecaster", schemas.Description),
    ],
)
def test_answers_are_as_the_models_say(server: Server, path: str, model: type[BaseModel]) -> None:
    response = server.client.get(path)
    assert response.headers["content-type"] == "application/json"
    model.model_validate_json(response.content, strict=True)


def documented(server: Server, method: str, path: str, status: int) -> dict[str, Any]:
    """The answer's schema in the document, which must list the status."""
    document = server.client.get("/openapi.json").json()
    responses = document["paths"][path][method]["responses"]
    assert str(status) in responses
    schema = responses[str(status)]["content"]["application/json"]["schema"]
    return {**schema, "components": document["components"]}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"inputs": {"neural": WINDOW.tolist()}}, {}, 200),
        ({"inputs": {}}, {}, 400),
        ({"inputs": {"neural": WINDOW.tolist()}}, {"Accept": "text/csv"}, 406),
        ({}, {"Content-Type": "text/csv"}, 415),
    ],
)
def test_predictions_answer_as_documented(
    server: Server, body: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    for path in ("/predict", "/models/{name}/predict"):
        response = server.client.post(
            path.format(name="small-forecaster"), json=body, headers=headers
        )
        assert response.status_code == status
        jsonschema.validate(response.json(), documented(server, "post", path, status))


def test_a_strange_model_answers_as_documented(server: Server) -> None:
    for path in ("/models/{name}", "/v2/models/{name}"):
        response = server.client.get(path.format(name="none"))
        assert response.status_code == 404
        jsonschema.validate(response.json(), documented(server, "get", path, 404))


def make_document(**settings: Any) -> dict[str, Any]:
    engine = Engine(1, 1)
    try:
        app = create_app(Service(Repository((), artifact.load), engine, Settings(**settings)))
        assert isinstance(app, Front)
        assert isinstance(app.app, FastAPI)
        return app.app.openapi()
    finally:
        engine.close()
        assert engine.join(5)


def test_every_route_of_the_document_names_its_errors_and_its_key() -> None:
    opened, closed = make_document(), make_document(api_keys="a-key-of-many-letters")
    assert opened["paths"].keys() == closed["paths"].keys()
    assert "securitySchemes" not in opened["components"]
    (name,) = closed["components"]["securitySchemes"]
    assert closed["components"]["securitySchemes"][name] == {"type": "http", "scheme": "bearer"}
    for path, operations in closed["paths"].items():
        for method, operation in operations.items():
            plain = opened["paths"][path][method]
            assert "security" not in plain
            assert not {"401", "422"} & set(plain["responses"])
            if path in HEALTH:
                assert "security" not in operation
                assert "401" not in operation["responses"]
            else:
                assert operation["security"] == [{name: []}]
                assert "401" in operation["responses"]
            for status, answer in operation["responses"].items():
                if status != "200":
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (path, status)
                elif path != "/metrics":
                    assert answer["content"]["application/json"]["schema"], path

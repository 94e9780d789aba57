"""What the routes share: the model of a prediction, JSON answers, the artifact's header."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response

from serve.negotiation import JSON
from serve.repository import Served
from serve.service import Service


def find(service: Service, request: Request, name: str | None, version: str | None) -> Served:
    """The model of a prediction: its answer counts for the model and names the artifact."""
    served = service.repository.find(name, version)
    request.scope["served"] = served
    return served


def answer(value: Any) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), media_type=JSON)


def about(served: Served, value: Any) -> Response:
    """A JSON answer about a model: it names the artifact, and does not count as a prediction."""
    return Response(orjson.dumps(value), media_type=JSON, headers=artifact_header(served))


def artifact_header(served: Served) -> dict[str, str]:
    """The header that says which artifact an answer comes from."""
    return {"X-Artifact-Id": served.model.id}

"""The probes of an orchestrator: our own paths, and those of the V2 protocol."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from serve import schemas, v2_schemas
from serve.answers import answer
from serve.service import Service


def add_health(api: FastAPI, service: Service) -> None:
    """Add `/health/…` and `/v2/health/…`, for GET and HEAD."""
    repository, engine = service.repository, service.engine

    async def live() -> Response:
        """The process answers."""
        return answer({"live": True})

    async def ready() -> Response:
        """Loading is over, at least one model answers, and the service is not about to stop.

        Whatever answers was verified, has passed its golden test and is warm.
        """
        repository.check_ready()
        return answer({"ready": True, "pending": engine.pending})

    async def v2_ready() -> Response:
        """As `/health/ready`."""
        repository.check_ready()
        return answer({"ready": True})

    for path, route, responses in (
        ("/health/live", live, schemas.answers(schemas.Live)),
        ("/health/ready", ready, schemas.answers(schemas.ServiceReady, 503)),
        ("/v2/health/live", live, schemas.answers(schemas.Live)),
        ("/v2/health/ready", v2_ready, schemas.answers(v2_schemas.Ready, 503)),
    ):
        api.get(path, responses=responses)(route)
        api.head(path, include_in_schema=False)(route)

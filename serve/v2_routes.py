"""The routes of the V2 Open Inference Protocol."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from serve.errors import NotSupported
from serve.front import Handler
from serve.service import Service


def add_v2(api: FastAPI, service: Service) -> Handler:
    """Add the routes; gives the handler of `infer`."""

    async def infer(request: Request, name: str | None, version: str | None) -> Response:
        raise NotSupported("not yet")

    return infer

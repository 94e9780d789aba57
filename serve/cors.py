"""Pages of other origins: which may call, and which may change what is served."""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from serve.errors import Forbidden, RequestError, error_response
from serve.front import request_id
from serve.settings import PREFIX
from serve.v2 import HEADER_LENGTH


class Shared(CORSMiddleware):
    """The application for pages of these origins too; a browser sends them no key by itself."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=(
                *("Authorization", "X-API-Key", "X-Request-Id", "traceparent", HEADER_LENGTH),
            ),
            expose_headers=("X-Request-Id", "X-Artifact-Id", "Retry-After", HEADER_LENGTH),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Whether a page may ask this; where not, the error body of every route."""
        response = super().preflight_response(request_headers)
        known = request_id(dict(request_headers.raw))
        if response.status_code >= 400:
            kept = {
                name: value
                for name, value in response.headers.items()
                if name not in ("content-length", "content-type")
            }
            words = bytes(response.body).decode().removeprefix("Disallowed CORS ")
            text = f"no page may send this from there (what is not allowed: {words})"
            response = error_response(
                response.status_code, RequestError.kind, text, known, headers=kept
            )
        response.headers["X-Request-Id"] = known
        return response


def refuse_strange_page(request: Request, origins: tuple[str, ...]) -> None:
    """Raise Forbidden for a request of a page that is neither our own nor of these origins.

    A browser sends some of them without asking first. Who calls without a browser names no origin.
    Only the authority is compared: what ends TLS before us changes the scheme.
    """
    origin = request.headers.get("origin")
    if origin is None or origin in origins or "*" in origins:
        return
    if origin.partition("://")[2] != request.headers.get("host"):
        raise Forbidden(
            f"pages of {origin[:100]!r} may not change what is served; "
            f"{PREFIX}CORS_ORIGINS names those that may"
        )

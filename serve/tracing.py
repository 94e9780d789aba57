"""OpenTelemetry: a span per request, beginning in the caller's trace, sent over OTLP/HTTP.

Where spans go, how many, and under what name is said by the standard variables `OTEL_EXPORTER_…`,
`OTEL_TRACES_SAMPLER…`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_…`. The libraries
are those of the extra `otel`; they are imported where tracing is set, and nowhere else.
Attributes are those of the semantic conventions for HTTP servers, and `axonnx.…`.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.settings import PREFIX, SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

INSTALL = "uv sync --extra serve --extra cpu --extra otel"
# So long may the last spans take to a collector; one that does not answer holds up no end.
FLUSH_SECONDS = 3.0
_PREDICTION = re.compile(r"(/v2|)/models/[^/]+(/versions/[^/]+|)/(infer|predict)")


class Tracing:
    """Makes spans, and sends them from a thread of its own."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("axonnx")

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application with a span around every request; `scope` gets its `trace_id`."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            status = None

            async def watch(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            with self._start(scope) as span:
                scope["trace_id"] = f"{span.get_span_context().trace_id:032x}"
                try:
                    await app(scope, receive, watch)
                finally:
                    _describe(span, scope, status)

        return traced

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Send what is left, but wait no longer for it than so."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(seconds)

    def _start(self, scope: Scope) -> Any:
        from opentelemetry import propagate, trace

        known = propagate.get_global_textmap().fields
        carrier = {
            key: value.decode("latin-1")
            for name, value in scope["headers"]
            if (key := name.decode("latin-1")) in known
        }
        attributes: dict[str, Any] = {
            "http.request.method": scope["method"],
            "url.scheme": scope["scheme"],
            "url.path": scope["path"],
            "network.protocol.version": scope["http_version"],
        }
        if scope["client"]:
            attributes["client.address"] = scope["client"][0]
        return self._tracer.start_as_current_span(
            scope["method"],
            context=propagate.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
        )


def start_tracing() -> Tracing:
    """Tracing as the environment says; raises SettingsError where the libraries are missing."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        text = f"{PREFIX}TRACING: {error.name} is not installed; get it with `{INSTALL}`"
        raise SettingsError(text) from None
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "axonnx"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    try:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"OTEL_…: {error}") from None
    return Tracing(provider)


def _describe(span: Span, scope: Scope, status: int | None) -> None:
    """Write down what became of a request."""
    from opentelemetry.trace import StatusCode

    served = scope.get("served")
    route = _route(scope)
    values = {
        "http.route": route,
        "http.response.status_code": status,
        "error.type": scope.get("error_type"),
        "axonnx.request_id": scope.get("request_id"),
        "axonnx.model": served and served.name,
        "axonnx.version": served and served.version,
        "axonnx.artifact": served and served.model.id,
        "axonnx.rows": scope.get("rows"),
        "axonnx.queue_wait_seconds": scope.get("waited"),
    }
    span.set_attributes({name: value for name, value in values.items() if value is not None})
    if route is not None:
        span.update_name(f"{scope['method']} {route}")
    if status is not None and status >= 500:
        span.set_status(StatusCode.ERROR)


def _route(scope: Scope) -> str | None:
    """The path with names in place of what varies; None where no route was found."""
    if (route := scope.get("route")) is not None:
        return str(route.path)
    path = scope["path"]
    if found := _PREDICTION.fullmatch(path):
        versions = "/versions/{version}" if found[2] else ""
        return f"{found[1]}/models/{{name}}{versions}/{found[3]}"
    return "/predict" if path == "/predict" else None

"""Spans of a real process, as a collector receives them over OTLP/HTTP."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from server_process import ROOT, Server

from artifact.arrays import encode_npy

NPY = {"Content-Type": "application/x-npy"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Takes spans, and keeps them."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[Any] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                outer.headers.append(self.headers)
                outer.requests.append(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *values: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def plain(attributes: list[KeyValue]) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in attributes
    }


def test_spans_reach_a_collector(
    collector: Collector, forecaster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=lab")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")  # what comes, comes at the end
    server = Server(
        tmp_path / "log", forecaster, tracing="true", access_log="true", drain_seconds=0
    )
    window = encode_npy(np.ones((3, 20, 4, 9), np.float32))
    headers = {**NPY, "X-Request-Id": "traced", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = server.client.post("/models/small-forecaster/predict", content=window, headers=headers)
    assert answer.status_code == 200
    server.client.get("/v2/models/small-forecaster/versions/1/ready")
    server.client.post("/v2/models/none/infer", content=b"{}")
    server.client.get("/nothing/of/the/kind", headers={"traceparent": "nonsense"})
    assert server.stop() == 0
    assert server.log.read_text() == ""

    (resource,) = {
        tuple(plain(resource.resource.attributes).items())
        for request in collector.requests
        for resource in request.resource_spans
    }
    assert {"service.name": "axonnx", "deployment.environment.name": "test"}.items() <= dict(
        resource
    ).items()
    assert {headers["x-tenant"] for headers in collector.headers} == {"lab"}

    spans = {span.name: span for span in collector.spans()}
    assert sorted(spans) == [
        "GET",
        "GET /v2/models/{name}/versions/{version}/ready",
        "POST /models/{name}/predict",
        "POST /v2/models/{name}/infer",
    ]
    span = spans["POST /models/{name}/predict"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.kind == span.SPAN_KIND_SERVER
    assert span.start_time_unix_nano < span.end_time_unix_nano
    values = plain(span.attributes)
    assert 0 <= values.pop("axonnx.queue_wait_seconds") < 30
    assert values == {
        "http.request.method": "POST",
        "http.route": "/models/{name}/predict",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/models/small-forecaster/predict",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "axonnx.request_id": "traced",
        "axonnx.model": "small-forecaster",
        "axonnx.version": "1",
        "axonnx.artifact": answer.headers["x-artifact-id"],
        "axonnx.rows": 3,
    }
    values = plain(spans["POST /v2/models/{name}/infer"].attributes)
    assert (values["http.response.status_code"], values["error.type"]) == (404, "not_found")
    assert spans["GET"].parent_span_id == b""
    assert f"trace_id={TRACE}" in server.last_words


def test_a_collector_that_is_not_there_holds_nothing_up(
    forecaster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    server = Server(
        tmp_path / "log", forecaster, tracing="true", log_level="error", drain_seconds=0
    )
    assert server.client.get("/health/ready").status_code == 200
    start = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - start < 10


def test_missing_libraries_are_named(forecaster: Path) -> None:
    code = (
        "import os, sys\n"
        "import serve.cli\n"
        "used = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"
        "assert not [name for name in sys.modules if name.startswith(used)]\n"
        "sys.modules['opentelemetry.exporter'] = None\n"
        "os.environ['AXONNX_TRACING'] = 'true'\n"
        "sys.exit(serve.cli.main(['serve', sys.argv[1], '--port', '0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, forecaster], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("axonnx: error: AXONNX_TRACING: opentelemetry.exporter")
    assert "get it with `uv sync --extra serve --extra cpu --extra otel`" in done.stderr

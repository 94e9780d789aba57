"""`GET /metrics` for Prometheus: the service's counts as they are when someone asks.

Nothing is done for it while requests are answered. Counts belong to a model's name and version and
go on where it is loaded again, so that no counter falls while the process lives; requests that
concern no model have an empty `model` and `version`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.responses import Response

from serve.repository import Repository
from serve.schemas import ERRORS, ErrorBody
from serve.service import Service
from serve.statistics import Histogram, Statistics

MODEL = ("model", "version")
Counts = dict[tuple[str, str], Statistics]  # by name and version


class ServiceCollector(Collector):
    """Reads the counts of a service, from any thread: what may grow meanwhile is copied first."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """All metrics of the service."""
        models = self._service.repository.statistics
        yield from _answers({("", ""): self._service.statistics, **models})
        yield from _runs(models)
        yield from _models(self._service.repository)
        yield from self._now()

    def _now(self) -> Iterator[Metric]:
        service = self._service
        engine = service.engine
        for name, text, value in (
            (
                "axonnx_ready",
                "1 where models are served and the service stays.",
                int(service.repository.ready),
            ),
            ("axonnx_connections", "Open connections.", len(service.connections)),
            ("axonnx_queue_depth", "Predictions that wait for a run.", engine.waiting),
            (
                "axonnx_pending",
                "Predictions whose bodies are there, and that have no answer yet.",
                engine.pending,
            ),
            (
                "axonnx_pending_bytes",
                "Bytes of bodies, of those that are being read too.",
                engine.pending_bytes,
            ),
        ):
            yield GaugeMetricFamily(name, text, value)
        text = "Predictions refused because max_pending others were pending."
        yield CounterMetricFamily("axonnx_rejected", text, engine.rejected)


def add_metrics(api: FastAPI, service: Service) -> None:
    """Add the route."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(service))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    text = {"schema": {"type": "string"}}
    content = {"text/plain": text, "application/openmetrics-text": text}

    refused = {"model": ErrorBody, "description": ERRORS[401]}

    @api.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": content}, 401: refused},
    )
    async def metrics(request: Request) -> Response:
        """The counts, as Prometheus reads them."""
        encode, content_type = choose_encoder(", ".join(request.headers.getlist("accept")))
        content = await asyncio.to_thread(encode, registry)  # milliseconds for many models
        return Response(content, headers={"Content-Type": content_type})


def _answers(counts: Counts) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "axonnx_requests", "Answers.", labels=(*MODEL, "protocol", "status")
    )
    errors = CounterMetricFamily(
        "axonnx_errors", "Errors, by the type in their body.", labels=("model", "type")
    )
    failed: Counter[tuple[str, str]] = Counter()
    for (name, version), statistics in counts.items():
        for (protocol, status), count in dict(statistics.requests).items():
            requests.add_metric((name, version, protocol, str(status)), count)
        for kind, count in dict(statistics.errors).items():
            failed[name, kind] += count
    for labels, count in failed.items():
        errors.add_metric(labels, count)
    yield requests
    yield errors
    text = "Seconds from the head of a request to the end of its answer."
    yield _histogram(
        "axonnx_request_seconds",
        text,
        {key: statistics.seconds for key, statistics in counts.items()},
    )


def _runs(counts: Counts) -> Iterator[Metric]:
    yield _histogram(
        "axonnx_queue_wait_seconds",
        "Seconds that a prediction waited for its run.",
        {key: statistics.waits for key, statistics in counts.items()},
    )
    yield _histogram(
        "axonnx_batch_rows",
        "Rows of a run.",
        {key: statistics.rows for key, statistics in counts.items()},
    )
    yield _histogram(
        "axonnx_run_seconds",
        "Seconds that a run took.",
        {key: statistics.runs for key, statistics in counts.items()},
    )


def _models(repository: Repository) -> Iterator[Metric]:
    info = InfoMetricFamily("axonnx_model", "What answers under a name and version.", labels=MODEL)
    ready = GaugeMetricFamily("axonnx_model_ready", "1 where the model answers.", labels=MODEL)
    states = {(listing.name, listing.version): 0 for listing in repository.failures}
    for served in repository.served:
        key = served.name, served.version
        states[key] = 1
        info.add_metric(key, {"artifact": served.model.id, "provider": served.model.providers[0]})
    for (name, version), state in states.items():
        ready.add_metric((name, version), state)
    yield info
    yield ready


def _histogram(name: str, text: str, histograms: dict[tuple[str, str], Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=MODEL)
    for key, histogram in histograms.items():
        bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
        counts = accumulate(list(histogram.counts))
        family.add_metric(key, list(zip(bounds, counts, strict=True)), histogram.total)
    return family

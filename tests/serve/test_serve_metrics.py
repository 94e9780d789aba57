"""What Prometheus reads, by the parsers of its own library."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text
from server_process import Server, running
from small_artifacts import write_forecaster

import artifact
from artifact.arrays import encode_npy
from serve.engine import Engine
from serve.metrics import ServiceCollector
from serve.repository import Repository
from serve.service import Service
from serve.settings import Settings

NPY = {"Content-Type": "application/x-npy"}
OPEN = {"Accept": "application/openmetrics-text; version=1.0.0"}
Labels = dict[str, str]


class Scrape:
    """The samples of one answer."""

    def __init__(self, families: Iterator[Metric]) -> None:
        self.families = list(families)
        self.samples = [sample for family in self.families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str) -> list[Labels]:
        return [sample.labels for sample in self.samples if sample.name == name]


def scrape(server: Server) -> Scrape:
    response = server.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return Scrape(parse_text(response.text))


def predict(server: Server, path: str, rows: int) -> httpx.Response:
    content = encode_npy(np.ones((rows, 20, 4, 9), np.float32))
    return server.client.post(path, content=content, headers=NPY)


@pytest.fixture(scope="module")
def paths(forecaster: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models, one artifact that does not hold, and one whose name is no text."""
    folder = tmp_path_factory.mktemp("metrics")
    damaged = write_forecaster(folder / "damaged", name="broken")
    (damaged / "config.yaml").write_text("damaged: true\n")
    nameless = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.zip"))
    nameless.write_bytes(b"no zip")
    return [forecaster, write_forecaster(folder / "other", name="other"), damaged, nameless]


@pytest.fixture(scope="module")
def server(paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("metrics_log") / "log"
    server = Server(log, *paths, model_control="true", drain_seconds=0)
    yield server
    assert server.stop() == 0


def test_every_answer_is_counted_once(server: Server) -> None:
    before = scrape(server)
    sizes = [1, 2, 3, 1]
    for rows in sizes:
        assert predict(server, "/models/other/predict", rows).status_code == 200
    tensor = {"name": "neural", "shape": [1, 20, 4, 9], "datatype": "FP32", "data": [0.5] * 720}
    infer = "/v2/models/other/infer"
    assert server.client.post(infer, json={"inputs": [tensor]}).status_code == 200
    assert server.client.post("/models/other/predict", content=b"x", headers=NPY).status_code == 400
    assert server.client.post(infer, content=b"{").status_code == 400
    assert predict(server, "/models/none/predict", 1).status_code == 404
    after = scrape(server)

    def grown(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    requests, other = "axonnx_requests_total", {"model": "other", "version": "1"}
    assert grown(requests, **other, protocol="rest", status="200") == 4
    assert grown(requests, **other, protocol="v2", status="200") == 1
    assert grown(requests, **other, protocol="rest", status="400") == 1
    assert grown(requests, **other, protocol="v2", status="400") == 1
    assert grown(requests, model="", version="", status="404") == 1
    assert grown(requests, model="", status="200") == 1  # the scrape before
    assert grown(requests, model="small-forecaster") == 0
    assert grown("axonnx_errors_total", model="other", type="invalid_input") == 1
    assert grown("axonnx_errors_total", model="other") == 2
    assert grown("axonnx_errors_total", model="", type="not_found") == 1
    assert grown("axonnx_request_seconds_count", **other) == 7
    assert 0 < grown("axonnx_request_seconds_sum", **other) < 60
    assert grown("axonnx_queue_wait_seconds_count", **other) == 5
    assert grown("axonnx_batch_rows_sum", **other) == sum(sizes) + 1
    runs = grown("axonnx_run_seconds_count", **other)
    assert runs == grown("axonnx_batch_rows_count", **other) == 5  # one caller: nothing to join
    assert grown("axonnx_run_seconds_sum", **other) > 0


def test_models_and_the_process_are_described(server: Server) -> None:
    now = scrape(server)
    listed = server.client.get("/models").json()["models"]
    found = {labels["model"]: labels for labels in now.labels("axonnx_model_info")}
    assert {name: labels["artifact"] for name, labels in found.items()} == listed
    assert found["other"]["provider"] == "CPUExecutionProvider"
    assert now.total("axonnx_model_ready", model="other") == 1
    assert len(now.labels("axonnx_model_ready")) == 4
    assert now.total("axonnx_model_ready") == 2
    assert {"model": "\\udcff.zip", "version": ""} in now.labels("axonnx_model_ready")
    assert now.total("axonnx_ready") == 1
    assert now.total("axonnx_connections") >= 1
    assert now.total("axonnx_queue_depth") == now.total("axonnx_pending") == 0
    assert now.total("axonnx_pending_bytes") == 0
    assert 50e6 < now.total("process_resident_memory_bytes") < 400e6


def test_openmetrics_for_those_who_ask(server: Server) -> None:
    response = server.client.get("/metrics", headers=OPEN)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name for family in parse_open(response.text)}
    text = {family.name for family in scrape(server).families}
    assert {name.removesuffix("_info") for name in text} == {
        name.removesuffix("_info") for name in families
    }


def test_buckets_rise_and_end_with_the_count(server: Server) -> None:
    predict(server, "/models/other/predict", 1)
    for family in scrape(server).families:
        if family.type != "histogram":
            continue
        series: dict[tuple[str, ...], list[float]] = {}
        for sample in family.samples:
            key = sample.labels.get("model", ""), sample.labels.get("version", "")
            if sample.name.endswith("_bucket"):
                series.setdefault(key, []).append(sample.value)
            elif sample.name.endswith("_count"):
                assert series[key] == sorted(series[key])
                assert series[key][-1] == sample.value


def test_a_reload_and_an_unload_take_nothing_away(server: Server) -> None:
    name = "small-forecaster"
    assert predict(server, f"/models/{name}/predict", 2).status_code == 200
    before = scrape(server).total("axonnx_requests_total", model=name, status="200")
    for change in ("load", "unload"):
        url = f"/v2/repository/models/{name}/{change}"
        assert server.client.post(url).status_code == 200
        after = scrape(server)
        assert after.total("axonnx_requests_total", model=name, status="200") >= before
        assert after.total("axonnx_model_ready", model=name) == (change == "load")
        assert len(after.labels("axonnx_model_info")) == (2 if change == "load" else 1)
    assert server.client.post(f"/v2/repository/models/{name}/load").status_code == 200
    assert predict(server, f"/models/{name}/predict", 1).status_code == 200
    after = scrape(server)
    assert after.total("axonnx_requests_total", model=name, status="200") >= before + 1


def test_what_is_no_request_counts_as_an_error(server: Server) -> None:
    before = scrape(server)
    with socket.create_connection(server.url.removeprefix("http://").split(":")) as caller:
        caller.sendall(b"this is no HTTP\r\n\r\n")
        assert b" 400 " in caller.recv(1000)
    after = scrape(server)
    for name, count in (("axonnx_errors_total", 1), ("axonnx_requests_total", 1)):
        kind = {"type": "malformed_request"} if count and "errors" in name else {"status": "200"}
        assert after.total(name, model="", **kind) == before.total(name, model="", **kind) + count


def test_pending_and_waiting_predictions(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, tiny, max_rows=1, slots=1) as server:
        content = encode_npy(np.ones((50_000, 20, 1, 1), np.float32))
        threads = [
            threading.Thread(
                target=httpx.post,
                args=(f"{server.url}/predict",),
                kwargs={"content": content, "headers": NPY, "timeout": 60},
            )
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        limit = time.monotonic() + 20
        while (now := scrape(server)).total("axonnx_queue_depth") < 2:
            assert time.monotonic() < limit
        assert now.total("axonnx_pending") == 3
        assert now.total("axonnx_pending_bytes") == 3 * len(content)
        assert now.total("axonnx_connections") >= 4
        for thread in threads:
            thread.join()
        now = scrape(server)
        assert now.total("axonnx_pending") == now.total("axonnx_queue_depth") == 0
        assert now.total("axonnx_queue_wait_seconds_count") == 3


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    engine = Engine(1, 1)
    yield Service(Repository((), artifact.load), engine, Settings())
    engine.close()
    assert engine.join(5)


@given(st.lists(st.floats(0, 100) | st.sampled_from([0.0005, 0.01, 30.0])))
def test_a_bucket_holds_all_up_to_its_bound(service: Service, values: list[float]) -> None:
    lone = Service(service.repository, service.engine, service.settings)
    for value in values:
        lone.statistics.count_answer("rest", 200, value)
    (family,) = (
        family
        for family in ServiceCollector(lone).collect()
        if family.name == "axonnx_request_seconds"
    )
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            assert sample.value == sum(value <= float(sample.labels["le"]) for value in values)
    assert math.isclose(family.samples[-1].value, math.fsum(values), abs_tol=1e-6)


def test_counts_of_one_name_and_version_survive_a_load(forecaster: Path) -> None:
    repository = Repository((forecaster,), artifact.load)
    (first,) = repository.load_all()
    (second,) = repository.load("small-forecaster")
    assert second is not first
    assert second.statistics is first.statistics
    assert repository.statistics == {("small-forecaster", "1"): first.statistics}

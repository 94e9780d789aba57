"""The service as a process: answers equal to `Model.predict`, limits, and every kind of error."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from server_process import Server, running

import artifact
from artifact.arrays import Array, decode_npy, decode_npz, encode_npy, encode_npz
from serve.negotiation import JSON, NPY, NPZ


def windows(rows: int, seed: int = 0, channels: int = 4, features: int = 9) -> Array:
    generator = np.random.default_rng(seed)
    return generator.normal(0, 3, (rows, 20, channels, features)).astype(np.float32)


def decoding(rows: int) -> dict[str, Array]:
    generator = np.random.default_rng(5)
    behavior = generator.normal(size=(rows, 20, 2)).astype(np.float32)
    behavior[0, 3, 1] = 1e-42
    return {
        "neural": generator.normal(size=(rows, 20, 6, 1)).astype(np.float32),
        "behavior": behavior,
        "behavior_mask": generator.random((rows, 20)) < 0.5,
    }


def ask(server: Server, inputs: dict[str, Array], body: str, accept: str) -> httpx.Response:
    headers = {"Content-Type": body, "Accept": accept}
    if body == JSON:
        content = httpx.Request(
            "POST", "/", json={"inputs": {key: value.tolist() for key, value in inputs.items()}}
        ).content
    elif body == NPY:
        content = encode_npy(next(iter(inputs.values())))
    else:
        content = encode_npz(inputs)
    return server.client.post("/predict", content=content, headers=headers)


def read(response: httpx.Response, output: str) -> Array:
    assert response.status_code == 200, response.text
    form = response.headers["content-type"]
    if form == NPY:
        return decode_npy(response.content)
    if form == NPZ:
        (name,) = arrays = decode_npz(response.content)
        assert name == output
        return arrays[name]
    return np.array(response.json()["outputs"][output], np.float32)


@pytest.mark.parametrize("body", [JSON, NPY, NPZ])
@pytest.mark.parametrize("accept", [JSON, NPY, NPZ, "*/*"])
@pytest.mark.parametrize("rows", [1, 37])
def test_answers_are_those_of_predict(
    forecast_server: Server, forecaster_model: artifact.Model, body: str, accept: str, rows: int
) -> None:
    inputs = {"neural": windows(rows)}
    expected = forecaster_model.predict(inputs)["forecast"]
    response = ask(forecast_server, inputs, body, accept)
    assert read(response, "forecast").tobytes() == expected.tobytes()
    assert response.headers["content-type"] == (body if accept == "*/*" else accept)
    assert response.headers["x-artifact-id"] == forecaster_model.id
    if accept == JSON:
        answer = response.json()
        assert list(answer) == ["outputs", "artifact", "model"]
        assert answer["artifact"] == forecaster_model.id
        assert answer["model"] == "small-forecaster"


@pytest.mark.parametrize("body", [JSON, NPZ])
@pytest.mark.parametrize("accept", [JSON, NPY, NPZ])
def test_two_more_inputs_than_one(
    decode_server: Server, decoder_model: artifact.Model, body: str, accept: str
) -> None:
    inputs = decoding(5)
    expected = decoder_model.predict(inputs)["probability"]
    got = read(ask(decode_server, inputs, body, accept), "probability")
    assert got.tobytes() == expected.tobytes()


def test_concurrent_answers_are_the_lone_answers(
    forecast_server: Server, forecaster_model: artifact.Model
) -> None:
    def one(seed: int) -> bool:
        inputs = {"neural": windows(1 + seed % 7, seed)}
        expected = forecaster_model.predict(inputs)["forecast"]
        form = (JSON, NPY, NPZ)[seed % 3]
        return read(ask(forecast_server, inputs, form, form), "forecast").tobytes() == (
            expected.tobytes()
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(96)))


def test_what_a_model_says_of_itself(
    forecast_server: Server, forecaster_model: artifact.Model, forecaster: Path
) -> None:
    client = forecast_server.client
    said = client.get("/model").json()
    assert said == client.get("/models/small-forecaster").json()
    assert said["artifact"] == forecaster_model.id
    assert said["providers"] == ["CPUExecutionProvider"]
    assert said["golden"]["identical"] is True
    assert artifact.Manifest.from_json(artifact.read(forecaster).manifest.to_json()).to_json() == (
        forecaster_model.manifest.to_json()
    )
    assert said["manifest"]["inputs"][0]["name"] == "neural"
    assert client.get("/models").json() == {
        "models": {"small-forecaster": forecaster_model.id},
        "failures": [],
        "started": True,
    }
    assert client.get("/health/live").json() == {"live": True}
    assert client.get("/health/ready").json() == {"ready": True, "pending": 0}
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths["/predict"]["post"]["requestBody"]["content"]) == {JSON, NPY, NPZ}
    listening, loaded, ready = forecast_server.said
    assert listening == f"axonnx: listening on {forecast_server.url}"
    assert loaded.startswith(
        f"axonnx: model small-forecaster version 1, artifact {forecaster_model.id[:12]}, "
        "on CPUExecutionProvider"
    )
    assert ready == "axonnx: ready"


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status", "kind", "field"),
    [
        ("GET", "/nothing", {}, b"", 404, "not_found", None),
        ("GET", "/predict/", {}, b"", 404, "not_found", None),
        ("GET", "/predict", {}, b"", 405, "method_not_allowed", None),
        ("POST", "/model", {}, b"", 405, "method_not_allowed", None),
        ("GET", "/models/other", {}, b"", 404, "not_found", None),
        ("POST", "/models/other/predict", {}, b"", 404, "not_found", None),
        ("POST", "/predict", {}, b"{}", 415, "unsupported_media_type", None),
        (
            "POST",
            "/predict",
            {"Content-Type": "text/csv"},
            b"1",
            415,
            "unsupported_media_type",
            None,
        ),
        (
            "POST",
            "/predict",
            {"Content-Type": NPY, "Content-Encoding": "br"},
            b"1",
            415,
            "unsupported_media_type",
            None,
        ),
        (
            "POST",
            "/predict",
            {"Content-Type": JSON, "Accept": "text/html"},
            b"{}",
            406,
            "not_acceptable",
            None,
        ),
        ("POST", "/predict", {"Content-Type": JSON}, b"", 400, "malformed_body", None),
        ("POST", "/predict", {"Content-Type": JSON}, b"{", 400, "malformed_body", None),
        (
            "POST",
            "/predict",
            {"Content-Type": JSON},
            b'{"inputs":{}}',
            400,
            "invalid_input",
            "neural",
        ),
        (
            "POST",
            "/predict",
            {"Content-Type": JSON},
            b'{"inputs":{"neural":[[[1]]]}}',
            400,
            "invalid_input",
            "neural",
        ),
        ("POST", "/predict", {"Content-Type": NPY}, b"PK\x03\x04", 400, "invalid_input", "neural"),
    ],
)
def test_every_error_has_one_body(
    forecast_server: Server,
    method: str,
    path: str,
    headers: dict[str, str],
    content: bytes,
    status: int,
    kind: str,
    field: str | None,
) -> None:
    response = forecast_server.client.request(
        method, path, headers={**headers, "X-Request-Id": "mine-1"}, content=content
    )
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error", "type", "field", "request_id"]
    assert (body["type"], body["field"], body["request_id"]) == (kind, field, "mine-1")
    assert body["error"]
    assert response.headers["x-request-id"] == "mine-1"
    about_the_model = (method, path) == ("POST", "/predict")
    assert ("x-artifact-id" in response.headers) == about_the_model


def test_request_ids_are_made_where_the_callers_is_no_word(forecast_server: Server) -> None:
    first = forecast_server.client.get("/health/live", headers={"X-Request-Id": "a b;c"})
    second = forecast_server.client.get("/health/live")
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2
    assert all(len(name) == 32 for name in ids)
    assert forecast_server.client.get("/nothing").json()["request_id"] not in ids


def test_answers_that_json_cannot_hold(
    decode_server: Server, decoder_model: artifact.Model
) -> None:
    inputs = decoding(2)
    inputs["behavior"][1, 0, 0] = np.nan
    inputs["behavior_mask"][1, 0] = True
    expected = decoder_model.predict(inputs)["probability"]
    assert np.isnan(expected[1]).all()
    refused = ask(decode_server, inputs, NPZ, JSON)
    assert refused.status_code == 406
    assert "ask with Accept: application/x-npy" in refused.json()["error"]
    assert refused.json()["field"] == "probability"
    got = read(ask(decode_server, inputs, NPZ, NPY), "probability")
    assert got.tobytes() == expected.tobytes()


def test_body_limit_announced_and_streamed(forecaster: Path, tmp_path: Path) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield b"x" * 10_000

    with running(tmp_path, forecaster, max_body_bytes=20_000) as server:
        headers = {"Content-Type": NPY}
        assert read(ask(server, {"neural": windows(5)}, NPY, NPY), "forecast").shape == (5, 20, 4)
        refused = server.client.post("/predict", content=b"x" * 20_001, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (413, "body_too_large")
        thirty = (b"x" * 10_000 for _ in range(3))
        refused = server.client.post("/predict", content=thirty, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (413, "body_too_large")
        bomb = io.BytesIO()
        np.savez_compressed(bomb, neural=np.zeros((100, 20, 4, 9), np.float32))
        refused = server.client.post(
            "/predict", content=bomb.getvalue(), headers={"Content-Type": NPZ}
        )
        assert refused.status_code == 400
        assert "inflates to more than" in refused.json()["error"]


def many_rows(rows: int) -> bytes:
    return encode_npy(np.ones((rows, 20, 1, 1), np.float32))


def test_health_answers_while_a_prediction_runs(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, tiny, slots=1, max_rows=1) as server:
        done = threading.Event()
        answers: list[httpx.Response] = []

        def long_prediction() -> None:
            content = many_rows(60_000)
            answers.append(
                httpx.post(
                    f"{server.url}/predict",
                    content=content,
                    headers={"Content-Type": NPY},
                    timeout=60,
                )
            )
            done.set()

        thread = threading.Thread(target=long_prediction)
        begin = time.monotonic()
        thread.start()
        waits = []
        while not done.is_set():
            start = time.monotonic()
            assert server.client.get("/health/live").status_code == 200
            waits.append(time.monotonic() - start)
            time.sleep(0.02)
        thread.join()
        took = time.monotonic() - begin
        assert answers[0].status_code == 200
        assert took > 0.3, "too short a prediction to show anything"
        assert len(waits) > 5
        assert max(waits) < took / 2


def test_full_queue(tiny: Path, tmp_path: Path) -> None:
    long, short = many_rows(750_000), many_rows(1)
    with running(tmp_path, tiny, slots=1, max_rows=1, max_pending=1, request_timeout=5) as server:
        with ThreadPoolExecutor(1) as pool:
            running_one = pool.submit(post, server, long)
            server.wait_for_pending(1)
            refused = post(server, short)
            assert (refused.status_code, refused.json()["type"]) == (503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            assert server.client.get("/health/ready").status_code == 200
            assert running_one.result().status_code in (200, 504)
        assert post(server, short).status_code == 200


def test_deadline_of_running_and_waiting_requests(tiny: Path, tmp_path: Path) -> None:
    long = many_rows(750_000)
    with running(tmp_path, tiny, slots=1, max_rows=1, max_pending=2, request_timeout=3) as server:
        with ThreadPoolExecutor(2) as pool:
            for late in list(pool.map(lambda _: post(server, long), range(2))):
                assert (late.status_code, late.json()["type"]) == (504, "deadline_exceeded")
        assert post(server, many_rows(1)).status_code == 200


def post(server: Server, content: bytes) -> httpx.Response:
    headers = {"Content-Type": NPY}
    return httpx.post(f"{server.url}/predict", content=content, headers=headers, timeout=60)


def test_a_body_that_stops_coming(forecaster: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def stalling() -> Iterator[bytes]:
        yield b"\x93NUMPY"
        stop.wait(10)

    with running(tmp_path, forecaster, request_timeout=0.6, max_pending=1) as server:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(
                server.client.post, "/predict", content=stalling(), headers={"Content-Type": NPY}
            )
            server.wait_for_bytes(6)
            other = httpx.post(
                f"{server.url}/predict",
                content=encode_npy(windows(1)),
                headers={"Content-Type": NPY},
            )
            assert other.status_code == 200  # while the slow one is still read
            server.wait_for_bytes(0)
            stop.set()
            slow = future.result()
        assert (slow.status_code, slow.json()["type"]) == (408, "slow_body")


def test_a_caller_who_leaves_is_no_error(forecast_server: Server) -> None:
    host, port = forecast_server.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"
                b"Content-Length: 1000\r\n\r\nxx"
            )
    forecast_server.wait_for_bytes(0)
    answer = ask(forecast_server, {"neural": windows(1)}, NPY, NPY)
    assert read(answer, "forecast").shape == (1, 20, 4)


def test_several_models(
    forecaster: Path,
    decoder: Path,
    tmp_path: Path,
    forecaster_model: artifact.Model,
    decoder_model: artifact.Model,
) -> None:
    with running(tmp_path, forecaster, decoder) as server:
        client = server.client
        answer = client.post(
            "/models/small-decoder/predict",
            content=encode_npz(inputs := decoding(3)),
            headers={"Content-Type": NPZ},
        )
        expected = decoder_model.predict(inputs)["probability"]
        assert read(answer, "probability").tobytes() == expected.tobytes()
        assert answer.headers["x-artifact-id"] == decoder_model.id
        answer = client.post(
            "/models/small-forecaster/predict", content=b"", headers={"Content-Type": NPY}
        )
        assert answer.status_code == 400
        assert answer.headers["x-artifact-id"] == forecaster_model.id
        for path in ("/predict", "/model"):
            method = "POST" if path == "/predict" else "GET"
            answer = client.request(method, path)
            assert answer.status_code == 404
            assert answer.json()["error"] == (
                "several models are served; there are /models/small-decoder, "
                "/models/small-forecaster"
            )
            assert "x-artifact-id" not in answer.headers
        assert set(client.get("/models").json()["models"]) == {"small-decoder", "small-forecaster"}

"""What the service takes: all that its own API says, broken bodies, long runs, stops, reloads."""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_process import Server, running
from small_artifacts import write_decoder, write_forecaster

import artifact
from artifact.arrays import Array, encode_npy, encode_npz

pytestmark = pytest.mark.slow
JSON = "application/json"
BINARY = "application/octet-stream"


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


class Caller:
    """One connection kept alive, opened anew after it was closed."""

    def __init__(self, server: Server) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=60)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def v2_body(inputs: dict[str, Array]) -> tuple[bytes, dict[str, str]]:
    """A V2 request, binary in and out."""
    kinds = {"float32": "FP32", "bool": "BOOL"}
    document = {
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": kinds[str(array.dtype)],
                "parameters": {"binary_data_size": array.nbytes},
            }
            for name, array in inputs.items()
        ],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(document).encode()
    tail = b"".join(array.tobytes() for array in inputs.values())
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": BINARY}
    return head + tail, headers


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    return [
        write_forecaster(folder / "a", dynamic_channel=True, name="first"),
        write_forecaster(folder / "b", channels=3, name="second"),
        write_decoder(folder / "c", name="third"),
    ]


def test_schemathesis_finds_no_fault(artifacts: list[Path], tmp_path: Path) -> None:
    """Its own document, read and tried out by a tool that knows nothing of the service.

    `not_a_server_error` counts every 5xx. Left out: `positive_data_acceptance` (the document cannot
    say which sizes an axis has) and `unsupported_method` details of other tools. One worker:
    Python 3.11's parser, which the tool calls, counts its depth wrongly in two threads at once
    (python/cpython#106905).
    """
    with running(tmp_path, artifacts[1], request_timeout=10) as server:
        done = subprocess.run(
            [
                *(Path(sys.executable).parent / "schemathesis", "run"),
                *(f"{server.url}/openapi.json", "--max-examples", "60", "--seed", "3"),
                *("--exclude-checks", "positive_data_acceptance", "--workers", "1"),
                *("--continue-on-failure", "--no-color", "--request-timeout", "20"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def mutated(seed: bytes) -> st.SearchStrategy[bytes]:
    """The seed with bytes exchanged, taken out, put in or doubled, or cut short."""
    place = st.integers(0, max(0, len(seed) - 1))
    one = st.one_of(
        st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("cut"), place, st.binary(max_size=0)),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=16)),
        st.tuples(st.just("delete"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(
            st.just("insert"),
            place,
            st.sampled_from([b'"', b"null", b"1e999", b"[", b"}", b"-1", b"\x00", b"NaN", b"true"]),
        ),
        st.tuples(st.just("double"), place, st.binary(max_size=0)),
    )

    def apply(changes: list[tuple[str, int, bytes]]) -> bytes:
        body = seed
        for kind, at, data in changes:
            if kind == "set":
                body = body[:at] + data + body[at + len(data) :]
            elif kind == "cut":
                body = body[:at]
            elif kind == "insert":
                body = body[:at] + data + body[at:]
            elif kind == "delete":
                body = body[:at] + body[at + len(data) :]
            else:
                body = body + body[at : at + 64]
        return body

    return st.lists(one, min_size=1, max_size=4).map(apply)


def test_ten_thousand_mutated_bodies(artifacts: list[Path], tmp_path: Path) -> None:
    """No 5xx, no crash, no growth; what is still understood is answered."""
    neural = np.random.default_rng(0).normal(size=(1, 20, 3, 9)).astype(np.float32)
    binary, headers = v2_body({"neural": neural})
    plain = {
        "inputs": [
            {"name": "neural", "shape": [1, 20, 3, 9], "datatype": "FP32",
             "data": neural.ravel().tolist()}
        ]
    }  # fmt: skip
    infer = "/v2/models/second/infer"
    seeds: list[tuple[str, bytes, dict[str, str]]] = [
        (infer, binary, headers),
        (infer, json.dumps(plain).encode(), {"Content-Type": JSON}),
        ("/predict", json.dumps({"inputs": {"neural": neural.tolist()}}).encode(),
         {"Content-Type": JSON}),
        ("/predict", encode_npy(neural), {"Content-Type": "application/x-npy"}),
        ("/predict", encode_npz({"neural": neural}), {"Content-Type": "application/x-npz"}),
    ]  # fmt: skip
    statuses: dict[int, int] = {}
    with running(tmp_path, artifacts[1]) as server, Caller(server) as caller:
        sizes: list[float] = []

        def send(path: str, body: bytes, headers: dict[str, str]) -> None:
            status, text = caller.post(path, body, headers)
            statuses[status] = statuses.get(status, 0) + 1
            assert status < 500, (status, text, body[:200])
            if status != 200:
                answer = json.loads(text)
                assert set(answer) == {"error", "type", "field", "request_id"}, text

        def fuzz(path: str, seed: bytes, headers: dict[str, str], count: int) -> None:
            lengths = [headers.get("Inference-Header-Content-Length")] * 4
            if lengths[0] is not None:
                lengths += ["0", "1", str(len(seed)), str(10**18), "-1", "+5", "1_0", ""]

            @settings(
                max_examples=count,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(mutated(seed), st.sampled_from(lengths))
            def each(body: bytes, length: str | None) -> None:
                changed = dict(headers)
                if length is not None:
                    changed["Inference-Header-Content-Length"] = length
                send(path, body, changed)

            each()

        for path, body, head in seeds:
            send(path, body, head)
            fuzz(path, body, head, 200)
        sizes.append(resident_mb(server.process.pid))
        for path, body, head in seeds:
            fuzz(path, body, head, 2000)
        sizes.append(resident_mb(server.process.pid))
        for path, body, head in seeds:
            status, _ = caller.post(path, body, head)
            assert status == 200
        assert server.process.poll() is None
    assert sum(statuses.values()) >= 10_000
    assert statuses[400] > 1000
    assert sizes[1] < sizes[0] * 1.05 + 3, sizes


def test_a_hundred_thousand_good_requests_leave_the_memory_flat(
    artifacts: list[Path], tmp_path: Path
) -> None:
    """Eight callers, three forms; resident memory stays within 5 % once it is warm."""
    neural = np.random.default_rng(1).normal(size=(1, 20, 3, 9)).astype(np.float32)
    binary, headers = v2_body({"neural": neural})
    npy = encode_npy(neural)
    with running(tmp_path, artifacts[1]) as server:
        failures: list[object] = []
        forms: list[tuple[str, bytes, dict[str, str]]] = [
            ("/v2/models/second/infer", binary, headers),
            ("/predict", npy, {"Content-Type": "application/x-npy"}),
        ]

        def call(count: int) -> None:
            expected: dict[str, bytes] = {}
            with Caller(server) as caller:
                for number in range(count):
                    path, body, head = forms[number % 2]
                    status, answer = caller.post(path, body, head)
                    if status != 200 or expected.setdefault(path, answer) != answer:
                        failures.append((number, status, answer[:200]))
                        return

        def load(requests: int) -> float:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(call, [requests // 8] * 8))
            return resident_mb(server.process.pid)

        sizes = [load(10_000)]
        sizes += [load(30_000) for _ in range(3)]
        assert not failures
    assert max(sizes) <= sizes[0] * 1.05, sizes
    assert min(sizes) >= sizes[0] * 0.8, sizes


def keep_calling(
    server: Server, path: str, body: bytes, headers: dict[str, str], expected: bytes,
    stop: threading.Event, fresh: bool = False,
) -> tuple[int, list[str]]:  # fmt: skip
    """Send until told to stop or until nobody listens; answers, and requests that got none.

    Every request counts for which a connection was made, a `fresh` one for each or the one from
    before where the answer on it did not say `Connection: close`: no reset is allowed, neither
    while it is sent nor after that. Only who cannot connect was not accepted: that ends the calls.
    """
    answered, lost = 0, []
    with Caller(server) as caller:
        while not stop.is_set():
            if fresh:
                caller.connection.close()
            if caller.connection.sock is None:
                try:
                    caller.connection.connect()
                except OSError:
                    break
            try:
                status, answer = caller.post(path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                caller.connection.close()
                continue
            if status != 200 or answer != expected:
                lost.append(f"{status} {answer[:200]!r}")
                break
            answered += 1
    return answered, lost


@pytest.mark.parametrize("fresh", [False, True], ids=["kept", "fresh"])
@pytest.mark.parametrize("round_number", range(3))
def test_sigterm_under_load_loses_no_accepted_request(
    artifacts: list[Path], tmp_path: Path, round_number: int, fresh: bool
) -> None:
    neural = np.random.default_rng(2).normal(size=(2, 20, 3, 9)).astype(np.float32)
    body, headers = v2_body({"neural": neural})
    path = "/v2/models/second/infer"
    server = Server(tmp_path / "log", artifacts[1], drain_seconds=0.5)
    with Caller(server) as caller:
        status, expected = caller.post(path, body, headers)
    assert status == 200
    stop = threading.Event()
    with ThreadPoolExecutor(12) as pool:
        calls = [
            pool.submit(keep_calling, server, path, body, headers, expected, stop, fresh)
            for _ in range(12)
        ]
        time.sleep(1 + random.Random(round_number).random())
        began = time.monotonic()
        assert server.stop() == 0, server.log.read_text()
        assert time.monotonic() - began < 11
        stop.set()
        results = [call.result() for call in calls]
    assert [lost for _, lost in results if lost] == []
    assert all(answered > 0 for answered, _ in results)
    assert server.log.read_text() == ""
    assert server.last_words == "axonnx: stopped\n"


def test_models_are_reloaded_under_load_without_a_failed_request(
    artifacts: list[Path], tmp_path: Path
) -> None:
    """Three models, each called by two callers, loaded again and again meanwhile."""
    generator = np.random.default_rng(3)
    window = generator.normal(size=(1, 20, 3, 9)).astype(np.float32)
    decoding = {
        "neural": generator.normal(size=(1, 20, 6, 1)).astype(np.float32),
        "behavior": generator.normal(size=(1, 20, 2)).astype(np.float32),
        "behavior_mask": np.ones((1, 20), np.bool_),
    }
    asked = {"first": {"neural": window}, "second": {"neural": window}, "third": decoding}
    models = {path: artifact.load(path) for path in artifacts}
    with (
        running(tmp_path, *artifacts, model_control=True) as server,
        Caller(server) as control,
    ):
        stop = threading.Event()
        pool = ThreadPoolExecutor(6)
        calls = []
        for model in models.values():
            name = model.manifest.name
            body, headers = v2_body(asked[name])
            path = f"/v2/models/{name}/infer"
            status, expected = control.post(path, body, headers)
            assert status == 200
            (answer,) = model.predict(asked[name]).values()
            assert expected.endswith(answer.tobytes())
            calls += [
                pool.submit(keep_calling, server, path, body, headers, expected, stop)
                for _ in range(2)
            ]
        reloads = 0
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            for name in asked:
                path = f"/v2/repository/models/{name}/load"
                status, text = control.post(path, b"{}", {"Content-Type": JSON})
                assert status == 200, text
                reloads += 1
        stop.set()
        results = [call.result() for call in calls]
        pool.shutdown()
        assert [lost for _, lost in results if lost] == []
        assert all(answered > 10 for answered, _ in results)
        assert reloads >= 9
        index = json.loads(control.post("/v2/repository/index", b"", {})[1])
        assert [line["state"] for line in index] == ["READY"] * 3

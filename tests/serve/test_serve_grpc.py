"""The V2 protocol over gRPC, against a real process: answers, checks and bounds as over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from grpc_caller import (
    DATATYPES,
    Caller,
    Code,
    address,
    calling,
    forecast,
    outcome,
    refused,
    tensors,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from server_process import ROOT, Server, running
from small_artifacts import write_artifact
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

import artifact
from artifact.manifest import Axis, TensorSpec
from serve.grpc_calls import METHODS
from serve.grpc_messages import MESSAGES

KSERVE = "kserve==0.21.0"


def write_mixed(folder: Path) -> Path:
    """Every dtype but float32 and bool, one number per row, handed back as it came."""
    kinds = {
        "uint8": TensorProto.UINT8,
        "int32": TensorProto.INT32,
        "int64": TensorProto.INT64,
        "float64": TensorProto.DOUBLE,
    }
    nodes = [helper.make_node("Identity", [f"in_{kind}"], [f"out_{kind}"]) for kind in kinds]

    def values(way: str) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(f"{way}_{kind}", number, ["batch", 1])
            for kind, number in kinds.items()
        ]

    def specs(way: str) -> tuple[TensorSpec, ...]:
        axes = (Axis("batch"), Axis("value", 1))
        return tuple(TensorSpec(f"{way}_{kind}", kind, axes, "", "a number") for kind in kinds)

    graph = helper.make_graph(nodes, "graph", values("in"), values("out"))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    golden = {f"in_{kind}": np.arange(4).reshape(4, 1).astype(kind) for kind in kinds}
    return write_artifact(folder, model, specs("in"), specs("out"), golden, name="mixed", bound=0.0)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixed(tmp_path_factory.mktemp("artifacts") / "mixed")


@pytest.fixture(scope="module")
def server(
    forecaster: Path, decoder: Path, mixed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("grpc")
    limits = {"grpc_port": 0, "max_body_bytes": 1_000_000, "model_control": True}
    with running(folder, forecaster, decoder, mixed, **limits) as server:
        yield server


@pytest.fixture
def call(server: Server) -> Iterator[Caller]:
    with calling(server) as caller:
        yield caller


def test_the_table_says_what_the_protocol_says() -> None:
    for name in MESSAGES:
        top, *below = name.split(".")
        known = service_pb2.DESCRIPTOR.message_types_by_name
        other = known.get(top) or model_config_pb2.DESCRIPTOR.message_types_by_name[top]
        for part in below:
            other = other.nested_types_by_name[part]
        for field in MESSAGES[name].DESCRIPTOR.fields:
            theirs = other.fields_by_name[field.name]
            for what in ("number", "type", "is_repeated", "is_packed", "has_presence"):
                assert getattr(field, what) == getattr(theirs, what), (name, field.name, what)
            for what in ("message_type", "containing_oneof", "enum_type"):
                mine, its = getattr(field, what), getattr(theirs, what)
                assert (mine and mine.full_name) == (its and its.full_name), (name, field.name)
            if field.enum_type:
                assert {x.name: x.number for x in field.enum_type.values}.items() <= {
                    x.name: x.number for x in theirs.enum_type.values
                }.items()
    methods = {
        x.name for x in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    }
    assert set(METHODS) <= methods


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 5), seed=st.integers(0, 9), typed=st.booleans(), data=st.data())
def test_the_bytes_are_those_of_http_and_of_the_model(
    server: Server,
    forecaster_model: artifact.Model,
    decoder_model: artifact.Model,
    rows: int,
    seed: int,
    typed: bool,
    data: st.DataObject,
) -> None:
    generator = np.random.default_rng(seed)
    model = data.draw(st.sampled_from([forecaster_model, decoder_model]))
    inputs = {}
    for spec in model.manifest.inputs:
        values = generator.normal(size=(rows, *spec.shape[1:])) * 100
        inputs[spec.name] = values > 0 if spec.dtype == "bool" else values.astype(spec.dtype)
    order = data.draw(st.permutations(list(inputs)))
    with calling(server) as call:
        answer = call(
            "ModelInfer",
            model_name=model.manifest.name,
            **tensors({name: inputs[name] for name in order}, typed),
        )
    (output,) = answer.outputs
    assert (output.name, output.datatype) == (model.manifest.outputs[0].name, "FP32")
    expected = model.predict(inputs)[output.name]
    assert list(output.shape) == list(expected.shape)
    assert answer.raw_output_contents == [expected.tobytes()]
    wires = [
        triton_http.InferInput(name, list(values.shape), DATATYPES[str(values.dtype)])
        for name, values in inputs.items()
    ]
    for wire, values in zip(wires, inputs.values(), strict=True):
        wire.set_data_from_numpy(values)
    body, length = triton_http.InferenceServerClient.generate_request_body(wires)
    there = server.client.post(
        f"/v2/models/{model.manifest.name}/infer",
        content=body,
        headers={"Inference-Header-Content-Length": str(length)},
    )
    start = int(there.headers["Inference-Header-Content-Length"])
    assert there.content[start:] == expected.tobytes()


@pytest.mark.parametrize("typed", [False, True])
def test_every_datatype_comes_back_as_it_went(call: Caller, typed: bool) -> None:
    inputs = {
        "in_uint8": np.array([[0], [255]], np.uint8),
        "in_int32": np.array([[-(2**31)], [2**31 - 1]], np.int32),
        "in_int64": np.array([[-(2**63)], [2**63 - 1]], np.int64),
        "in_float64": np.array([[1 / 3], [-1e300]]),
    }
    answer = call("ModelInfer", model_name="mixed", **tensors(inputs, typed))
    assert list(answer.raw_output_contents) == [values.tobytes() for values in inputs.values()]


def test_identity_version_and_wanted_outputs(call: Caller) -> None:
    inputs = {
        f"in_{kind}": np.ones((1, 1), kind) for kind in ("uint8", "int32", "int64", "float64")
    }
    wanted = [{"name": "out_int64"}, {"name": "out_uint8"}]
    answer = call(
        "ModelInfer",
        metadata=[("x-request-id", "mine-7")],
        model_name="mixed",
        model_version="1",
        id="42",
        outputs=wanted,
        **tensors(inputs),
    )
    assert (answer.model_name, answer.model_version, answer.id) == ("mixed", "1", "42")
    assert [output.name for output in answer.outputs] == ["out_int64", "out_uint8"]
    assert [len(raw) for raw in answer.raw_output_contents] == [8, 1]
    assert call.trailing["x-request-id"] == "mine-7"
    assert len(call.trailing["x-artifact-id"]) == 64


RAW = tensors({"neural": np.ones((1, 20, 4, 9), np.float32)})
HEAD = RAW["inputs"][0]
NEURAL = "neural: "


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"raw_input_contents": [b"x"]}, NEURAL + "raw_input_contents[0] has 1 bytes; FP32 of"),
        ({"raw_input_contents": [b"", b""]}, "raw_input_contents: has 2 entries for 1 inputs;"),
        ({"raw_input_contents": []}, NEURAL + "contents.fp32_contents has 0 values; FP32 of shape"),
        ({"inputs": []}, "raw_input_contents: has 1 entries for 0 inputs"),
        ({"inputs": [], "raw_input_contents": []}, "neural: missing"),
        ({"inputs": [HEAD | {"name": "x"}]}, "inputs[0].name: 'x' is unknown; there are neural"),
        ({"inputs": [HEAD, HEAD], "raw_input_contents": RAW["raw_input_contents"] * 2}, "twice"),
        ({"inputs": [HEAD | {"datatype": "FP16"}]}, NEURAL + "datatype must be FP32, is 'FP16'"),
        ({"inputs": [HEAD | {"shape": [1, 20, 36]}]}, NEURAL + "shape has 3 axes; must have 4"),
        ({"inputs": [HEAD | {"shape": [1, 20, -4, -9]}]}, NEURAL + "shape holds the number -4"),
        ({"inputs": [HEAD | {"shape": [1, 20, 9, 4]}]}, NEURAL),
        ({"inputs": [HEAD | {"shape": [2**62] * 40}]}, NEURAL + "shape has 40 axes"),
        (
            {"inputs": [HEAD | {"contents": {"fp32_contents": [1.0]}}]},
            NEURAL + "has both contents and raw_input_contents",
        ),
        (
            {"inputs": [HEAD | {"contents": {"int_contents": [1]}}], "raw_input_contents": []},
            NEURAL + "values of FP32 belong in contents.fp32_contents; contents.int_contents is",
        ),
        ({"outputs": [{"name": "x"}]}, "outputs[0].name: 'x' is unknown; there are forecast"),
        ({"parameters": {"timeout": {"int64_param": -1}}}, "parameters.timeout: must be a whole"),
        ({"parameters": {"empty": {}}}, "parameters.empty: must be text, a number or a boolean"),
    ],
)
def test_wrong_requests_say_what_would_be_right(
    call: Caller, changes: dict[str, Any], text: str
) -> None:
    error = refused(Code.INVALID_ARGUMENT, lambda: forecast(call, **changes))
    assert text in error.details()
    assert dict(error.trailing_metadata())["x-error-type"] in ("invalid_input", "malformed_body")


def test_numbers_that_do_not_fit_are_refused(call: Caller) -> None:
    inputs = {
        f"in_{kind}": np.ones((1, 1), kind) for kind in ("uint8", "int32", "int64", "float64")
    }
    fields = tensors(inputs, typed=True)
    fields["inputs"][0]["contents"] = {"uint_contents": [256]}
    error = refused(Code.INVALID_ARGUMENT, lambda: call("ModelInfer", model_name="mixed", **fields))
    assert error.details() == "in_uint8: 256 does not fit in UINT8"


def test_values_are_looked_at_as_over_http(call: Caller, server: Server) -> None:
    values = np.ones((1, 20, 4, 9), np.float32)
    values[0, 3, 2, 1] = np.nan
    texts = []
    for typed in (False, True):
        fields = {"raw_input_contents": []} | tensors({"neural": values}, typed)
        error = refused(Code.INVALID_ARGUMENT, lambda fields=fields: forecast(call, **fields))
        texts.append(error.details())
    wire = triton_http.InferInput("neural", [1, 20, 4, 9], "FP32")
    wire.set_data_from_numpy(values)
    body, length = triton_http.InferenceServerClient.generate_request_body([wire])
    there = server.client.post(
        "/v2/models/small-forecaster/infer",
        content=body,
        headers={"Inference-Header-Content-Length": str(length)},
    )
    assert there.status_code == 400
    assert texts == [there.json()["error"]] * 2


def test_each_status(call: Caller) -> None:
    error = refused(Code.NOT_FOUND, lambda: call("ModelInfer", model_name="x"))
    assert "no model 'x'; there are: mixed, small-decoder" in error.details()
    version = {"name": "mixed", "version": "2"}
    error = refused(Code.NOT_FOUND, lambda: call("ModelMetadata", **version))
    assert "no version '2'; there are 1" in error.details()
    error = refused(
        Code.UNIMPLEMENTED,
        lambda: forecast(call, parameters={"sequence_id": {"int64_param": 3}}),
    )
    assert error.details() == "parameters.sequence_id: sequences of requests are not served"
    shared = HEAD | {"parameters": {"shared_memory_region": {"string_param": "r"}}}
    refused(Code.UNIMPLEMENTED, lambda: forecast(call, inputs=[shared], raw_input_contents=[]))
    refused(Code.UNIMPLEMENTED, lambda: call("RepositoryIndex", repository_name="other"))
    late = {"timeout": {"int64_param": 1}}
    refused(Code.DEADLINE_EXCEEDED, lambda: forecast(call, parameters=late))
    error = refused(Code.RESOURCE_EXHAUSTED, lambda: forecast(call, rows=350))
    assert "larger than max (100" in error.details()
    refused(Code.INVALID_ARGUMENT, lambda: call.send("ModelInfer", b"\xff\xff"))
    error = refused(Code.RESOURCE_EXHAUSTED, lambda: call.slowly("ModelInfer", iter(())))
    assert error.details() == "the call brings no message of at most 1000000 bytes"
    forecast(call)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_bytes_are_answered_or_refused(server: Server, data: st.DataObject) -> None:
    whole = MESSAGES["ModelInferRequest"](model_name="small-forecaster", **RAW).SerializeToString()
    head = bytearray(whole[:120])
    for _ in range(data.draw(st.integers(1, 4))):
        head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    broken = data.draw(st.sampled_from([bytes(head), bytes(head) + whole[120:]]))
    with calling(server) as call:
        code = outcome(lambda: call.send("ModelInfer", broken))
    assert code in (Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNIMPLEMENTED)


def test_what_the_service_and_its_models_say(call: Caller, server: Server) -> None:
    assert call("ServerLive").live
    assert call("ServerReady").ready
    assert call("ServerMetadata").name == "axonnx"
    assert "model_repository" in call("ServerMetadata").extensions
    assert call("ModelReady", name="mixed", version="1").ready
    assert len(call.trailing["x-artifact-id"]) == 64
    assert not call("ModelReady", name="mixed", version="9").ready
    assert not call("ModelReady", name="x").ready
    told = call("ModelMetadata", name="small-decoder")
    there = server.client.get("/v2/models/small-decoder").json()
    assert [
        {"name": x.name, "datatype": x.datatype, "shape": list(x.shape)} for x in told.inputs
    ] == there["inputs"]
    assert told.platform == there["platform"]
    config = call("ModelConfig", name="small-decoder").config
    assert [x.data_type for x in config.input] == [11, 11, 1]
    assert config.version_policy.HasField("all")
    forecast(call)
    (counts,) = call("ModelStatistics", name="small-forecaster").model_stats
    assert counts.inference_stats.success.count >= 1
    assert len(call("ModelStatistics").model_stats) == 3


def test_models_are_loaded_and_unloaded(call: Caller) -> None:
    call("RepositoryModelUnload", model_name="mixed")
    states = {x.name: (x.state, x.reason) for x in call("RepositoryIndex").models}
    assert states["mixed"] == ("UNAVAILABLE", "unloaded")
    assert "mixed" not in {x.name for x in call("RepositoryIndex", ready=True).models}
    error = refused(Code.UNAVAILABLE, lambda: call("ModelMetadata", name="mixed"))
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
    config = {"config": {"string_param": "{}"}}
    refused(
        Code.UNIMPLEMENTED,
        lambda: call("RepositoryModelLoad", model_name="mixed", parameters=config),
    )
    call("RepositoryModelLoad", model_name="mixed")
    assert call("ModelReady", name="mixed").ready
    refused(Code.NOT_FOUND, lambda: call("RepositoryModelUnload", model_name="x"))


def test_triton_client(server: Server, forecaster_model: artifact.Model) -> None:
    with triton.InferenceServerClient(address(server)) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("small-forecaster")
        assert client.get_model_metadata("small-forecaster").inputs[0].name == "neural"
        assert client.get_model_config("small-forecaster").config.input[0].dims == [20, 4, 9]
        assert client.get_model_repository_index().models[0].state == "READY"
        values = np.random.default_rng(5).normal(size=(3, 20, 4, 9)).astype(np.float32)
        wire = triton.InferInput("neural", list(values.shape), "FP32")
        wire.set_data_from_numpy(values)
        wanted = [triton.InferRequestedOutput("forecast")]
        expected = forecaster_model.predict({"neural": values})["forecast"]
        for compression in (None, "gzip", "deflate"):
            result = client.infer(
                "small-forecaster",
                [wire],
                outputs=wanted,
                request_id="9",
                priority=1,
                timeout=20_000_000,
                parameters={"mine": "word"},
                compression_algorithm=compression,
            )
            assert result.as_numpy("forecast").tobytes() == expected.tobytes()
            assert result.get_response().id == "9"
        stats = client.get_inference_statistics("small-forecaster").model_stats[0]
        assert stats.inference_count >= 9
        with pytest.raises(InferenceServerException, match="no model 'x'") as caught:
            client.infer("x", [wire])
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_what_a_message_inflates_to_is_bounded(server: Server) -> None:
    values = np.zeros((2000, 20, 4, 9), np.float32)
    wire = triton.InferInput("neural", list(values.shape), "FP32")
    wire.set_data_from_numpy(values)
    with (
        triton.InferenceServerClient(address(server)) as client,
        pytest.raises(InferenceServerException, match="larger than max") as caught,
    ):
        client.infer("small-forecaster", [wire], compression_algorithm="gzip")
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


@pytest.mark.slow
def test_kserve_client(server: Server, forecaster_model: artifact.Model, tmp_path: Path) -> None:
    values = np.random.default_rng(6).normal(size=(4, 20, 4, 9)).astype(np.float32)
    values[0, :10, 0] = np.float32(1e-40)  # subnormal
    np.savez(tmp_path / "inputs.npz", neural=values)
    uv = [sys.executable, "-m", "uv", "run", "--quiet", "--no-project", "--isolated"]
    python = ["--python", "3.11", "--with", KSERVE, "python", "-W", "ignore"]
    script = ROOT / "tests" / "kserve_grpc_side.py"
    done = subprocess.run(
        [*uv, *python, script, address(server), "small-forecaster", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert (said["live"], said["ready"], said["model"], said["stranger"]) == (*[True] * 3, False)
    expected = forecaster_model.predict({"neural": values})["forecast"]
    for case in ("True", "False"):
        assert said[case] == case
        assert np.load(tmp_path / f"{case}.npy").tobytes() == expected.tobytes()

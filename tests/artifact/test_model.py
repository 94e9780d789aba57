from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_artifacts import write_endless, write_mean, write_single
from onnx import TensorProto, helper, numpy_helper
from small_artifacts import (
    STEPS,
    decoder_graph,
    forecaster_graph,
    write_artifact,
    write_decoder,
    write_forecaster,
)

import artifact
from artifact import batching, bundle, errors
from artifact.batching import Policy
from artifact.manifest import Axis, TensorSpec, canonical_json


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> artifact.Model:
    folder = tmp_path_factory.mktemp("forecaster") / "artifact"
    return artifact.load(write_forecaster(folder, dynamic_channel=True))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> artifact.Model:
    return artifact.load(write_decoder(tmp_path_factory.mktemp("decoder") / "artifact"))


def windows(rows: int, channels: int = 4, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(100, 50, (rows, STEPS, channels, 9))
    return values.astype(np.float32)


def row_by_row(model: artifact.Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = len(next(iter(inputs.values())))
    parts = [model.predict({k: v[i : i + 1] for k, v in inputs.items()}) for i in range(rows)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@given(rows=st.integers(1, 70), channels=st.integers(1, 7), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_any_number_of_rows_gives_each_row_its_own_bytes(
    forecaster: artifact.Model, rows: int, channels: int, seed: int
) -> None:
    inputs = {"neural": windows(rows, channels, seed)}
    answer = forecaster.predict(inputs)["forecast"]
    assert answer.shape == (rows, STEPS, channels)
    assert answer.dtype == np.float32
    assert answer.tobytes() == row_by_row(forecaster, inputs)["forecast"].tobytes()


def test_several_inputs_of_several_types(decoder: artifact.Model) -> None:
    inputs = decoder.golden_inputs
    answer = decoder.predict(inputs)["probability"]
    np.testing.assert_allclose(answer.sum(1), 1, rtol=1e-6)
    hidden = {**inputs, "behavior": inputs["behavior"].copy()}
    hidden["behavior"][~inputs["behavior_mask"]] = np.nan
    assert decoder.predict(hidden)["probability"].tobytes() == answer.tobytes()


def test_a_graph_that_is_not_batch_invariant_runs_row_by_row(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(5, 80, 64)).astype(np.float32)
    model = artifact.load(write_mean(tmp_path / "a"))
    together = model._session.run(None, {"x": x})[0]
    alone = row_by_row(model, {"x": x})["y"]
    assert together.tobytes() != alone.tobytes(), "the trap is gone; choose another graph"
    assert model.policies()[batching.row_shape({"x": x})] == Policy((1,))
    assert model.predict({"x": x})["y"].tobytes() == alone.tobytes()


def test_a_graph_that_takes_one_row_at_a_time_gets_one(tmp_path: Path) -> None:
    model = artifact.load(write_single(tmp_path / "a"))
    assert model.policies()[(("x", (3,)),)] == Policy((1,))
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    assert model.predict({"x": x})["y"].tobytes() == (2 * x).tobytes()


def test_export_may_certify_less_than_this_machine_finds(tmp_path: Path) -> None:
    row = {"neural": [STEPS, 4, 9]}
    path = write_forecaster(
        tmp_path / "a", determinism={"certificate": [{"row": row, "batch_sizes": [1, 2]}]}
    )
    model = artifact.load(path)
    assert model.policies()[("neural", (STEPS, 4, 9)),].sizes == (1, 2)


@given(rows=st.integers(1, 200), sizes=st.sets(st.sampled_from([2, 4, 8, 16])))
def test_chunks_add_up(rows: int, sizes: set[int]) -> None:
    policy = Policy((1, *sizes))
    chunks = policy.chunks(rows)
    assert sum(chunks) == rows
    assert set(chunks) <= {1, *sizes}


def test_probe_finds_what_depends_on_slot_or_neighbours() -> None:
    rows = {"x": np.arange(5, dtype=np.float32)[:, None]}

    def honest(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": inputs["x"] * 2}

    def slot(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = inputs["x"] * 2
        y[3:4] = np.nextafter(y[3:4], np.inf)
        return {"y": y}

    def neighbour(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": inputs["x"] - inputs["x"].mean() * (len(inputs["x"]) > 4)}

    def size(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": inputs["x"] * np.float32(1 + 1e-6 * (len(inputs["x"]) > 1))}

    assert batching.probe(honest, rows).sizes == (1, 2, 4, 8, 16)
    assert batching.probe(slot, rows).sizes == (1, 2)
    assert batching.probe(neighbour, rows).sizes == (1, 2, 4)
    assert batching.probe(size, rows).sizes == (1,)
    together = Policy((1, 2, 3, 4, 5, 6, 7, 8), padded=8)
    assert batching.probe_padded(honest, rows) == together
    assert batching.probe_padded(size, rows) == together
    assert batching.probe_padded(slot, rows) == Policy((1,), padded=8)


def test_padding_runs_one_shape_and_keeps_each_answer(
    forecaster: artifact.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    run = forecaster._run

    def record(inputs: Mapping[str, np.ndarray], *rest: object) -> dict[str, np.ndarray]:
        ran.append(len(inputs["neural"]))
        return run(inputs, *rest)

    monkeypatch.setattr(forecaster, "_run", record)
    monkeypatch.setattr(forecaster, "_unprobed", Policy(padded=8))
    inputs = {"neural": windows(13)}
    answers = []
    for found in (Policy(tuple(range(1, 9)), padded=8), Policy((1,), padded=8)):
        monkeypatch.setattr(forecaster, "_policies", {batching.row_shape(inputs): found})
        answers.append(forecaster.predict(inputs)["forecast"].tobytes())
    monkeypatch.setattr(forecaster, "_policies", {})
    answers.append(forecaster.predict(inputs)["forecast"].tobytes())
    answers.append(row_by_row(forecaster, inputs)["forecast"].tobytes())
    assert set(ran) == {8}
    assert len(set(answers)) == 1


def test_a_probe_holds_nobody_up_and_its_failure_is_remembered(
    forecaster: artifact.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, new = {"neural": windows(3)}, {"neural": windows(3, channels=9)}
    want = forecaster.predict(known)["forecast"].tobytes()
    started, proceed = threading.Event(), threading.Event()

    def slow(*_: object) -> Policy:
        started.set()
        assert proceed.wait(30)
        raise errors.DeadlineError("too late")

    monkeypatch.setattr(forecaster, "_probe", slow)
    failed: list[Exception] = []

    def first() -> None:
        try:
            forecaster.predict(new)
        except errors.DeadlineError as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert started.wait(30)
    soon = time.monotonic() + 20
    assert forecaster.predict(known, deadline=soon)["forecast"].tobytes() == want
    answer = forecaster.predict(new, deadline=soon)["forecast"]
    proceed.set()
    thread.join()
    assert len(failed) == 1
    assert answer.tobytes() == row_by_row(forecaster, new)["forecast"].tobytes()
    assert forecaster.predict(new)["forecast"].tobytes() == answer.tobytes()


def test_who_has_a_deadline_does_not_wait_for_a_probe(tmp_path: Path) -> None:
    model = artifact.load(write_forecaster(tmp_path / "a", dynamic_channel=True))
    new = {"neural": windows(5, channels=7)}
    shape = batching.row_shape(new)
    answer = model.predict(new, deadline=time.monotonic() + 20)["forecast"]
    assert shape not in model.policies()
    assert model.joinable(shape) is None
    model.certify(shape)
    assert model.joinable(shape) == (1, 2, 4, 8, 16)
    again = model.predict(new, deadline=time.monotonic() + 20)["forecast"]
    assert again.tobytes() == answer.tobytes() == row_by_row(model, new)["forecast"].tobytes()


def test_no_probe_runs_more_rows_than_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    run = artifact.Model._run

    def counting(self: artifact.Model, inputs: Any, clock: Any) -> Any:
        nonlocal most
        most = max(most, len(inputs["neural"]))
        return run(self, inputs, clock)

    monkeypatch.setattr(artifact.Model, "_run", counting)
    artifact.load(write_forecaster(tmp_path / "a"), max_rows=4)
    assert most == 4


def test_a_value_that_the_graph_refuses_is_a_bad_input(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "subject"], ["y"])]
    table = numpy_helper.from_array(np.ones((4, 3), np.float32), "table")
    graph = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("subject", TensorProto.INT64, ["batch"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
            [table],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    specs = (TensorSpec("subject", "int64", (Axis("batch"),), "", "0 to 3"),)
    outputs = (TensorSpec("y", "float32", (Axis("batch"), Axis("dim", 3)), "", ""),)
    golden = {"subject": np.arange(4)}
    model = artifact.load(
        write_artifact(tmp_path / "a", graph, specs, outputs, golden, name="table")
    )
    with pytest.raises(errors.InputError, match="the graph refuses these values: indices element"):
        model.predict({"subject": np.array([99])})


def test_onnx_runtime_does_not_call_home(tmp_path: Path) -> None:
    """Where it does, it leaves the identifier that it would send in the home folder."""
    path = write_forecaster(tmp_path / "a")
    code = f"import artifact, time; artifact.load({str(path)!r}); time.sleep(1)"
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    environment |= {"HOME": str(home), "PYTHONPATH": str(Path(artifact.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert [found.name for found in home.rglob("*")] == []


BAD_INPUTS = {
    "missing": ({}, "neural", "missing"),
    "unknown": ({"neural": windows(1), "other": windows(1)}, "other", "unknown"),
    "list": ({"neural": [[1.0]]}, "neural", "numpy array"),
    "dtype": ({"neural": windows(1).astype(np.float64)}, "neural", "float64; must be float32"),
    "byte order": ({"neural": windows(1).astype(">f4")}, "neural", "byte order"),
    "rank": ({"neural": windows(1)[0]}, "neural", "3 axes"),
    "fixed axis": ({"neural": windows(1)[:, :19]}, "neural", "axis time has 19; must have 20"),
    "no rows": ({"neural": windows(1)[:0]}, "neural", "axis batch is empty"),
    "no channels": ({"neural": windows(1, 0)}, "neural", "axis channel is empty"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_a_bad_input_is_named(forecaster: artifact.Model, case: str) -> None:
    inputs, field, said = BAD_INPUTS[case]
    with pytest.raises(errors.InputError, match=said) as caught:
        forecaster.predict(inputs)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_place_of_a_nonfinite_value_is_named(forecaster: artifact.Model, value: float) -> None:
    x = windows(3000)
    x[2900, 7, 2, 1] = value
    with pytest.raises(errors.InputError, match="batch 2900, time 7, channel 2, feature 1"):
        forecaster.predict({"neural": x})


def test_inputs_must_agree_on_shared_axes(decoder: artifact.Model) -> None:
    inputs = {**decoder.golden_inputs}
    inputs["behavior"] = inputs["behavior"][:3]
    with pytest.raises(errors.InputError, match="batch has 3, but 4 in neural"):
        decoder.predict(inputs)


def test_a_row_may_not_be_huge(forecaster: artifact.Model) -> None:
    row = np.broadcast_to(np.float32(0), (1, STEPS, 400_000, 9))
    with pytest.raises(errors.InputError, match="a row holds more"):
        forecaster.predict({"neural": row})


def test_strange_memory_layouts_give_the_same_bytes(forecaster: artifact.Model) -> None:
    x = windows(5)
    want = forecaster.predict({"neural": x})["forecast"].tobytes()
    for other in (np.asfortranarray(x), x[::-1].copy()[::-1], np.require(x, requirements="C")):
        assert forecaster.predict({"neural": other})["forecast"].tobytes() == want
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not unaligned.flags.aligned
    assert forecaster.predict({"neural": unaligned})["forecast"].tobytes() == want


def test_threads_share_a_model(forecaster: artifact.Model) -> None:
    inputs = [{"neural": windows(1 + i % 5, 1 + i % 3, seed=i)} for i in range(40)]
    want = [forecaster.predict(x)["forecast"].tobytes() for x in inputs]
    got: list[bytes | None] = [None] * len(inputs)

    def work(first: int) -> None:
        for i in range(first, len(inputs), 4):
            got[i] = forecaster.predict(inputs[i])["forecast"].tobytes()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == want


def test_a_deadline_ends_an_endless_run(tmp_path: Path) -> None:
    model = artifact.load(write_endless(tmp_path / "a"))
    endless = {"x": np.ones((1, 1), np.float32)}
    with pytest.raises(errors.DeadlineError):
        model.predict(endless, deadline=time.monotonic() - 1)
    start = time.monotonic()
    with pytest.raises(errors.DeadlineError):
        model.predict(endless, deadline=start + 0.3)
    answer = model.predict(model.golden_inputs, deadline=time.monotonic() + 60)
    assert answer["y"].shape == (2, 1)


def perturbed(folder: Path, factor: float) -> Path:
    """An artifact with honest hashes whose one weight is off by `factor`."""
    model = decoder_graph()
    for tensor in model.graph.initializer:
        if tensor.name == "weight_neural":
            weight = numpy_helper.to_array(tensor).copy()
            weight[0, 0] *= factor
            tensor.CopyFrom(numpy_helper.from_array(weight, "weight_neural"))
    honest = artifact.read(write_decoder(folder.with_name("honest"), bound=1e-7))
    files = {**honest.files, "model.onnx": model.SerializeToString(deterministic=True)}
    return artifact.write(folder, honest.manifest, files)


def test_one_weight_off_by_a_percent_fails_the_golden_rows(tmp_path: Path) -> None:
    with pytest.raises(errors.GoldenError, match="probability differs by"):
        artifact.load(perturbed(tmp_path / "off", 1.01))
    assert artifact.load(perturbed(tmp_path / "b" / "same", 1.0)).golden.identical


def test_a_golden_answer_that_is_no_number_here_is_refused(tmp_path: Path) -> None:
    answers = np.full((4, STEPS, 4), np.nan, np.float32)
    spec_axes = (Axis("batch"), Axis("time", STEPS), Axis("channel", 4))
    inputs = (TensorSpec("neural", "float32", (*spec_axes, Axis("feature", 9)), "", ""),)
    outputs = (TensorSpec("forecast", "float32", spec_axes, "", ""),)
    path = write_artifact(
        tmp_path / "a",
        forecaster_graph(),
        inputs,
        outputs,
        {"neural": windows(4)},
        name="nan",
        bound=1e-3,
        golden_outputs={"forecast": answers},
    )
    with pytest.raises(errors.GoldenError, match="differs by inf"):
        artifact.load(path)


def test_a_bound_that_anything_meets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.GoldenError, match="is above"):
        artifact.load(write_decoder(tmp_path / "a", bound=1e30))


def foreign_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "evil.ops"


def external_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def random_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("RandomNormal", [], ["r"], shape=[1]))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (foreign_domain, errors.OperatorDomainError),
        (external_data, errors.ExternalDataError),
        (random_operator, errors.GraphError),
    ],
)
def test_a_graph_that_no_artifact_may_hold_is_refused_at_load(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], kind: type[Exception]
) -> None:
    honest = artifact.read(write_forecaster(tmp_path / "honest"))
    model = onnx.load_from_string(honest.files["model.onnx"])
    change(model)
    files = {**honest.files, "model.onnx": model.SerializeToString()}
    path = artifact.write(tmp_path / "changed", honest.manifest, files)
    with pytest.raises(errors.ArtifactError) as caught:
        artifact.load(path)
    assert type(caught.value) is kind


def test_a_config_of_another_model_is_refused_at_load(tmp_path: Path) -> None:
    folder = write_forecaster(tmp_path / "a")
    rewrite_manifest(folder, lambda t: t["config"]["model"].update(name="gru"))
    with pytest.raises(errors.ConfigMismatchError, match=r"'small'.*'gru'"):
        artifact.load(folder)


def rewrite_manifest(folder: Path, change: object) -> None:
    path = folder / "manifest.json"
    table = json.loads(path.read_text())
    change(table)  # type: ignore[operator]
    path.write_bytes(canonical_json(table))


def test_a_manifest_that_the_graph_contradicts_is_refused(tmp_path: Path) -> None:
    folder = write_forecaster(tmp_path / "a")
    rewrite_manifest(folder, lambda t: t["inputs"][0].update(name="signal"))
    with pytest.raises(errors.GraphError, match="signal"):
        artifact.load(folder)
    folder = write_forecaster(tmp_path / "b")
    rewrite_manifest(folder, lambda t: t["inputs"][0]["axes"][1].update(size=21))
    with pytest.raises(errors.GraphError, match="time=21"):
        artifact.load(folder)
    folder = write_forecaster(tmp_path / "c")
    rewrite_manifest(folder, lambda t: t["outputs"][0].update(dtype="float64"))
    with pytest.raises(errors.GraphError, match="float64"):
        artifact.load(folder)


def test_a_truncated_graph_with_honest_hashes_is_refused(tmp_path: Path) -> None:
    honest = artifact.read(write_forecaster(tmp_path / "honest"))
    for keep in (0.0, 0.3, 0.9):
        data = honest.files["model.onnx"]
        files = {**honest.files, "model.onnx": data[: int(keep * len(data))]}
        path = artifact.write(tmp_path / str(keep), honest.manifest, files)
        with pytest.raises(errors.GraphError):
            artifact.load(path)


def test_golden_rows_of_another_kind_are_refused(tmp_path: Path) -> None:
    honest = artifact.read(write_forecaster(tmp_path / "honest"))
    other = artifact.read(write_decoder(tmp_path / "other"))
    for i, data in enumerate((other.files[bundle.GOLDEN], b"PK", b"")):
        files = {**honest.files, bundle.GOLDEN: data}
        path = artifact.write(tmp_path / str(i), honest.manifest, files)
        with pytest.raises(errors.GoldenError):
            artifact.load(path)


def test_asking_for_cuda_without_it_is_an_error(tmp_path: Path) -> None:
    folder = write_forecaster(tmp_path / "a")
    with pytest.raises(errors.ProviderError, match="CUDA was asked for"):
        artifact.load(folder, provider="cuda")
    with pytest.raises(errors.ProviderError, match="must be one of"):
        artifact.load(folder, provider="tpu")
    assert artifact.load(folder, provider="auto").providers == ["CPUExecutionProvider"]


@pytest.mark.slow
def test_a_hundred_thousand_windows_stay_under_a_stated_memory(tmp_path: Path) -> None:
    """300 MB of windows from disk: the peak is the answer (80 MB), the runtime and a few chunks."""
    folder = write_forecaster(tmp_path / "artifact", channels=4)
    rows = 100_000
    source = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, STEPS, 4, 9))
    generator = np.random.default_rng(0)
    for start in range(0, rows, 10_000):
        part = source[start : start + 10_000]
        part[:] = generator.standard_normal(part.shape, np.float32)
    source.flush()
    program = f"""
import sys
sys.path.insert(0, {str(Path(artifact.__file__).parent.parent)!r})
import numpy as np, artifact
model = artifact.load({str(folder)!r})
x = np.load({str(tmp_path / "x.npy")!r}, mmap_mode="r")
y = model.predict({{"neural": x}})["forecast"]
anonymous = [line for line in open("/proc/self/status") if line.startswith("RssAnon")]
print(int(anonymous[0].split()[1]) // 1024)
rng = np.random.default_rng(1)
for i in rng.integers(0, len(x), 200):
    assert model.predict({{"neural": x[i : i + 1]}})["forecast"].tobytes() == y[i].tobytes(), i
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    answer = rows * STEPS * 4 * 4 / 2**20
    assert int(done.stdout) < answer + 150

"""Export: bytes that depend on the weights alone, parity, certificate, golden rows, refusals."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import artifact
from artifact.arrays import decode_npz
from trainer import VERSION, export, graph
from trainer.config import RunConfig
from trainer.data import load_dataset
from trainer.export import ExportError, export_artifact, export_run, to_onnx
from trainer.graph import exported_specs
from trainer.models import build_model
from trainer.training import train

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"name": "synthetic", "channels": 5, "samples": 600}
DECODING = {"name": "synthetic_decoding", "trials": 60}
PATHS = re.compile(rb"/(?:home|root|tmp|usr|work|Users|var|opt)/[\w.-]+|[Ss]ite-packages")


def config(model: dict, data: dict = SMALL, **export_settings) -> RunConfig:
    return RunConfig(
        name="small",
        data=data,
        model=model,
        training={"epochs": 1, "threads": 1},
        export=export_settings,
    )


def exported(tmp_path: Path, run: RunConfig, name: str = "artifact") -> Path:
    """The artifact of an untrained module with the weights of seed 0."""
    dataset = load_dataset(run.data)
    torch.manual_seed(0)
    module = build_model(run.model, dataset.context())
    if hasattr(module, "fit_closed_form"):
        module.fit_closed_form(dataset.train, dataset.validation)
    return export_artifact(module, dataset, run, {"test": {"mse": 0.5}}, tmp_path / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Model name -> folder of its artifact, each made once."""
    folder = tmp_path_factory.mktemp("artifacts")

    def make(name: str) -> Path:
        if not (folder / name).exists():
            exported(folder, config({"name": name}, golden_rows=3), name)
        return folder / name

    return make


@pytest.fixture(scope="module")
def context():
    return load_dataset(SMALL).context()


class Scaled(torch.nn.Module):
    """Feature 0 times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, neural: torch.Tensor) -> torch.Tensor:
        return neural[..., 0] * self.weight


class Noisy(Scaled):
    def forward(self, neural: torch.Tensor) -> torch.Tensor:
        return super().forward(neural) + torch.randn_like(neural[..., 0])


class Short(Scaled):
    def forward(self, neural: torch.Tensor) -> torch.Tensor:
        return super().forward(neural)[:, 10:]


class Unfaithful(Scaled):
    """Another function while it is translated than when it runs."""

    def forward(self, neural: torch.Tensor) -> torch.Tensor:
        answer = super().forward(neural)
        return answer * 1.01 if torch.compiler.is_exporting() else answer


class NotFinite(Scaled):
    def forward(self, neural: torch.Tensor) -> torch.Tensor:
        return super().forward(neural) / (neural[..., 0] - neural[..., 0])


def test_the_graph_holds_only_the_maths(context):
    data = to_onnx(Scaled(), context)
    model = onnx.load_from_string(data)
    assert (model.ir_version, model.opset_import[0].version) == (10, 20)
    assert (model.producer_name, model.producer_version) == ("axonnx", VERSION)
    assert not PATHS.search(data)
    assert b".py" not in data
    assert [value.name for value in model.graph.input] == ["neural"]
    assert [value.name for value in model.graph.output] == ["forecast"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert to_onnx(Scaled(), context) == data


def test_the_version_stands_in_one_more_place_only():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def hide(monkeypatch, *hidden: str) -> None:
    """Let these distributions be found by nobody, though their modules can be imported."""
    real = Distribution.from_name

    def from_name(name: str) -> Distribution:
        if name in hidden:
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(Distribution, "from_name", from_name)


def test_an_image_of_copied_sources_with_another_onnxruntime_exports(tmp_path, monkeypatch):
    """Its distributions are neither called axonnx nor, on a GPU, onnxruntime."""
    hide(monkeypatch, "axonnx", "onnxruntime")
    made = artifact.load(exported(tmp_path, config({"name": "persistence"})))
    libraries = made.manifest.provenance["libraries"]
    assert libraries["onnxruntime"] == onnxruntime.__version__
    assert {"torch", "numpy", "scipy"} <= set(libraries)


def test_the_callers_module_is_left_as_it_was(context):
    module = Scaled().train()
    to_onnx(module, context)
    assert module.training
    assert module.weight.requires_grad


def test_metadata_is_stripped_from_every_depth():
    inner = onnx.helper.make_node("Identity", ["x"], ["y"], doc_string="deep doc")
    inner.metadata_props.add(key="pkg", value="/home/someone/model.py")
    branch = onnx.helper.make_graph(
        [inner],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1], "value doc")],
        doc_string="branch doc",
    )
    outer = onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    function = onnx.helper.make_function(
        "d", "f", ["a"], ["b"], [inner], [onnx.helper.make_opsetid("", 20)]
    )
    function.doc_string = "function doc"
    weight = onnx.helper.make_tensor("x", onnx.TensorProto.FLOAT, [1], [0.0])
    weight.doc_string = "weight doc"
    top = onnx.helper.make_graph([outer], "g", [], [], [weight], doc_string="graph doc")
    model = onnx.helper.make_model(top, functions=[function], doc_string="model doc")
    model.metadata_props.add(key="host", value="somewhere")
    graph._strip(model)
    data = model.SerializeToString()
    assert b"doc" not in data
    assert b"someone" not in data
    assert b"somewhere" not in data


def test_random_operators_are_refused(context):
    with pytest.raises(ExportError, match="random operators RandomNormalLike; noise must be an"):
        to_onnx(Noisy(), context)


def test_an_output_of_another_shape_is_refused(context):
    with pytest.raises(ExportError, match=r"outputs of the graph are .*10.*; the data set states"):
        to_onnx(Short(), context)


@pytest.mark.parametrize(
    ("module", "text"), [(Unfaithful(), "differ by .*, above"), (NotFinite(), "not finite")]
)
def test_an_unfaithful_graph_stops_the_export(tmp_path, module, text):
    dataset = load_dataset(SMALL)
    with pytest.raises(ExportError, match=text):
        export_artifact(module, dataset, config({"name": "gru"}), {}, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["gru", "patchformer", "linear", "persistence"])
def test_an_artifact_of_every_model_loads_and_says_what_it_is(made, name):
    run = config({"name": name}, golden_rows=3)
    model = artifact.load(made(name))
    manifest = model.manifest
    assert model.golden.identical
    assert (manifest.name, manifest.version, manifest.task) == ("small", "1", "forecast")
    assert manifest.model == name
    assert manifest.config == run.public()
    assert manifest.metrics == {"test": {"mse": 0.5}}
    assert set(manifest.provenance["libraries"]) == {
        "torch",
        "onnx",
        "onnxscript",
        "scipy",
        "onnxruntime",
        "numpy",
        "safetensors",
    }
    dynamic = manifest.inputs[0].shape[2] is None
    assert len(manifest.determinism["certificate"]) == (2 if dynamic else 1)
    channels = {entry["row"]["neural"][1] for entry in manifest.determinism["certificate"]}
    assert len(channels) == (2 if dynamic else 1)
    gap, bound = (manifest.determinism[key]["forecast"] for key in ("parity", "golden_bound"))
    assert 0 <= gap <= bound
    unit = manifest.outputs[0].unit
    assert unit == ("normalized" if name == "gru" else load_dataset(SMALL).unit)


def test_golden_rows_are_windows_of_the_validation_part(made):
    golden = decode_npz((made("persistence") / "golden.npz").read_bytes())
    windows = load_dataset(SMALL).validation
    places = np.array([0, round((len(windows) - 1) / 2), len(windows) - 1])
    np.testing.assert_array_equal(golden["input.neural"], windows.batch(places).inputs["neural"])


def test_synthetic_golden_rows_are_not_recorded(tmp_path):
    folder = exported(tmp_path, config({"name": "persistence"}, golden="synthetic"))
    golden = decode_npz((folder / "golden.npz").read_bytes())["input.neural"]
    dataset = load_dataset(SMALL)
    recorded = np.concatenate(
        [part.recorded(slice(None))["neural"].ravel() for part in dataset.parts.values()]
    )
    # float32 values coincide now and then
    assert np.isin(golden, recorded).mean() < 0.02
    np.testing.assert_array_equal(golden[:, 10:], np.repeat(golden[:, 9:10], 10, axis=1))
    assert artifact.load(folder).manifest.determinism["golden"]["kind"] == "synthetic"


def test_a_decoder_with_three_inputs(tmp_path):
    folder = exported(tmp_path, config({"name": "decoder"}, data=DECODING))
    model = artifact.load(folder)
    assert [spec.name for spec in model.manifest.inputs] == ["neural", "behavior", "behavior_mask"]
    inputs = load_dataset(DECODING).test.batch(slice(0, 5)).inputs
    answer = model.predict(inputs)["probability"]
    np.testing.assert_allclose(answer.sum(axis=1), 1.0, rtol=1e-6)


def test_no_file_names_this_machine(made):
    folder = made("gru")
    host = os.uname().nodename
    secrets = [str(folder.parent), str(ROOT), f"{Path.home()}/", *([host] if len(host) > 4 else [])]
    names = {path.name for path in folder.iterdir()}
    assert names == {"manifest.json", "model.onnx", "config.yaml", "golden.npz", "README.md"}
    for path in folder.iterdir():
        data = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in data, f"{path.name} holds {secret}"
        if path.name != "golden.npz":  # numbers may spell anything
            assert not PATHS.search(data), f"{path.name} holds {PATHS.search(data)}"


def test_a_folder_that_is_no_artifact_is_left_alone(tmp_path):
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="is no artifact; it is left alone"):
        exported(tmp_path, config({"name": "persistence"}))
    assert (tmp_path / "artifact" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_training_twice_and_export_run_give_the_same_bytes(tmp_path):
    run_config = config({"name": "patchformer", "width": 8, "channel_blocks": 0})
    folders = []
    for name in ("first", "second"):
        run = train(run_config, tmp_path / name)
        folders.append(
            export_artifact(
                run.module, run.dataset, run.config, run.metrics, tmp_path / name / "artifact"
            )
        )
    first = {path.name: path.read_bytes() for path in folders[0].iterdir()}
    assert {path.name: path.read_bytes() for path in folders[1].iterdir()} == first
    again = export_run(tmp_path / "second", "best", tmp_path / "again")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == first
    last = export_run(tmp_path / "second", "last", tmp_path / "last")
    assert artifact.load(last).manifest.metrics["epoch"] == 1


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_export import config, exported
for name in ("gru", "patchformer"):
    exported(Path(sys.argv[2]), config({"name": name}), name)
"""


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(tmp_path):
    digests = []
    for seed in ("1", "2"):
        here = tmp_path / f"somewhere-{seed}"
        here.mkdir()
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), "out"],
            cwd=here,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            check=True,
        )
        files = sorted(path for path in here.rglob("*") if path.is_file())
        assert len(files) == 10
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert digests[0] == digests[1]


@given(gap=st.floats(0, 1e3), sd=st.floats(0, 1e3), golden=st.floats(0, 1e3))
def test_golden_bound(gap, sd, golden):
    bound = export.golden_bound(gap, sd, golden)
    ceiling = 1e-4 * min(sd, golden)  # more is refused where the artifact is loaded
    assert bound <= ceiling
    assert bound == ceiling or (bound >= 4 * gap and bound >= 1e-6 * sd)


@given(count=st.integers(1, 500), wanted=st.integers(1, 64))
def test_spread_takes_distinct_rows_and_both_ends(count, wanted):
    rows = export.spread(count, wanted)
    assert len(set(rows)) == len(rows) == min(count, wanted)
    assert rows == sorted(rows)
    assert rows[0] == 0
    assert rows[-1] == (count - 1 if len(rows) > 1 else 0)


def test_specs_open_the_channel_axis_only_where_the_model_allows(context):
    module = Scaled()
    assert exported_specs(module, context) == (context.inputs, context.outputs)
    module.dynamic_channel = True
    inputs, outputs = exported_specs(module, context)
    assert inputs[0].shape == (None, 20, None, 9)
    assert outputs[0].shape == (None, 20, None)
    data = graph.to_onnx(module, context)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    neural = np.ones((3, 20, 11, 9), np.float32)
    (answer,) = session.run(None, {"neural": neural})
    np.testing.assert_array_equal(answer, np.full((3, 20, 11), 2.0, np.float32))

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from challenge_artifacts import FRAME, seer_graph, write_seer
from emulated_worker import emulate
from onnx import shape_inference
from pydantic import ValidationError
from submission_helpers import bend, members, python_or_skip

import artifact
from artifact import providers
from artifact.bundle import write_zip
from submission import layers, predictions
from submission.build import build
from submission.challenges import ARRAY_KEY, Definition
from submission.challenges.mouse_vs_ai import CHALLENGE, graph_problems
from submission.checking import trial
from submission.checking.check import Report, check
from submission.config import SubmissionConfig, load_config
from submission.errors import ConfigError, ContractError
from submission.programs import write_task
from submission.scoring.score import score
from submission.worker import sandbox

SETTINGS = {"recordings": ["one", "two"], "window": 0.3, "folds": 2, "batch": 5}
SCORED = [
    f"/observation_encoder/conv{place}/{name}"
    for place in (0, 1)
    for name in ("Conv_output_0", "Relu")
]
ROOT = Path(__file__).parents[2]
ROWS = {"one": 13, "two": 8}
REFERENCE = """\
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import artifact
frames = np.load(sys.argv[3])["arr_0"].astype("f4")
np.save(sys.argv[4], artifact.load(sys.argv[2]).predict({"obs_0": frames})["action"])
print(artifact.providers.onnxruntime.__version__)
"""


def define(**settings: object) -> Definition:
    chosen = CHALLENGE.settings.model_validate({**SETTINGS, **settings})
    return CHALLENGE.definition(chosen, ())


def frames(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, *FRAME)).astype(np.float16)


@pytest.fixture(scope="module")
def seer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seer(tmp_path_factory.mktemp("seer") / "artifact")


def configuration(model: Path, output: Path, **settings: object) -> SubmissionConfig:
    return SubmissionConfig.model_validate(
        {
            "challenge": "mouse_vs_ai",
            "settings": {**SETTINGS, **settings},
            "models": {"main": model},
            "output": output,
        }
    )


@pytest.fixture(scope="module")
def built(seer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(configuration(seer, tmp_path_factory.mktemp("built") / "mouse.zip")).path


def failures(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.status == "failed"]


def test_definition_has_the_published_facts():
    definition = CHALLENGE.definition(CHALLENGE.settings(), ())
    assert definition.kind == "graph"
    assert [entry.name for entry in definition.sets] == [
        "tigre569_p2s38",
        "tigre613_p2s23",
        "tigre847_p2s8",
    ]
    assert definition.contract("main", None).inputs[ARRAY_KEY].shape == (1, 86, 155)
    assert definition.fewest == 100
    assert definition.columns[-1].key == "mean"
    assert {column.sorting for column in definition.columns} == {"desc"}
    assert {
        key: definition.options[key] for key in ("rate", "window", "folds", "alpha", "eps")
    } == {
        "rate": 10.0,
        "window": 2.0,
        "folds": 5,
        "alpha": 1.0,
        "eps": 0.2,
    }
    config = load_config(ROOT / "configs/submissions/mouse_vs_ai.yaml")
    assert config.settings == CHALLENGE.settings()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recordings": ["one", "one"]}, "a name of its own"),
        ({"recordings": ["mean"]}, "other than 'mean'"),
        ({"rows": {"three": 5}}, "three is none of the recordings"),
    ],
)
def test_settings_that_cannot_be(settings: Mapping[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        define(**settings)


def test_one_submission_is_one_artifact():
    with pytest.raises(ConfigError, match="a, b; a submission to mouse_vs_ai is one"):
        CHALLENGE.definition(CHALLENGE.settings(), ("a", "b"))


def of_the_kit(model: onnx.ModelProto) -> list[str]:
    """Layers as the public kit lists them, by onnx's own shape inference."""
    graph = shape_inference.infer_shapes(model).graph
    shaped = [
        value.name
        for value in graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        and len(value.type.tensor_type.shape.dim) in (2, 3, 4)
    ]
    valid = [output.name for output in graph.output] + shaped
    valid = [name for name in valid if not any(part in name for part in layers.IGNORED)]
    before = set()
    for node in graph.node:
        if any("observation_encoder" in name for name in node.input) and any(
            "policy" in name for name in node.input
        ):
            break
        before |= set(node.output)
    found = [name for name in valid if name in before]
    return found if len(found) >= 3 else valid[: max(1, len(valid) // 2)]


@pytest.mark.parametrize(
    "changes",
    [{}, {"kit_names": False}, {"convolutions": 3}, {"convolutions": 1}, {"convolutions": 4}],
)
def test_layers_are_those_of_the_kit(changes: Mapping[str, object]):
    model = seer_graph(**changes)  # type: ignore[arg-type]
    data = model.SerializeToString()
    found = layers.tensors(data)
    chosen, sizes = layers.chosen(providers.create_session(layers.everything(data, found)), found)
    assert chosen == of_the_kit(model)
    assert set(sizes) == set(chosen)
    if changes == {}:
        assert chosen == SCORED
        assert sizes[SCORED[0]] == 3 * 10 * 19 * 4
    exposed = onnx.load_model_from_string(layers.exposed(data, SCORED[:1]))
    assert [output.name for output in exposed.graph.output] == ["action", SCORED[0]]


def test_what_is_no_batch_is_no_layer():
    model = seer_graph()
    constant = onnx.numpy_helper.from_array(np.ones((2, 4), np.float32), "row")
    model.graph.initializer.append(constant)
    model.graph.node.insert(
        0, onnx.helper.make_node("Exp", ["row"], ["/observation_encoder/fixed"])
    )
    model.graph.node.insert(0, onnx.helper.make_node("Shape", ["obs_0"], ["shape"]))
    data = model.SerializeToString()
    found = layers.tensors(data)
    assert {"/observation_encoder/fixed", "shape"} <= set(found.inside)
    session = providers.create_session(layers.everything(data, found))
    assert layers.chosen(session, found)[0] == SCORED


def test_a_graph_with_the_kits_names_has_nothing_odd():
    assert graph_problems(seer_graph().SerializeToString()) == ([], [])


def external() -> onnx.ModelProto:
    model = seer_graph()
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    return model


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            seer_graph(frame=(1, 84, 84)).SerializeToString(),
            "84, 84.; it must be float32 .batch, 1, ",
        ),
        (seer_graph(batch=1).SerializeToString(), "batches of 1 alone"),
        (seer_graph(convolutions=1).SerializeToString(), "2 tensors inside can be scored"),
        (external().SerializeToString(), "keeps .*weight0 in another file"),
        (b"no graph", "graph: "),
        (seer_graph().SerializeToString()[:-40], "graph: "),
    ],
)
def test_graphs_that_cannot_be_scored(data: bytes, message: str):
    (wrong,), odd = graph_problems(data)
    assert odd == []
    assert re.search(message, wrong), wrong


def test_names_that_are_not_the_kits_are_warned_about():
    wrong, (odd,) = graph_problems(seer_graph(kit_names=False).SerializeToString())
    assert wrong == []
    assert "no node takes a tensor of observation_encoder" in odd
    assert "it scores 6 tensors" in odd


def test_further_inputs_and_random_operators_are_warned_about():
    model = seer_graph()
    further = onnx.helper.make_tensor_value_info("speed", onnx.TensorProto.FLOAT, ["batch", 2])
    model.graph.input.append(further)
    node = onnx.helper.make_node("RandomNormalLike", ["speed"], ["noise"])
    model.graph.node.append(node)
    wrong, odd = graph_problems(model.SerializeToString())
    assert wrong == []
    assert "the further inputs speed" in odd[0]
    assert "random operators RandomNormalLike" in odd[1]


def test_zip_is_the_graph_and_what_it_is(built: Path, seer: Path, tmp_path: Path):
    files = members(built)
    assert set(files) == {"model.onnx", "submission.json"}
    assert files["model.onnx"] == (seer / "model.onnx").read_bytes()
    again = build(configuration(seer, tmp_path / "again.zip")).path
    assert again.read_bytes() == built.read_bytes()


def test_build_refuses_what_cannot_be_scored_and_says_what_is_odd(tmp_path: Path):
    small = write_seer(tmp_path / "small", frame=(1, 84, 84))
    with pytest.raises(
        ContractError, match=r"first input obs_0 is .*84, .*not \(batch, 1, 86, 155"
    ):
        build(configuration(small, tmp_path / "s.zip"))
    shallow = write_seer(tmp_path / "shallow", convolutions=1)
    with pytest.raises(ContractError, match="2 tensors inside"):
        build(configuration(shallow, tmp_path / "s.zip"))
    assert not (tmp_path / "s.zip").exists()
    plain, heard = write_seer(tmp_path / "plain", kit_names=False), []
    build(configuration(plain, tmp_path / "s.zip"), heard.append)
    assert any(text.startswith("warning: no node takes") for text in heard)


def run_ingestion(folder: Path, submission: Path, sets: int = 2) -> tuple[Path, int, str]:
    """Output folder, exit status and stderr of the ingestion program, run by this interpreter."""
    definition = define()
    chosen = definition.sets[:sets]
    inputs = {e.name: {ARRAY_KEY: frames(3, ROWS[e.name])} for e in chosen}
    task = write_task(definition, chosen, inputs, {e.name: {} for e in chosen}, folder / "task")
    output = folder / "output"
    output.mkdir()
    words = [task.input_data, output, task.ingestion_program, submission]
    program = task.ingestion_program / "ingestion.py"
    done = subprocess.run(
        [sys.executable, "-I", str(program), *map(str, words)], capture_output=True, text=True
    )
    return output, done.returncode, done.stderr


def test_ingestion_writes_activations_and_the_outputs_of_model_predict(
    built: Path, seer: Path, tmp_path: Path
):
    program = trial.unpack(built, tmp_path / "zip")
    output, status, errors = run_ingestion(tmp_path, program)
    assert (status, errors) == (0, "")
    model = artifact.load(seer)
    exposed = layers.exposed((seer / "model.onnx").read_bytes(), SCORED)
    session = onnxruntime.InferenceSession(
        exposed, providers.session_options(), providers=["CPUExecutionProvider"]
    )
    for name, rows in ROWS.items():
        given = frames(3, rows).astype(np.float32)
        found = predictions.read_arrays(output / f"{name}.predictions.npz")
        assert list(found) == [
            "000.observation_encoder.conv0.Conv_output_0",
            "001.observation_encoder.conv0.Relu",
            "002.observation_encoder.conv1.Conv_output_0",
            "003.observation_encoder.conv1.Relu",
        ]
        direct = session.run(SCORED, {"obs_0": given})
        for array, wanted in zip(found.values(), direct, strict=True):
            assert array.dtype == np.float32
            assert array.tobytes() == wanted.tobytes()
        (own,) = predictions.read_arrays(output / f"{name}.outputs.npz").values()
        assert own.tobytes() == model.predict({"obs_0": given})["action"].tobytes()
    (tmp_path / "again").mkdir()
    again, _, _ = run_ingestion(tmp_path / "again", program)
    for path in output.glob("*.npz"):
        assert (again / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "the submission holds no .onnx file; it must hold one"),
        (("a.onnx", "deep/b.onnx"), "2 .onnx files: a.onnx, deep/b.onnx"),
    ],
)
def test_ingestion_wants_one_graph(names: tuple[str, ...], message: str, tmp_path: Path):
    submission = tmp_path / "zip"
    submission.mkdir()
    for name in names:
        (submission / name).parent.mkdir(exist_ok=True)
        (submission / name).write_bytes(b"")
    output, status, errors = run_ingestion(tmp_path, submission, sets=1)
    assert status == 1
    assert message in errors
    assert message in (output / "ingestion_error.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"second.onnx": b""}, "holds 2 .onnx files (model.onnx, second.onnx)"),
        ({"model.onnx": None}, "holds no .onnx file; the submission is a zip with one"),
        ({"model.onnx": external().SerializeToString()}, "model.onnx: keeps /observation_encoder/"),
        ({"model.onnx": seer_graph(batch=4).SerializeToString()}, "batches of 4 alone"),
        (
            {"model.onnx": seer_graph(frame=(3, 86, 155)).SerializeToString()},
            "3, 86, 155]; it must",
        ),
        ({"model.onnx": b"\x00"}, "model.onnx: graph: "),
    ],
)
def test_broken_zips_fail_before_they_run(
    built: Path, tmp_path: Path, changes: Mapping[str, bytes | None], message: str
):
    report = check(bend(built, tmp_path / "bent.zip", changes), pythons=["3.11"])
    (text,) = failures(report)
    assert message in text


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11"])
def test_check_passes_in_the_process_engine(built: Path, version: str):
    python_or_skip(version)
    report = check(built, pythons=[version])
    assert failures(report) == []
    assert [row.rows for row in report.rows] == [16, 16]
    assert all(row.equal for row in report.rows)
    text = "\n".join(finding.text for finding in report.findings)
    assert "model.onnx: starts here" in text
    assert "mean " in text


@pytest.mark.slow
def test_check_of_a_foreign_zip_takes_any_name_and_warns(tmp_path: Path):
    graph = seer_graph(kit_names=False).SerializeToString()
    path = write_zip({"policy_of_mine.onnx": graph}, tmp_path / "mine.zip")
    settings = CHALLENGE.settings.model_validate(SETTINGS)
    report = check(path, challenge=(CHALLENGE, settings), pythons=["3.11"])
    assert failures(report) == []
    (warning,) = [finding.text for finding in report.findings if finding.status == "warning"]
    assert warning.startswith("policy_of_mine.onnx: no node takes")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11"])
def test_worker_gives_the_bytes_of_model_predict_twice(
    built: Path, seer: Path, version: str, tmp_path: Path
):
    python_or_skip(version)
    definition = define()
    given = {e.name: {ARRAY_KEY: frames(3, ROWS[e.name])} for e in definition.sets}
    truth = {name: definition.truth(arrays) for name, arrays in given.items()}
    task = write_task(definition, definition.sets, given, truth, tmp_path / "task")
    (place,), _ = trial.places(definition, None, "process", pythons=[version])
    runs = [
        trial.run(definition, definition.sets, task, built, place.engine, tmp_path / name)
        for name in ("first", "second")
    ]
    for run in runs:
        assert run.outcome.status == "Finished", run.outcome.details
        assert set(run.outcome.scores) == {"one", "two", "mean"}
        assert run.facts["versions"]["onnxruntime"] == "1.23.2"
    outputs = [run.outcome.prediction.output for run in runs]  # type: ignore[union-attr]
    interpreter = sandbox.environment(python_or_skip(version), definition.image.packages)
    for name in ROWS:
        for kind in ("predictions", "outputs"):
            one, other = [(output / f"{name}.{kind}.npz").read_bytes() for output in outputs]
            assert one == other
        words = [str(Path(artifact.__file__).parents[1]), str(seer)]
        words += [str(task.input_data / f"{name}.npz"), str(tmp_path / "direct.npy")]  # type: ignore[operator]
        command = [str(interpreter.path), "-c", REFERENCE, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, "1.23.2"), done.stderr
        (own,) = predictions.read_arrays(outputs[0] / f"{name}.outputs.npz").values()
        assert own.tobytes() == np.load(tmp_path / "direct.npy").tobytes()


@pytest.mark.slow
def test_score_and_the_emulated_worker_agree(built: Path, shared_data: Path, tmp_path: Path):
    definition = define()
    given = {e.name: {ARRAY_KEY: frames(3, ROWS[e.name])} for e in definition.sets}
    truth = {name: definition.truth(arrays) for name, arrays in given.items()}
    task = write_task(definition, definition.sets, given, truth, tmp_path / "task")
    python_or_skip("3.10")
    result = score(built, data=tmp_path / "task", python="3.10")
    assert result.status == "Finished", result.causes
    scores = {found.column.key: found.score for found in result.columns}
    assert set(scores) == {"one", "two", "mean"}
    python = sandbox.environment(python_or_skip("3.10"), definition.image.packages).path
    emulator = shared_data.parent / "tools" / "codabench-worker"
    report = emulate(emulator, task, built, list(scores), python, tmp_path / "work")
    assert report["leaderboard"] == scores

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest
from small_artifacts import write_forecaster
from submission_helpers import Artifacts, configuration, members, write_config

import artifact
from submission import archive, challenges, cli, contents
from submission.build import build
from submission.errors import ConfigError, ContractError

PACKAGE = Path(artifact.__file__).parent


def test_contents_of_the_zip(small_zip: Path, artifacts: Artifacts):
    files = members(small_zip)
    tops = {name.split("/")[0] for name in files}
    assert tops == {"model.py", "submission.json", "artifact", "artifacts", "vendor"}
    assert {name.split("/")[1] for name in files if name.startswith("vendor/")} == {"cp311"}
    for path in PACKAGE.glob("*.py"):
        assert files[f"artifact/{path.name}"] == path.read_bytes()
    for path in artifacts.affi.iterdir():
        assert files[f"artifacts/affi/{path.name}"] == path.read_bytes()
    stated = json.loads(files["submission.json"])
    assert stated["artifacts"]["affi"]["id"] == artifact.read(artifacts.affi).id
    assert stated["runtimes"]["cp311"]["onnxruntime"] == "1.31.1"
    assert archive.problems(small_zip, ("model.py",)) == []


def test_same_bytes_again_from_another_folder(
    small_zip: Path, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    again = build(configuration(artifacts, Path("again.zip"))).path
    assert again.read_bytes() == small_zip.read_bytes()


def test_runtime_of_one_python_stays_below_12_mb_zipped(small_zip: Path):
    with zipfile.ZipFile(small_zip) as source:
        size = sum(i.compress_size for i in source.infolist() if i.filename.startswith("vendor/"))
    assert size <= 12e6


ENTRIES = ("neural_forecasting.py", "generic.py", "eeg2025.py")
PROGRAMS = ("ingestion_model.py", "ingestion_eeg2025.py", "ingestion_mouse_vs_ai.py")
PROGRAMS += ("measure.py", "pinned.py", "scoring.py", "reference.py")


def test_every_template_is_tested():
    folder = resources.files("submission").joinpath("templates")
    found = {path.name.removesuffix(".template") for path in folder.iterdir()}
    pages = {name for name in found if name.startswith("bundle_")}
    assert found - pages == {"bootstrap.py", *ENTRIES, *PROGRAMS}


@pytest.mark.parametrize("name", [*ENTRIES, *PROGRAMS])
def test_templates_are_python_3_10_and_clean(name: str):
    text = challenges.template(name)
    if name in ENTRIES:
        challenge = challenges.get(name.removesuffix(".py"))
        text = challenge.definition(challenge.settings(), ()).template
        text = challenges.template("bootstrap.py") + text
    ast.parse(text, feature_version=(3, 10))
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "100"]
    done = subprocess.run(
        [*ruff, "--select", "E,F,B", "--stdin-filename", "model.py", "-"],
        input=text.decode(),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_flags_override_the_file_and_normalized_units_are_warned_about_loudly(
    artifacts: Artifacts, runtime_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "other.zip"
    words = ["build", str(write_config(artifacts, tmp_path)), "--output", str(output)]
    words += ["--no-report", "--model", f"beignet={artifacts.normalized}"]
    assert cli.main(["submission", *words]) == 0
    stated = json.loads(members(output)["submission.json"])
    assert stated["artifacts"]["beignet"]["id"] == artifact.read(artifacts.normalized).id
    assert not (tmp_path / "submission.zip").exists()
    printed = capsys.readouterr().out
    assert "beignet answers in normalized units" in printed
    assert f"next: axonnx submission check {output}" in printed
    assert cli.main(["submission", "check", str(output), "--python", "3.11"]) == 0
    printed = capsys.readouterr().out
    assert "! artifacts/beignet: ANSWERS IN NORMALIZED UNITS. CodaBench scores raw" in printed
    assert "mean(mean²+std²)" in printed
    assert "artifacts/affi: ANSWERS" not in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"channels": {"affi": 6, "beignet": 3}}}, r"channel=5.*not \(batch, 20, 6"),
        ({"settings": {"channels": {"affi": 5, "beignet": 3}, "features": 1}}, "feature=9"),
    ],
)
def test_artifact_that_does_not_fit_the_challenge(
    artifacts: Artifacts, tmp_path: Path, changes, message
):
    with pytest.raises(ContractError, match=message):
        build(configuration(artifacts, tmp_path / "s.zip", **changes))
    assert list(tmp_path.iterdir()) == []


def test_artifact_with_two_inputs_does_not_fit(artifacts: Artifacts, tmp_path: Path):
    models = {"affi": artifacts.decoder, "beignet": artifacts.beignet}
    with pytest.raises(ContractError, match=r"neural, behavior, behavior_mask; .* one input"):
        build(configuration(artifacts, tmp_path / "s.zip", models=models))


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, "models: name an artifact per subject"),
        ({"affi": Path("absent")}, "lacks beignet.*--model beignet=DIR"),
        ({"affi": Path("absent"), "beignet": Path("absent")}, "models.affi: absent: no such"),
        ({"affi": Path("a"), "beignet": Path("b"), "x": Path("c")}, "x is no subject of"),
    ],
)
def test_models_that_are_missing_or_too_many(artifacts: Artifacts, tmp_path: Path, models, message):
    with pytest.raises(ConfigError, match=message):
        build(configuration(artifacts, tmp_path / "s.zip", models=models))


def test_one_artifact_for_every_subject_is_there_once(
    artifacts: Artifacts, runtime_cache: Path, tmp_path: Path
):
    folder = write_forecaster(tmp_path / "any", channels=4, dynamic_channel=True)
    config = configuration(artifacts, tmp_path / "s.zip", models={}, artifact=folder)
    built = build(config)
    assert set(built.artifacts) == {"affi", "beignet"}
    folders = {name.split("/")[1] for name in members(built.path) if name.startswith("artifacts/")}
    assert folders == {"affi"}


@pytest.mark.parametrize(
    ("models", "data", "sets"),
    [
        (["z", "a"], None, ["z", "a"]),
        (["a", "z"], {"two": {"subject": "z"}, "one": {"subject": "a"}}, ["two", "one"]),
    ],
)
def test_order_of_models_and_sets_is_kept(tmp_path: Path, models, data, sets):
    challenge = challenges.get("generic")
    settings = challenge.settings.model_validate({"data": data})
    stored = {name: contents.Stored(id="0" * 64, folder=name) for name in models}
    (tmp_path / contents.FILE).write_bytes(
        contents.Contents(challenge, settings, stored, {}).to_json()
    )
    stated = contents.read(tmp_path)
    assert [entry.name for entry in stated.definition.sets] == sets


def test_model_that_the_file_does_not_name(
    artifacts: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["build", str(write_config(artifacts, tmp_path)), "--model", "afi=anywhere"]
    assert cli.main(["submission", *words]) == 2
    assert "did you mean 'affi'?" in capsys.readouterr().err


def test_long_name_is_refused_before_anything_is_written(artifacts: Artifacts, tmp_path: Path):
    with pytest.raises(ConfigError, match="at most 64 are taken"):
        build(configuration(artifacts, tmp_path / f"{'s' * 61}.zip"))
    assert list(tmp_path.iterdir()) == []


def test_damaged_artifact_ends_with_1(
    artifacts: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    damaged = write_forecaster(tmp_path / "damaged", channels=5)
    with open(damaged / "model.onnx", "r+b") as stream:
        stream.seek(100)
        stream.write(b"\xff")
    words = ["build", str(write_config(artifacts, tmp_path)), "--model", f"affi={damaged}"]
    assert cli.main(["submission", *words]) == 1
    assert "model.onnx: its sha256 is not the manifest's" in capsys.readouterr().err


def test_package_needs_neither_torch_nor_trainer():
    code = (
        "import sys, submission.cli; "
        "bad = {'torch', 'trainer', 'serve', 'onnx'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

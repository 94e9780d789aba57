from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from submission_helpers import CHANNELS, Artifacts, bend, members, with_predict

import artifact
from artifact.manifest import canonical_json
from submission import cli


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All five files of the small challenge."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(5)
    for name, subject, rows in (
        ("affi", "affi", 4),
        ("affi_2024-03-20_private", "affi", 3),
        ("beignet", "beignet", 2),
        ("beignet_2022-06-01_private", "beignet", 1),
        ("beignet_2022-06-02_private", "beignet", 5),
    ):
        shape = (rows, 20, CHANNELS[subject], 9)
        values = generator.normal(100, 40, shape).astype(np.float32)
        values[:, 10:] = values[:, 9:10]
        np.savez_compressed(folder / f"test_data_{name}_masked.npz", values)
    return folder


def predict(path: Path, data: Path, output: Path) -> int:
    words = ["predict", str(path), "--data", str(data), "--output", str(output)]
    return cli.main(["submission", *words, "--python", "3.11"])


def test_files_of_the_challenge_bit_for_bit(
    small_zip: Path, artifacts: Artifacts, data: Path, tmp_path: Path
):
    assert predict(small_zip, data, tmp_path / "out") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        f"test_{name}.predictions.npz"
        for name in ("affi", "affi_private", "beignet", "beignet_private_1", "beignet_private_2")
    }
    model = artifact.load(artifacts.beignet)
    for name, file in (
        ("beignet", "test_data_beignet_masked"),
        ("beignet_private_2", "test_data_beignet_2022-06-02_private_masked"),
    ):
        inputs = np.load(data / f"{file}.npz")["arr_0"]
        written = np.load(tmp_path / "out" / f"test_{name}.predictions.npz")["arr_0"]
        expected = model.predict({"neural": inputs})["forecast"]
        assert written.dtype == np.float32
        assert written.tobytes() == expected.tobytes()
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert predict(small_zip, data, tmp_path / "again") == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()} == first


def test_some_files_missing_and_all_missing(
    small_zip: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (data / "test_data_affi_masked.npz").unlink()
    assert predict(small_zip, data, tmp_path / "out") == 0
    assert "holds no test_data_affi_masked.npz" in capsys.readouterr().out
    assert len(list((tmp_path / "out").iterdir())) == 4
    (tmp_path / "empty").mkdir()
    assert predict(small_zip, tmp_path / "empty", tmp_path / "none") == 2
    assert "holds none of test_data_affi_masked.npz" in capsys.readouterr().err


def test_nothing_is_written_when_one_answer_is_wrong(
    small_zip: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bent = with_predict(
        small_zip, tmp_path / "bent.zip", "return answer * (np.nan if len(X) == 5 else 1)"
    )
    assert predict(bent, data, tmp_path / "out") == 1
    assert "beignet_private_2: arr_0 holds" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def escaped(value: dict) -> None:
    data = {"/../../../escaped": {"file": "test_data_affi_masked.npz", "subject": "affi"}}
    value["settings"]["data"] = data
    entry = value["plan"]["sets"][0] | {"name": "/../../../escaped"}
    value["plan"]["sets"] = [entry | {"output": "test_/../../../escaped.predictions.npz"}]


def file_elsewhere(value: dict) -> None:
    data = {"affi": {"file": "../data/test_data_affi_masked.npz", "subject": "affi"}}
    value["settings"]["data"] = data
    value["plan"]["sets"] = [value["plan"]["sets"][0] | {"input": data["affi"]["file"]}]


def runtime_elsewhere(value: dict) -> None:
    value["runtimes"]["../vendor/cp311"] = value["runtimes"].pop("cp311")


def python_elsewhere(value: dict) -> None:
    value["runtimes"]["cp311"]["python"] = "/../../bin/python3.11"


def artifact_missing(value: dict) -> None:
    del value["artifacts"]["affi"]


@pytest.mark.parametrize(
    "change", [escaped, file_elsewhere, runtime_elsewhere, python_elsewhere, artifact_missing]
)
def test_hostile_names_in_a_zip_are_refused(
    small_zip: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change
):
    def rewrite(content: bytes) -> bytes:
        value = json.loads(content)
        change(value)
        return canonical_json(value)

    bent = bend(small_zip, tmp_path / "bent.zip", {"submission.json": rewrite})
    before = sorted(tmp_path.rglob("*"))
    assert predict(bent, data, tmp_path / "a" / "b" / "c" / "out") == 1
    assert "submission.json is not what this version writes (" in capsys.readouterr().err
    assert cli.main(["submission", "check", str(bent), "--python", "3.11"]) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_artifact_name_of_a_zip_that_leaves_its_folder(
    decoder_zip: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = members(decoder_zip)["submission.json"].decode()
    text = text.replace('"decoder', '"../decoder')
    bent = bend(decoder_zip, tmp_path / "bent.zip", {"submission.json": text.encode()})
    assert predict(bent, data, tmp_path / "out") == 1
    assert "'../decoder' is no name" in capsys.readouterr().err


def test_the_image_refuses_files_elsewhere(small_zip: Path, data: Path, tmp_path: Path):
    root = Path(__file__).resolve().parents[2]

    def rewrite(content: bytes) -> bytes:
        return content.replace(b'"test_affi.predictions', b'"../test_affi.predictions')

    bent = bend(small_zip, tmp_path / "bent.zip", {"submission.json": rewrite})
    done = subprocess.run(
        [sys.executable, root / "docker" / "run_submission.py", bent, data, tmp_path / "out"],
        env={**os.environ, "AXONNX_INGESTION": __file__},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "'../test_affi.predictions.npz' is no plain file name" in done.stderr
    assert not (tmp_path / "out").exists()


def test_two_modalities_by_name(decoder_zip: Path, artifacts: Artifacts, tmp_path: Path):
    generator = np.random.default_rng(6)
    inputs = {
        "neural": generator.normal(size=(3, 20, 6, 1)).astype(np.float32),
        "behavior": generator.normal(size=(3, 20, 2)).astype(np.float32),
        "behavior_mask": generator.random((3, 20)) < 0.5,
    }
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "decoder.npz", **inputs)
    assert predict(decoder_zip, tmp_path / "data", tmp_path / "out") == 0
    with np.load(tmp_path / "out" / "decoder.predictions.npz") as written:
        assert written.files == ["probability"]
        answer = written["probability"]
    expected = artifact.load(artifacts.decoder).predict(inputs)["probability"]
    assert answer.tobytes() == expected.tobytes()

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from submission_helpers import CHANNELS, Artifacts, with_predict

import artifact
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
    assert "beignet_private_2: forecast holds" in capsys.readouterr().err
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

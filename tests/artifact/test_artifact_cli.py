from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_artifacts import STEPS, write_decoder, write_forecaster

import artifact
from artifact.arrays import decode_npz, encode_npz

ROOT = Path(artifact.__file__).parent.parent


def axonnx(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "axonnx.py"), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_predict_writes_what_the_model_answers(tmp_path: Path) -> None:
    folder = write_forecaster(tmp_path / "artifact")
    x = np.random.default_rng(0).normal(size=(5, STEPS, 4, 9)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "challenge.npz", x)
    want = artifact.load(folder).predict({"neural": x})["forecast"]
    done = axonnx("predict", folder, "x.npy", "--output", "y.npy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert artifact.read(folder).id in done.stdout
    assert np.load(tmp_path / "y.npy").tobytes() == want.tobytes()
    done = axonnx("predict", folder, "challenge.npz", "--output", "y.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "y.npz")["forecast"].tobytes() == want.tobytes()


def test_predict_with_several_inputs(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "artifact")
    model = artifact.load(folder)
    (tmp_path / "x.npz").write_bytes(encode_npz(model.golden_inputs))
    done = axonnx("predict", folder, "x.npz", "--output", "y.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    got = decode_npz((tmp_path / "y.npz").read_bytes())["probability"]
    assert got.tobytes() == model.predict(model.golden_inputs)["probability"].tobytes()


def test_inspect_and_verify(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "artifact")
    done = axonnx("inspect", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in (artifact.read(folder).id, "behavior_mask bool (batch, time=20)", "probability"):
        assert part in done.stdout
    done = axonnx("inspect", folder, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["name"] == "small-decoder"
    done = axonnx("verify", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the same bytes" in done.stdout


def test_verify_tells_a_damaged_artifact(tmp_path: Path) -> None:
    whole, damaged = write_forecaster(tmp_path / "whole"), write_forecaster(tmp_path / "damaged")
    (damaged / "golden.npz").write_bytes(b"x")
    done = axonnx("verify", damaged, whole, cwd=tmp_path)
    assert done.returncode == 1
    assert "damaged: golden.npz" in done.stderr
    assert "whole: holds" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage"),
        (["nonsense"], "no command 'nonsense'"),
        (["inspect"], "usage: axonnx inspect"),
        (["inspect", "nowhere"], "nowhere: no such file or folder"),
        (["verify", "nowhere"], "nowhere: no such artifact"),
        (["verify", "artifact", "--provider", "tpu"], "invalid choice"),
        (["predict", "artifact", "missing.npy", "--output", "y.npy"], "missing.npy"),
        (["predict", "artifact", "x.npy", "--output", "y.txt"], "must end in .npy or .npz"),
        (["predict", "artifact", "x.npy", "--output", "y.npy"], "axis channel has 3; must have 4"),
        (["predict", "artifact", "bad.npy", "--output", "y.npy"], "no .npy data"),
    ],
)
def test_wrong_words_exit_with_two(tmp_path: Path, words: list[str], said: str) -> None:
    write_forecaster(tmp_path / "artifact")
    np.save(tmp_path / "x.npy", np.zeros((1, STEPS, 3, 9), np.float32))
    (tmp_path / "bad.npy").write_bytes(b"not an array at all")
    done = axonnx(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "y.npy").exists()


def test_help_lists_every_command(tmp_path: Path) -> None:
    done = axonnx("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("quickstart", "train", "serve", "submission", "verify"):
        assert word in done.stdout


def test_reading_an_artifact_imports_no_torch() -> None:
    program = "import sys, artifact.cli; print('torch' in sys.modules, 'fastapi' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["False", "False"]

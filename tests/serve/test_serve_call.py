"""`axonnx call` against real servers: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from server_process import ROOT, Server, running

import artifact
from artifact.arrays import Array, decode_npy, decode_npz
from serve.call import KEY_VARIABLE, main, read_arrays, summary, table, write_arrays
from serve.client import Prediction


def windows(rows: int) -> Array:
    generator = np.random.default_rng(rows)
    return generator.normal(0, 3, (rows, 20, 4, 9)).astype(np.float32)


def decoding(rows: int) -> dict[str, Array]:
    generator = np.random.default_rng(5)
    return {
        "neural": generator.normal(size=(rows, 20, 6, 1)).astype(np.float32),
        "behavior": generator.normal(size=(rows, 20, 2)).astype(np.float32),
        "behavior_mask": generator.random((rows, 20)) < 0.5,
    }


def call(*words: object) -> int:
    return main(["call", *map(str, words)])


def test_the_only_input_and_output(
    forecast_server: Server,
    forecaster_model: artifact.Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    neural = windows(6)
    expected = forecaster_model.predict({"neural": neural})["forecast"]
    np.save(tmp_path / "windows.npy", np.asfortranarray(neural).astype(">f4"))
    output = tmp_path / "new" / "forecast.npy"
    assert call(forecast_server.url, tmp_path / "windows.npy", "--output", output) == 0
    assert decode_npy(output.read_bytes()).tobytes() == expected.tobytes()
    assert [path.name for path in output.parent.iterdir()] == ["forecast.npy"]
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "model     small-forecaster, version 1"
    assert lines[1] == f"artifact  {forecaster_model.id}"
    assert lines[2].endswith(" ms")
    assert lines[4].split() == ["output", "shape", "dtype", "min", "max", "mean"]
    low, high = (f"{value:.6g}" for value in (expected.min(), expected.max()))
    assert lines[5].split()[:-1] == ["forecast", "(6,", "20,", "4)", "float32", low, high]
    assert float(lines[5].split()[-1]) == pytest.approx(expected.mean(), abs=1e-4)


def test_several_inputs_and_json(
    decode_server: Server,
    decoder_model: artifact.Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs = decoding(3)
    expected = decoder_model.predict(inputs)["probability"]
    np.savez_compressed(tmp_path / "inputs.npz", **inputs)
    output = tmp_path / "answer.npz"
    words = ("--model", "small-decoder", "--version", "1", "--output", output, "--json")
    assert call(decode_server.url, tmp_path / "inputs.npz", *words) == 0
    assert decode_npz(output.read_bytes())["probability"].tobytes() == expected.tobytes()
    first = output.read_bytes()
    assert call(decode_server.url, tmp_path / "inputs.npz", *words) == 0
    assert output.read_bytes() == first
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["model"], report["artifact"]) == ("small-decoder", decoder_model.id)
    (described,) = report["outputs"]
    assert described["shape"] == [3, 3]
    assert described["max"] == float(expected.max())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["http://127.0.0.1:1", "absent.npy"], "absent.npy: No such file or directory"),
        (["http://127.0.0.1:1", "text.npy"], "text.npy: is no .npy or .npz file of numbers"),
        (["http://127.0.0.1:1", "cut.npy"], "cut.npy: is no .npy or .npz file of numbers"),
        (["http://127.0.0.1:1", "cut.npz"], "cut.npz: is no .npy or .npz file of numbers"),
        (["http://127.0.0.1:1", "pickle.npy"], "pickle.npy: is no .npy or .npz file of numbers"),
        (["http://127.0.0.1:1", "good.npy", "--output", "a.txt"], "must end in .npy or .npz"),
        (["http://127.0.0.1:1", "good.npy", "--timeout", "-1"], "timeout -1.0: must be a number"),
        (["127.0.0.1:1", "good.npy"], "must be an address such as"),
        (["http://127.0.0.1:1", "words.npz", "--model", "m"], "x: dtype <U1 has no datatype"),
    ],
)
def test_wrong_files_and_arguments(
    words: list[str],
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", windows(1))
    np.save("pickle.npy", np.array([{}]), allow_pickle=True)
    np.savez("words.npz", x=np.array(["a"]))
    np.savez("good.npz", x=np.arange(100))
    Path("text.npy").write_text("1 2 3")
    Path("cut.npy").write_bytes(Path("good.npy").read_bytes()[:-1])
    Path("cut.npz").write_bytes(Path("good.npz").read_bytes()[:-9])
    assert call(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("axonnx: error: ")
    assert text in err
    assert len(err.splitlines()) == 1


def test_what_the_service_refuses(
    forecast_server: Server,
    decode_server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(tmp_path / "double.npy", windows(1).astype(float))
    np.savez(tmp_path / "good.npz", windows(1))
    np.savez(tmp_path / "other.npz", other=windows(1))

    def fails(code: int, *words: object) -> str:
        assert call(*words) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("axonnx: error: ")
        return err

    url = forecast_server.url
    assert call(url, tmp_path / "good.npz") == 0
    capsys.readouterr()
    err = fails(1, url, tmp_path / "double.npy")
    assert "neural: datatype must be FP32" in err
    assert ".astype(np.float32)" in err
    assert "(400 invalid_input, field neural, request " in err
    assert "there are neural" in fails(1, url, tmp_path / "other.npz")
    assert "404 not_found" in fails(1, url, tmp_path / "good.npz", "--model", "b")
    assert "no version '7'" in fails(1, url, tmp_path / "good.npz", "--version", 7)
    assert "no answer within 1e-09 s" in fails(1, url, tmp_path / "good.npz", "--timeout", 1e-9)
    text = "small-decoder has several inputs; send a .npz with neural, behavior, behavior_mask"
    assert text in fails(2, decode_server.url, tmp_path / "double.npy")
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    err = fails(1, f"http://127.0.0.1:{port}", tmp_path / "good.npz", "--timeout", 0.5)
    assert f"no connection to http://127.0.0.1:{port}: " in err
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "a.npz"
    assert "file" in fails(2, url, tmp_path / "good.npz", "--output", output)


def test_a_key_comes_from_the_environment(forecaster: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "windows.npy", windows(1))
    key = "a-key-of-many-letters"
    code = "import sys; from serve.call import main; sys.exit(main(sys.argv[1:]))"

    def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, "call", server.url, tmp_path / "windows.npy"],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )

    with running(tmp_path, forecaster, api_keys=key) as server:
        good, none = run({KEY_VARIABLE: key}), run({KEY_VARIABLE: ""})
        wrong, odd = run({KEY_VARIABLE: "not-the-right-key"}), run({KEY_VARIABLE: "ö"})
    assert (good.returncode, good.stderr) == (0, "")
    assert "small-forecaster" in good.stdout
    assert (none.returncode, wrong.returncode, odd.returncode) == (1, 1, 2)
    assert "401 unauthorized" in none.stderr
    assert "401 unauthorized" in wrong.stderr
    assert f"{KEY_VARIABLE}: must be visible ASCII" in odd.stderr
    assert key not in good.stdout


def test_outputs_of_every_kind_are_told_and_kept(tmp_path: Path) -> None:
    outputs = {
        "file": np.array([[1.0, np.nan], [np.inf, 0.0]], np.float32),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        "count": np.array(2**53 + 1, np.int64),
    }
    report = summary(Prediction(outputs, "m", None, None, "r"), 0.5)
    lines = [line.split() for line in table(report).splitlines()]
    assert lines[0] == ["model", "m,", "version", "not", "said"]
    assert lines[2] == ["request", "r,", "500.0", "ms"]
    assert lines[-4:] == [
        ["file", "(2,", "2)", "float32", "nan", "nan", "nan"],
        ["mask", "(2)", "bool", "0", "1", "0.5"],
        ["empty", "(0,", "3)", "float64"],
        ["count", "()", "int64", *["9.0072e+15"] * 3],
    ]
    write_arrays(tmp_path / "all.npz", outputs)
    again = read_arrays(tmp_path / "all.npz")
    assert {name: array.tobytes() for name, array in again.items()} == {
        name: array.tobytes() for name, array in outputs.items()
    }

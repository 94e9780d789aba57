from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_artifacts import write_forecaster
from submission_helpers import CHANNELS, Artifacts, bend, members, with_predict

import artifact
from submission import challenges, cli
from submission.checking.case import stated_definition
from submission.checking.check import Report, check
from submission.checking.trial import unpack
from submission.errors import ConfigError
from submission.worker import sandbox
from submission.worker.sandbox import find_python

FLIP = """\
bits = answer.view(np.uint32)
bits[-1, -1, -1] ^= np.uint32(len(X) == 82)
return answer"""
ROWS = {"affi": 122, "affi_private": 162, "beignet": 87}
ROWS |= {"beignet_private_1": 82, "beignet_private_2": 76}


def failures(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.status == "failed"]


def run(path: Path, **options: object) -> Report:
    return check(path, pythons=["3.11"], **options)  # type: ignore[arg-type]


def one_failure(path: Path, **options: object) -> str:
    report = run(path, **options)
    assert not report.passed
    (text,) = failures(report)
    return text


def test_what_build_writes_passes(small_zip: Path):
    report = run(small_zip)
    assert failures(report) == []
    (warning,) = [finding.text for finding in report.findings if finding.status == "warning"]
    assert "has Python 3.10" in warning
    assert "build with --python 3.10" in warning
    text = "\n".join(finding.text for finding in report.findings)
    assert "artifact was imported from the zip" in text
    assert "onnxruntime was imported from the zip" in text
    assert "every bit equal in two runs and to Model.predict in a fresh process" in text
    assert {row.set: row.rows for row in report.rows} == ROWS
    assert all(row.equal for row in report.rows)


@pytest.mark.slow
def test_two_modalities_pass_and_the_command_prints_a_line_per_check_and_a_table(
    decoder_zip: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["submission", "check", str(decoder_zip)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("✓") >= 8
    assert "✗" not in printed
    assert "decoder" in printed
    assert printed.rstrip().endswith("passed")


WRONG = """\
if len(X) == 122:
    answer[0, 12, 1] = np.nan
if len(X) == 162:
    return answer.astype(np.float64)
return answer + np.random.rand(*answer.shape).astype(np.float32)"""


@pytest.mark.slow
def test_wrong_values_fail_in_words(small_zip: Path, tmp_path: Path):
    bent = with_predict(small_zip, tmp_path / "bent.zip", WRONG)
    printed = "\n".join(failures(run(bent)))
    assert "affi: arr_0 holds 1 NaN or infinite values, the first in row 0" in printed


RANDOM = "return (answer + np.random.rand(*answer.shape)).astype(np.float32)"


@pytest.mark.slow
def test_answers_that_differ_fail_in_words(small_zip: Path, tmp_path: Path):
    printed = "\n".join(failures(run(with_predict(small_zip, tmp_path / "bent.zip", RANDOM))))
    for text in (
        "affi: two runs differ: arr_0: ",
        "affi: 1 rows alone are answered otherwise: arr_0: ",
        "affi: it differs from Model.predict on the zip's runtime: arr_0: ",
        "affi: it differs from Model.predict here: arr_0: ",
    ):
        assert text in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return answer[:, 10:]", "affi: arr_0 has shape (122, 10, 5); must be (122, 20, 5)"),
        (
            "return answer.astype(np.float64)",
            "affi, affi_private and 3 more: arr_0 is float64; must be float32",
        ),
    ],
)
def test_wrong_shape_and_dtype_fail_in_words(
    small_zip: Path, tmp_path: Path, body: str, message: str
):
    bent = with_predict(small_zip, tmp_path / "bent.zip", body)
    assert message in "\n".join(failures(run(bent)))


@pytest.mark.slow
def test_answer_that_is_no_array_fails(small_zip: Path, tmp_path: Path):
    bent = with_predict(small_zip, tmp_path / "bent.zip", "return answer.tolist()")
    text = one_failure(bent)
    assert "predict() gave list for arr_0; it must give a numpy array" in text


@pytest.mark.slow
def test_flipped_bit_is_found_where_it_is_and_nowhere_else(small_zip: Path, tmp_path: Path):
    report = run(with_predict(small_zip, tmp_path / "bent.zip", FLIP))
    assert {row.set for row in report.rows if not row.equal} == {"beignet_private_1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tail", "messages"),
    [
        ("import scipy", ["No module named 'scipy'", "the zip must carry"]),
        ("open('artifacts/affi/model.onnx')", ["No such file", "find files by __file__"]),
        ("raise ValueError('no luck')", ["ended with status 1", "no luck"]),
        ("sys.exit(0)", ["SystemExit"]),
        (
            "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/', timeout=3)",
            ["unreachable"],
        ),
    ],
)
def test_code_that_leans_on_what_is_not_there_fails(
    small_zip: Path, tmp_path: Path, tail: str, messages: list[str]
):
    if "urllib" in tail and sandbox.network_off() is None:
        pytest.skip("this system lets us take the network away from no program")
    text = one_failure(
        bend(small_zip, tmp_path / "bent.zip", {"model.py": lambda d: d + tail.encode()})
    )
    for message in messages:
        assert message in text


@pytest.mark.slow
def test_endless_loop_meets_the_time_limit(small_zip: Path, tmp_path: Path):
    bent = bend(small_zip, tmp_path / "bent.zip", {"model.py": lambda d: d + b"while True: pass\n"})
    assert "Execution Time Limit exceeded" in one_failure(bent, time_limit=3)


@pytest.mark.slow
def test_code_that_does_without_the_artifact_fails(small_zip: Path, tmp_path: Path):
    model = b"""
import numpy as np
class Model:
    def __init__(self, name): pass
    def load(self): pass
    def predict(self, X): return np.zeros(X.shape[:3], np.float32)
"""
    found = failures(run(bend(small_zip, tmp_path / "bent.zip", {"model.py": model})))
    assert "Python 3.11: artifact was not imported at all, not from the zip" in found
    assert "Python 3.11: onnxruntime was not imported at all, not from the zip" in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"artifacts/affi/model.onnx": lambda d: d[:-1] + bytes([d[-1] ^ 1])},
            "artifacts/affi: model.onnx: its sha256 is not the manifest's",
        ),
        ({"artifacts/affi/golden.npz": None}, "artifacts/affi: golden.npz: missing"),
        ({"artifact/model.py": lambda d: d + b"\n"}, "artifact/: model.py is not what this"),
        ({"artifact/extra.py": b""}, "artifact/: extra.py is not what this installation has"),
        (
            {"vendor/cp311/onnxruntime/__init__.py": lambda d: d + b"\n"},
            "vendor/cp311: onnxruntime 1.31.1 for Python 3.11 is not the published one",
        ),
        ({"submission.json": None}, "contents: holds no submission.json"),
        ({"submission.json": b"{}"}, "contents: submission.json is not what this version writes"),
        ({"model.py": None, "sub/model.py": b""}, "archive: has no model.py at its root"),
        ({"model.py": b"def broken(:"}, "model.py: does not parse under Python 3.10"),
        ({"model.py": b"class Mode1: pass"}, "model.py: has no class Model"),
        ({"requirements.txt": b"onnxruntime==1.23.2"}, "`onnxruntime is not an allowed package`"),
        ({"metadata": b""}, "archive: holds metadata at its root"),
    ],
)
def test_tampered_zip_fails_before_it_runs(small_zip: Path, tmp_path: Path, changes, message):
    assert message in one_failure(bend(small_zip, tmp_path / "bent.zip", changes))


def test_missing_runtime(small_zip: Path, tmp_path: Path):
    vendored = [name for name in members(small_zip) if name.startswith("vendor/")]
    bent = bend(small_zip, tmp_path / "bent.zip", dict.fromkeys(vendored))
    assert "vendor/cp311: onnxruntime 1.31.1 for Python 3.11 is missing" in one_failure(bent)


def test_artifact_swapped_for_another_whole_one(
    small_zip: Path, artifacts: Artifacts, tmp_path: Path
):
    changes = {
        f"artifacts/beignet/{path.name}": path.read_bytes()
        for path in artifacts.normalized.iterdir()
    }
    text = one_failure(bend(small_zip, tmp_path / "bent.zip", changes))
    assert "is not the artifact that the zip was built from" in text


@pytest.mark.slow
def test_interpreter_without_a_runtime_in_the_zip(small_zip: Path, tmp_path: Path):
    bent = bend(
        small_zip,
        tmp_path / "bent.zip",
        {"model.py": lambda d: d.replace(b"= sys.version_info[:2]", b"= (3, 12)")},
    )
    text = one_failure(bent)
    assert "carries ONNX Runtime for CPython 3.11 on linux x86_64; this interpreter" in text
    assert "`axonnx submission build CONFIG --python 3.12`" in text


@pytest.mark.slow
def test_an_interpreter_named_twice_runs_once(small_zip: Path):
    report = check(small_zip, pythons=["3.11", "3.11", str(find_python("3.11"))])
    assert report.passed, failures(report)
    assert len({row.set for row in report.rows}) == len(report.rows)


@pytest.mark.slow
def test_data_of_the_challenge_are_used(small_zip: Path, artifacts: Artifacts, tmp_path: Path):
    rows = np.random.default_rng(0).normal(size=(9, 20, 5, 9)).astype(np.float32)
    np.savez(tmp_path / "test_data_affi_masked.npz", rows)
    report = run(small_zip, data=tmp_path)
    assert report.passed
    assert ("affi", 9) in {(row.set, row.rows) for row in report.rows}
    skipped = [finding.text for finding in report.findings if finding.status == "skipped"]
    assert len(skipped) == 4
    assert all("rows are made up" in text for text in skipped)


def test_data_of_the_wrong_shape_fail_in_words(small_zip: Path, tmp_path: Path):
    np.savez(tmp_path / "test_data_affi_masked.npz", np.zeros((2, 20, 6, 9), np.float32))
    report = run(small_zip, data=tmp_path)
    assert any("axis channel has 6; must have 5" in text for text in failures(report))


@pytest.mark.slow
def test_published_sizes_with_the_committed_configuration(
    runtime_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = Path(artifact.__file__).parents[1]
    words = ["build", str(root / "configs" / "submissions" / "neural_forecasting.yaml")]
    for name, channels in (("affi", 239), ("beignet", 89)):
        folder = write_forecaster(
            tmp_path / name, channels=61, dynamic_channel=True, name=f"any-{channels}"
        )
        words += ["--model", f"{name}={folder}"]
    output = tmp_path / "submission.zip"
    words += ["--no-report", "--python", "3.11", "--output", str(output)]
    assert cli.main(["submission", *words]) == 0
    assert run(output).passed


def test_settings_that_a_zip_was_not_built_with_are_refused(small_zip: Path, tmp_path: Path):
    challenge = challenges.get("neural_forecasting")
    same = challenge.settings.model_validate({"channels": CHANNELS})
    other = challenge.settings.model_validate({"channels": {**CHANNELS, "affi": 6}})
    with pytest.raises(ConfigError, match="built with another channels"):
        check(small_zip, challenge=(challenge, other), pythons=["3.11"])
    assert stated_definition(unpack(small_zip, tmp_path / "zip"), (challenge, same))[0] is not None

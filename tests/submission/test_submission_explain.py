from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from broken_submissions import CASES, definition, said
from broken_submissions import write as write_case
from broken_zips import entry, library, pack
from hypothesis import given, settings
from hypothesis import strategies as st

from submission import archive
from submission.challenges import ARRAY_KEY
from submission.checking import binaries, crash, explain, inspection
from submission.checking.advice import RULES, advice
from submission.checking.findings import Report
from submission.checking.trial import Trial
from submission.worker.run import Job, Outcome, ProgramRun

FORECAST = definition(next(case for case in CASES if case.name == "trivial"))
TEXT = """Traceback (most recent call last):
  File "/app/program/measure.py", line 59, in measured
    main(measurement)
  File "/app/program/measure.py", line 36, in predicted
    result = function(*arguments)
             ^^^^^^^^^^^^^^^^^^^^
  File "/app/output/model.py", line 7, in predict
    return self.net(X)
  File "/app/output/vendor/torch/nn.py", line 70, in __call__
    raise KeyError(name)
KeyError: 'encoder'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/program/measure.py", line 36, in predicted
    result = function(*arguments)
  File "/app/ingested_program/model.py", line 9, in predict
    raise ValueError("bad\\nnews")
  File "/app/output/vendor/torch/nn.py", line 99, in fail
    raise ValueError
ValueError: bad
news
"""


def crashed(error: str, *, file: str = "/app/output/model.py") -> crash.Crash:
    found = crash.read(f'{crash.HEADER}\n  File "{file}", line 3, in load\n    go()\n{error}\n')
    assert found is not None
    return found


def test_last_traceback_is_read_and_only_the_participants_lines_are_shown():
    found = crash.read(TEXT)
    assert found is not None
    assert found.error == "ValueError: bad\nnews"
    assert "KeyError: 'encoder'" in found.said
    assert list(map(str, found.own)) == ['model.py:9 in predict: raise ValueError("bad\\nnews")']


def test_syntax_error_names_its_line():
    text = f'{crash.HEADER}\n  File "/tmp/x/prediction/output/model.py", line 3\n    def f(:\n'
    found = crash.read(text + "          ^\nSyntaxError: invalid syntax\n")
    assert found is not None
    assert [str(frame) for frame in found.own] == ["model.py:3: def f(:"]


@pytest.mark.parametrize("text", ["", "Killed", crash.HEADER, f"{crash.HEADER}\n  File x"])
def test_no_traceback(text: str):
    assert crash.read(text) is None


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.sampled_from([*TEXT.splitlines(), "", "  ", "x: y"])), more=st.text())
def test_any_text_can_be_read(lines: list[str], more: str):
    crash.read("\n".join([*lines, more]))


KNOWN = [
    ("SystemExit: 0", "take out the call of exit()"),
    ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "no network here"),
    ("RuntimeError: Storage device not recognized: mps", "map_location='cpu'"),
    ("RuntimeError: Found no NVIDIA driver on your system", "run on the CPU"),
    ("_pickle.UnpicklingError: Weights only load failed", "save a state_dict"),
    ("ImportError: /lib/libc.so.6: version `GLIBC_2.38' not found", "the image's Python, 3.10"),
    ("ImportError: x.so: wrong ELF class: ELFCLASS32", "for linux x86_64"),
    (
        "ImportError: onnxruntime_pybind11_state.so: failed to map segment from shared object",
        "set TMPDIR",
    ),
    ("ImportError: libGL.so.1: cannot open shared object file", "the image lacks that library"),
    ("ImportError: cannot import name 'onnxruntime_pybind11_state'", "--python VERSION"),
    ("ImportError: numpy.core.multiarray failed to import", "ship no numpy"),
    ("InvalidGraph: Unsupported model IR version: 12, max supported 10", "opset 20 and IR 10"),
    ("Fail: model.onnx.data: external data not found", "with the weights inside"),
    ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 GiB", "smaller batches"),
    ("OSError: [Errno 30] Read-only file system: '/opt/cache'", "below /app/output or /tmp"),
    ("TypeError: predict() gave list for arr_0; it must give …", "np.asarray"),
    ("AttributeError: 'Model' object has no attribute 'load'", "and then load(), predict()"),
    ("ImportError: cannot import name 'Model' from 'model'", "imports Model from model.py"),
    ("TypeError: Model.__init__() takes 1 positional argument", "for their arguments"),
    ("zipfile.BadZipFile: File is not a zip file", "is damaged"),
    ("ValueError: operands could not be broadcast together", "(N, 20, 3, 9) for beignet"),
]


@pytest.mark.parametrize(("error", "text"), KNOWN)
def test_each_known_error_has_advice(tmp_path: Path, error: str, text: str):
    (found,) = advice(crashed(error), tmp_path, FORECAST)
    assert text in found
    assert "{" not in found


def test_every_rule_is_used_and_a_plain_error_has_no_advice(tmp_path: Path):
    used = {advice(crashed(error), tmp_path, FORECAST)[0] for error, _ in KNOWN}
    syntax = advice(crashed("IndentationError: unexpected indent"), tmp_path, FORECAST)[0]
    full = advice(crashed("OSError: [Errno 28] No space left on device"), tmp_path, FORECAST)[0]
    assert len({*used, syntax, full}) == len(RULES)
    assert advice(crashed("RuntimeError: no luck"), tmp_path, FORECAST) == []


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("weights.npz", "weights.npz is in the zip, but the working folder is not"),
        ("/app/input/res/weights.npz", "/app/input is there in the scoring job alone"),
        ("/home/me/weights.npz", "never at that fixed path"),
        ("other.npz", "the zip holds no other.npz"),
    ],
)
def test_missing_file_is_looked_for_in_the_zip(tmp_path: Path, asked: str, text: str):
    (tmp_path / "weights.npz").touch()
    error = f"FileNotFoundError: [Errno 2] No such file or directory: '{asked}'"
    assert text in advice(crashed(error), tmp_path, FORECAST)[0]


def test_missing_module_is_looked_for_in_the_zip_and_the_image_is_named(tmp_path: Path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "layers.py").touch()
    own, foreign = (
        advice(crashed(f"ModuleNotFoundError: No module named '{name}'"), tmp_path, FORECAST)[0]
        for name in ("layers", "scipy.signal")
    )
    assert own.startswith("src/layers.py is in the zip, but its folder is not on sys.path")
    assert "--engine docker --image ytchou97/hdr-image" in foreign
    assert "scipy may stand in requirements.txt" in foreign


def outcome_of(folder: Path, status: int | None, error: str = "", **changes: object) -> Outcome:
    """A prediction job whose ingestion program ended so."""
    (folder / "output").mkdir()
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    out.touch()
    err.write_text(error)
    run = ProgramRun("ingestion", "python3", status, 1.0, 7_000_000, out, err, **changes)  # type: ignore[arg-type]
    job = Job("prediction", folder, folder / "output", (run,), ())
    text = "Child task failed or non-zero return code"
    return Outcome("Failed", text, job, None, {}, (), (), "")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (139, "your model ended with status 139, by a segmentation fault"),
        (132, "an illegal instruction: a library in the zip needs a newer processor"),
        (137, "by being killed: where no time limit ended it, the machine's memory was full"),
        (3, "your model ended with status 3, at the set affi"),
        (None, "your model was still running at the time limit, at the set affi"),
    ],
)
def test_the_way_a_program_ended_is_said(tmp_path: Path, status: int | None, text: str):
    trial = Trial(outcome_of(tmp_path, status), {}, {}, "")
    assert text in explain.causes(trial, FORECAST, tmp_path)[0]


def test_progress_is_told_from_the_files_that_are_there(tmp_path: Path):
    outcome = outcome_of(tmp_path, 1, TEXT)
    (tmp_path / "output" / "test_affi.predictions.npz").touch()
    first, line, platform, *_ = explain.causes(Trial(outcome, {}, {}, ""), FORECAST, tmp_path)
    assert first == (
        "your model crashed in predict(), at the set affi_private, after affi: ValueError: bad"
    )
    assert line.startswith("model.py:9 in predict")
    assert "prediction_ingestion_stderr" in "".join([platform, *_])


def test_memory_cap_is_told_from_the_engine_and_not_from_text(tmp_path: Path):
    trial = Trial(outcome_of(tmp_path, 137, out_of_memory=True), {}, {}, "")
    first, held, platform, hint = explain.causes(trial, FORECAST, tmp_path)
    assert "more memory than the cap of --memory" in first
    assert held == "it held 7 MB then"
    assert platform.startswith("CodaBench would show: ")
    assert "CodaBench sets no cap of its own" in hint


def test_characters_that_play_with_a_terminal_are_left_out(tmp_path: Path):
    outcome = outcome_of(tmp_path, 1, f'{crash.HEADER}\n  File "x", line 1, in f\nE: \x1b[2Jred')
    assert "\x1b" not in "".join(explain.causes(Trial(outcome, {}, {}, ""), FORECAST, tmp_path))


def test_forecasts_in_normalized_units_are_noticed(tmp_path: Path):
    raw = np.full((2, 20, 5, 9), 700.0, np.float32)
    inputs = {one.name: {ARRAY_KEY: raw} for one in FORECAST.sets}
    small = {ARRAY_KEY: np.ones((2, 20, 5), np.float32)}
    answers = {"affi": small, "beignet": {ARRAY_KEY: raw[..., 0]}}
    trial = Trial(outcome_of(tmp_path, 0), {}, answers, "")
    (found,) = explain.units(trial, FORECAST, inputs)
    assert found.startswith("affi: answers of size 1 to inputs of size 700 look normalized")


def test_real_library_is_read_and_every_cut_of_one_is_refused_or_read():
    path = next(Path(onnxruntime.__file__).parent.rglob("onnxruntime_pybind11_state*.so"))
    found = binaries.read(path.read_bytes())
    assert found.target == "x86-64"
    assert (2, 14) <= found.glibc <= (2, 31)
    data = library(glibc=b"GLIBC_2.38")
    assert binaries.read(data) == binaries.Library("x86-64", (2, 38))
    for size in range(len(data)):
        try:
            binaries.read(data[:size])
        except ValueError:
            continue


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
def test_bent_library_is_refused_or_read(changes: list[tuple[int, int]]):
    data = bytearray(library())
    for place, value in changes:
        data[place % len(data)] = value
    try:
        binaries.read(bytes(data))
    except ValueError:
        return


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"\xcf\xfa\xed\xfe" + bytes(60), "macOS"), (b"MZ" + bytes(60), "Windows")],
)
def test_libraries_of_other_systems_are_named(tmp_path: Path, data: bytes, name: str):
    (tmp_path / "fast.so").write_bytes(data)
    report = Report()
    inspection.inspect_binaries(report, tmp_path, FORECAST)
    assert f"fast.so: is for {name}" in report.findings[0].text
    verified = Report()
    (tmp_path / "vendor").mkdir()
    (tmp_path / "fast.so").rename(tmp_path / "vendor" / "fast.so")
    inspection.inspect_binaries(verified, tmp_path, FORECAST, ("vendor",))
    assert verified.findings == []


def test_names_are_taken_as_extraction_takes_them(tmp_path: Path):
    files = {f"./{name}": data for name, data in entry().items()}
    assert archive.problems(pack(files, tmp_path / "s.zip"), ("model.py",)) == []


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"model.py": b"", "model.py/x": b""}, "is a file and a folder at once"),
        ({"model.py": b"", "a" * 256: b""}, "has a name over 255 bytes"),
        ({"a/model.py": b"", "b": b""}, "has no model.py at its root; it holds a/model.py: move"),
        ({"modle.py": b""}, "it holds modle.py: rename it"),
        ({"model.py": b"", "home/.ssh/id_rsa": b""}, "id_rsa looks like a password or key"),
        ({"model.py": b"", ".git/config": b""}, ".git/config does not belong"),
    ],
)
def test_archive_problems_in_words(tmp_path: Path, files: dict[str, bytes], text: str):
    found = archive.problems(pack(files, tmp_path / "s.zip"), ("model.py",))
    assert any(text in problem for problem in found), found


def test_certificates_are_no_secrets(tmp_path: Path):
    files = {**entry(), "cacert.pem": b"-----BEGIN CERTIFICATE-----\n"}
    assert archive.problems(pack(files, tmp_path / "s.zip"), ("model.py",)) == []


@pytest.mark.slow
def test_printed_explanation_of_a_crash(tmp_path: Path):
    case = next(case for case in CASES if case.name == "relative")
    lines = said(case, write_case(case, tmp_path, tmp_path, tmp_path), tmp_path)
    place = next(number for number, line in enumerate(lines) if line.startswith("✗ "))
    _, frame, platform, hint = lines[place : place + 4]
    assert frame == "  model.py:13 in load: self.scale = np.load('weights.npz')['scale']"
    assert "The ingestion program ended with status 1, which CodaBench ignores" in platform
    assert hint.startswith("  to do: weights.npz is in the zip, but the working folder is not")

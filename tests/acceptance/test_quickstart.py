"""`axonnx quickstart`: the whole path in one command, and nothing left behind."""

from __future__ import annotations

import importlib.util
import platform
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_artifacts import write_forecaster

import artifact
from trainer import outside, quickstart
from trainer.outside import same
from trainer.quickstart import Outcome


@pytest.mark.slow
def test_the_whole_tour(tmp_path: Path):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "axonnx", "quickstart", "--output", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,  # a guard against hanging: this machine may be shared
    )
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SYNTHETIC" in done.stdout
    assert done.stdout.count("same bytes") == 4
    assert "axonnx serve out/patchformer/artifact" in done.stdout
    for name in ("patchformer", "gru"):
        model = artifact.load(tmp_path / "out" / name / "artifact")
        assert (model.manifest.model, model.golden.identical) == (name, True)
    with Image.open(tmp_path / "out" / "forecast.png") as image:
        assert image.width > 800
    for address in set(re.findall(r"http://127[.0-9]+:\d+", done.stdout)):
        assert not alive(address)
    print(f"the tour took {seconds:.0f} s; on two free cores it takes less than 180 s")


@pytest.mark.parametrize(
    ("http", "submitted", "code"),
    [(True, True, 0), (True, None, 0), (False, True, 1), (True, False, 1)],
)
def test_answers_that_differ_fail_the_tour(tmp_path, monkeypatch, capsys, http, submitted, code):
    outcome = Outcome("gru", {"model": 0.5, "linear": 0.4}, 1e-6, http, submitted)
    monkeypatch.setattr(quickstart, "_tour", lambda output, console, submit: [outcome])
    assert quickstart.run(tmp_path) == code
    captured = capsys.readouterr()
    assert ("DIFFERENT" in captured.out) == (code == 1)
    assert ("answers differ" in captured.err) == (code == 1)


class Elsewhere:
    """A machine that the table has no wheel for; the version is that of a Python to come."""

    @staticmethod
    def python(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))

    @staticmethod
    def onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outside, "version", lambda name: "1.24.0")

    @staticmethod
    def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
        def version(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(outside, "version", version)

    @staticmethod
    def system(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")


@pytest.mark.parametrize(
    ("elsewhere", "why"),
    [
        (Elsewhere.python, "for Python 3.14"),
        (Elsewhere.onnxruntime, "no ONNX Runtime 1.24.0"),
        (Elsewhere.gpu, "the GPU's is installed"),
        (Elsewhere.system, "for Linux on x86-64"),
    ],
)
def test_where_no_zip_can_be_built_the_tour_says_so_first(
    tmp_path, monkeypatch, capsys, elsewhere, why
):
    elsewhere(monkeypatch)
    asked = []

    def tour(output, console, submit):
        said = " ".join(capsys.readouterr().out.split())
        asked.append((submit, "Step 5, the submission, is left out" in said, why in said))
        return [Outcome("gru", {"model": 0.5, "linear": 0.4}, 1e-6, True, None)]

    monkeypatch.setattr(quickstart, "_tour", tour)
    assert quickstart.run(tmp_path) == 0
    assert asked == [(False, True, True)]
    assert "submission check" not in capsys.readouterr().out


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64") or sys.version_info[:2] > (3, 13),
    reason="the table of wheels is for Linux on x86-64 and Python up to 3.13",
)
def test_here_the_zip_needs_no_download():
    assert outside.no_zip_because() == ""


@pytest.mark.slow
def test_the_tour_without_a_zip(tmp_path, monkeypatch, capsys):
    """The rest goes on and ends well."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert quickstart.run(tmp_path) == 0
    out = capsys.readouterr().out
    assert out.count("same bytes") == out.count("not run here") == 2
    assert not (tmp_path / "submission.zip").exists()
    assert (tmp_path / "forecast.png").exists()


@pytest.mark.parametrize("name", outside.REQUIRED)
def test_missing_packages_are_named_before_anything_else(tmp_path, monkeypatch, capsys, name):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == name else real(n))
    assert quickstart.run(tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"needs {name}: run `uv sync --extra trainer --extra cpu --extra serve" in captured.err
    assert not (tmp_path / "out").exists()


def test_one_flipped_bit_is_a_difference():
    first = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    second = first.copy()
    assert same(first, second)
    second.view(np.uint32)[1, 2] ^= 1
    assert not same(first, second)
    assert not same(first, first.astype(np.float64))
    assert not same(first, first.reshape(3, 2))


SCRIPT = """
import sys, time
from pathlib import Path
from trainer import outside, quickstart
with quickstart._stopped_by_sigterm(), outside.service(Path(sys.argv[1])) as address:
    print(address, flush=True)
    time.sleep(60)
"""


def test_a_stopped_tour_leaves_no_service(tmp_path: Path):
    folder = write_forecaster(tmp_path / "artifact")
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tour:
        assert tour.stdout is not None
        address = tour.stdout.readline().strip()
        assert alive(address)
        tour.send_signal(signal.SIGTERM)
        assert tour.wait(timeout=30) == 128 + signal.SIGTERM
    assert not alive(address)


def alive(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/health/live", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False

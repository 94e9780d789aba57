"""`axonnx quickstart`: the whole path in one command, and nothing left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_artifacts import write_forecaster

import artifact
from trainer import quickstart
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
        timeout=600,
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
    assert seconds < 400  # 3 minutes on two free cores; this machine may be shared


@pytest.mark.parametrize(
    ("http", "submitted", "code"),
    [(True, True, 0), (True, None, 0), (False, True, 1), (True, False, 1)],
)
def test_answers_that_differ_fail_the_tour(tmp_path, monkeypatch, capsys, http, submitted, code):
    outcome = Outcome("gru", {"model": 0.5, "linear": 0.4}, 1e-6, http, submitted)
    monkeypatch.setattr(quickstart, "_tour", lambda output, console: [outcome])
    assert quickstart.run(tmp_path) == code
    captured = capsys.readouterr()
    assert ("DIFFERENT" in captured.out) == (code == 1)
    assert ("answers differ" in captured.err) == (code == 1)


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

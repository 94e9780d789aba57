"""20 GB of raw binary: opened, trained on and predicted within 3 GB of resident memory."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from recording import open_recording
from recording.preparation import parse_steps, prepare
from recording.signals import settle

ROOT = Path(__file__).resolve().parents[2]
CHANNELS, RATE, SLOW = 384, 30_000, 250
SAMPLE = CHANNELS * 2  # bytes
SAMPLES = 20 * 10**9 // SAMPLE
STRETCH = 30_000  # samples of data that are really there, at each of these parts of the file
PLACES = (0.1, 0.4, 0.6, 0.75, 0.9)
CHOSEN = ["ch0", "ch100", "ch200", "ch383"]
STEPS = [
    {"step": "select", "names": CHOSEN},
    {"step": "declare", "unit": "µV", "factor": 0.195},
    {"step": "resample", "rate": SLOW},
]
LIMIT = 3 * 10**9
FACTOR = RATE // SLOW


def first_of(part: float) -> int:
    """The first sample of a stretch, at a sample of the slow series."""
    return int(part * SAMPLES) // FACTOR * FACTOR


def stretch(number: int) -> np.ndarray:
    """Slow waves and noise: (time, channel) int16."""
    generator = np.random.default_rng(number)
    times = np.arange(STRETCH)[:, np.newaxis] / RATE
    waves = 800 * np.sin(2 * np.pi * (5 + np.arange(CHANNELS) % 7) * times)
    return (waves + generator.normal(scale=50, size=(STRETCH, CHANNELS))).astype("<i2")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The file: a hole of 20 GB with a few stretches of data in it."""
    path = tmp_path_factory.mktemp("large") / "large.bin"
    try:
        with path.open("wb") as file:
            file.truncate(SAMPLES * SAMPLE)
            for number, part in enumerate(PLACES):
                file.seek(first_of(part) * SAMPLE)
                file.write(stretch(number).tobytes())
        names = [f"ch{index}" for index in range(CHANNELS)]
        sidecar = {"dtype": "int16", "channels": names, "rate": RATE, "type": "ecog"}
        path.with_suffix(".json").write_text(json.dumps(sidecar))
        assert path.stat().st_size > 19.99e9
        assert path.stat().st_blocks * 512 < 200e6, "this file system keeps no holes"
        yield path
    finally:
        path.unlink(missing_ok=True)


def run(folder: Path, *words: object) -> tuple[str, int]:
    """What a command wrote, and the most memory that it and its children had at once, in bytes."""
    log, peak = folder / "output.txt", 0
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, ROOT / "axonnx.py", *map(str, words)],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                family = tree(process.pid)
                own = [memory(one, "VmHWM") for one in family]
                peak = max([peak, sum(memory(one, "VmRSS") for one in family), *own])
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, log.read_text()
    return log.read_text(), peak


def tree(process: int) -> list[int]:
    """A process and everything that it started, by their ids."""
    found = [process]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(text) for text in children.read_text().split()]
            except OSError:
                continue  # it has ended
    return found


def memory(process: int, field: str) -> int:
    """A field of /proc/…/status, in bytes; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    values = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(values[0]) * 1024 if values else 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_a_recording_of_20_gb_is_trained_on_and_predicted_within_3_gb(large, tmp_path):
    before = memory(os.getpid(), "VmRSS")
    opened = open_recording(large)
    assert opened.neural.values.shape == (SAMPLES, CHANNELS)
    start = first_of(PLACES[2])
    np.testing.assert_array_equal(opened.neural.values[start + 5 : start + 9], stretch(2)[5:9])
    assert memory(os.getpid(), "VmRSS") - before < 100e6

    config = {
        "data": {
            "name": "recording",
            "path": str(large),
            "preparation": STEPS,
            "window": 50,
            "observed": 40,
            "stride": {"train": 25, "validation": 25, "test": 10},
            "split": {"by": "time"},
        },
        "model": {"name": "linear"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    _, training = run(tmp_path, "train", "config.yaml", "--output", "run")
    print(f"training: at most {training / 1e9:.2f} GB")
    assert training < LIMIT

    words = ["run/artifact", large, "--output", "out.csv", "--no-picture"]
    output, predicting = run(tmp_path, "predict", *words)
    print(f"predicting: at most {predicting / 1e9:.2f} GB")
    assert predicting < LIMIT
    assert "rows" in output
    check_table(tmp_path / "out.csv")


def check_table(path: Path) -> None:
    """Times go on by one step over the whole recording, and forecasts follow the data."""
    with path.open() as file:
        rows = csv.reader(file)
        header = next(rows)
        table = np.array(list(rows), np.float64)
    assert header == ["window_start_s", "time_s", *(f"{name} [µV]" for name in CHOSEN)]
    np.testing.assert_allclose(np.diff(table[:, 1]), 1 / SLOW, atol=1e-9)
    assert table[-1, 1] > SAMPLES / RATE - 1
    for part in PLACES:
        start = first_of(part) / RATE
        inside = (table[:, 1] > start + 0.3) & (table[:, 1] < start + STRETCH / RATE)
        assert table[inside, 2:].std() > 20
    silent = (table[:, 1] > 100) & (table[:, 1] < 200)
    assert np.abs(table[silent, 2:]).max() < 5


@pytest.mark.slow
def test_what_is_prepared_is_what_a_small_file_gives(large, tmp_path):
    """The first stretch, behind a hole, as from a file that begins shortly in front of it."""
    lead = 2 * RATE // FACTOR * FACTOR
    small = tmp_path / "small.bin"
    with small.open("wb") as file:
        file.seek(lead * SAMPLE)
        file.write(stretch(0).tobytes())
    small.with_suffix(".json").write_text(large.with_suffix(".json").read_text())
    expected = settle(prepare(open_recording(small), parse_steps(STEPS)).neural.values)[:]
    # Only as much of the large one as is needed: the first tenth.
    head = open_recording(large)
    cut = [{"step": "crop", "start": 0.0, "stop": (first_of(PLACES[0]) + STRETCH) / RATE}]
    found = settle(prepare(head, parse_steps([*cut, *STEPS])).neural.values)
    np.testing.assert_array_equal(found[len(found) - len(expected) : len(found)], expected)
    assert np.abs(expected).max() > 50

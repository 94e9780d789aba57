"""The process that reads a stranger's file: what it writes, refuses, and may not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from planned_artifacts import (
    FILTER,
    plan_of,
    walk,
    write_npy,
)

from artifact.arrays import decode_npz
from recording.windows_process import FAULT, MISSING, UNFIT, _answer

ROOT = Path(__file__).resolve().parents[2]


def answer(path: Path, *, task: str = "forecast", **words: object) -> tuple[int, bytes]:
    changes = words.pop("changes", {})
    assert isinstance(changes, dict)
    plan = plan_of(task, **changes).to_json()
    return _answer(path, {"plan": plan, "start": None, "stop": None, "bytes": 1 << 24, **words})


def refused(path: Path, **words: object) -> str:
    code, text = answer(path, **words)
    assert code == UNFIT, text
    return text.decode()


def test_samples_windows_and_columns(tmp_path):
    code, content = answer(write_npy(tmp_path / "walk.npy"), start=2.0, stop=4.0)
    assert code == 0
    found = decode_npz(content)
    np.testing.assert_array_equal(found["starts"], np.arange(11) * 8)
    np.testing.assert_array_equal(found["neural"], walk()[100:200, :, None])
    about = json.loads(found["about"].tobytes())
    assert about["columns"] == ["window_start_s", "time_s"]
    assert about["answers"] == ["c0 [µV]", "c1 [µV]", "c3 [µV]"]
    np.testing.assert_allclose(found["column.0"], np.repeat(2.0 + np.arange(11) * 0.16, 8))


def broken_npz(path: Path) -> bytes:
    """A few KB that state 4 GB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", bytes(4_000_000))
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(mark) + place
        content[at : at + 4] = (2**32 - 16).to_bytes(4, "little")
    return bytes(content)


def test_what_does_not_fit(tmp_path):
    values = walk()
    values[400, 2] = np.nan
    text = refused(write_npy(tmp_path / "walk.npy", values))
    assert text.startswith("walk.npy: neural: at 8 s: channel c2 is nan; must be finite")
    text = refused(write_npy(tmp_path / "few.npy", walk()[:, :3]))
    assert "few.npy: neural: channel_names: 4 names for 3 channels" in text
    text = refused(write_npy(tmp_path / "short.npy", walk(15)))
    assert text == "short.npy: no window of 20 samples = 0.4 s lies in what was asked for"
    file = write_npy(tmp_path / "walk.npy")
    assert "from 5 s to 2 s: must be a stretch" in refused(file, start=5.0, stop=2.0)
    assert "no window of 20 samples" in refused(file, start=1e300)
    assert "prepared samples take 15936 bytes; at most 9" in refused(file, bytes=9)
    assert "predictions take 27552 bytes" in refused(file, bytes=16000)
    other = {"rate": 100.0, "unit": "µV", "type": "eeg"}
    text = refused(file, changes={"reader": other})
    assert "walk.npy: neural: is at 100 Hz; the artifact was trained at 50 Hz" in text
    (tmp_path / "bomb.npz").write_bytes(broken_npz(tmp_path / "bomb.npz"))
    assert "cannot hold" in refused(tmp_path / "bomb.npz")


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    file = write_npy(tmp_path / "walk.npy")
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert answer(file)[0] == 0
    code, text = answer(file, changes={"steps": [FILTER], "graph_steps": 0})
    assert (code, text.split(b".")[0]) == (MISSING, b"scipy")


def test_a_fault_is_no_refusal(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("here")

    monkeypatch.setattr("recording.predictions.ready", fail)
    code, text = answer(write_npy(tmp_path / "walk.npy"))
    assert code == FAULT
    assert b"ZeroDivisionError: here" in text


CONFINED = """
import json, os, socket, sys, tempfile
from pathlib import Path
from recording.windows_confinement import confine
import resource
folder = Path(sys.argv[1])
confine(folder, 5)
kinds = (resource.RLIMIT_CPU, resource.RLIMIT_CORE)
found = {"limits": [resource.getrlimit(kind)[0] for kind in kinds]}
def tried(name, act):
    try:
        act()
        found[name] = "done"
    except OSError as error:
        found[name] = type(error).__name__
tried("own", lambda: (folder / "a").write_bytes(b"x"))
tried("temporary", lambda: tempfile.TemporaryFile().write(b"x"))
tried("secret", lambda: Path(sys.argv[2]).read_bytes())
tried("beside the packages", lambda: Path(sys.argv[3]).read_bytes())
tried("starter", lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes())
tried("written", lambda: Path(sys.argv[2]).write_bytes(b"x"))
tried("network", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[4])), 2))
tried("program", lambda: os.execv("/bin/true", ["true"]))
import scipy.io, artifact.arrays
print(json.dumps(found))
"""


def has_landlock() -> bool:
    import ctypes

    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)) >= 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_no_other_file_and_no_network(tmp_path):
    if not has_landlock():
        pytest.skip("this kernel has no Landlock of version 4")
    import socket

    secret, folder = tmp_path / "secret", tmp_path / "folder"
    secret.write_bytes(b"key")
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-P", "-c", CONFINED, folder, secret, ROOT / "README.md", str(port)],
            env={"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("limits") == [6, 0]
    assert {name for name, outcome in found.items() if outcome == "done"} == {"own", "temporary"}

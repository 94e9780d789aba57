from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import onnxruntime
import pytest
from submission_helpers import Artifacts, write_config

from submission import cli, wheels
from submission.errors import ConfigError, WheelError


def test_table_has_one_default_per_python_and_whole_hashes():
    rows = wheels.table()
    defaults = [row.python for row in rows if row.default]
    assert defaults == ["3.10", "3.11", "3.12", "3.13"]
    assert len({(row.python, row.onnxruntime) for row in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch("[0-9a-f]{64}", row.wheel_sha256)
        assert re.fullmatch("[0-9a-f]{64}", row.tree_sha256)


@pytest.mark.parametrize(
    ("python", "version", "expected"),
    [
        ("3.10", None, "1.23.2"),
        ("3.11", None, "1.31.1"),
        ("3.11", "1.23.2", "1.23.2"),
    ],
)
def test_choose(python, version, expected):
    assert wheels.choose(python, version).onnxruntime == expected


@pytest.mark.parametrize(("python", "version"), [("3.9", None), ("3.10", "1.31.1")])
def test_choose_refuses_what_the_table_lacks(python, version):
    with pytest.raises(ConfigError, match=rf"Python {re.escape(python)}.*the table has .*3\.11"):
        wheels.choose(python, version)


def test_runtime_is_trimmed_and_keeps_its_licences(runtime_cache: Path):
    files = wheels.runtime(wheels.choose("3.11", None))
    assert "onnxruntime/LICENSE" in files
    assert "onnxruntime/ThirdPartyNotices.txt" in files
    assert not [name for name in files if "libonnxruntime.so" in name or "numpy" in name]
    folders = {name.split("/")[1] for name in files if name.count("/") > 1}
    assert folders == {"capi"}


def test_wheel_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    row = dataclasses.replace(wheels.choose("3.10", None), wheel_sha256="0" * 64)
    monkeypatch.setattr(wheels, "cache_folder", lambda: tmp_path)
    with pytest.raises(WheelError, match="Hash mismatch"):
        wheels.runtime(row)
    assert list((tmp_path / "wheels").iterdir()) == []


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a uv that must not be called; the cache."""
    monkeypatch.setattr(wheels, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(wheels, "uv_command", lambda: pytest.fail("the network was used"))
    return tmp_path / "cache"


def test_installed_runtime_needs_no_download(no_network: Path):
    row = wheels.choose("{}.{}".format(*sys.version_info), onnxruntime.__version__)
    assert wheels.tree_digest(wheels.runtime(row)) == row.tree_sha256
    assert not no_network.exists()


@pytest.mark.parametrize(
    "change", [{"tree_sha256": "0" * 64}, {"python": "3.99"}], ids=["other bytes", "other Python"]
)
def test_installed_runtime_that_is_not_the_rows_is_left(no_network: Path, change):
    row = wheels.choose("{}.{}".format(*sys.version_info), onnxruntime.__version__)
    with pytest.raises(pytest.fail.Exception, match="the network was used"):
        wheels.runtime(dataclasses.replace(row, **change))


def test_changed_cache_stops_the_build(
    artifacts: Artifacts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    row = wheels.choose("3.11", None)
    files = wheels.runtime(row)
    monkeypatch.setattr(wheels, "cache_folder", lambda: tmp_path / "cache")
    files["onnxruntime/__init__.py"] += b"\n"
    for name, data in files.items():
        place = wheels.cached(row) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    with pytest.raises(WheelError, match="delete that folder and build again"):
        wheels.runtime(row)
    assert cli.main(["submission", "build", str(write_config(artifacts, tmp_path))]) == 1
    assert "wheels.json says" in capsys.readouterr().err
    assert not (tmp_path / "submission.zip").exists()

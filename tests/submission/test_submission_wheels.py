from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

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


def test_changed_cache_stops_the_build(
    artifacts: Artifacts,
    runtime_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    row = wheels.choose("3.11", None)
    (place,) = (runtime_cache / "wheels").glob(f"{row.abi}-{row.onnxruntime}-*")
    copy = tmp_path / "cache" / "wheels" / place.name
    shutil.copytree(place, copy)
    with open(copy / "onnxruntime" / "__init__.py", "ab") as stream:
        stream.write(b"\n")
    monkeypatch.setattr(wheels, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(WheelError, match="delete that folder and build again"):
        wheels.runtime(row)
    assert cli.main(["submission", "build", str(write_config(artifacts, tmp_path))]) == 1
    assert "wheels.json says" in capsys.readouterr().err
    assert not (tmp_path / "submission.zip").exists()

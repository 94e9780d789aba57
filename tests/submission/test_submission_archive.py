from __future__ import annotations

import stat
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from artifact.bundle import write_zip
from submission import archive

SEGMENT = st.text("abcdefgh0123456789_-", min_size=1, max_size=12)
SAFE = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join).map("d/{}".format)


def write(path: Path, names: list[str], links: tuple[str, ...] = ()) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as out:
        warnings.simplefilter("ignore")  # duplicate names, on purpose
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK if name in links else stat.S_IFREG) << 16
            out.writestr(info, b"x")
    return path


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sub/model.py", "sub/weights.bin"], "top folder sub/; CodaBench looks for model.py"),
        (["weights.bin"], "no model.py at its root"),
        (["model.py", "metadata"], "holds metadata at its root"),
        (["model.py", "metadata.yaml"], "holds metadata.yaml at its root"),
        (["model.py", "/etc/passwd"], "leaves the folder"),
        (["model.py", "../up.py"], "leaves the folder"),
        (["model.py", "a/../../up.py"], "leaves the folder"),
        (["model.py", "c:/up.py"], "leaves the folder"),
        (["model.py", "a\\..\\up.py"], "leaves the folder"),
        (["model.py", "model.py"], "occurs 2 times"),
        (["model.py", "__MACOSX/._model.py"], "__MACOSX/._model.py does not belong"),
        (["model.py", "artifact/__pycache__/x.pyc"], "does not belong"),
        (["model.py", ".DS_Store"], "does not belong"),
        (["model.py", "vendor/numpy/__init__.py"], "do not ship numpy"),
    ],
)
def test_each_broken_layout_is_named(tmp_path: Path, names, message):
    found = archive.problems(write(tmp_path / "submission.zip", names), ("model.py",))
    assert len(found) == 1
    assert message in found[0]


def test_links_are_refused(tmp_path: Path):
    path = write(tmp_path / "submission.zip", ["model.py", "a"], links=("a",))
    assert archive.problems(path, ("model.py",)) == ["a is a link; extraction turns it into text"]


def test_long_name_and_other_ending(tmp_path: Path):
    assert (
        "65 characters"
        in archive.problems(write(tmp_path / f"{61 * 'a'}.zip", ["model.py"]), ("model.py",))[0]
    )
    assert (
        ".zip"
        in archive.problems(write(tmp_path / "submission.tar", ["model.py"]), ("model.py",))[0]
    )


def test_no_zip_and_a_damaged_one(tmp_path: Path):
    path = tmp_path / "submission.zip"
    path.write_bytes(b"nothing")
    assert "is no zip" in archive.problems(path, ("model.py",))[0]
    write_zip({"model.py": bytes(range(256)) * 64}, path, level=0)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    assert "model.py does not match its checksum" in archive.problems(path, ("model.py",))[0]


def test_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_zip({"model.py": bytes(100_000)}, tmp_path / "submission.zip")
    monkeypatch.setattr(archive, "MAX_BYTES", 99_999)
    assert "unpacks to 100000 bytes" in archive.problems(path, ("model.py",))[0]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(SAFE, unique=True, max_size=8))
def test_plain_names_below_the_root_pass(tmp_path: Path, names: list[str]):
    assume(not any(other.startswith(f"{name}/") for name in names for other in names))
    path = write_zip({name: b"x" for name in [*names, "model.py"]}, tmp_path / "submission.zip")
    assert archive.problems(path, ("model.py",)) == []


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(SEGMENT, max_size=3), place=st.integers(0, 3))
def test_a_name_with_a_way_up_never_passes(tmp_path: Path, parts: list[str], place: int):
    name = "/".join([*parts[:place], "..", *parts[place:], "x"])
    path = write(tmp_path / "submission.zip", ["model.py", name])
    assert any("leaves the folder" in text for text in archive.problems(path, ("model.py",)))

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from small_artifacts import write_forecaster

import artifact
from artifact import bundle, errors
from artifact.manifest import canonical_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_forecaster(tmp_path / "artifact")


def as_zip(folder: Path, destination: Path) -> Path:
    return artifact.write_zip({p.name: p for p in folder.iterdir()}, destination)


def test_folder_and_zip_read_alike(folder: Path, tmp_path: Path) -> None:
    from_folder = artifact.read(folder)
    from_zip = artifact.read(as_zip(folder, tmp_path / "a.zip"))
    assert from_folder == from_zip
    assert len(from_folder.id) == 64


def test_same_contents_same_bytes(tmp_path: Path) -> None:
    first, second = write_forecaster(tmp_path / "a"), write_forecaster(tmp_path / "b" / "c")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    zips = [as_zip(folder, tmp_path / f"{i}.zip") for i, folder in enumerate((first, second))]
    os.utime(first / "model.onnx", (0, 0))
    zips.append(as_zip(first, tmp_path / "again.zip"))
    assert len({path.read_bytes() for path in zips}) == 1


def test_write_refuses_to_overwrite(folder: Path) -> None:
    before = artifact.read(folder).id
    with pytest.raises(FileExistsError):
        write_forecaster(folder, name="other")
    assert artifact.read(folder).id == before
    write_forecaster(folder, name="other", overwrite=True)
    assert artifact.read(folder).manifest.name == "other"


def test_an_interrupted_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = artifact.read(folder)
    target = folder.with_name("new")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="disk full"):
            artifact.write(target, source.manifest, source.files)
    assert not target.exists()
    artifact.write(target, source.manifest, source.files)
    assert [path.name for path in folder.parent.glob("new*")] == ["new"]


def test_write_needs_every_file(folder: Path) -> None:
    source = artifact.read(folder)
    files = {name: data for name, data in source.files.items() if name != "golden.npz"}
    with pytest.raises(ValueError, match=r"golden\.npz"):
        artifact.write(folder.with_name("new"), source.manifest, files)


def remove(folder: Path) -> None:
    (folder / "golden.npz").unlink()


def add(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"x")


def alter(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


def lengthen(folder: Path) -> None:
    with open(folder / "model.onnx", "ab") as stream:
        stream.write(b"x")


def shorten(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def symlink(folder: Path) -> None:
    path = folder / "model.onnx"
    outside = folder.parent / "outside.onnx"
    path.rename(outside)
    path.symlink_to(outside)


def hardlink(folder: Path) -> None:
    os.link(folder / "model.onnx", folder.parent / "second-name")


def subfolder(folder: Path) -> None:
    (folder / "more").mkdir()


def swell(folder: Path) -> None:
    with open(folder / "manifest.json", "ab") as stream:
        stream.truncate(bundle.MAX_MANIFEST_BYTES + 1)


def crowd(folder: Path) -> None:
    for i in range(bundle.MAX_FILES):
        (folder / f"f{i}").touch()


def unlist(folder: Path) -> None:
    """A manifest that does not name the golden rows, which are gone."""
    table = json.loads((folder / "manifest.json").read_text())
    table["files"] = [entry for entry in table["files"] if entry["name"] != "golden.npz"]
    (folder / "manifest.json").write_bytes(canonical_json(table))
    (folder / "golden.npz").unlink()


def reformat(folder: Path) -> None:
    table = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(table))


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "kind", "said"),
    [
        (remove, errors.MissingFileError, "golden.npz"),
        (unlist, errors.MissingFileError, "golden.npz"),
        (lose_manifest, errors.MissingFileError, "manifest.json"),
        (reformat, errors.ManifestError, "canonical"),
        (add, errors.UnknownFileError, "weights.bin"),
        (alter, errors.HashMismatchError, "model.onnx"),
        (lengthen, errors.HashMismatchError, "model.onnx"),
        (shorten, errors.HashMismatchError, "model.onnx"),
        (symlink, errors.LinkError, "model.onnx"),
        (hardlink, errors.LinkError, "model.onnx"),
        (subfolder, errors.LinkError, "more"),
        (swell, errors.SizeLimitError, "manifest.json"),
        (crowd, errors.SizeLimitError, "at most"),
    ],
)
def test_a_damaged_folder_is_refused(
    folder: Path, damage: Callable[[Path], None], kind: type[Exception], said: str
) -> None:
    damage(folder)
    with pytest.raises(kind, match=said) as caught:
        artifact.load(folder)
    assert type(caught.value) is kind


def test_no_artifact_there(tmp_path: Path) -> None:
    with pytest.raises(errors.MissingFileError, match="nowhere"):
        artifact.read(tmp_path / "nowhere")


def test_a_run_folder_is_told_from_its_artifact(folder: Path) -> None:
    with pytest.raises(errors.MissingFileError, match=r"did you mean .*artifact\?"):
        artifact.read(folder.parent)


def zip_with(path: Path, folder: Path, name: str, data: bytes, mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, data)
    return path


@pytest.mark.parametrize(
    ("name", "mode", "kind"),
    [
        ("../escape", 0o100644, errors.ArchiveError),
        ("/absolute", 0o100644, errors.ArchiveError),
        ("sub/file", 0o100644, errors.ArchiveError),
        ("..", 0o100644, errors.ArchiveError),
        ("link", stat.S_IFLNK | 0o777, errors.LinkError),
        ("extra.bin", 0o100644, errors.UnknownFileError),
    ],
)
def test_a_hostile_zip_is_refused(
    folder: Path, tmp_path: Path, name: str, mode: int, kind: type[Exception]
) -> None:
    path = zip_with(tmp_path / "hostile.zip", folder, name, b"x", mode)
    with pytest.raises(kind):
        artifact.read(path)


def test_a_zip_with_a_name_twice_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zip_with(tmp_path / "twice.zip", folder, "model.onnx", b"x")
    with pytest.raises(errors.ArchiveError, match="twice"):
        artifact.read(path)


def test_a_zip_bomb_is_not_inflated(folder: Path, tmp_path: Path) -> None:
    (folder / "golden.npz").unlink()
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        archive.writestr("golden.npz", bytes(50_000_000))
    with pytest.raises(errors.HashMismatchError, match=r"golden\.npz"):
        artifact.read(path)


@pytest.mark.parametrize("cut", [1, 30, 200, 1000])
def test_a_cut_zip_is_refused(folder: Path, tmp_path: Path, cut: int) -> None:
    path = as_zip(folder, tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(errors.ArtifactError):
        artifact.read(path)


def test_source_digest_sees_every_change(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(Path(artifact.__file__).parent, package)
    before = bundle.source_digest(package)
    assert before == bundle.source_digest(Path(artifact.__file__).parent)
    (package / "model.py").write_text("x = 1\n")
    assert bundle.source_digest(package) != before

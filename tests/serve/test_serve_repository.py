"""What is found in the model paths, what becomes of it, and how it is exchanged while serving."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from odd_artifacts import write_heavy, write_version, write_zip
from server_process import Server, running
from small_artifacts import write_forecaster

import artifact
from artifact.arrays import decode_npy, encode_npy
from serve.errors import ArtifactRefused, NotFound, NotReady
from serve.repository import READY, UNAVAILABLE, Listing, Repository, Served, find_artifacts

NPY = {"Content-Type": "application/x-npy"}


def load(path: Path) -> artifact.Model:
    return artifact.load(path)


def loaded(*paths: Path, name: str | None = None) -> Repository:
    repository = Repository(paths, load, name)
    list(repository.load_all())
    return repository


def names(repository: Repository) -> list[tuple[str, str]]:
    return [(served.name, served.version) for served in repository.served]


def damage(folder: Path) -> None:
    with (folder / "model.onnx").open("r+b") as stream:
        stream.seek(50)
        stream.write(b"\0\1\2")


@pytest.fixture
def models(forecaster: Path, decoder: Path, tmp_path: Path) -> Path:
    """A folder of models in every layout, and much else that is none."""
    root = tmp_path / "models"
    for version in ("1", "2", "10"):
        write_version(root / "small-forecaster" / version, forecaster, version)
    shutil.copytree(decoder, root / "a-decoder")
    tiny = write_forecaster(tmp_path / "tiny", channels=1, features=1, name="tiny")
    write_zip(root / "tiny.zip", tiny)
    for passed_over in (".hidden", "half.tmp-17", "too/deep/down"):
        shutil.copytree(decoder, root / passed_over)
    write_zip(root / ".hidden.zip", tiny)
    write_zip(root / "tiny.zip.tmp-17", tiny)
    (root / "empty").mkdir()
    (root / "notes.txt").write_text("no artifact")
    return root


def test_a_folder_of_artifacts(models: Path) -> None:
    found = [path.relative_to(models).as_posix() for path in find_artifacts(models)]
    assert found == [
        "a-decoder",
        "small-forecaster/1",
        "small-forecaster/10",
        "small-forecaster/2",
        "tiny.zip",
    ]
    repository = loaded(models)
    assert names(repository) == [
        ("small-decoder", "1"),
        ("small-forecaster", "1"),
        ("small-forecaster", "2"),
        ("small-forecaster", "10"),
        ("tiny", "1"),
    ]
    assert repository.ready
    assert repository.failures == []
    assert repository.find("small-forecaster").version == "10"
    assert repository.find("small-forecaster", "2").version == "2"
    assert repository.versions("small-forecaster") == ["1", "2", "10"]
    assert {line.source for line in repository.index()} == {
        *("a-decoder", "1", "2", "10", "tiny.zip")
    }
    with pytest.raises(NotFound, match="has no version '3'; there are 1, 2, 10"):
        repository.find("small-forecaster", "3")
    with pytest.raises(NotFound, match="no model 'other'; there are: small-decoder, small-f"):
        repository.find("other")
    with pytest.raises(NotFound, match=r"several models are served; there are /models/small-dec"):
        repository.find()


def test_a_path_that_is_an_artifact_is_taken_as_one(
    forecaster: Path, tmp_path: Path, models: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "nothing").mkdir()
    for path in (forecaster, models / "tiny.zip", tmp_path / "file", tmp_path / "nothing"):
        assert find_artifacts(path) == [path]
    assert find_artifacts(models / "small-forecaster") == [
        models / "small-forecaster" / version for version in ("1", "10", "2")
    ]


def test_a_folder_that_may_not_be_looked_into_is_told_and_its_neighbours_serve(
    forecaster: Path,
) -> None:
    """Such as `lost+found` at the root of a volume."""
    user = os.geteuid()
    loaded(forecaster)  # what is imported on the way may lie where nobody else may look
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shutil.copytree(forecaster, root / "open")
        (root / "closed").mkdir(mode=0o000)
        (root / "group").mkdir()
        (root / "group" / "closed").mkdir(mode=0o000)
        root.chmod(0o755)
        if user == 0:  # who may look everywhere
            os.seteuid(65534)
        try:
            repository = loaded(root)
        finally:
            os.seteuid(user)
        assert names(repository) == [("small-forecaster", "1")]
        assert [(line.source, line.reason) for line in repository.failures] == [
            ("closed", "Permission denied"),
            ("closed", "Permission denied"),
        ]
        for closed in (root / "closed", root / "group" / "closed"):
            closed.chmod(0o700)


def broken(root: Path, forecaster: Path) -> Iterator[str]:
    """Writes artifacts that are broken in many ways; yields their names."""
    for name, spoil in {
        "altered": damage,
        "bare": lambda path: (path / "model.onnx").unlink(),
        "deep": lambda path: (path / "manifest.json").write_text("[" * 200_000),
        "garbage": lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe\0"),
        "more": lambda path: (path / "more.bin").write_bytes(b"1"),
        "nowhere": lambda path: (path / "golden.npz").rename(path / "golden"),
        "other": lambda path: (path / "manifest.json").write_text("{}"),
    }.items():
        shutil.copytree(forecaster, root / name)
        spoil(root / name)
        yield name
    whole = write_zip(root / "whole.zip", forecaster).read_bytes()
    (root / "whole.zip").unlink()
    for name, data in {
        "cut.zip": whole[:-40],
        "empty.zip": b"",
        "half.zip": whole[: len(whole) // 2],
        "spoilt.zip": whole[:300] + b"\0\1\2\3" + whole[304:],
        "text.zip": b"no zip at all",
    }.items():
        (root / name).write_bytes(data)
        yield name
    (root / "loop.zip").symlink_to("loop.zip")
    yield "loop.zip"


def test_whatever_is_broken_is_told_and_takes_nobody_down(
    forecaster: Path, decoder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    root.mkdir()
    shutil.copytree(decoder, root / "good")
    spoilt = sorted(broken(root, forecaster))
    repository = loaded(root)
    assert repository.ready
    assert repository.find().name == "small-decoder"
    assert [line.source for line in repository.failures] == spoilt
    for line in repository.failures:
        assert line.state == UNAVAILABLE
        assert line.reason
        assert str(tmp_path) not in line.reason, "a caller learns no paths"
        assert "it does not load (" not in line.reason, line
    assert repository.index() == [
        Listing("small-decoder", "1", READY, "", "good"),
        *repository.failures,
    ]
    with pytest.raises(NotReady, match=r"model 'small-forecaster' is not ready: .*sha256"):
        repository.find("small-forecaster")


def test_nothing_at_all(tmp_path: Path) -> None:
    repository = Repository((tmp_path,), load)
    with pytest.raises(NotReady, match="models are being loaded"):
        repository.find()
    with pytest.raises(NotReady, match="models are being loaded"):
        repository.find("some")
    assert not repository.ready
    list(repository.load_all())
    assert not repository.ready
    with pytest.raises(NotReady, match="no model is loaded"):
        repository.find()
    with pytest.raises(NotFound, match="no model 'some'; there are: none"):
        repository.find("some")


def test_ready_ends_with_the_drain(forecaster: Path) -> None:
    repository = loaded(forecaster)
    assert repository.ready
    repository.draining = True
    assert not repository.ready
    assert repository.find().name == "small-forecaster"


def test_one_name_and_version_twice(forecaster: Path, tmp_path: Path) -> None:
    shutil.copytree(forecaster, tmp_path / "copy")
    repository = loaded(forecaster, tmp_path / "copy")
    assert names(repository) == [("small-forecaster", "1")]
    (line,) = repository.failures
    assert line.reason.startswith("a model 'small-forecaster' of version '1' is there already")
    served = repository.find()
    with pytest.raises(ArtifactRefused, match="is there already"):
        repository.load("small-forecaster")
    assert repository.find() is served


def test_a_reserved_name(decoder: Path, tmp_path: Path) -> None:
    write_forecaster(tmp_path / "models" / "a", name="stats")
    shutil.copytree(decoder, tmp_path / "models" / "b")
    repository = loaded(tmp_path / "models")
    assert names(repository) == [("small-decoder", "1")]
    assert repository.failures[0].reason.startswith("the name 'stats' is reserved")
    with pytest.raises(ArtifactRefused, match="reserved"):
        repository.load("stats")


def test_a_name_for_all(forecaster: Path, tmp_path: Path) -> None:
    write_version(tmp_path / "second", forecaster, "2")
    repository = loaded(forecaster, tmp_path / "second", name="mine")
    assert names(repository) == [("mine", "1"), ("mine", "2")]
    assert [served.version for served in repository.load("mine")] == ["1", "2"]
    with pytest.raises(NotFound):
        repository.find("small-forecaster")
    with pytest.raises(NotFound):
        repository.load("small-forecaster")


def test_versions_come_and_go_with_a_reload(
    forecaster: Path, decoder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    write_version(root / "a" / "1", forecaster, "1")
    write_version(root / "a" / "2", forecaster, "2")
    shutil.copytree(decoder, root / "b")
    repository = loaded(root)
    statistics = repository.find("small-forecaster", "2").statistics
    other = repository.find("small-decoder")
    shutil.rmtree(root / "a" / "1")
    write_version(root / "c", forecaster, "3")
    assert repository.find("small-forecaster", "1").version == "1", "nothing changes by itself"
    assert [served.version for served in repository.load("small-forecaster")] == ["2", "3"]
    assert repository.versions("small-forecaster") == ["2", "3"]
    assert repository.find("small-decoder") is other
    assert repository.find("small-forecaster", "2").statistics is statistics
    with pytest.raises(NotFound):
        repository.find("small-forecaster", "1")


def test_a_failed_reload_keeps_what_was_served(forecaster: Path, tmp_path: Path) -> None:
    path = tmp_path / "models" / "a"
    shutil.copytree(forecaster, path)
    repository = loaded(tmp_path / "models")
    served = repository.find()

    def refused(text: str) -> None:
        with pytest.raises(ArtifactRefused, match=text):
            repository.load("small-forecaster")
        assert repository.find() is served
        assert [(line.state, line.source) for line in repository.index()] == [
            (READY, "a"),
            (UNAVAILABLE, "a"),
        ]

    whole = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_text("{")
    refused("a: ")
    (path / "manifest.json").write_bytes(whole)
    damage(path)
    refused("a: model.onnx: its sha256 is not the manifest's")
    with pytest.raises(NotFound):
        repository.load("a")
    write_version(tmp_path / "models" / "b", forecaster, "2")
    refused("a: ")
    assert repository.versions("small-forecaster") == ["1"], "all versions or none"
    shutil.rmtree(path)
    shutil.copytree(forecaster, path)
    repository.load("small-forecaster")
    assert repository.failures == []
    assert repository.versions("small-forecaster") == ["1", "2"]
    assert repository.find(None, "1") is not served


def test_unloading_and_what_is_gone(forecaster: Path, decoder: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    shutil.copytree(forecaster, root / "a")
    shutil.copytree(decoder, root / "b")
    repository = loaded(root)
    repository.unload("small-forecaster")
    with pytest.raises(NotReady, match="model 'small-forecaster' is not ready: unloaded"):
        repository.find("small-forecaster")
    with pytest.raises(NotFound, match="no model 'small-forecaster' is loaded"):
        repository.unload("small-forecaster")
    assert repository.index() == [
        Listing("small-decoder", "1", READY, "", "b"),
        Listing("small-forecaster", "1", UNAVAILABLE, "unloaded", "a"),
    ]
    repository.load("small-forecaster")
    assert {line.state for line in repository.index()} == {READY}
    repository.unload("small-forecaster")
    shutil.rmtree(root / "a")
    with pytest.raises(NotFound, match="no artifact in the model paths has the name"):
        repository.load("small-forecaster")
    assert [line.name for line in repository.index()] == ["small-decoder"]
    with pytest.raises(NotFound):
        repository.find("small-forecaster")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "there is too little memory for it"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError(), "cannot be read"),
        (ZeroDivisionError("secret"), "it does not load (ZeroDivisionError)"),
    ],
)
def test_whatever_loading_raises_is_told(
    forecaster: Path, decoder: Path, error: Exception, reason: str
) -> None:
    def fail(path: Path) -> artifact.Model:
        if path == forecaster:
            raise error
        return artifact.load(path)

    repository = Repository((forecaster, decoder), fail)
    list(repository.load_all())
    assert [line.reason for line in repository.failures] == [reason]
    assert repository.find().name == "small-decoder"


def test_an_artifact_exchanged_while_it_is_loaded(forecaster: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    shutil.copytree(forecaster, path)

    def exchanged(path: Path) -> artifact.Model:
        return artifact.load(write_version(path, forecaster, "2"))

    repository = Repository((path,), exchanged)
    list(repository.load_all())
    assert [line.reason for line in repository.failures] == [
        "it was exchanged while it was being loaded; load it again"
    ]
    assert [served.version for served in repository.load("small-forecaster")] == ["2"]
    assert repository.failures == []


def test_whoever_asks_during_changes_always_finds_a_model(forecaster: Path, decoder: Path) -> None:
    repository = loaded(forecaster, decoder)
    stop = threading.Event()

    def look() -> int:
        looks = 0
        while not stop.is_set():
            assert repository.find("small-forecaster").model.id
            assert len(repository.served) in (1, 2)
            assert repository.index()
            looks += 1
        return looks

    with ThreadPoolExecutor(3) as pool:
        lookers = [pool.submit(look) for _ in range(2)]
        try:
            for _ in range(5):
                repository.load("small-forecaster")
                repository.unload("small-decoder")
                repository.load("small-decoder")
        finally:
            stop.set()
        assert min(looker.result() for looker in lookers) > 0


def test_models_that_are_dropped_are_freed(forecaster: Path) -> None:
    repository = loaded(forecaster)

    def gone(change: Callable[[str], object]) -> None:
        model = weakref.ref(repository.find().model)
        change("small-forecaster")
        limit = time.monotonic() + 20
        while model() is not None or "give-back" in {t.name for t in threading.enumerate()}:
            assert time.monotonic() < limit
            time.sleep(0.01)

    gone(repository.load)
    gone(repository.unload)


# While serving.


def control(server: Server, name: str, word: str) -> None:
    response = server.client.post(f"/v2/repository/models/{name}/{word}", json={})
    assert response.status_code == 200, response.text


def write_scaled(folder: Path, factor: int) -> Path:
    """Another artifact of the same name, version and shapes: its answers are its own."""
    return write_forecaster(
        folder,
        channels=1,
        features=1,
        name="tiny",
        overwrite=True,
        determinism={"made": factor},
    )


def test_requests_under_way_keep_the_model_they_found(tmp_path: Path) -> None:
    path = write_scaled(tmp_path / "models" / "tiny", 1)
    old = artifact.load(path).id
    rows = np.random.default_rng(0).normal(size=(40_000, 20, 1, 1)).astype(np.float32)

    def ask(server: Server, count: int) -> httpx.Response:
        body = encode_npy(rows[:count])
        return httpx.post(f"{server.url}/predict", content=body, headers=NPY, timeout=60)

    with (
        running(tmp_path, path.parent, max_rows=1, slots=1, model_control="true") as server,
        ThreadPoolExecutor(2) as pool,
    ):
        alone = ask(server, 3)
        assert alone.headers["x-artifact-id"] == old
        long = pool.submit(ask, server, len(rows))
        server.wait_for_pending(1)
        queued = pool.submit(ask, server, 3)
        server.wait_for_pending(2)
        new = artifact.load(write_scaled(path, 2)).id
        assert new != old
        control(server, "tiny", "load")
        late = ask(server, 3)
        assert late.headers["x-artifact-id"] == new
        for answer, count in ((long.result(), len(rows)), (queued.result(), 3)):
            assert answer.status_code == 200
            assert answer.headers["x-artifact-id"] == old
            assert decode_npy(answer.content).shape == (count, 20, 1)
        assert queued.result().content == alone.content

        long = pool.submit(ask, server, len(rows))
        server.wait_for_pending(1)
        control(server, "tiny", "unload")
        refused = ask(server, 3)
        assert (refused.status_code, refused.json()["type"]) == (503, "not_ready")
        assert server.client.get("/health/ready").status_code == 503
        assert server.client.get("/health/live").status_code == 200
        assert long.result().status_code == 200
        assert long.result().headers["x-artifact-id"] == new
        control(server, "tiny", "load")
        assert server.client.get("/health/ready").status_code == 200


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


@pytest.mark.slow
def test_memory_is_given_back(forecaster: Path, tmp_path: Path) -> None:
    """A model of 60 MB comes and goes; what the process holds falls back every time."""
    root = tmp_path / "models"
    shutil.copytree(forecaster, root / "small")
    with running(tmp_path, root, model_control="true") as server:
        write_heavy(root / "heavy", 60)
        width = artifact.read(root / "heavy").manifest.inputs[0].axes[1].size
        body = encode_npy(np.ones((4, width or 0), np.float32))

        def resident() -> float:
            return resident_mb(server.process.pid)

        before = resident()
        after = []
        for _ in range(5):
            control(server, "heavy", "load")
            held = resident()
            assert held > before + 55
            answer = server.client.post("/models/heavy/predict", content=body, headers=NPY)
            assert answer.status_code == 200, answer.text
            control(server, "heavy", "unload")
            limit = time.monotonic() + 20
            while resident() > before + 25 and time.monotonic() < limit:
                time.sleep(0.1)
            after.append(resident())
        assert max(after) < before + 25, (before, after)
        assert after[-1] < after[0] + 8, (before, after)
        # Exchanged for itself, it is there twice for a moment and once afterwards.
        control(server, "heavy", "load")
        for _ in range(3):
            control(server, "heavy", "load")
        limit = time.monotonic() + 20
        while resident() > held + 25:
            assert time.monotonic() < limit, (held, resident())
            time.sleep(0.1)


def test_served_models_are_compared_by_identity(forecaster: Path) -> None:
    first, second = loaded(forecaster).find(), loaded(forecaster).find()
    assert isinstance(first, Served)
    assert first != second
    assert len({first, second}) == 2

"""Recordings sent whole: the bytes of `axonnx predict`, refusals, and nothing left behind."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from planned_artifacts import (
    DROP,
    FILTER,
    walk,
    write_csv,
    write_edf,
    write_npy,
    write_npz,
    write_planned,
)
from server_process import Server, running

import artifact
from recording.cli import main as recording_cli
from serve.call import main as call_main
from serve.errors import DeadlineExceeded, Overloaded
from serve.recording_process import MOST_WAITING, Turns
from serve.recordings import check_name

FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "npy": (write_npy, "walk.npy"),
    "npz": (write_npz, "walk.npz"),
    "csv": (write_csv, "my walk (1).csv"),
    "edf": (write_edf, "walk.edf"),
}
EPOCHS = {"step": "epochs", "events": ["open", "closed"], "start": 0.0, "stop": 0.6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planned")


@pytest.fixture(scope="module")
def planned(folder: Path) -> Path:
    return write_planned(folder / "forecast", "forecast")


@pytest.fixture(scope="module")
def server(planned: Path, folder: Path) -> Iterator[Server]:
    with temporary(folder / "temporary"), running(folder, planned) as found:
        yield found


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """The temporary folder of the processes that are started meanwhile."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        yield folder


def post(server: Server, path: Path, name: str | None = None, **words: object) -> httpx.Response:
    return server.client.post(
        "/predict-recording",
        params={"filename": path.name if name is None else name, **words},
        content=path.read_bytes(),
    )


def predicted(artifact: Path, file: Path, *words: object) -> bytes:
    """What `axonnx predict` writes."""
    output = artifact.parent / "predicted.csv"
    arguments = ["predict", artifact, file, "--output", output, "--no-picture", *words]
    assert recording_cli(list(map(str, arguments))) == 0
    return output.read_bytes()


@pytest.mark.parametrize("kind", FILES)
def test_the_answer_is_the_file_that_predict_writes(
    kind: str, server: Server, planned: Path, folder: Path, tmp_path: Path
) -> None:
    write, name = FILES[kind]
    file = write(tmp_path / name)
    answer = post(server, file)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    expected = predicted(planned, file)
    assert answer.content == expected
    assert expected.count(b"\n") == 1 + 123 * 8
    assert answer.headers["x-artifact-id"] == artifact.load(planned).id
    assert list((folder / "temporary").iterdir()) == []


def test_a_stretch_as_json(server: Server, planned: Path, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "walk.npz")
    expected = predicted(planned, file, "--from", "2", "--to", "4.5").decode().splitlines()
    answer = server.client.post(
        "/models/planned-forecast/predict-recording",
        params={"filename": "walk.npz", "start": 2, "stop": 4.5},
        content=file.read_bytes(),
        headers={"Accept": "application/json"},
    )
    body = answer.json()
    assert body["model"] == "planned-forecast"
    assert list(body["columns"]) == expected[0].split(",")
    rows = zip(*body["columns"].values(), strict=True)
    for row, line in zip(rows, expected[1:], strict=True):
        assert np.array_equal(np.float32(row), np.float32(line.split(",")))
    assert body["columns"]["window_start_s"][0] == 2.0


@pytest.mark.parametrize(
    "task",
    ["classify", pytest.param("decode", marks=pytest.mark.slow)],  # scipy takes its time
)
def test_classes_and_variables(task: str, folder: Path, tmp_path: Path) -> None:
    changes: dict[str, object] = {"steps": [FILTER, DROP]}
    if task == "classify":
        changes = {"steps": [EPOCHS], "graph_steps": 0, "cut": "trial"}
    made = write_planned(folder / task, task, **changes)
    file = write_edf(tmp_path / "walk.edf")
    with running(tmp_path, made) as server:
        answer = post(server, file)
    assert answer.status_code == 200, answer.text
    assert answer.content == predicted(made, file)
    head = {
        "classify": "window_start_s,window_stop_s,trial,predicted,p_open,p_closed",
        "decode": 'window_start_s,time_s,x [m],"grip, left [N]"',
    }
    assert answer.text.splitlines()[0] == head[task]


def with_nan() -> np.ndarray:
    values = walk()
    values[400, 2] = np.nan
    return values


REFUSED = {
    "empty": (b"", "walk.npy", 400, "the body is empty"),
    "unknown": (b"hello", "walk.xyz", 400, "walk.xyz: no known format"),
    "text in numbers": (b"c0,c1\n1,2\n1,x\n", "walk.csv", 400, "walk.csv: "),
    "several files": (
        b"Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n"
        b"DataFile=/etc/passwd\n",
        "walk.vhdr",
        400,
        "may point at other files",
    ),
    "path": (b"x", "../walk.npy", 400, "filename: begins with a letter or digit"),
    "hidden": (b"x", ".walk.npy", 400, "filename: begins with a letter or digit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, server: Server, folder: Path) -> None:
    content, name, status, text = REFUSED[case]
    answer = server.client.post("/predict-recording", params={"filename": name}, content=content)
    assert (answer.status_code, text in answer.text) == (status, True), answer.text
    assert str(folder) not in answer.text
    assert "/tmp" not in answer.text
    assert list((folder / "temporary").iterdir()) == []


def test_what_does_not_fit_is_told_with_its_place(server: Server, tmp_path: Path) -> None:
    missing = post(server, write_npy(tmp_path / "walk.npy", with_nan())).json()
    assert missing["type"] == "invalid_input"
    assert missing["error"].startswith("walk.npy: neural: at 8 s: channel c2 is nan; must be")
    file = write_npy(tmp_path / "walk.npy")
    for words, text in (
        ({"start": "nan"}, "query.start: "),
        ({"stop": "inf"}, "query.stop: "),
        ({"stop": "soon"}, "query.stop: "),
    ):
        refused = post(server, file, **words)
        assert (refused.status_code, text in refused.text) == (400, True), refused.text


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a.edf", True),
        ("Übung 2 (left)+a=b,c@d.edf", True),
        ("a" * 200, True),
        ("a" * 201, False),
        ("µ" * 101, False),
        ("", False),
        ("-a", False),
        ("a/b", False),
        ("a\\b", False),
        ("a\0", False),
        ("a\n", False),
    ],
)
def test_names(name: str, good: bool) -> None:
    if good:
        check_name(name)
        return
    with pytest.raises(Exception, match="filename: begins with"):
        check_name(name)


def test_a_model_of_windows_says_so(forecast_server: Server, tmp_path: Path) -> None:
    answer = post(forecast_server, write_npy(tmp_path / "walk.npy"))
    assert (answer.status_code, answer.json()["type"]) == (415, "unsupported_media_type")
    assert "send it arrays" in answer.json()["error"]


def children(server: Server) -> list[int]:
    """The processes that the service has started."""
    path = Path(f"/proc/{server.process.pid}/task")
    found = (task / "children" for task in path.iterdir())
    return [int(word) for task in found for word in task.read_text().split()]


def wait_for(condition: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.01)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that takes seconds to read."""
    return write_csv(tmp_path_factory.mktemp("long") / "long.csv", walk(250_000))


@pytest.mark.slow
def test_deadline_departure_and_stop_leave_nothing(
    planned: Path, long: Path, tmp_path: Path
) -> None:
    """504 in time; a caller that leaves, and the end of the service, end the process too."""
    with temporary(tmp_path / "temporary") as rest:
        settings = {"request_timeout": 1.2, "shutdown_timeout": 0}
        server = Server(tmp_path / "log", planned, **settings)
    try:
        late = post(server, long)
        assert (late.status_code, late.json()["type"]) == (504, "deadline_exceeded")
        assert (children(server), list(rest.iterdir())) == ([], [])

        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{server.url}/predict-recording?filename=long.csv",
                content=long.read_bytes(),
                timeout=httpx.Timeout(20, read=0.5),
            )
        wait_for(lambda: not children(server), "the process outlives its caller")
        wait_for(lambda: not list(rest.iterdir()), "its folder does")
        server.wait_for_pending(0)

        asking = threading.Thread(target=lambda: contextless(server, long))
        asking.start()
        wait_for(lambda: children(server), "no process")
        started = children(server)
        server.stop(signal.SIGINT)
        asking.join()
        assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
        assert list(rest.iterdir()) == []
        assert "Traceback" not in server.log.read_text()
    finally:
        if server.process.poll() is None:
            server.process.kill()


def contextless(server: Server, file: Path) -> None:
    with suppress(httpx.HTTPError):
        httpx.post(
            f"{server.url}/predict-recording?filename=long.csv",
            content=file.read_bytes(),
            timeout=20,
        )


def test_one_at_a_time_in_order_and_few_wait() -> None:
    async def run() -> tuple[list[int], list[str]]:
        turns, order, refused = Turns(), [], []

        async def one(number: int, deadline: float) -> None:
            try:
                async with turns.take(deadline):
                    order.append(number)
                    await asyncio.sleep(0.02)
                    assert order[-1] == number
            except (Overloaded, DeadlineExceeded) as error:
                refused.append(f"{number} {error.kind}")

        soon, later = time.monotonic() + 0.01, time.monotonic() + 20
        count = MOST_WAITING + 3
        await asyncio.gather(*(one(i, soon if i == 2 else later) for i in range(count)))
        await one(count, later)
        return order, refused

    order, refused = asyncio.run(run())
    assert refused == [f"{n} overloaded" for n in (9, 10)] + ["2 deadline_exceeded"]
    assert order == [0, 1, 3, 4, 5, 6, 7, 8, 11]


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_call_writes_the_same_file(
    suffix: str, server: Server, planned: Path, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "walk.csv")
    ours, theirs = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    words = ["--part", "test", "--option", "session=walk"]
    arguments = ["predict", planned, file, "--output", ours, *words, "--no-picture"]
    assert recording_cli(list(map(str, arguments))) == 0
    assert call_main(["call", server.url, str(file), "--output", str(theirs), *words]) == 0
    assert theirs.read_bytes() == ours.read_bytes()
    assert call_main(["call", server.url, str(file), "--output", str(tmp_path / "c.txt")]) == 2

"""Recordings on the page, in a real browser: dropped, drawn, kept as CSV, refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, visit
from planned_artifacts import DROP, walk, write_csv, write_edf, write_npy, write_npz, write_planned
from playwright.sync_api import Browser
from server_process import Server, running

from artifact.arrays import encode_npy
from recording.cli import main as recording_cli

pytestmark = pytest.mark.slow
EPOCHS = {"step": "epochs", "events": ["open", "closed"], "start": 0.0, "stop": 0.6}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("planned")
    changes: dict[str, dict[str, object]] = {
        "classify": {"steps": [EPOCHS, DROP], "cut": "trial", "outputs": ["open", "closed"]}
    }
    return {
        task: write_planned(folder / task, task, **changes.get(task, {}))
        for task in ("forecast", "classify", "decode")
    }


@pytest.fixture(scope="module")
def server(
    artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("page"), *artifacts.values()) as found:
        yield found


def address(server: Server, task: str) -> str:
    return f"{server.url}/#planned-{task}"


def predicted(artifact: Path, file: Path, *words: object) -> bytes:
    output = file.with_name("expected.csv")
    arguments = ["predict", artifact, file, "--output", output, "--no-picture", *words]
    assert recording_cli(list(map(str, arguments))) == 0
    return output.read_bytes()


@pytest.mark.parametrize(
    ("task", "name", "write"),
    [
        ("forecast", "my walk, #2.npy", write_npy),
        ("forecast", "walk.npz", write_npz),
        ("decode", "walk.csv", write_csv),
        ("classify", "walk.edf", write_edf),
    ],
)
def test_a_recording_is_answered_drawn_and_saved(
    browser: Browser,
    server: Server,
    artifacts: dict[str, Path],
    tmp_path: Path,
    task: str,
    name: str,
    write: object,
) -> None:
    assert callable(write)
    file = write(tmp_path / name)
    expected = predicted(artifacts[task], file)
    with visit(browser, address(server, task)) as seen:
        seen.page.wait_for_selector("#drop")
        assert "Drop a recording" in seen.page.inner_text("#drop")
        assert ".edf,.bdf" in str(seen.page.get_attribute("#file", "accept"))
        seen.drop((name, file.read_bytes()))
        traces = seen.drawn("predictions")
        head, *lines = expected.decode().splitlines()
        columns = {"forecast": 3, "decode": 2, "classify": 2}[task]
        assert len(traces) == columns
        drawn = [value for value in traces[-1]["y"] if value is not None]
        wanted = [float(line.rsplit(",", 1)[1]) for line in lines]
        assert np.array_equal(np.float32(drawn), np.float32(wanted))
        assert head.endswith(f"{traces[-1]['meta']['role']}") or '"' in head
        saved_name, saved = seen.saved("#save")
        assert saved_name.endswith(".predictions.csv")
        assert saved == expected
        seen.page.click(".output summary")
        cells = seen.page.locator(".numbers tbody tr").count()
        assert cells == min(100, len(lines))
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert str(len(lines)) in seen.page.inner_text('[data-fact="rows"]')


def test_a_stretch_and_windows_of_the_same_model(
    browser: Browser, server: Server, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    file = write_npy(tmp_path / "walk.npy")
    expected = predicted(artifacts["forecast"], file, "--from", "2", "--to", "3")
    with visit(browser, address(server, "forecast")) as seen:
        seen.page.wait_for_selector("#start")
        seen.page.fill("#start", "2")
        seen.page.fill("#stop", "3")
        seen.drop(("walk.npy", file.read_bytes()))
        seen.drawn("predictions")
        assert seen.saved("#save")[1] == expected
        windows = walk(40).reshape(2, 20, 4, 1)
        seen.drop(("windows.npy", encode_npy(windows)))
        seen.page.wait_for_selector('[data-output="forecast"]')
        assert seen.page.inner_text('[data-fact="rows"]') == "2"
        assert seen.saved("#save")[0].endswith(".npz")


def test_what_does_not_fit_is_told_in_words(browser: Browser, server: Server) -> None:
    with visit(browser, address(server, "forecast"), "status of 400") as seen:
        seen.page.wait_for_selector("#drop")
        values = walk()
        values[100, 1] = np.nan
        seen.drop(("lost.npy", encode_npy(values)))
        assert "lost.npy: neural: at 2 s: channel c1 is nan; must be finite" in seen.failure()
        assert "or a recording: 50 Hz, c0 (µV), c1 (µV)" in seen.failure()
        seen.page.evaluate("document.querySelector('.failure').remove()")
        seen.drop(("notes.txt", b"hello"))
        assert "notes.txt: no known format" in seen.failure()


def test_a_table_in_text(browser: Browser, server: Server) -> None:
    script = """async (text) => {
      const { readCsv } = await import("/page/table.js");
      return readCsv(new TextEncoder().encode(text));
    }"""
    with visit(browser, address(server, "forecast")) as seen:
        text = 'a,"b, ""c""\n",d\n1,,3\n,"",\n'
        found = seen.page.evaluate(script, text)
    assert found == {"head": ["a", 'b, "c"\n', "d"], "rows": [["1", "", "3"], ["", "", ""]]}

"""`axonnx inspect FILE` as a command: words, JSON, picture and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recording import inspection
from recording.contract import Channel, Events, Recording, Samples, Series
from recording.errors import RecordingError
from recording.inspection_text import flow


def made_up() -> Recording:
    generator = np.random.default_rng(0)
    values = np.cumsum(generator.normal(size=(2000, 12)), axis=0) % 40
    values[:, 3] = 7.0
    channels = tuple(
        Channel(f"E{i} [left]" if i == 3 else f"E{i}", "eeg", "µV", (0.01 * i, 0.02, 0.05))
        for i in range(12)
    )
    times = np.arange(300) / 30
    track = Samples(times, np.stack([times, times**2], 1), (Channel("x"), Channel("y")))
    markers = Events(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 0, 1]), ("go", "stop"))
    return Recording(
        "made.up",
        "test",
        "monday",
        {"neural": Series(values, 200.0, channels), "behavior": track},
        markers=markers,
        subject="anna",
        facts={"device": "a [made up] one"},
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def open_recording(path: Path, options: object, *, format: str | None) -> Recording:
        if path.name == "broken":
            raise RecordingError("is not a recording")
        return made_up()

    monkeypatch.setattr(inspection, "open_recording", open_recording)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_words_fit_eighty_columns(opened: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspection.run(["data/made.up", "--no-picture"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for part in ("monday", "anna", "a [made up] one", "E3 [left]", "go", "µV", "12 eeg"):
        assert part in text
    assert 'names: ["E3 [[]left]"' in text.replace("\n", " ")
    assert "axonnx init data/made.up --task decode" in text
    assert not list(opened.iterdir())


def test_json_is_complete_and_repeats(opened: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspection.run(["made.up", "--json", "--no-picture"]) == 0
    first = capsys.readouterr().out
    assert inspection.run(["made.up", "--json", "--no-picture"]) == 0
    assert capsys.readouterr().out == first
    document = json.loads(first)
    assert [stream["name"] for stream in document["streams"]] == ["neural", "behavior", "markers"]
    assert len(document["streams"][0]["channels"]) == 12
    assert document["streams"][2]["counts"] == {"go": 2, "stop": 2}
    flat = next(finding for finding in document["findings"] if finding["kind"] == "flat")
    assert flat["steps"] == [{"step": "drop", "names": ["E3 [[]left[]]"]}] or flat["channels"]
    assert [command.split()[-1] for command in document["next"]] == [
        "forecast",
        "classify",
        "decode",
    ]


def test_a_picture_is_drawn_twice_the_same(opened: Path) -> None:
    assert inspection.run(["folder/made.up"]) == 0
    written = (opened / "made.inspect.png").read_bytes()
    assert written.startswith(b"\x89PNG")
    assert inspection.run(["made.up", "--output", "other.png"]) == 0
    assert (opened / "other.png").read_bytes() == written
    assert sorted(path.name for path in opened.iterdir()) == ["made.inspect.png", "other.png"]


def test_a_broken_file_is_told_and_the_others_are_shown(
    opened: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspection.run(["broken", "made.up", "--no-picture"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "axonnx: error: broken: is not a recording\n"
    assert "monday" in captured.out


def test_one_picture_for_two_files_is_refused(opened: Path) -> None:
    with pytest.raises(RecordingError, match="--output names one picture"):
        inspection.run(["a", "b", "--output", "c.png"])


def test_a_picture_in_no_folder_is_told(opened: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspection.run(["made.up", "--output", "nowhere/c.png"]) == 2
    assert "no folder nowhere" in capsys.readouterr().err


def test_tasks_follow_from_what_there_is() -> None:
    recording = made_up()
    assert inspection.tasks(recording) == ("forecast", "classify", "decode")
    bare = Recording("a", "b", "c", {"neural": recording.modalities["neural"]})
    assert inspection.tasks(bare) == ("forecast",)
    assert inspection.tasks(Recording("a", "b", "c", {})) == ()


def test_steps_are_written_as_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    step = {"step": "drop", "names": ["28", "a b", "yes", "x: y"], "value": None, "by": 1.5}
    assert yaml.safe_load(flow(step)) == step

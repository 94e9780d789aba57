"""`axonnx init`: a config that loads for every task and format, or what to say instead."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import yaml

from recording.contract import Finding
from recording.errors import RecordingError
from trainer.config import load_config
from trainer.data import DataError, load_dataset
from trainer.first_config import _flow, printable, run
from trainer.first_remedies import Line, in_order, remedies

RATE = 50
NAMES = ("F 3", "ön", "y", "no")


def noise(samples, channels=4, seed=0):
    values = np.random.default_rng(seed).normal(size=(samples, channels)).astype(np.float32)
    return 10 * np.cumsum(values, axis=0) / np.sqrt(np.arange(1, samples + 1))[:, None]


def table(path, *, samples=3000, seed=0, **columns):
    """A CSV with a column of time, four channels and others."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time (s)", *NAMES, *columns])
        for index, row in enumerate(noise(samples, seed=seed)):
            own = (f"{values[index]:g}" for values in columns.values())
            writer.writerow([f"{index / RATE:.2f}", *(f"{value:.4f}" for value in row), *own])
    return path


def force(samples=3000):
    return np.sin(np.arange(samples) / 60) + 0.1 * np.cos(np.arange(samples) / 7)


def state(samples=3000, seconds=5):
    return (np.arange(samples) // (RATE * seconds)) % 2


def marked(path, times, names):
    """An EDF of three channels with annotations."""
    edfio = pytest.importorskip("edfio")
    signals = [
        edfio.EdfSignal(column, RATE, label=f"EEG {name}", physical_dimension="uV")
        for column, name in zip(noise(3000, 3).T, ("C3", "C4", "Cz"), strict=True)
    ]
    notes = [
        edfio.EdfAnnotation(float(time), None, name)
        for time, name in zip(times, names, strict=True)
    ]
    edfio.Edf(signals, annotations=notes).write(path)
    return path


def init(*words, task, output):
    """Run it; the text, the plain values and the data set that the config gives."""
    assert run([*map(str, words), "--task", task, "--output", str(output)]) == 0
    text = output.read_text()
    return text, yaml.safe_load(text)["data"], load_dataset(load_config(output, []).data)


def steps(data):
    return [step["step"] for step in data["preparation"]]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "my configs" / "it.yaml"


def test_forecast_of_a_table(tmp_path, output, capsys):
    text, data, dataset = init(table(tmp_path / "lab notes.csv"), task="forecast", output=output)
    assert "# forecast from lab notes.csv (csv)." in text
    assert "name: lab_notes_forecast" in text
    assert (data["window"], data["observed"]) == (20, 10)
    assert dataset.channel_names == NAMES
    assert f"axonnx train '{output}'" in capsys.readouterr().out


def test_forecast_of_an_array_with_what_it_does_not_say(tmp_path, output):
    np.save(tmp_path / "a.npy", noise(2000))
    with pytest.raises(RecordingError, match=r"--option rate="):
        run([str(tmp_path / "a.npy"), "--task", "forecast", "--output", str(output)])
    words = (tmp_path / "a.npy", "--option", "rate=50", "--format", "npy")
    _, data, dataset = init(*words, task="forecast", output=output)
    assert (data["reader"], data["format"], dataset.rate) == ({"rate": 50}, "npy", 50)


def test_a_channel_of_neural_is_decoded_by_its_name(tmp_path, output):
    path = table(tmp_path / "a.csv", **{"grip force": force()})
    with pytest.raises(RecordingError, match=r"--target NAME.*channels: F 3, .*grip force"):
        run([str(path), "--task", "decode", "--output", str(output)])
    text, data, dataset = init(path, "--target", "grip force", task="decode", output=output)
    assert data["preparation"][0] == {"step": "behavior", "channels": ["grip force"]}
    assert (data["target"], dataset.channel_names) == (["grip force"], NAMES)
    assert "as --target says" in text


def test_one_option_of_behavior_is_a_list_of_one(tmp_path, output):
    path = table(tmp_path / "a.csv", force=force())
    _, data, _ = init(path, "--option", "behavior=force", task="decode", output=output)
    assert (data["reader"], data["target"]) == ({"behavior": "force"}, ["force"])
    assert "behavior" not in steps(data)


@pytest.mark.parametrize("words", [[], ["--target", "class"], ["--option", "behavior=class"]])
def test_states_are_classes_wherever_the_channel_is(tmp_path, output, words):
    path = table(tmp_path / "a.csv", **{"class": state()})
    _, data, dataset = init(path, *words, task="classify", output=output)
    assert data["classes"] == ["class 0", "class 1"]
    assert dataset.channel_names == NAMES
    for windows in dataset.parts.values():
        assert set(windows.targets) == {0, 1}


def test_a_target_with_many_values_is_no_state(tmp_path, output):
    path = table(tmp_path / "a.csv", force=force())
    with pytest.raises(RecordingError, match=r"more than 12 values; .*--task decode"):
        run([str(path), "--task", "classify", "--target", "force", "--output", str(output)])


def test_epochs_end_before_the_next_marker(tmp_path, output):
    times = np.arange(1, 59, 0.5)
    names = ["left[1]", "right"] * (len(times) // 2)
    path = marked(tmp_path / "a.edf", times, names)
    text, data, dataset = init(path, task="classify", output=output)
    epochs = data["preparation"][-1]
    assert (epochs["events"], epochs["stop"]) == (["left[[]1]", "right"], 0.5)
    assert (data["classes"], dataset.train.steps) == (["left[1]", "right"], 25)
    assert "the next marker may come 0.5 s later" in " ".join(text.replace("#", "").split())


def test_markers_that_may_overlap_keep_to_one_part(tmp_path, output):
    times = np.repeat(np.arange(1, 57, 2.0), 2)
    times[1::2] += 0.05
    path = marked(tmp_path / "a.edf", times, ["a", "b"] * (len(times) // 2))
    _, data, _ = init(path, "--events", "a,b", task="classify", output=output)
    assert data["split"]["by"] == "fold"


@pytest.mark.parametrize(
    ("task", "words", "problem"),
    [
        ("classify", ["--events", "left,rihgt"], r"no marker 'rihgt'; there are: left \(10\), rig"),
        ("classify", ["--events", "left"], r"markers of one kind, left, are no classes; there are"),
        ("classify", ["--target", "EEG Oz"], r"--target: no channel 'EEG Oz'; .*neural: EEG C3"),
        ("decode", [], r"no behaviour to decode.*--target NAME.*EEG C3, EEG C4, EEG Cz"),
        ("decode", ["--events", "left"], "--events is for classify; name behaviour channels"),
        ("forecast", ["--events", "left"], "not for forecast"),
    ],
)
def test_what_a_task_lacks_is_named(tmp_path, output, task, words, problem):
    path = marked(tmp_path / "a.edf", np.arange(2, 42, 2), ["left", "right"] * 10)
    with pytest.raises(RecordingError, match=problem):
        run([str(path), "--task", task, *words, "--output", str(output)])
    assert not output.exists()


def test_sessions(tmp_path, output):
    paths = [table(tmp_path / f"day{seed}.csv", seed=seed) for seed in (1, 2, 3)]
    _, data, dataset = init(*paths, task="forecast", output=output)
    assert data["path"] == [str(path) for path in paths]
    assert data["split"]["test"] == ["day3"]
    assert len(dataset.test) > 0


def test_a_config_is_replaced_only_where_asked(tmp_path, output):
    path = table(tmp_path / "a.csv")
    init(path, task="forecast", output=output)
    output.write_text("mine")
    with pytest.raises(DataError, match="--overwrite replaces it"):
        run([str(path), "--task", "forecast", "--output", str(output)])
    assert output.read_text() == "mine"
    init(path, "--overwrite", task="forecast", output=output)
    assert [one.name for one in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize(
    "value",
    [
        *("y", "N", "on", "null", "~", "1e5", "12:30", "a b", 'q"t', "Fz:1", "#1", "- x", "{a}"),
        *("ön", "😀", "tab\t", "\x01\x85", "a\\b", "", 0.5, 1e-6, [["a", "y"]], {"0": "off"}),
    ],
)
def test_odd_values_come_back_from_yaml(value):
    read = yaml.safe_load(f"key: {_flow(value)}")["key"]
    assert (float(read) if isinstance(value, float) else read) == value


def test_comments_hold_no_control_characters():
    assert printable("a\x01b\x7f c") == "a?b? c"


def test_steps_stand_in_an_order_that_works():
    names = ["notch", "clip", "declare", "select", "split_missing", "drop", "segment", "behavior"]
    lines = [Line({"step": name}, "") for name in names]
    assert [line.name for line in in_order([Line({"step": "bands"}, ""), *lines])] == [
        *("behavior", "segment", "drop", "split_missing", "declare", "select", "clip", "notch"),
        "bands",
    ]


def test_a_channel_that_is_gone_is_not_named_again():
    lines = [
        Line({"step": "drop", "names": ["force", "C3"]}, ""),
        Line({"step": "drop", "names": ["C3"]}, ""),
        Line({"step": "behavior", "channels": ["force"]}, ""),
    ]
    assert [dict(line.step) for line in in_order(lines)] == [
        {"step": "behavior", "channels": ["force"]},
        {"step": "drop", "names": ["C3"]},
    ]


def test_a_forecast_keeps_the_mains():
    notch = Finding("line", "mains", "notch", steps=({"step": "notch", "frequency": 50.0},))
    assert not remedies([notch], "forecast")
    assert [line.name for line in remedies([notch, notch], "decode")] == ["notch"]

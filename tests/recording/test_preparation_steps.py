"""All steps: names, round trips, block sizes, errors that name entry and setting."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparation_cases import events, in_blocks, noise, of, read, run, series

from recording.contract import Channel, Samples
from recording.errors import RecordingError
from recording.preparation import STEPS, dump_steps, graph_tail, parse_steps
from recording.preparation.catalog import describe_steps
from recording.signals import is_derived

EXAMPLES = [
    {"step": "select", "names": ["c*"]},
    {"step": "drop", "names": ["c1"]},
    {"step": "declare", "unit": "uV", "factor": 0.5, "names": ["c0"]},
    {"step": "scale", "unit": "mV"},
    {"step": "reference", "names": ["c0"], "keep": False},
    {"step": "clip", "low": -5, "high": 320},
    {"step": "clip", "around": "median", "by": 150.0, "medians": [1.5, 2.25, 3.0]},
    {"step": "filter", "low": 1, "high": 30.0, "order": 3, "phase": "zero"},
    {"step": "notch", "frequency": 20, "harmonics": 2},
    {"step": "resample", "rate": 40, "phase": "zero"},
    {"step": "bands", "edges": [4, 8, 12]},
    {"step": "bin", "width": 0.05, "smoothing": 0.2, "units": ["u*"]},
    {"step": "segment", "first": 100, "length": 200},
    {"step": "segment", "starts": [0, 10, 300]},
    {"step": "split_missing"},
    {"step": "crop", "start": 1, "stop": 4.5},
    {"step": "behavior", "channels": ["c2"]},
    {"step": "mask", "value": 0},
    {"step": "align", "method": "nearest", "gap": 0.2},
    {
        "step": "epochs",
        "events": ["S*"],
        "start": -0.1,
        "stop": 0.5,
        "classes": {"S 1": "left", "*": "x"},
    },
    {"step": "states", "channel": "x", "classes": {"0": "open"}, "minimum": 0.1},
    {"step": "moving", "channels": ["x"], "above": 0.5},
]
NAMED = [f"{index}-{example['step']}" for index, example in enumerate(EXAMPLES)]


def recording(values=None):
    """Half a second of everything: neural, spikes, behavior, markers."""
    values = noise(600, 3) if values is None else values
    times = np.arange(0, 6, 0.031)
    position = np.stack([np.round(times) % 2, times**2], axis=1)
    behavior = Samples(times, position, (Channel("x", "behavior"), Channel("y", "behavior")))
    spikes = events(np.linspace(0, 6, 80), np.arange(80) % 2, ["u0", "u1"], span=(0.0, 6.0))
    markers = events([0.05, 0.5, 1, 5.9], [0, 1, 0, 1], ["S 1", "S 2"])
    return of(series(values), modalities={"spikes": spikes, "behavior": behavior}, markers=markers)


def test_the_steps_are_those_of_the_documentation():
    assert sorted(STEPS) == sorted({example["step"] for example in EXAMPLES})
    for kind in STEPS.values():
        assert (inspect.getdoc(kind) or "").endswith("."), kind


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMED)
def test_a_step_and_its_plain_values_are_the_same(example):
    (step,) = parse_steps([example])
    (plain,) = dump_steps([step])
    assert plain["step"] == example["step"]
    assert parse_steps([plain]) == (step,)
    assert dump_steps(parse_steps([plain])) == [plain]
    assert parse_steps((step,)) == (step,)


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMED)
def test_a_step_runs_and_what_it_gives_is_the_same_in_any_blocks(example):
    before = recording()
    if example["step"] == "behavior":
        before = before.with_modality("behavior", None)
    values = np.asarray(before.neural.values)
    after = run(before, example)
    for sizes in ((1, 7, 64, 3), (250,)):
        blocked = before.with_modality("neural", series(in_blocks(values, sizes)))
        again = run(blocked, example)
        assert again.neural.pieces == after.neural.pieces
        assert again.neural.channels == after.neural.channels
        assert read(again.neural.values).tobytes() == read(after.neural.values).tobytes()
    assert read(after.neural.values).dtype == np.float32


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMED)
def test_a_step_reads_no_value_until_it_is_asked(example):
    class Untouched:
        shape, dtype = (600, 3), np.dtype(np.float32)

        def __len__(self):
            return 600

        def __getitem__(self, rows):
            raise AssertionError("a value was read")

    before = recording(Untouched())
    if example["step"] == "behavior":
        before = before.with_modality("behavior", None)
    if example["step"] == "split_missing":  # it has to know where NaN are
        with pytest.raises(AssertionError, match="was read"):
            run(before, example)
        return
    run(before, example)


def test_derived_signals_stay_readable_in_order_after_what_is_taken_from_them():
    values = noise(600, 3)
    before = of(series(in_blocks(values, (50,))))
    cropped = run(before, {"step": "crop", "start": 1.005, "stop": 2})
    assert is_derived(cropped.neural.values)
    np.testing.assert_array_equal(read(cropped.neural.values), values[101:200])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ("filter", "must be a list of steps"),
        ([{"low": 1}], r"\[0\]: must be a mapping with the key `step`, one of align, bands"),
        ([{"step": "drop", "names": ["a"]}, {"step": "filtr"}], r"\[1\]: .*mean 'filter'"),
        (
            [{"step": "filter", "low": 1, "hihg": 2}],
            r"\[0\] \(filter\): hihg: Extra .*settings: low",
        ),
        ([{"step": "filter", "low": True}], r"\[0\] \(filter\): low: is true; must be no truth"),
        ([{"step": "filter"}], r"\[0\] \(filter\): low or high: give one or both, in Hz; settings"),
        ([{"step": "filter", "low": 3, "high": 2}], r"low: 3 Hz must be below high, 2 Hz"),
        ([{"step": "filter", "low": 1, "order": 13}], r"order: Input should be less than or eq"),
        ([{"step": "filter", "low": 1, "phase": "both"}], r"phase: Input should be 'causal' or 'z"),
        ([{"step": "notch", "width": 50}], r"width: 50 Hz must be below 50 Hz"),
        ([{"step": "notch", "frequency": float("nan")}], r"frequency: .*finite|greater"),
        ([{"step": "select"}], r"names or types: give one or both"),
        ([{"step": "select", "types": ["egg"]}], r"types\.0: Input should be 'eeg', 'meg'"),
        ([{"step": "drop"}], r"names: Field required; settings: names"),
        ([{"step": "reference", "keep": False}], r"keep: false needs names"),
        ([{"step": "scale", "unit": "volts"}], r"'volts' is not known; known: V, T, A, M"),
        ([{"step": "clip"}], r"give low and high .*, or around: median with by"),
        ([{"step": "clip", "around": "median"}], r"or around: median with by"),
        ([{"step": "clip", "low": 1, "around": "median", "by": 2}], r"or around: median with by"),
        ([{"step": "clip", "low": 2, "high": 1}], r"low: 2 must be below high, 1"),
        ([{"step": "clip", "low": 2, "medians": [1.0]}], r"medians: belong to around"),
        ([{"step": "resample", "rate": 0}], r"rate: Input should be greater than 0"),
        ([{"step": "bands", "edges": [4]}], r"edges: Tuple should have at least 2 items"),
        ([{"step": "bin", "width": -1}], r"width: Input should be greater than 0"),
        ([{"step": "segment"}], r"give length \(and first\), or starts"),
        ([{"step": "segment", "first": 3, "starts": [1]}], r"first: goes with length"),
        ([{"step": "segment", "starts": [3, 2]}], r"starts: must rise from 0"),
        ([{"step": "crop"}], r"start or stop: give one or both"),
        ([{"step": "crop", "start": 2, "stop": 1}], r"start: 2 s must be before stop, 1 s"),
        ([{"step": "epochs", "start": 0, "stop": 1}], r"events or classes: give one or both"),
        ([{"step": "epochs", "events": ["a"], "start": 1, "stop": 1}], r"must be before stop"),
        (
            [{"step": "states", "channel": "x", "classes": {}}],
            r"classes: Value should have at least 1",
        ),
        ([{"step": "split_missing", "x": 1}], r"x: Extra inputs.*; settings: none"),
    ],
)
def test_wrong_settings_are_named(values, text):
    with pytest.raises(ValueError, match=text):
        parse_steps(values)


def test_errors_of_a_step_name_entry_file_and_stream():
    with pytest.raises(RecordingError) as caught:
        run(recording(), {"step": "drop", "names": ["c0"]}, {"step": "resample", "rate": 1e9})
    assert str(caught.value).startswith("file.edf: neural: preparation[1] (resample): rate: 1e+09")


@settings(max_examples=80)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    st.sampled_from(sorted(STEPS)),
    st.data(),
)
def test_no_value_makes_parsing_crash(value, name, data):
    key = data.draw(st.sampled_from(sorted(STEPS[name].model_fields)))
    for hostile in (value, [value], [{"step": name, key: value}]):
        try:
            steps = parse_steps(hostile)
        except ValueError:
            continue
        assert dump_steps(parse_steps(dump_steps(steps))) == dump_steps(steps)


@pytest.mark.parametrize("name", ["declare", "scale", "clip", "reference", "filter"])
def test_steps_on_potentials_refuse_features(name):
    example = next(example for example in EXAMPLES if example["step"] == name)
    with pytest.raises(RecordingError, match=f"put {name} in front of bands"):
        run(recording(), {"step": "bands", "edges": [4, 8]}, example)


def test_a_graph_takes_the_last_operations():
    steps = parse_steps([EXAMPLES[1], EXAMPLES[7], EXAMPLES[0], EXAMPLES[5]])
    assert graph_tail(steps) == 2


def test_the_catalog_is_plain_data():
    rows = {name: (line, values) for name, line, values in describe_steps()}
    assert sorted(rows) == sorted(STEPS)
    line, values = rows["filter"]
    assert line.startswith("Butterworth filter")
    assert values == {"low": None, "high": None, "order": 4, "phase": "causal"}
    assert rows["resample"][1]["rate"] == "(required)"
    assert rows["epochs"][1]["events"] == []

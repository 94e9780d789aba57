"""Raw binary files: what the sidecar says is what is read, and what is wrong with it is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import Channel, Piece, RecordingError, open_recording
from recording.signals import settle

SIDECAR = {"dtype": "int16", "channels": 3, "rate": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("binary")


def numbers(samples=50, channels=3):
    return np.random.default_rng(2).integers(-3000, 3000, (samples, channels))


def write(folder, sidecar=None, content=None, name="day1.bin"):
    path = folder / name
    path.write_bytes(numbers().astype("<i2").tobytes() if content is None else content)
    if sidecar is not None:
        text = sidecar if isinstance(sidecar, str) else json.dumps({**SIDECAR, **sidecar})
        path.with_suffix(".json").write_text(text)
    return path


@given(
    dtype=st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "float32", "float64"]),
    endianness=st.sampled_from("<>"),
    layout=st.sampled_from(["time_channel", "channel_time"]),
    offset=st.integers(0, 9),
    bounds=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_every_layout_is_read_back_equal(folder, dtype, endianness, layout, offset, bounds):
    values = (numbers() % 128).astype(np.dtype(dtype).newbyteorder(endianness))
    content = bytes(offset) + values.tobytes("C" if layout == "time_channel" else "F")
    fields = {"dtype": dtype, "endianness": endianness, "layout": layout, "offset": offset}
    path = write(folder, fields, content)
    found = open_recording(path).neural.values
    np.testing.assert_array_equal(found[slice(*bounds)], values[slice(*bounds)])
    assert found.shape == values.shape


def test_a_whole_sidecar(tmp_path):
    sidecar = {
        "channels": [
            {"name": "C3", "position": [0.01, 0.02, 0.03]},
            {"name": "force", "type": "behavior", "unit": "N", "gain": 2},
            "C4",
        ],
        "gain": [0.5, 1, 0.25],
        "unit": "mV",
        "type": "eeg",
        "segments": [{"first": 0, "start": 5}, {"first": 20}, {"first": 30, "start": 9.5}],
        "subject": "s01",
        "session": "monday",
    }
    found = open_recording(write(tmp_path, sidecar))
    assert found.neural.channels == (
        Channel("C3", "eeg", "µV", (0.01, 0.02, 0.03)),
        Channel("force", "behavior", "N"),
        Channel("C4", "eeg", "µV"),
    )
    assert found.neural.pieces == (Piece(5.0, 0, 20), Piece(5.2, 20, 30), Piece(9.5, 30, 50))
    assert (found.subject, found.session, found.format) == ("s01", "monday", "binary")
    expected = numbers() * np.array([500, 2, 250])
    np.testing.assert_array_equal(found.neural.values[:], expected)
    assert found.neural.values.dtype == np.float32
    assert found.findings == ()


@pytest.mark.parametrize("name", ["day1.json", "day1.yaml", "day1.yml", "day1.bin.json"])
def test_names_of_a_sidecar(tmp_path, name):
    path = write(tmp_path)
    (tmp_path / name).write_text('{"dtype": "int16", "channels": ["a", "b", "c"], "rate": 100}')
    assert open_recording(path).neural.names == ("a", "b", "c")
    assert open_recording(path).facts == {"sidecar": name}
    (tmp_path / "day1.bin.yml").write_text("dtype: int16")
    with pytest.raises(RecordingError, match=rf"day1\.bin: several files say what it is: .*{name}"):
        open_recording(path)


def test_options_stand_in_for_the_sidecar_or_replace_some_of_it(tmp_path):
    path = write(tmp_path)
    found = open_recording(path, {**SIDECAR, "channels": ["a", "b", {"name": "c", "type": "eeg"}]})
    assert [channel.type for channel in found.neural.channels] == ["other", "other", "eeg"]
    path = write(tmp_path, {})
    found = open_recording(path, {"rate": 50, "type": "ecog"})
    assert (found.neural.rate, found.neural.channels[0].type) == (50.0, "ecog")
    assert found.findings[0].text == "options replace what day1.json says: rate"
    assert open_recording(path, {"rate": 100}).findings == ()


@pytest.mark.parametrize(
    ("sidecar", "text"),
    [
        ("{", "day1.json: cannot be read: Expecting property name"),
        ("[1]", "must be a table of fields"),
        ("[" * 100000, "day1.json: cannot be read"),
        ('{"rate": 1, "rate": 2}', "a key is there twice"),
        ('{"rate": NaN, "dtype": "int16", "channels": 3}', "rate: Input should be a finite"),
        ('{"dtype": "int16"}', "day1.bin: day1.json lacks channels, rate"),
        ({"rate": "100"}, "rate: Input should be a valid number"),
        ({"rate": 0}, "rate: Input should be greater than 0"),
        ({"rates": 5}, "rates: Extra inputs are not permitted; fields: .*dtype"),
        ({"dtype": "object"}, "dtype: Input should be 'int8'"),
        ({"channels": 0}, "channels: is 0; must be 1 to"),
        ({"channels": 10**9}, "channels: is 1000000000; must be 1 to"),
        ({"channels": True}, "channels: must be a count, or a list"),
        ({"channels": []}, "channels: must be a count, or a list"),
        ({"channels": ["a", 2, "c"]}, r"channels: entry 1 is 2; must be a name"),
        ({"channels": [{"name": "a", "units": "V"}]}, "channels.0.units: Extra inputs"),
        (
            {"channels": [{"name": "a", "position": [1, 2]}]},
            "channels.0.position.2: Field required",
        ),
        ({"channels": ["a", "a", "b"]}, "two channels are called 'a'"),
        ({"channels": [{"name": "a", "type": "brain"}] * 3}, "a: channel type 'brain'"),
        ({"type": "eeg", "unit": "furlong"}, "0: unit 'furlong' is not known for eeg"),
        ({"gain": [1, 2]}, "gain: 2 numbers for 3 channels"),
        ({"gain": "much"}, "gain: Input should be a valid number"),
        ({"gain": 0}, "gain is 0"),
        ({"offset": -1}, "offset: Input should be greater"),
        ({"offset": 300}, "300 bytes hold no sample of 6 bytes after an offset of 300"),
        (
            {"offset": 5},
            "at 0.49 s: 295 bytes after the offset of 5 are 49 samples of 6 bytes and 1",
        ),
        ({"channels": 7}, r"day1.bin: neural: at 0.21 s: 300 bytes are 21 samples of 14 .* and 6"),
        ({"segments": [{"first": 5}]}, r"first samples \[5\]; must begin with 0"),
        ({"segments": [{"first": 0}, {"first": 50}]}, "must begin with 0 and rise, below 50"),
        (
            {"segments": [{"first": 0}, {"first": 20, "start": 0.1}]},
            "neural: at 0.1 s: segments.1: starts at 0.1 s, but the one before runs to 0.2 s",
        ),
    ],
)
def test_wrong_sidecars_are_named(tmp_path, sidecar, text):
    with pytest.raises(RecordingError, match=text):
        open_recording(write(tmp_path, sidecar))


def test_no_sidecar_says_what_to_write(tmp_path):
    path = write(tmp_path)
    with pytest.raises(RecordingError, match=r"no day1\.json beside it says its dtype, channels"):
        open_recording(path)
    with pytest.raises(RecordingError, match=r"says its rate"):
        open_recording(path, {"dtype": "int16", "channels": 3})


def test_a_yaml_bomb_stays_small(tmp_path):
    path = write(tmp_path)
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "day1.yaml").write_text("\n".join(lines))
    with pytest.raises(RecordingError, match=r"day1\.yaml: cannot be read: aliases"):
        open_recording(path)
    (tmp_path / "day1.yaml").write_text("rate: [1\n")
    with pytest.raises(RecordingError, match=r"day1\.yaml: cannot be read: "):
        open_recording(path)


def test_an_infinite_value_is_placed_on_the_clock_and_nan_is_missing(tmp_path):
    values = numbers().astype("<f4")
    values[5] = np.nan
    sidecar = {
        "dtype": "float32",
        "channels": ["a", "b", "c"],
        "segments": [{"first": 0}, {"first": 20, "start": 70}],
    }
    path = write(tmp_path, sidecar, values.tobytes())
    np.testing.assert_array_equal(open_recording(path).neural.values[:], values)
    values[31, 1] = np.inf
    path = write(tmp_path, sidecar, values.tobytes())
    found = open_recording(path).neural.values
    assert len(found[32:]) == 18
    with pytest.raises(
        RecordingError, match=r"day1\.bin: neural: at 70\.11 s: sample 31 of .* 'b'"
    ):
        found[30:35]


@given(data=st.data())
def test_flipped_bytes_of_a_sidecar_are_refused_or_harmless(folder, data):
    path = write(folder, {"unit": "mV", "gain": [1, 2, 3], "segments": [{"first": 0}]})
    sidecar = path.with_suffix(".json")
    damaged = bytearray(sidecar.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    sidecar.write_bytes(damaged)
    try:
        assert settle(open_recording(path).neural.values)[:].size <= 300
    except RecordingError as error:
        assert "day1." in str(error)  # noqa: PT017


def test_the_goose_by_options_alone(shared_data):
    goose = shared_data / "uecog_goose"
    options = {"dtype": "float32", "channels": 62, "rate": 250, "layout": "channel_time"}
    found = open_recording(goose / "recTEST.LM1_ECOG_3.clfp_ds250.dat", options)
    with np.load(goose / "goose_uecog_250hz.npz") as stored:
        np.testing.assert_array_equal(found.neural.values[:], stored["data"])

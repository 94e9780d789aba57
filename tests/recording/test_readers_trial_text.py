"""`.ts` files: trials, classes, what comments say, and lines that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import Channel, RecordingError, open_recording
from recording.signals import settle

HEADER = {
    "problemName": "Two",
    "timeStamps": "false",
    "missing": "false",
    "univariate": "false",
    "dimensions": "2",
    "equalLength": "true",
    "seriesLength": "3",
    "classLabel": "true left right",
}
TRIALS = ["1,2,3:4,5,6:left", "7,8,9:-1,-2,-3.5:right", "0,0,1e2:1,1,1:left"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ts")


def write(folder, trials=TRIALS, comment="sampling rate: 10 Hz", **header):
    lines = [f"#{line}" for line in comment.splitlines()]
    lines += [f"@{name} {value}" for name, value in {**HEADER, **header}.items() if value]
    path = folder / "two.ts"
    path.write_text("\n".join([*lines, "@data", *trials, ""]), "latin-1")
    return path


def test_a_file_of_trials(tmp_path):
    found = open_recording(write(tmp_path), {"unit": "mV", "type": "eeg"})
    assert found.format == "trial_text"
    neural = found.neural
    assert neural.channels == (Channel("1", "eeg", "µV"), Channel("2", "eeg", "µV"))
    assert [(p.start, p.first, p.stop) for p in neural.pieces] == [
        (0, 0, 3),
        (0.3, 3, 6),
        (0.6, 6, 9),
    ]
    expected = np.array(
        [[1, 4], [2, 5], [3, 6], [7, -1], [8, -2], [9, -3.5], [0, 1], [0, 1], [100, 1]]
    )
    np.testing.assert_array_equal(neural.values[:], expected * np.float32(1000))
    assert found.trials.names == ("left", "right")
    assert found.trials.kinds.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.trials.stops, [0.3, 0.6, 0.9])
    assert found.facts == {"problem": "Two", "channel names from": "their numbers"}


@pytest.mark.parametrize(
    ("comment", "rate"),
    [
        ("The sampling rate of 256 Hz and\nSampling rate: 256 S/s", 256),
        ("recorded at 1000 Hz, sampling rate 1000 Hz, downsampled at 100 Hz", 100),
        ("sample frequency = 62.5 Hz", 62.5),
        ("sampling rate: 256 Hz, sampling rate: 100 Hz", None),
        ("recorded at 1000 Hz", None),
        ("", None),
    ],
)
def test_the_rate_is_what_the_comments_say_where_they_say_one_thing(tmp_path, comment, rate):
    path = write(tmp_path, comment=comment)
    if rate is None:
        with pytest.raises(RecordingError, match=r"two\.ts: its rate in Hz .* give rate"):
            open_recording(path)
    else:
        found = open_recording(path)
        assert found.neural.rate == rate
        assert "from a comment in the file" in found.findings[0].text
    assert open_recording(path, {"rate": 50}).neural.rate == 50
    assert open_recording(path, {"rate": 50}).findings == ()


def test_channel_names(tmp_path):
    comment = "Channels are in the following order:\n(C3, C4).\nsampling rate: 5 Hz"
    path = write(tmp_path, comment=comment)
    assert open_recording(path).neural.names == ("C3", "C4")
    assert open_recording(path).facts["channel names from"] == "a comment in the file"
    assert open_recording(path, {"channel_names": ["a", "b"]}).neural.names == ("a", "b")
    with pytest.raises(RecordingError, match="3 names for 2 channels"):
        open_recording(path, {"channel_names": ["a", "b", "c"]})
    assert open_recording(
        write(tmp_path, comment=comment.replace("C4", "C4, C5"))
    ).neural.names == (
        "1",
        "2",
    )


def test_missing_values_unequal_trials_and_no_classes(tmp_path):
    path = write(tmp_path, ["1,?,3:4,NaN,6:left"], missing="true")
    found = open_recording(path).neural.values[:]
    np.testing.assert_array_equal(found, np.array([[1, 4], [np.nan, np.nan], [3, 6]]))
    trials = ["1,2:3,4:left", "5,6,7,8:5,6,7,8:left"]
    found = open_recording(write(tmp_path, trials, equalLength="false", seriesLength=""))
    assert [len(piece) for piece in found.neural.pieces] == [2, 4]
    assert found.trials.times.tolist() == [0.0, 0.2]
    found = open_recording(write(tmp_path, ["1,2,3:4,5,6"], classLabel="false"))
    assert found.trials.counts == {"trial": 1}
    found = open_recording(
        write(tmp_path, ["1,2,3:right"], univariate="true", dimensions="", seriesLength="")
    )
    assert found.neural.values.shape == (3, 1)


@pytest.mark.parametrize(
    ("trials", "header", "text"),
    [
        ([*TRIALS, "1,2,3:left"], {}, "line 14: 1 channels; must be 2"),
        (
            [*TRIALS, "1,2,3:1,2,3:1,2,3:left"],
            {},
            "neural: at 0.9 s: line 14: 3 channels; must be 2",
        ),
        ([*TRIALS, "1,2:1,2:left"], {}, "neural: at 0.9 s: line 14: 2 samples; must be 3"),
        (["1,2,3:4,5:left"], {}, "line 11: channel 2 has 2 samples, channel 1 has 3"),
        (["1,2,3:4,x,6:left"], {}, "channel 2: at 0.1 s: line 11: .*sample 2: 'x' is no number"),
        (["1,2,3:4,1_0,6:left"], {}, "'1_0' is no number"),
        (["1,2,3:4,inf,6:left"], {}, "'inf' is no number"),
        (["1,2,3:4,1e39,6:left"], {}, "'1e39' is no number of float32"),
        (["1,2,3:4,?,6:left"], {}, "'\\?' is no number of float32; @missing is false"),
        (["1,2,3:4,,6:left"], {"missing": "true"}, "'' is no number"),
        (["1,2,3:4,5,6:up"], {}, "line 11: its class is 'up'; must be one of left, right"),
        (["1,2,3:4,5,6"], {}, "its class is '4,5,6'"),
        (["left"], {"dimensions": ""}, "line 10: holds no channel"),
        ([], {}, "no trial stands behind @data"),
        (TRIALS, {"timeStamps": "true"}, "samples with times of their own"),
        (TRIALS, {"targetLabel": "true"}, "only classes"),
        (TRIALS, {"univariate": "true"}, "@univariate true, but @dimensions is not 1"),
        (TRIALS, {"dimensions": "two"}, "@dimensions is 'two'; must be a number above 0"),
        (TRIALS, {"dimensions": "0"}, "@dimensions is '0'"),
        (TRIALS, {"seriesLength": "9" * 20}, "@serieslength is '9999"),
        (TRIALS, {"classLabel": "true"}, "must name every class"),
    ],
)
def test_lines_that_do_not_fit_are_named(tmp_path, trials, header, text):
    with pytest.raises(RecordingError, match=text) as caught:
        open_recording(write(tmp_path, trials, **header))
    assert str(caught.value).startswith("two.ts: ")


def test_what_is_no_such_file(tmp_path):
    path = tmp_path / "two.ts"
    for content, text in [
        ("#\n@problemName x\n1,2,3\n", "line 3: '1,2,3' in front of @data"),
        ("#\n@problemName x\n", "has no line @data"),
        ("#" * 3_000_000, "line 1: .* in front of @data"),
        ("const a = 1;", "no known format"),
    ]:
        path.write_text(content)
        with pytest.raises(RecordingError, match=text):
            open_recording(path)


def test_a_folder_of_sets_asks_for_one_file(tmp_path):
    for part in ("TRAIN", "TEST"):
        write(tmp_path).rename(tmp_path / f"Two_{part}.ts")
    with pytest.raises(RecordingError, match="name one of these files"):
        open_recording(tmp_path)


@given(data=st.data())
def test_flipped_bytes_are_refused_or_harmless(folder, data):
    path = write(folder)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        assert settle(open_recording(path, format="trial_text").neural.values)[:].size < 100
    except RecordingError as error:
        assert str(error).startswith("two.ts")  # noqa: PT017


@pytest.mark.parametrize(
    ("name", "rate", "counts", "length", "channels"),
    [
        ("SelfRegulationSCP1_TEST", 256, {"negativity": 147, "positivity": 146}, 896, 6),
        ("FingerMovements_TRAIN", 100, {"left": 159, "right": 157}, 50, 28),
        ("FingerMovements_TEST", 100, {"left": 49, "right": 51}, 50, 28),
    ],
)
def test_the_uea_sets(shared_data, name, rate, counts, length, channels):
    path = shared_data / "eeg_uea" / f"{name}.ts"
    found = open_recording(path)
    assert (found.neural.rate, found.trials.counts) == (rate, counts)
    assert {len(piece) for piece in found.neural.pieces} == {length}
    last = path.read_text("latin-1").rstrip().splitlines()[-1]
    *columns, label = last.split(":")
    expected = np.array([column.split(",") for column in columns], np.float32).T
    assert expected.shape == (length, channels)
    np.testing.assert_array_equal(found.neural.values[-length:], expected)
    assert found.trials.names[found.trials.kinds[-1]] == label
    if channels == 28:
        assert found.neural.names[::9] == ("F3", "FC2", "C6", "O2")


def stream_trials(channels, steps, trials=2):
    """Streams (trial, value), and the lines of a file whose axes were mixed up."""
    random = np.random.default_rng(0)
    streams = random.normal(size=(trials, channels * (channels - 1) + steps)).astype(np.float32)
    lines = [
        ":".join(
            ",".join(map(str, one[channels * k : channels * k + steps])) for k in range(channels)
        )
        for one in streams.astype(np.float64)
    ]
    return streams, [f"{line}:left" for line in lines]


@given(channels=st.integers(1, 6), more=st.integers(0, 20))
def test_restored_channels_stand_behind_one_another_in_the_stream(folder, channels, more):
    steps = channels + more
    streams, lines = stream_trials(channels, steps)
    names = [f"c{index}" for index in range(channels)]
    path = write(folder, lines, dimensions=str(channels), seriesLength=str(steps))
    found = open_recording(path, {"layout": "restored", "channel_names": names}).neural
    whole = streams.shape[1] // steps
    assert [channel.name for channel in found.channels] == names[:whole]
    values = np.asarray(found.values[:]).reshape(2, steps, whole)
    expected = streams[:, : whole * steps].reshape(2, whole, steps).transpose(0, 2, 1)
    np.testing.assert_array_equal(values, expected)


def test_trials_that_are_not_one_stream_have_nothing_to_restore(tmp_path):
    path = write(tmp_path)
    with pytest.raises(RecordingError, match=r"line 11: layout restored: .* layout: archived"):
        open_recording(path, {"layout": "restored"})

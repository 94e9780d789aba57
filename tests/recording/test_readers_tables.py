"""Tables in text and Parquet: columns, clocks, and cells, lines and stamps that do not fit."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recording import RecordingError, open_recording
from recording.readers import tables, text_table
from recording.readers.checked_values import Spool
from recording.signals import FileArray, settle

PLAIN = "C3,C4\n1,2\n3,4\n5,6\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def read(folder, text, name="day1.csv", **options):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_recording(path, options)


def numbers(rows=40, columns=3):
    return np.random.default_rng(5).normal(size=(rows, columns)).round(3)


def text_of(values, names, delimiter=","):
    lines = [delimiter.join(names)]
    lines += [delimiter.join(map(str, row)) for row in values.tolist()]
    return "\n".join(lines) + "\n"


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 6)),
    delimiter=st.sampled_from(",;\t|"),
    missing=st.sampled_from(["", "nan", "n/a", "NA"]),
    ends=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(20, 400),
    memory=st.sampled_from([0, 2**20]),
)
def test_numbers_are_read_back_whatever_the_blocks(
    folder, shape, delimiter, missing, ends, block, memory
):
    values = numbers(*shape)
    values[shape[0] // 2, shape[1] - 1] = np.nan
    if shape[1] == 1:
        values[np.isnan(values)] = 0.5
    names = [f"ch{index}" for index in range(shape[1])]
    text = text_of(values, names, delimiter).replace("nan", missing).replace("\n", ends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_table, "BLOCK_BYTES", block)
        patch.setattr(tables, "Spool", lambda *kind: Spool(*kind, memory=memory))
        found = read(folder, text, rate=10).neural
    assert found.names == tuple(names)
    np.testing.assert_array_equal(found.values[:], values.astype(np.float32))
    assert isinstance(found.values, np.ndarray if memory else FileArray)


def test_behavior_units_and_what_is_left_out(tmp_path):
    text = "C3 [mV],C4 (uV),side (left),note,class\n1,2,3,good,0\n4,5,6,bad,1\n"
    found = read(tmp_path, text, rate=10, behavior=["cl*"], ignore=["note"], type="eeg")
    assert found.neural.names == ("C3", "C4", "side (left)")
    assert [channel.unit for channel in found.neural.channels] == ["µV", "µV", ""]
    assert [channel.type for channel in found.neural.channels] == ["eeg"] * 3
    np.testing.assert_array_equal(found.neural.values[:], [[1000, 2, 3], [4000, 5, 6]])
    behavior = found.modalities["behavior"]
    assert [(c.name, c.type, c.unit) for c in behavior.channels] == [("class", "behavior", "")]
    np.testing.assert_array_equal(behavior.values[:], [[0], [1]])
    assert behavior.pieces == found.neural.pieces
    assert found.facts == {"columns left out": "note"}


def test_a_line_of_units_and_a_table_without_names(tmp_path):
    text = "t,C3,x\n[ms],V,cm\n0,1,2\n10,3,4\n20,5,6\n"
    found = read(tmp_path, text, units_row=True, behavior=["x"])
    assert found.neural.rate == pytest.approx(100)
    assert found.neural.channels[0].unit == "µV"
    np.testing.assert_array_equal(found.neural.values[:], [[1e6], [3e6], [5e6]])
    assert found.modalities["behavior"].channels[0].unit == "cm"
    found = read(tmp_path, "1,2\n3,4\n", rate=10, channel_names=["a", "b"])
    assert (found.neural.names, found.neural.values[0:1].tolist()) == (("a", "b"), [[1, 2]])
    found = read(tmp_path, PLAIN, rate=10, channel_names=["a", "b"])
    assert (found.neural.names, len(found.neural.values)) == (("a", "b"), 3)


@pytest.mark.parametrize(
    ("column", "factor"),
    [("time", 1), ("time_ms", 1e3), ("Timestamp_us", 1e6), ("t [ms]", 1e3), ("clock", 1)],
)
def test_time_stamps_give_the_rate(tmp_path, column, factor):
    stamps = (3 + np.arange(40) / 128) * factor
    text = text_of(np.c_[stamps, numbers()], [column, "a", "b", "c"])
    found = read(tmp_path, text, **({"time": "clock"} if column == "clock" else {})).neural
    assert found.rate == pytest.approx(128)
    assert found.names == ("a", "b", "c")
    np.testing.assert_allclose(found.times(), stamps / factor, atol=1e-9)


def test_a_gap_begins_another_piece_and_rounded_stamps_are_regular(tmp_path):
    stamps = np.round(np.arange(200) / 128, 3)
    stamps[120:] += 5
    found = read(tmp_path, text_of(np.c_[stamps, numbers(200)], ["time", "a", "b", "c"]))
    assert found.neural.rate == 128
    assert [(p.first, p.stop) for p in found.neural.pieces] == [(0, 120), (120, 200)]
    assert found.neural.pieces[1].start == stamps[120]
    assert "gap" in [finding.kind for finding in found.findings]


def clocked(change):
    stamps = np.arange(20) / 10
    change(stamps)
    return text_of(np.c_[stamps, numbers(20, 1)], ["time", "a"])


def swap(stamps):
    stamps[7] -= 0.15


def repeat(stamps):
    stamps[7] = stamps[6]


def lose(stamps):
    stamps[7] = np.nan


def jitter(stamps):
    stamps[10:] = 0.9 + 0.13 * np.arange(1, 11)


def scatter(stamps):
    stamps[5:] += 1
    stamps[9:] += 2.03
    stamps[13:] += 1.04


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ("C3,C4\n", {}, "has column names and no rows"),
        ("\nC3,C4\n1,2\n", {}, "line 1 is empty"),
        ("1,2\n3,4\n", {}, "line 1 holds numbers; must name the columns"),
        (PLAIN, {"rate": None}, "no column of time, nor a rate: give rate"),
        (PLAIN + "7,8,9\n", {}, "line 5 has 3 cells, the first line 2"),
        (PLAIN + "7\n", {}, "line 5 has 1 cells, the first line 2"),
        (PLAIN + "\n7,8\n", {}, "line 5 is empty, others follow it"),
        (PLAIN + "7,high\n", {}, "C4: at 0.3 s: line 5, column 'C4': 'high' is text in numbers"),
        (PLAIN + "7,1_000\n", {}, "'1_000' is text in numbers"),
        (PLAIN + '7,"8\n9"\n', {}, "several lines|unexpected end|line 5"),
        (PLAIN + "7,inf\n", {}, "C4: at 0.3 s: line 5, column 'C4': inf is infinite"),
        (PLAIN + "7,1e39\n", {}, "1e\\+39 is infinite or beyond float32"),
        ("a;b\n1,5;2\n", {}, 'a: at 0 s: line 2, .*for a decimal comma give reader.decimal: ","'),
        ("a;b\n1,5;2\n", {"decimal": ",", "delimiter": ","}, "both a comma"),
        ("C3,C3\n1,2\n", {}, "two columns are called 'C3'"),
        (",C3\n1,2\n", {}, "column 1 has no name.*reader.ignore"),
        (PLAIN, {"behavior": ["x*"]}, r"behavior: no column 'x\*'; there are: 'C3', 'C4'"),
        (PLAIN, {"ignore": ["C*"]}, "no column is a channel"),
        (PLAIN, {"time": "clock"}, "time: no column 'clock'"),
        (PLAIN, {"channel_names": ["a"]}, "1 names for 2 columns"),
        (PLAIN, {"type": "eeg", "unit": "furlong"}, "C3: unit 'furlong' is not known for eeg"),
        (PLAIN, {"units_row": True}, "line 2 holds numbers; units_row"),
        ("time,t,a\n1,2,3\n", {}, "columns 'time', 't' are all of time"),
        ("t [h],a\n1,2\n", {}, "t: unit 'h' of the column of time is not known"),
        ("time,a\n2024-01-05 10:00:00,2\n", {}, "time: line 2, .*dates and times of day are not"),
        ("time,a\n10:00:01,2\n", {}, "dates and times of day are not read"),
        ("time,a\n0,2\n0.1,x\n0.2,3\n", {}, "a: at 0.1 s: line 3, column 'a': 'x' is text"),
        ("time,a\n0,2\n", {}, "fewer than two time stamps"),
        (clocked(swap), {}, "neural: at 0.55 s: time 7 is 0.05 s before the one in front"),
        (clocked(repeat), {}, "neural: at 0.6 s: times 6 and 7 are the same"),
        (clocked(lose), {}, "neural: at 0.6 s: time 7 is nan"),
        (clocked(scatter), {}, "neural: .*more than 1 % of its time stamps"),
        (clocked(jitter), {}, "neural: at .* time stamps are not regular: one is"),
        (clocked(np.copy), {"rate": 12}, "clocks disagree: reader.rate says 12 Hz, .* 10 Hz"),
        (b"\xff\xfea\x00,\x00b\x00", {}, "UTF-16"),
        (b"a,\x00b\n1,2\n", {}, "no text at all"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, options, problem):
    timed = isinstance(text, str) and text.startswith("t")
    with pytest.raises(RecordingError, match=problem) as caught:
        read(tmp_path, text, **({} if timed else {"rate": 10}) | options)
    assert str(caught.value).startswith("day1.csv: ")


def test_an_endless_line_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_table, "_LINE_BYTES", 1000)
    monkeypatch.setattr(text_table, "BLOCK_BYTES", 100)
    for text in ("a," * 2000, "a,b\n" + "1," * 2000):
        with pytest.raises(RecordingError, match=r"(a line|line 1) is longer"):
            read(tmp_path, text, rate=10)


def test_encodings_decimals_quotes_and_tabs(tmp_path):
    found = read(tmp_path, "\ufeffC3,C4\n1,2\n", rate=10)
    assert (found.neural.names, found.findings) == (("C3", "C4"), ())
    found = read(tmp_path, "C3 [µV],C4\n1,2\n".encode("latin-1"), rate=10)
    assert found.neural.channels[0].unit == "µV"
    assert found.findings[0].kind == "encoding"
    found = read(tmp_path, "a;b\n1,5;-2,25\n", rate=10, decimal=",")
    assert found.neural.values[0:1].tolist() == [[1.5, -2.25]]
    found = read(tmp_path, '"a, left","b"\n"1",2\n 3 , 4 \n', rate=10)
    assert (found.neural.names, found.neural.values[1:2].tolist()) == (("a, left", "b"), [[3, 4]])
    found = read(tmp_path, "a\tb\n1\tn/a\n", name="day1.tsv", rate=10)
    np.testing.assert_array_equal(found.neural.values[:], [[1, np.nan]])
    assert read(tmp_path, "a,b\n1,2\n\n\n", rate=10).neural.values.shape == (1, 2)


@given(data=st.data())
def test_flipped_bytes_are_refused_or_harmless(folder, data):
    path = folder / "flipped.csv"
    text = text_of(np.c_[np.arange(30) / 10, numbers(30)], ["time", "a", "b", "c"])
    damaged = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        assert settle(open_recording(path).neural.values)[:].size <= 120
    except RecordingError as error:
        assert str(error).startswith("flipped.csv")  # noqa: PT017


def test_the_eye_state_set(shared_data):
    path = shared_data / "eeg_eyestate" / "eeg-eye-state.csv"
    expected = np.loadtxt(path, delimiter=",", skiprows=1)
    found = open_recording(path, {"rate": 128, "behavior": ["class"]})
    np.testing.assert_array_equal(found.neural.values[:], expected[:, :14].astype(np.float32))
    np.testing.assert_array_equal(found.modalities["behavior"].values[:], expected[:, 14:])
    assert found.neural.duration == pytest.approx(117.03, abs=0.01)
    with pytest.raises(RecordingError, match="give rate"):
        open_recording(path)


def parquet(folder, table, rows=7, name="day1.parquet"):
    path = folder / name
    pyarrow.parquet.write_table(pyarrow.table(table), path, row_group_size=rows)
    return path


@settings(max_examples=30)
@given(rows=st.integers(1, 50), bounds=st.tuples(st.integers(0, 50), st.integers(0, 50)))
def test_parquet_by_row_groups(folder, rows, bounds):
    values = numbers(40)
    path = parquet(folder, {name: values[:, index] for index, name in enumerate("abc")}, rows)
    found = open_recording(path, {"rate": 10, "behavior": ["b"]})
    assert found.format == "parquet"
    kept = values.astype(np.float32)
    np.testing.assert_array_equal(found.neural.values[slice(*bounds)], kept[slice(*bounds), ::2])
    np.testing.assert_array_equal(found.modalities["behavior"].values[:], kept[:, 1:2])


def test_parquet_columns(tmp_path):
    stamps = np.arange(220) / 250
    stamps[12:] += 3
    table = {
        "time": stamps,
        "a": [None, *range(219)],
        "flag": [True] * 220,
        "when": [datetime.datetime(2024, 1, 1)] * 220,
        "note": ["x"] * 220,
    }
    path = parquet(tmp_path, table, 50)
    found = open_recording(path, {"ignore": ["when", "note"], "behavior": ["flag"]})
    assert found.neural.rate == 250
    assert [piece.first for piece in found.neural.pieces] == [0, 12]
    np.testing.assert_array_equal(found.neural.values[:3], [[np.nan], [0], [1]])
    assert found.modalities["behavior"].values[5:6].tolist() == [[1.0]]
    with pytest.raises(RecordingError, match="when: column 'when': dates and times of day are not"):
        open_recording(path)
    with pytest.raises(
        RecordingError, match="note: column 'note': string is not read; must be num"
    ):
        open_recording(path, {"ignore": ["when"]})
    table = {"a": [1.0, 2.0, np.inf, 3.0], "__index_level_0__": [1, 2, 3, 4]}
    path = parquet(tmp_path, table, 2)
    with pytest.raises(RecordingError, match="column 2 has no name"):
        open_recording(path, {"rate": 10})
    values = open_recording(path, {"rate": 10, "ignore": ["__index*"]}).neural.values
    with pytest.raises(RecordingError, match=r"neural: at 0\.2 s: sample 2 of channel 'a'"):
        values[:]
    with pytest.raises(RecordingError, match="no rows"):
        open_recording(parquet(tmp_path, {"a": np.zeros(0)}), {"rate": 10})


def test_parquet_damaged_anywhere(tmp_path):
    path = parquet(tmp_path, {name: numbers(60)[:, 0] for name in "abc"})
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    for place in generator.integers(0, len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged if place % 3 else whole[:place])
        try:
            found = settle(open_recording(path, {"rate": 10}, format="parquet").neural.values)
            assert found[:].shape[0] == 60
        except RecordingError as error:
            assert str(error).startswith("day1.parquet")  # noqa: PT017

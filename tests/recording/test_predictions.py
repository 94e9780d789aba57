"""`axonnx predict ARTIFACT FILE`: tables in three forms, in order, the same bytes; refusals."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from planned_artifacts import (
    CHANNELS,
    RATE,
    plan_of,
    walk,
    write_csv,
    write_npy,
    write_npz,
    write_planned,
)

import artifact
from recording import predictions
from recording.align_times import nearest_rows
from recording.cli import is_artifact
from recording.cli import main as cli
from recording.contract import Channel, Piece, Series
from recording.plan import cut, window_values
from recording.prediction_files import write_csv as write_table


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planned(tmp_path_factory.mktemp("planned") / "forecast", "forecast")


def predict(*words: object) -> int:
    return cli(["predict", *map(str, words)])


def answered(forecaster, file, *words, suffix="csv") -> bytes:
    output = file.parent / f"out.{suffix}"
    assert predict(forecaster, file, "--output", output, "--no-picture", *words) == 0
    assert not list(file.parent.glob("*.tmp-*"))
    return output.read_bytes()


def rows_of(content: bytes) -> tuple[list[str], np.ndarray]:
    head, *lines = csv.reader(content.decode().splitlines())
    return head, np.array(lines, np.float64)


def test_csv_npz_and_parquet_hold_the_same(forecaster, tmp_path):
    import pyarrow.parquet

    file = write_npy(tmp_path / "walk.npy")
    head, rows = rows_of(answered(forecaster, file))
    assert head == ["window_start_s", "time_s", "c0 [µV]", "c1 [µV]", "c3 [µV]"]
    assert (np.diff(rows[:, 1]) > 0).all()
    answered(forecaster, file, suffix="npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert found["names"].tolist() == head[2:]
        assert found["prediction"].dtype == np.float32
        np.testing.assert_array_equal(found["prediction"], rows[:, 2:].astype(np.float32))
        np.testing.assert_array_equal(found["time_s"], rows[:, 1])
    answered(forecaster, file, suffix="parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == head
    whole = np.stack([np.asarray(column, np.float64) for column in table.columns], axis=1)
    np.testing.assert_array_equal(whole.astype(np.float32), rows.astype(np.float32))

    model = artifact.load(forecaster)
    starts = np.arange(0, 1000 - 20 + 1, 8)
    windows = walk()[starts[:, None] + np.arange(20), :, None]
    windows[:, 12:] = windows[:, 11:12]
    expected = model.predict({"neural": windows})["forecast"][:, 12:]
    np.testing.assert_array_equal(rows[:, 2:].astype(np.float32), expected.reshape(-1, 3))
    np.testing.assert_allclose(rows[:, 0], np.repeat(starts / RATE, 8))


@pytest.mark.parametrize("suffix", ["csv", "npz", "parquet"])
def test_the_same_bytes_again_and_in_small_chunks(forecaster, tmp_path, monkeypatch, suffix):
    file = write_npy(tmp_path / "walk.npy")
    first = answered(forecaster, file, suffix=suffix)
    assert answered(forecaster, file, suffix=suffix) == first
    if suffix != "parquet":  # whose row groups are the chunks
        monkeypatch.setattr(predictions, "CHUNK_BYTES", 1000)
        assert answered(forecaster, file, suffix=suffix) == first


def test_parts_and_stretches(forecaster, tmp_path, capsys):
    file = write_npy(tmp_path / "walk.npy")
    _, rows = rows_of(answered(forecaster, file, "--part", "test"))
    assert (rows[0, 0], len(rows)) == (12.0, 8 * 48)
    assert rows[:, 1].max() < 20.0
    _, rows = rows_of(answered(forecaster, file, "--from", 3, "--to", 4, "--stride", 10))
    assert sorted(set(rows[:, 0])) == [3.0, 3.2, 3.4, 3.6]
    other = write_npz(tmp_path / "other.npz")
    _, rows = rows_of(answered(forecaster, other, "--part", "test", "--session", "walk"))
    assert len(rows) == 8 * 48
    assert predict(forecaster, other, "--part", "test", "--output", tmp_path / "no.csv") == 2
    assert "session 'other' has no test part; sessions with one: walk" in capsys.readouterr().err
    assert not (tmp_path / "no.csv").exists()


def test_the_picture_and_what_is_printed(forecaster, tmp_path, capsys):
    file = write_npy(tmp_path / "walk.npy")
    assert predict(forecaster, file, "--output", tmp_path / "new" / "a.csv") == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"a.csv", "a.png"}
    said = capsys.readouterr().out
    assert "984 rows from 123 windows" in said
    assert "against the recording itself: MSE" in said
    assert artifact.load(forecaster).id in said


def nan_at(sample: int) -> np.ndarray:
    values = walk()
    values[sample, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("values", "words", "text"),
    [
        (nan_at(500), [], "walk.npy: neural: at 10 s: channel c1 is nan; must be finite"),
        (walk(10), [], "no window of 20 samples = 0.4 s lies in what was asked for"),
        (walk(), ["--option", "rate=100"], "is at 100 Hz; the artifact was trained at 50 Hz"),
        (walk(), ["--option", "channel_names=c0,c1,c3,c2"], "it has them in another order"),
        (walk(), ["--option", "channel_names=c0,c1,c2,x"], "it lacks c3, has x besides"),
        (walk(), ["--option", "unit=V"], ""),
        (walk(), ["--output", "out.txt"], "--output out.txt: must end in .csv, .npz, .parquet"),
        (walk(), ["--output", "walk.npy"], "--output walk.npy: must end in"),
        (walk(), ["--picture", "walk.npy"], "walk.npy: is the recording itself"),
        (walk(), ["--from", "nan"], "must be a stretch of time"),
        (walk(), ["--from", "1e308"], "no window of 20 samples"),
        (walk(), ["--to", "-5"], "no window of 20 samples"),
        (walk(), ["--format", "edf"], "walk.npy: "),
    ],
)
def test_what_does_not_fit(forecaster, tmp_path, capsys, monkeypatch, values, words, text):
    monkeypatch.chdir(tmp_path)
    file = write_npy(Path("walk.npy"), values)
    before = file.read_bytes()
    code = predict(forecaster, file, *words)
    err = capsys.readouterr().err
    assert file.read_bytes() == before
    if text:
        assert (code, text in err) == (2, True), err
        assert {path.name for path in tmp_path.iterdir()} == {"walk.npy"}
    else:  # volts are microvolts times a million
        assert code == 0, err


def test_windows_go_the_old_way_and_have_no_times(forecaster, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("windows.npy", walk(40).reshape(2, 20, 4, 1))
    assert predict(forecaster, "windows.npy") == 0
    assert Path("windows.predictions.npz").exists()
    assert predict(forecaster, "windows.npy", "--part", "test") == 2
    assert "--part: is for recordings; this is read as windows" in capsys.readouterr().err
    Path("bad.zip").write_bytes(b"PK\x05\x06" + bytes([0, 0, 0, 0, 1, 0, 1, 0, 9]) + bytes(9))
    assert not is_artifact(Path("bad.zip"))


def test_other_formats_of_the_same_numbers(forecaster, tmp_path):
    expected = answered(forecaster, write_npy(tmp_path / "walk.npy"))
    assert answered(forecaster, write_npz(tmp_path / "walk.npz")) == expected
    assert answered(forecaster, write_csv(tmp_path / "walk.csv")) == expected


@pytest.mark.slow
def test_windows_are_those_of_the_test_part(tmp_path):
    from trainer.config import RunConfig
    from trainer.data import load_dataset

    file = write_npy(tmp_path / "walk.npy")
    steps = [{"step": "clip", "around": "median", "by": 4.0}, {"step": "drop", "names": ["c2"]}]
    reader = {"rate": RATE, "unit": "µV", "type": "eeg", "channel_names": list(CHANNELS)}
    data = {"name": "recording", "path": str(file), "reader": reader, "preparation": steps}
    config = RunConfig(name="walk", data=data, model={"name": "linear"})
    dataset = load_dataset(config.data)
    plan = dataset.plan
    recording = predictions.open_for(plan, file, [], None, None)
    chosen = predictions.Chosen(part="test", stride=plan.stride)
    prepared = predictions.ready(recording, plan, chosen)
    np.testing.assert_array_equal(prepared.windows.starts, dataset.test.starts)
    np.testing.assert_array_equal(
        window_values(prepared.recording.neural, prepared.windows.starts, plan),
        dataset.test.outside().batch(slice(None)).inputs["neural"],
    )


def test_rows_are_written_as_they_come(tmp_path):
    def blocks():
        for _ in range(200):
            yield {f"c{index}": np.ones(100, np.float32) for index in range(10)}

    tracemalloc.start()
    assert write_table(tmp_path / "a.csv", blocks()) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400_000 < (tmp_path / "a.csv").stat().st_size


def test_nothing_is_left_of_a_table_that_fails(tmp_path):
    def blocks():
        yield {"a": np.ones(3)}
        raise RuntimeError("the service is gone")

    (tmp_path / "a.csv").write_text("before")
    with pytest.raises(RuntimeError):
        write_table(tmp_path / "a.csv", blocks())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("border", [-1e308, -3.0, 2.0, 40.0, 1e308])
def test_borders_far_outside_are_none_inside(border):
    series = Series(walk(100), RATE, tuple(Channel(n, "eeg", "µV") for n in CHANNELS))
    from recording.contract import Recording

    recording = Recording("a", "npy", "a", {"neural": series})
    plan = plan_of("forecast")
    inside = (-np.inf, border) if border > 0 else (border, np.inf)
    assert len(cut(recording, plan, stretches=[inside])) == 17


def test_nearest_rows_of_pieces():
    values = np.arange(200.0).reshape(100, 2)
    pieces = (Piece(10.0, 0, 50), Piece(0.0, 50, 100))  # the second is earlier
    channels = (Channel("x", "behavior", "m"), Channel("y", "behavior", "m"))
    series = Series(values, 10.0, channels, pieces)
    found = nearest_rows(series, np.array([10.0, 0.04, 14.9, 7.0, 99.0]), 0.05)
    np.testing.assert_array_equal(found[:3], values[[0, 50, 49]])
    assert np.isnan(found[3:]).all()
    one = nearest_rows(series, np.array([4.9]), 0.05)
    np.testing.assert_array_equal(one, values[[99]])

"""Challenge files: parts, sessions, copies, masked files."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.data import DataError, load_dataset


@pytest.fixture
def windows():
    return np.random.default_rng(5).normal(size=(40, 20, 3, 9)).astype(np.float32)


def save(path, windows):
    np.savez(path, windows)
    return str(path)


def load(**settings):
    return load_dataset({"name": "challenge", **settings})


def test_three_files_are_three_sessions(tmp_path, windows):
    paths = {
        part: save(tmp_path / f"{part}.npz", windows[a:b])
        for part, a, b in [("train", 0, 25), ("validation", 25, 33), ("test", 33, 40)]
    }
    dataset = load(**paths, rate=250, unit="µV")
    assert dataset.session_names == ("train", "validation", "test")
    assert [set(p.sessions) for p in dataset.parts.values()] == [{0}, {1}, {2}]
    np.testing.assert_array_equal(dataset.test.recorded(slice(None))["neural"], windows[33:])
    np.testing.assert_array_equal(
        dataset.train.batch(slice(None)).targets["forecast"], windows[:25, :, :, 0]
    )
    rows = windows[:25].astype(np.float64).reshape(25 * 20, -1)
    statistics = dataset.context().statistics
    np.testing.assert_allclose(statistics.mean.ravel(), rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.std.ravel(), rows.std(0), rtol=1e-12)


def test_files_are_mapped(tmp_path, windows):
    series = load(train=save(tmp_path / "a.npz", windows)).train.series["neural"][0]
    assert isinstance(series, np.memmap)


def test_one_file_is_cut_in_order(tmp_path, windows):
    dataset = load(train=save(tmp_path / "a.npz", windows))
    assert [len(p) for p in dataset.parts.values()] == [28, 6, 6]
    joined = [p.recorded(slice(None))["neural"] for p in dataset.parts.values()]
    np.testing.assert_array_equal(np.concatenate(joined), windows)
    tenths = load(
        train=save(tmp_path / "a.npz", windows),
        split={"train": 0.8, "validation": 0.1, "test": 0.1},
    )
    assert [len(p) for p in tenths.parts.values()] == [32, 4, 4]


def test_several_days_are_cut_each(tmp_path, windows):
    (tmp_path / "day2").mkdir()
    files = [save(tmp_path / "a.npz", windows[:20]), save(tmp_path / "day2/a.npz", windows[20:])]
    dataset = load(train=files)
    assert dataset.session_names == ("a.0", "a.1")
    assert all(set(p.sessions) == {0, 1} for p in dataset.parts.values())


def test_a_copied_window_is_refused(tmp_path, windows):
    train = save(tmp_path / "train.npz", windows[:25])
    validation = save(tmp_path / "validation.npz", windows[25:33])
    test = save(tmp_path / "test.npz", np.concatenate([windows[33:], windows[4:5]]))
    with pytest.raises(
        DataError, match=r"window 7 of test \(test\) is a copy of window 4 of train \(train\)"
    ):
        load(train=train, validation=validation, test=test)
    with pytest.raises(DataError, match="listed twice"):
        load(train=train, validation=validation, test=train)


def test_masked_files_are_refused(tmp_path, windows):
    windows[:, 10:] = windows[:, 9:10]
    with pytest.raises(DataError, match=r"a\.npz: steps 10 to 19 repeat step 9: a masked file"):
        load(train=save(tmp_path / "a.npz", windows))


def test_wrong_files_are_refused(tmp_path, windows):
    path = tmp_path / "a.npz"
    for stored in (windows[..., 0], windows[:, :19], windows[..., :8]):
        with pytest.raises(DataError, match=r"must be \(window, 20, channel, 9\)"):
            load(train=save(path, stored))
    np.savez(path, neural=windows)
    with pytest.raises(DataError, match="no array 'arr_0'; there are: neural"):
        load(train=str(path))
    other = save(tmp_path / "b.npz", windows[:, :, :2])
    good = save(path, windows)
    with pytest.raises(DataError, match=r"b\.npz: 2 channels; .*a\.npz has 3"):
        load(train=[good, other])
    with pytest.raises(DataError, match="give both validation and test, or neither"):
        load(train=good, validation=other)
    windows[3, 4, 1, 8] = np.nan
    with pytest.raises(DataError, match="window 3, step 4, channel 1, feature 8: nan"):
        load(train=save(path, windows))

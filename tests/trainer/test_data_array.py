"""A user's own arrays, and what is refused about them."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
from pydantic import ValidationError

from trainer.data import DataError, load_dataset
from trainer.data.files import open_array


@pytest.fixture
def values():
    return np.random.default_rng(3).normal(size=(600, 4)).astype(np.float32)


def load(path, **settings):
    path = [str(p) for p in path] if isinstance(path, list) else str(path)
    return load_dataset({"name": "array", "path": path, "rate": 100.0, **settings})


def save(tmp_path, values, kind):
    path = tmp_path / f"rec.{kind.partition('-')[0]}"
    if kind == "npy":
        np.save(path, values)
    elif kind == "npz":
        np.savez(path, neural=values)
    else:
        np.savez_compressed(path, neural=values)
    return path


@pytest.mark.parametrize("kind", ["npy", "npz", "npz-compressed"])
def test_windows_of_a_file(tmp_path, values, kind):
    dataset = load(save(tmp_path, values, kind), unit="µV", stride={"train": 3, "test": 7})
    train, test = dataset.train, dataset.test
    assert [len(p) for p in dataset.parts.values()] == [127, 26, 11]
    assert (train.steps, train.observed, train.task) == (20, 10, "forecast")
    assert train.inputs[0].layout == "(batch, time=20, channel=4, feature=1)"
    assert train.inputs[0].unit == dataset.unit == "µV"
    assert (dataset.rate, dataset.synthetic, dataset.session_names) == (100.0, False, ("rec",))
    np.testing.assert_array_equal(test.batch(slice(1, 2)).targets["forecast"][0], values[517:537])
    np.testing.assert_array_equal(train.starts[:3], [0, 3, 6])
    context = dataset.context()
    assert (context.channels, context.features, context.horizon) == (4, 1, 10)
    assert (context.classes, context.behavior_dim) == (None, None)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_stored_arrays_are_mapped(tmp_path, values, kind):
    series = load(save(tmp_path, values, kind)).train.series["neural"][0]
    while not isinstance(series, np.memmap):
        assert series.base is not None
        series = series.base
    assert series.mode == "r"


def test_npz_members_are_mapped_in_place(tmp_path, values):
    path = tmp_path / "rec.npz"
    np.savez(path, other=np.zeros(3), neural=values, third=values + 1)
    dataset = load(path, key="neural")
    np.testing.assert_array_equal(dataset.train.series["neural"][0][:, :, 0], values)
    with pytest.raises(DataError, match="name one array by `key`: neural, other, third"):
        load(path)
    with pytest.raises(DataError, match="no array 'spikes'; there are: neural, other, third"):
        load(path, key="spikes")


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "int16", "uint8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_numbers_and_memory_orders(tmp_path, values, dtype, order):
    stored = np.asarray(values * 20 + 60).astype(dtype, order=order)
    np.save(tmp_path / "rec.npy", stored)
    dataset = load(tmp_path / "rec.npy")
    batch = dataset.train.batch(slice(0, 1))
    np.testing.assert_array_equal(batch.targets["forecast"][0], stored[:20].astype(np.float32))


def test_swapped_axes_are_noticed(tmp_path, values):
    np.save(tmp_path / "rec.npy", values.T)
    with pytest.raises(DataError, match=r"rec\.npy: 4 samples of 600 channels.*channel_time"):
        load(tmp_path / "rec.npy")
    dataset = load(tmp_path / "rec.npy", layout="channel_time")
    np.testing.assert_array_equal(dataset.train.series["neural"][0][:, :, 0], values)


def test_sessions_and_subjects(tmp_path, values):
    for index in range(3):
        np.save(tmp_path / f"day{index}.npy", values[: 300 + 50 * index] + index)
    days = [tmp_path / f"day{index}.npy" for index in range(3)]
    names = {"train": ["day0"], "validation": ["day1"], "test": ["day2"]}
    dataset = load(days, split={"by": "session", **names})
    assert dataset.session_names == ("day0", "day1", "day2")
    assert [set(p.sessions) for p in dataset.parts.values()] == [{0}, {1}, {2}]
    by_time = load(days)
    assert all(set(p.sessions) == {0, 1, 2} for p in by_time.parts.values())
    split = {"by": "subject", "train": ["b"], "validation": ["c"], "test": ["a"]}
    by_subject = load(days, split=split, subjects=["a", "b", "c"])
    assert [set(p.sessions) for p in by_subject.parts.values()] == [{1}, {2}, {0}]
    with pytest.raises(DataError, match="needs `subjects`"):
        load(days, split=split)
    with pytest.raises(DataError, match="2 names for 3 files"):
        load(days, split=split, subjects=["a", "b"])
    with pytest.raises(DataError, match="two sessions are called 'day0'"):
        load([days[0], days[1], days[0]])
    np.save(tmp_path / "wide.npy", np.zeros((300, 5)))
    with pytest.raises(DataError, match="session 'wide': 5 channels × 1 features"):
        load([*days, tmp_path / "wide.npy"])


def test_trials(tmp_path, values):
    np.save(tmp_path / "rec.npy", values.reshape(15, 40, 4))
    dataset = load(tmp_path / "rec.npy", split={"by": "trial"}, stride={"train": 15})
    trials = [set(p.starts // 40) for p in dataset.parts.values()]
    assert trials == [set(range(10)), {10, 11, 12}, {13, 14}]
    assert set(dataset.train.starts % 40) == {0, 15}
    with pytest.raises(DataError, match="these have trials: use trial"):
        load(tmp_path / "rec.npy")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_placed(tmp_path, values, bad):
    values[411, 2] = bad
    np.save(tmp_path / "rec.npy", values)
    with pytest.raises(DataError, match=r"rec\.npy: row 411, channel 2: .* must be finite"):
        load(tmp_path / "rec.npy")


def test_values_beyond_float32_are_placed(tmp_path, values):
    wide = values.astype(np.float64)
    wide[7, 1] = 1e39
    np.save(tmp_path / "rec.npy", wide)
    with pytest.raises(DataError, match=r"row 7, channel 1: 1e\+39 is beyond float32"):
        load(tmp_path / "rec.npy")


def refuse(path, text, **settings):
    with pytest.raises(DataError, match=text) as caught:
        load(path, **settings)
    assert str(path) in str(caught.value)


class Trap:
    def __reduce__(self):
        return os.system, ("touch trapped",)


def test_pickles_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = np.array([Trap()], dtype=object)
    np.save(tmp_path / "x.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "x.npz", neural=trap)
    np.savez_compressed(tmp_path / "y.npz", neural=trap)
    for name in ("x.npy", "x.npz", "y.npz"):
        refuse(tmp_path / name, "Python objects")
    assert not (tmp_path / "trapped").exists()


def test_wrong_files_are_refused(tmp_path, values):
    refuse(tmp_path / "none.npy", "no such file")
    for stored, text in [
        (values[:, 0], "has 1 axes"),
        (values[None, None], "has 4 axes"),
        (values[:0], "is empty"),
        (values.astype("U4"), "is not a real number"),
        (values.astype(complex), "is not a real number"),
    ]:
        np.save(tmp_path / "x.npy", stored)
        refuse(tmp_path / "x.npy", text)
    for content, text in [
        (b"", "neither"),
        (b"time,channel\n1,2\n", "neither"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"\x93NUMPY\x01\x00", "damaged"),
        (b"\x93NUMPY\x09\x00\x10\x00", "damaged|format"),
    ]:
        (tmp_path / "y.npy").write_bytes(content)
        refuse(tmp_path / "y.npy", text)
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("readme.txt", "none")
    refuse(tmp_path / "z.npz", "holds no array")


@pytest.mark.parametrize("kind", ["npy", "npz", "npz-compressed"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, values, kind):
    path = save(tmp_path, values[:100], kind)
    whole = path.read_bytes()
    for size in np.random.default_rng(0).integers(1, len(whole), 40):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            load(path, window=4, observed=2)


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional")
@pytest.mark.parametrize("kind", ["npy", "npz", "npz-compressed"])
def test_flipped_bits_are_refused_or_harmless(tmp_path, kind):
    path = save(tmp_path, np.arange(120.0).reshape(60, 2), kind)
    whole = path.read_bytes()
    places = [*range(min(200, len(whole))), *range(len(whole) - 100, len(whole))]
    generator = np.random.default_rng(0)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(0, 8))
        path.write_bytes(damaged)
        try:
            array = open_array(path)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert array.size * array.itemsize <= len(whole) or kind == "npz-compressed"


def test_settings_are_checked(tmp_path, values):
    path = save(tmp_path, values, "npy")
    with pytest.raises(DataError, match="observed: is 20; must be 1 to 19"):
        load(path, observed=20)
    with pytest.raises(DataError, match=r"3 names; .* has 4 channels"):
        load(path, channel_names=["a", "b", "c"])
    with pytest.raises(ValidationError, match="rate"):
        load_dataset({"name": "array", "path": str(path)})
    with pytest.raises(ValidationError, match="rate"):
        load(path, rate=0)
    with pytest.raises(ValidationError, match="test_stride"):
        load(path, test_stride=3)
    with pytest.raises(ValidationError, match="path"):
        load([])


def test_fingerprint_is_of_contents_and_settings_not_of_paths(tmp_path, values):
    path = save(tmp_path, values, "npy")
    (tmp_path / "elsewhere").mkdir()
    same = save(tmp_path / "elsewhere", values, "npz-compressed")
    print_ = load(path).fingerprint
    assert load(same).fingerprint == print_
    assert load(path, split={"gap": 20}).fingerprint == print_
    others = [load(path, rate=50), load(path, window=16), load(path, stride={"test": 3})]
    values[5, 1] += 1
    others.append(load(save(tmp_path, values, "npy")))
    assert len({print_, *(other.fingerprint for other in others)}) == 5

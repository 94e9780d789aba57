"""Windows: masking, targets, statistics, laziness, context."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import windows as module
from trainer.data.errors import DataError
from trainer.data.windows import Windows, flatten, forecast_specs


def make(values, sessions, starts, *, steps=6, observed=4):
    channels, features = values[0].shape[1:]
    inputs, outputs = forecast_specs(steps=steps, channels=channels, features=features, unit="raw")
    return Windows(
        task="forecast",
        observed=observed,
        inputs=inputs,
        outputs=outputs,
        series={"neural": tuple(values)},
        sessions=np.array(sessions),
        starts=np.array(starts),
    )


@pytest.fixture
def values():
    generator = np.random.default_rng(1)
    return [generator.normal(size=(n, 3, 2)).astype(np.float32) for n in (30, 20)]


def test_inputs_are_masked_and_targets_are_not(values):
    windows = make(values, [0, 1, 0], [0, 14, 5])
    batch = windows.batch(slice(None))
    for row, (session, start) in enumerate([(0, 0), (1, 14), (0, 5)]):
        true = values[session][start : start + 6]
        np.testing.assert_array_equal(batch.inputs["neural"][row, :4], true[:4])
        np.testing.assert_array_equal(
            batch.inputs["neural"][row, 4:], np.broadcast_to(true[3], (2, 3, 2))
        )
        np.testing.assert_array_equal(batch.targets["forecast"][row], true[..., 0])
    assert batch.inputs["neural"].dtype == batch.targets["forecast"].dtype == np.float32


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), observed=st.integers(1, 6))
def test_nothing_after_the_observed_steps_reaches_the_inputs(seed, observed):
    generator = np.random.default_rng(seed)
    one = generator.normal(size=(6, 3, 2)).astype(np.float32)
    other = one.copy()
    other[observed:] = generator.normal(size=other[observed:].shape)
    batches = [make([v], [0], [0], observed=observed).batch(slice(None)) for v in (one, other)]
    assert batches[0].inputs["neural"].tobytes() == batches[1].inputs["neural"].tobytes()


def test_rows_come_in_the_order_asked_for(values):
    windows = make(values, [0, 1, 0, 1], [0, 1, 2, 3])
    everything = windows.batch(slice(None))
    rows = np.array([3, 0, 3, 2])
    some = windows.batch(rows)
    np.testing.assert_array_equal(some.inputs["neural"], everything.inputs["neural"][rows])
    np.testing.assert_array_equal(some.targets["forecast"], everything.targets["forecast"][rows])
    with pytest.raises(IndexError):
        windows.batch(np.array([4]))


def test_a_batch_does_not_alias_the_recording(values):
    before = values[0].copy()
    batch = make(values, [0], [0]).batch(slice(None))
    batch.inputs["neural"][:] = 7
    batch.targets["forecast"][:] = 7
    np.testing.assert_array_equal(values[0], before)


def test_windows_that_are_windows_already(values):
    ready = np.random.default_rng(0).normal(size=(5, 6, 3, 2)).astype(np.float32)
    series, starts = flatten(ready)
    assert np.shares_memory(series, ready)
    windows = make([series], [0] * 5, starts)
    np.testing.assert_array_equal(windows.recorded(slice(None))["neural"], ready)


@pytest.mark.parametrize("chunk_bytes", [1, 3000, 2**25])
def test_statistics_are_the_published_ones(values, monkeypatch, chunk_bytes):
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)
    windows = make([v * 3 + 1000 for v in values], [0, 1, 0, 0], [0, 3, 2, 24])
    rows = windows.recorded(slice(None))["neural"].astype(np.float64).reshape(4 * 6, 3 * 2)
    statistics = windows.statistics()
    assert statistics.mean.shape == statistics.std.shape == (3, 2)
    assert statistics.mean.dtype == statistics.std.dtype == np.float64
    np.testing.assert_allclose(statistics.mean.ravel(), rows.mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.std.ravel(), rows.std(0), rtol=1e-12)


def test_mapped_series_of_another_dtype_are_cut_lazily(tmp_path):
    stored = np.arange(2000, dtype=np.int16).reshape(500, 4)
    np.save(tmp_path / "x.npy", stored)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    windows = make([mapped[:, :, np.newaxis]], [0, 0], [0, 494])
    recorded = windows.recorded(slice(1, 2))["neural"]
    assert recorded.dtype == np.float32
    np.testing.assert_array_equal(recorded[0, :, :, 0], stored[494:])


@pytest.mark.parametrize(
    ("sessions", "starts", "observed", "text"),
    [
        ([0], [25], 4, "outside its session"),
        ([1], [-1], 4, "outside its session"),
        ([], [], 4, "the part is empty"),
        ([0], [0], 7, "observed: is 7; a window has 6 steps"),
        ([0, 0], [0], 4, "2 sessions for 1 windows"),
    ],
)
def test_windows_that_do_not_fit_are_refused(values, sessions, starts, observed, text):
    with pytest.raises(DataError, match=text):
        make(values, np.array(sessions, int), np.array(starts, int), observed=observed)


def test_a_part_resembles_train_unless_its_targets_spread_otherwise():
    random = np.random.default_rng(3)
    train = random.normal(5.0, 2.0, size=(400, 3, 1)).astype(np.float32)
    starts = np.arange(0, 390, 2)
    windows = make([train], np.zeros_like(starts), starts)
    for part, expected in ((train[::-1], True), (train + 6.0, False), (train * 0.1 + 4.5, False)):
        other = make([part], np.zeros_like(starts), starts)
        assert module.resembles(windows, other) is expected

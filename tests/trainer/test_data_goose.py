"""The µECoG clip: layout, published scores, and features that never look ahead."""

from __future__ import annotations

import numpy as np
import pytest

from recording.preparation.spectra import band_power
from trainer.data import DataError, load_dataset
from trainer.data.uecog_goose import CLIP, goose_features, read_clip

EDGES = (0.5, 4, 8, 12, 20, 35, 55, 80, 115)
FEATURES = {"band_edges": EDGES, "smoothing": 0.1, "filter_order": 2, "power_floor": 1e-3}


@pytest.fixture(scope="module")
def clip(shared_data):
    return shared_data / "uecog_goose" / "recTEST.LM1_ECOG_3.clfp_ds250.dat"


@pytest.fixture(scope="module")
def raw(clip):
    return read_clip(clip)


@pytest.fixture(scope="module")
def goose(shared_data):
    return load_dataset({"name": "uecog_goose"})


def test_the_raw_layout_is_that_of_the_converted_file(raw, shared_data):
    with np.load(shared_data / "uecog_goose" / "goose_uecog_250hz.npz") as converted:
        assert raw.tobytes() == converted["data"].tobytes()
        assert converted["fs"] == 250
    assert raw[:, 28].std() == pytest.approx(15.5, abs=0.05)


def test_windows_are_challenge_windows(goose, raw):
    assert [len(p) for p in goose.parts.values()] == [3481, 731, 149]
    assert goose.train.inputs[0].layout == "(batch, time=20, channel=61, feature=9)"
    assert (goose.rate, goose.unit, goose.synthetic) == (250.0, "raw", False)
    assert "contact 28" not in goose.channel_names
    assert len(goose.channel_names) == 61
    kept = np.delete(raw, 28, axis=1)
    np.testing.assert_array_equal(
        goose.test.batch(slice(3, 4)).targets["forecast"][0], kept[8530:8550]
    )


def test_the_scores_of_the_data_card(goose):
    """Zero and persistence in z units, as the recordings' README defines them."""
    statistics = goose.train.statistics()
    mean, std = statistics.mean[:, 0], statistics.std[:, 0]
    batch = goose.test.batch(slice(None))
    true = (batch.targets["forecast"][:, 10:] - mean) / std
    last = (batch.inputs["neural"][:, 10:, :, 0] - mean) / std
    assert np.mean(true**2) == pytest.approx(0.886, abs=5e-4)
    assert np.mean((last - true) ** 2) == pytest.approx(1.796, abs=5e-4)


def test_perturbed_samples_change_no_feature_before(raw):
    part = raw[:1500, :5]
    before = goose_features(part, **FEATURES)
    generator = np.random.default_rng(11)
    times = [0, 1, 24, 25, 1499, *generator.integers(2, 1499, 25)]
    for time in times:
        changed = part.copy()
        changed[time] += generator.choice([-1, 1]) * np.float32(10) ** generator.integers(1, 6)
        after = goose_features(changed, **FEATURES)
        assert after[:time].tobytes() == before[:time].tobytes(), time
        # The filters start settled on the first sample, so it shows in the potential alone.
        reached = (after[time] != before[time]).any(axis=0)
        assert reached.all() if time else reached[0], time


def test_a_perturbed_recording_changes_no_window_before(goose, clip, tmp_path):
    values = np.fromfile(clip, "<f4").reshape(62, -1)
    time, contact = 4321, 30
    values[contact, time:] *= -3
    values.tofile(tmp_path / "changed.dat")
    changed = load_dataset({"name": "uecog_goose", "path": str(tmp_path / "changed.dat")})
    before, after = (d.train.series["neural"][0] for d in (goose, changed))
    assert before[:time].tobytes() == after[:time].tobytes()
    assert (before[time:, 29] != after[time:, 29]).any(axis=0).all()
    others = np.arange(61) != 29
    assert before[:, others].tobytes() == after[:, others].tobytes()
    assert changed.fingerprint != goose.fingerprint


@pytest.mark.parametrize("band", range(8))
def test_a_tone_shows_in_its_band(band):
    time = np.arange(2500) / 250
    frequency = np.sqrt(EDGES[band] * EDGES[band + 1])
    tone = (10 + 4 * np.sin(2 * np.pi * frequency * time))[:, None].astype(np.float32)
    power = goose_features(tone, **FEATURES)[1000:, 0, 1:].mean(0)
    assert power.argmax() == band
    if band > 1:  # 100 ms holds no full period of slower tones
        assert np.exp(power[band]) == pytest.approx(8, rel=0.35)


def test_power_is_a_trailing_mean_and_a_constant_is_silent(raw):
    from scipy.signal import butter, sosfilt

    signal = raw[:300, :1] - raw[0, :1]
    sections = butter(2, (8, 12), btype="bandpass", fs=250, output="sos")
    squared = sosfilt(sections, signal[:, 0].astype(np.float64)) ** 2
    means = [squared[max(0, t - 24) : t + 1].mean() for t in range(300)]
    power = band_power(signal, rate=250, edges=(8, 12), smoothing=0.1, order=2, floor=0.5)
    np.testing.assert_allclose(power[:, 0, 0], np.log(np.array(means) + 0.5), rtol=1e-6)
    constant = np.full((100, 1), 1e4, np.float32)
    silent = band_power(constant, rate=250, edges=EDGES, smoothing=0.1, order=2, floor=1e-3)
    np.testing.assert_allclose(silent, np.log(1e-3), rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"band_edges": (8, 4)}, "must rise"),
        ({"band_edges": (4,)}, "must rise, and be two or more"),
        ({"band_edges": (4, 125)}, "between 0 and 125 Hz"),
        ({"dropped_contacts": tuple(range(62))}, "names every contact"),
        ({"path": "none.dat"}, "no such file"),
        ({"path": CLIP.replace("recTEST.LM1_ECOG_3.clfp_ds250.dat", "LICENSE")}, "62 channels"),
    ],
)
def test_what_does_not_fit_is_refused(shared_data, settings, text):
    with pytest.raises(DataError, match=text):
        load_dataset({"name": "uecog_goose", **settings})

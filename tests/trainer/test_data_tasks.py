"""Task data sets: what a trial is, that draws repeat, and that parts share no trial."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from trainer.data import DataError, load_dataset
from trainer.data.tasks import delayed_match

TASKS = {
    "delayed_match_task": {},
    "delayed_recall": {"trials": 200},
    "n_back": {"trials": 200},
    "context_dependent_integration": {"trials": 200},
    "sequential_digits": {},
}


def load(name, **settings):
    return load_dataset({"name": name, **TASKS[name], **settings})


def arrays(windows):
    batch = windows.batch(slice(None))
    return batch.inputs["neural"][..., 0], batch.targets["choice"]


@pytest.mark.parametrize("name", TASKS)
def test_draws_repeat_and_follow_the_seed(name):
    first, again, other = load(name), load(name), load(name, seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    for part, windows in first.parts.items():
        assert arrays(windows)[0].tobytes() == arrays(again.parts[part])[0].tobytes()


@pytest.mark.parametrize("name", TASKS)
def test_parts_share_no_trial_and_name_their_channels_and_classes(name):
    dataset = load(name)
    trials = [set(windows.trials.tolist()) for windows in dataset.parts.values()]
    assert sum(map(len, trials)) == len(set.union(*trials))
    x, choice = arrays(dataset.train)
    assert x.dtype == np.float32
    assert x.shape[2] == len(dataset.channel_names)
    assert set(choice.tolist()) == set(range(len(dataset.output_names)))


def test_delayed_match_draws_as_the_published_recipe():
    drawn = delayed_match(320, 8, 2, 0)
    draws = np.random.default_rng(0)
    cues = draws.integers(0, 2, 320)
    matches = draws.permutation(np.array([1] * 160 + [0] * 160))
    offsets = draws.integers(1, 2, 320)
    assert np.array_equal(drawn.targets, matches)
    assert np.array_equal(drawn.inputs[:, 0].argmax(1), cues)
    probes = np.where(matches == 1, cues, (cues + offsets) % 2)
    assert np.array_equal(drawn.inputs[:, -1].argmax(1), probes)


@pytest.mark.parametrize(("trials", "length", "symbols"), [(20, 2, 2), (33, 5, 3), (320, 10, 7)])
def test_delayed_match_has_one_cue_one_probe_and_exactly_half_matches(trials, length, symbols):
    drawn = delayed_match(trials, length, symbols, 3)
    assert drawn.targets.sum() == trials // 2
    assert drawn.inputs.shape == (trials, length, symbols)
    assert (drawn.inputs[:, [0, -1]].sum(2) == 1).all()
    assert not drawn.inputs[:, 1:-1].any()
    same = drawn.inputs[:, 0].argmax(1) == drawn.inputs[:, -1].argmax(1)
    assert np.array_equal(same, drawn.targets == 1)


def test_delayed_match_tests_on_the_last_fifth():
    dataset = load("delayed_match_task", symbols=2, length=8)
    assert [len(windows) for windows in dataset.parts.values()] == [256, 64, 64]
    drawn = delayed_match(320, 8, 2, 0)
    x, choice = arrays(dataset.test)
    assert np.array_equal(x, drawn.inputs[256:])
    assert np.array_equal(choice, drawn.targets[256:])
    assert np.array_equal(arrays(dataset.validation)[1], delayed_match(64, 8, 2, 1).targets)


def test_delayed_recall_asks_for_a_symbol_that_was_shown():
    dataset = load("delayed_recall", items=3, symbols=5, delay=4, noise=0.0)
    x, choice = arrays(dataset.train)
    assert x.shape[1:] == (8, 8)
    shown, asked = x[:, :3, :5].argmax(2), x[:, -1, 5:].argmax(1)
    assert np.array_equal(choice, shown[np.arange(len(x)), asked])
    assert not x[:, 3:-1].any()
    assert set(asked.tolist()) == {0, 1, 2}


def test_n_back_compares_the_last_symbol_with_one_before():
    dataset = load("n_back", back=3, length=9, noise=0.0)
    found = [arrays(windows) for windows in dataset.parts.values()]
    x = np.concatenate([each[0] for each in found]).argmax(2)
    choice = np.concatenate([each[1] for each in found])
    assert np.array_equal(choice == 1, x[:, -1] == x[:, -4])
    assert choice.sum() == 100
    # What else was shown does not tell.
    assert abs((x[:, -1] == x[:, -3]).mean() - 0.25) < 0.1


def test_integration_goes_by_the_stream_of_the_context():
    x, choice = arrays(load("context_dependent_integration", noise=0.01).train)
    context = x[:, 0, 2:].argmax(1)
    evidence = x[:, :, :2].mean(1)
    assert np.array_equal(choice, evidence[np.arange(len(x)), context] > 0)
    other = evidence[np.arange(len(x)), 1 - context] > 0
    assert 0.3 < (choice == other).mean() < 0.7
    assert (x[:, :, 2:] == x[:, :1, 2:]).all()


def test_digits_come_pixel_by_pixel_or_row_by_row():
    pixels, rows = load("sequential_digits"), load("sequential_digits", order="rows")
    assert [len(windows) for windows in pixels.parts.values()] == [1168, 270, 359]
    flat, choice = arrays(pixels.test)
    square, again = arrays(rows.test)
    assert flat.shape[1:] == (64, 1)
    assert square.shape[1:] == (8, 8)
    assert np.array_equal(flat.reshape(-1, 8, 8), square)
    assert np.array_equal(choice, again)
    assert flat.min() == 0
    assert flat.max() == 1


def test_no_digit_is_in_two_parts():
    dataset = load("sequential_digits")
    images = [arrays(windows)[0].reshape(len(windows), -1) for windows in dataset.parts.values()]
    every = np.concatenate(images)
    assert len(np.unique(every, axis=0)) == len(every) == 1797


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("delayed_match_task", {"length": 1}, "length"),
        ("delayed_match_task", {"symbols": 1}, "symbols"),
        ("delayed_match_task", {"trials": 3}, "trials"),
        ("delayed_recall", {"items": 0}, "items"),
        ("n_back", {"noise": -1.0}, "noise"),
        ("context_dependent_integration", {"length": 1}, "length"),
        ("sequential_digits", {"order": "columns"}, "order"),
    ],
)
def test_settings_out_of_range_are_named(name, settings, text):
    with pytest.raises(ValidationError, match=text):
        load(name, **settings)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(DataError, match="back is 12; must be below length, 12"):
        load("n_back", back=12)
    with pytest.raises(DataError, match="length 1, symbols 2; both must be 2 or more"):
        delayed_match(20, 1, 2, 0)

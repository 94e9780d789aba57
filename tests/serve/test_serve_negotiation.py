"""Content-Type and Accept."""

from __future__ import annotations

import pytest

from artifact import Axis, TensorSpec
from serve.errors import NotAcceptable, UnsupportedMediaType
from serve.negotiation import JSON, NPY, NPZ, answer_form, body_form

ONE = [TensorSpec("neural", "float32", (Axis("batch"),), "raw", "values")]
TWO = [*ONE, TensorSpec("behavior", "float32", (Axis("batch"),), "raw", "values")]


@pytest.mark.parametrize("form", [JSON, NPY, NPZ])
def test_content_type_with_parameters_and_case(form: str) -> None:
    assert body_form(f"{form.upper()}; charset=utf-8", ONE) == form


@pytest.mark.parametrize("said", [None, "", "text/plain", "application/octet-stream", "a/b/c"])
def test_unknown_content_type_is_refused(said: str | None) -> None:
    with pytest.raises(UnsupportedMediaType, match="must be one of application/json"):
        body_form(said, ONE)


def test_npy_cannot_hold_two_inputs() -> None:
    with pytest.raises(UnsupportedMediaType, match="takes neural, behavior"):
        body_form(NPY, TWO)


@pytest.mark.parametrize(
    ("accept", "body", "expected"),
    [
        (None, JSON, JSON),
        (None, NPY, NPY),
        ("*/*", NPZ, NPZ),
        ("application/*", NPY, NPY),
        (NPY, JSON, NPY),
        (f"{JSON}, {NPY}", NPY, NPY),
        (f"{JSON}, {NPY}", NPZ, JSON),
        (f"{JSON};q=0.5, {NPY};q=0.4", NPY, JSON),
        (f"text/html, */*;q=0.1, {NPZ};q=0.2", JSON, NPZ),
        (f"{NPY};q=0, */*", NPY, JSON),
        (f"application/*;q=0.3, {JSON};q=0.1", JSON, NPY),
        (f"{JSON};q=high, {NPZ}", JSON, NPZ),
        (f"{JSON};q=7, {NPZ}", JSON, NPZ),
        (f"APPLICATION/JSON;Q=1.0,{NPY};q=0.9", NPY, JSON),
        ("application/json;q=nan, application/x-npy", JSON, NPY),
    ],
)
def test_accept_chooses_the_form(accept: str | None, body: str, expected: str) -> None:
    assert answer_form(accept, body, ONE) == expected


@pytest.mark.parametrize("accept", ["text/html", f"{NPY};q=0, {JSON};q=0, {NPZ};q=0", ",;,", ""])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="must allow one of"):
        answer_form(accept, JSON, ONE)


def test_two_outputs_are_no_npy() -> None:
    with pytest.raises(NotAcceptable, match="holds one array, this model gives 2"):
        answer_form(NPY, JSON, TWO)
    assert answer_form("*/*", NPY, TWO) == NPZ
    assert answer_form(f"{NPY}, {JSON};q=0.1", NPY, TWO) == JSON

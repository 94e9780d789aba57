"""The model that CONTRIBUTING.md shows, taken from its text and used as a model of the project."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from contexts import forecast_context, neural

from artifact.providers import session_options
from trainer.graph import to_onnx
from trainer.models import MODELS, build_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's code, imported as the module of its own that it is; unregistered afterwards."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "example_mean.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        importlib.import_module("example_mean")
        yield
    finally:
        MODELS._constructors.pop("mean", None)
        sys.modules.pop("example_mean", None)


@pytest.mark.usefixtures("example")
def test_the_example_is_a_batch_invariant_model() -> None:
    assert MODELS.settings("mean")().model_dump() == {"steps": 3}
    context = forecast_context(5, features=2)
    module = build_model({"name": "mean", "steps": 4}, context)
    session = onnxruntime.InferenceSession(to_onnx(module, context), session_options())
    for channels in (5, 61):
        x = neural(forecast_context(channels, features=2), 16).numpy()
        (together,) = session.run(None, {"neural": x})
        np.testing.assert_array_equal(together[:, :10], x[:, :10, :, 0])
        expected = np.repeat(x[:, 6:10, :, 0].mean(1, keepdims=True), 10, axis=1)
        np.testing.assert_allclose(together[:, 10:], expected, rtol=1e-5, atol=1e-4)
        with torch.no_grad():
            answer = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(together, answer, rtol=1e-6, atol=1e-4)
        for start, size in ((0, 1), (3, 1), (2, 2), (5, 4), (8, 8)):
            (part,) = session.run(None, {"neural": x[start : start + size]})
            assert part.tobytes() == together[start : start + size].tobytes()

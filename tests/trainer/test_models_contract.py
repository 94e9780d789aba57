"""What holds for every registered model: shapes, determinism, strict weights, the same in ONNX."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import pytest
import torch
from contexts import classify_context, forecast_context, neural, randomize

from artifact.providers import session_options
from trainer.graph import to_onnx
from trainer.models import MODELS, ModelError, build_model

FORECAST = [name for name in MODELS.names() if "forecast" in MODELS.get(name).tasks]
CLASSIFY = [name for name in MODELS.names() if "classify" in MODELS.get(name).tasks]
CHANNELS = (1, 61, 89, 239)


def build(name: str, channels: int, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_model({"name": name}, forecast_context(channels, features=9))


def run(module: torch.nn.Module, *inputs: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return module.eval()(*inputs).numpy()


@functools.cache
def exported(name: str, channels: int) -> tuple[torch.nn.Module, onnxruntime.InferenceSession]:
    """A module with random weights and a session of its graph."""
    module = randomize(build(name, channels))
    graph = to_onnx(module, forecast_context(channels, features=9))
    return module, onnxruntime.InferenceSession(graph, session_options())


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("name", FORECAST)
def test_torch_and_onnx_answer_n_20_c_in_float32(name, channels):
    # A graph with an open channel axis is exported once and must take every channel count.
    dynamic = build(name, 2).dynamic_channel
    module, session = exported(name, 61 if dynamic else channels)
    for batch in (1, 7):
        x = neural(forecast_context(channels, features=9), batch)
        expected = run(module, x)
        (answer,) = session.run(None, {"neural": x.numpy()})
        for output in (expected, answer):
            assert output.shape == (batch, 20, channels)
            assert output.dtype == np.float32
            assert np.isfinite(output).all()
        np.testing.assert_allclose(answer, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", CLASSIFY)
def test_decoders_answer_probabilities_from_torch_and_onnx(name):
    torch.manual_seed(0)
    context = classify_context()
    module = randomize(build_model({"name": name}, context))
    graph = to_onnx(module, context)
    session = onnxruntime.InferenceSession(graph, session_options())
    for batch in (1, 7):
        random = np.random.default_rng(batch)
        inputs = {
            "neural": neural(context, batch).numpy(),
            "behavior": random.normal(size=(batch, 20, 2)).astype(np.float32),
            "behavior_mask": random.random((batch, 20)) < 0.5,
        }
        expected = run(module, *map(torch.from_numpy, inputs.values()))
        (answer,) = session.run(None, inputs)
        assert answer.shape == expected.shape == (batch, 3)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer.sum(1), 1, atol=1e-6)
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS.names())
def test_every_setting_has_a_default(name):
    MODELS.settings(name)()


@pytest.mark.parametrize("name", FORECAST)
def test_one_seed_gives_one_set_of_weights(name):
    first, second = build(name, 3).state_dict(), build(name, 3).state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)
    if list(build(name, 3).parameters()):
        other = build(name, 3, seed=1).state_dict()
        assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", FORECAST)
def test_predictions_repeat_and_do_not_depend_on_the_order_of_the_batch(name):
    module = randomize(build(name, 5))
    x = neural(forecast_context(5, features=9), 7)
    first = run(module, x)
    assert first.tobytes() == run(module, x).tobytes()
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    gap = np.abs(run(module, x[order]) - first[order.numpy()]).max()
    assert gap <= 1e-6 * np.abs(first).max()


@pytest.mark.parametrize("name", FORECAST)
def test_weights_load_strictly(name):
    module = build(name, 3)
    state = dict(randomize(build(name, 3, seed=1)).state_dict())
    module.load_state_dict(state)
    x = neural(forecast_context(3, features=9), 2)
    assert run(module, x).tobytes() == run(randomize(build(name, 3, seed=1)), x).tobytes()
    if not state:
        return
    key = sorted(state)[0]
    partial = {k: v for k, v in state.items() if k != key}
    for wrong in (partial, {**partial, "renamed." + key: state[key]}):
        with pytest.raises(RuntimeError, match=key):
            module.load_state_dict(wrong)


@pytest.mark.parametrize("name", FORECAST)
def test_all_weights_that_the_answer_depends_on_are_in_the_state_dict(name):
    """A module rebuilt from config, context and weights alone is the same function."""
    module = randomize(build(name, 3, seed=3))
    again = build(name, 3, seed=4)
    again.load_state_dict(module.state_dict())
    x = neural(forecast_context(3, features=9), 2)
    assert run(module, x).tobytes() == run(again, x).tobytes()


@pytest.mark.parametrize("name", FORECAST)
def test_a_dead_channel_leaves_every_answer_finite(name):
    context = forecast_context(4, features=9)
    context.statistics.std[1] = 0.0
    x = neural(context, 3)
    assert np.isfinite(run(randomize(build_model({"name": name}, context)), x)).all()


@pytest.mark.parametrize("name", FORECAST)
def test_a_model_of_another_task_is_refused_naming_the_ones_that_fit(name):
    with pytest.raises(ModelError, match=rf"'{name}' does not do .*'classify'; valid: decoder"):
        build_model({"name": name}, classify_context())

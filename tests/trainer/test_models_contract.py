"""What holds for every registered model: shapes, determinism, strict weights, the same in ONNX."""

from __future__ import annotations

import functools

import numpy as np
import onnxruntime
import pytest
import torch
from contexts import (
    answered_windows,
    classify_context,
    decode_context,
    forecast_context,
    neural,
    randomize,
    rows_of,
)

from artifact import batching
from artifact.providers import session_options
from trainer.graph import to_onnx
from trainer.models import MODELS, ModelError, build_model

# An ensemble has no members unless it is given some: see test_ensemble.
NAMES = [name for name in MODELS.names() if name != "ensemble"]
FORECAST = [name for name in NAMES if "forecast" in MODELS.get(name).tasks]
CONTEXTS = {
    "classify": lambda: classify_context(dim=0),
    "classify with behavior": classify_context,
    "classify long": lambda: classify_context(5, 1, steps=301, dim=0),
    "decode": decode_context,
    "decode features": lambda: decode_context(4, 3, steps=5, variables=3),
    "decode one step": lambda: decode_context(3, 1, steps=1, variables=1),
}
# Their graphs take seconds each: one kind of input in the fast set.
LARGE = {"riemannian", "band_power", "eegnet", "shallow_conv", "ctnet", "place_field"}
LARGE |= {"horn", "gru_classifier"}
# Unrolled over all samples of a window: half a minute to compile.
UNROLLED = {"gru_classifier"}
# Models that answer a window with one row, on every kind of input that they may meet.
ANSWERS = [
    pytest.param(
        name,
        case,
        id=f"{name}-{case}",
        marks=pytest.mark.slow if name in UNROLLED or (name in LARGE and " " in case) else (),
    )
    for name in NAMES
    for case in CONTEXTS
    if case.split()[0] in MODELS.get(name).tasks
]
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


# Exporting a network takes seconds: of those built like `patchformer` one count is fast.
ALIKE = ("graph", "itransformer", "tcn")
SIZES = [
    pytest.param(
        name,
        count,
        id=f"{name}-{count}",
        marks=pytest.mark.slow if count > 61 or (name in ALIKE and count != 61) else (),
    )
    for name in FORECAST
    for count in CHANNELS
]


@pytest.mark.parametrize(("name", "channels"), SIZES)
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


@functools.cache
def answering(name: str, case: str) -> tuple[torch.nn.Module, onnxruntime.InferenceSession]:
    """A module with random weights and a session of its graph."""
    torch.manual_seed(0)
    context = CONTEXTS[case]()
    module = randomize(build_model({"name": name}, context))
    return module, onnxruntime.InferenceSession(to_onnx(module, context), session_options())


@pytest.mark.parametrize(("name", "case"), ANSWERS)
def test_torch_and_onnx_answer_a_row_for_each_window_in_float32(name, case):
    module, session = answering(name, case)
    context = CONTEXTS[case]()
    for batch in (1, 7):
        inputs = rows_of(context, batch, seed=batch)
        expected = run(module, *inputs.values())
        (answer,) = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        assert answer.shape == expected.shape == (batch, context.outputs[0].shape[1])
        assert answer.dtype == np.float32
        assert np.isfinite(answer).all()
        if context.task == "classify":
            np.testing.assert_allclose(answer.sum(1), 1, atol=1e-6)
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(answer, expected, rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize(("name", "case"), ANSWERS)
def test_a_row_keeps_its_bytes_in_every_batch(name, case):
    _, session = answering(name, case)
    rows = {key: value.numpy() for key, value in rows_of(CONTEXTS[case](), 5).items()}

    def answer(arrays):
        return dict(zip(("answer",), session.run(None, dict(arrays)), strict=True))

    assert batching.probe(answer, rows).sizes == batching.BATCH_SIZES


@pytest.mark.parametrize(("name", "case"), ANSWERS)
def test_closed_forms_repeat_and_weights_rebuild_the_module(name, case):
    context = CONTEXTS[case]()
    parts = answered_windows(context, 90), answered_windows(context, 40, seed=3)
    inputs = rows_of(context, 6)
    answers = []
    for _ in range(2):
        torch.manual_seed(1)
        module = build_model({"name": name}, context)
        module.fit_closed_form(*parts)
        answers.append(run(module, *inputs.values()).tobytes())
    torch.manual_seed(2)
    again = build_model({"name": name}, context)
    again.load_state_dict(module.state_dict())
    answers.append(run(again, *inputs.values()).tobytes())
    assert len(set(answers)) == 1


@pytest.mark.parametrize(("name", "case"), ANSWERS)
def test_dead_channels_and_constant_targets_leave_every_answer_finite(name, case):
    context = CONTEXTS[case]()
    context.statistics.std[1] = 0.0
    if context.target_statistics is not None:
        context.target_statistics.std[0] = 0.0
    module = build_model({"name": name}, context)
    module.fit_closed_form(answered_windows(context, 60), answered_windows(context, 30, seed=3))
    assert np.isfinite(run(module, *rows_of(context, 3).values())).all()


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
    with pytest.raises(
        ModelError, match=rf"'{name}' does not do .*'classify'; valid: .*decoder, .*linear"
    ):
        build_model({"name": name}, classify_context())


# Their logarithms have columns that do not fill what a processor takes at once.
ODD = [
    ("band_power", "classify", {"channels": 1}),
    ("band_power", "classify", {"channels": 5}),
    ("linear_readout", "classify", {"channels": 5}),
    ("shallow_conv", "classify", {"channels": 3, "steps": 25}),
    ("place_field", "decode", {"channels": 5, "steps": 5}),
]


@pytest.mark.parametrize(
    ("name", "task", "shape"), ODD, ids=[f"{n}-{s['channels']}" for n, _, s in ODD]
)
def test_many_rows_of_odd_length_are_the_same_alone_and_together(name, task, shape):
    torch.manual_seed(0)
    if task == "classify":
        context, settings = classify_context(features=1, dim=0, **shape), {}
    else:
        context, settings = decode_context(**shape), {"places": 7}
    module = randomize(build_model({"name": name, **settings}, context))
    session = onnxruntime.InferenceSession(to_onnx(module, context), session_options())
    rows = {key: value.numpy() for key, value in rows_of(context, 44).items()}
    (together,) = session.run(None, rows)
    for row in range(44):
        one = {key: value[row : row + 1] for key, value in rows.items()}
        assert session.run(None, one)[0].tobytes() == together[row].tobytes()


@pytest.mark.parametrize(
    "name",
    [
        "band_power",
        "ctnet",
        "decoder",
        "eegnet",
        "gru_classifier",
        "horn",
        "linear_readout",
        "shallow_conv",
    ],
)
def test_probabilities_are_float32_where_products_are_bfloat16(name):
    context = classify_context(dim=0)
    module = build_model({"name": name}, context)
    with torch.autocast("cpu", torch.bfloat16):
        answer = module(*rows_of(context, 3).values())
    assert answer.dtype == torch.float32
    np.testing.assert_allclose(answer.detach().sum(1), 1, atol=1e-6)

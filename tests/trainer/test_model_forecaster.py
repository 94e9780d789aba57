"""What all forecasting networks share: their base, drift, and what they know of their tokens."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from contexts import forecast_context, forecast_windows, neural, randomize
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact import batching
from artifact.providers import session_options
from trainer.data import SplitError
from trainer.determinism import deterministic
from trainer.graph import to_onnx
from trainer.models import MODELS, build_model
from trainer.models.forecaster import Forecaster
from trainer.models.origin import place_waves

NETWORKS = [
    name
    for name in MODELS.names()
    if inspect.isclass(MODELS.get(name)) and issubclass(MODELS.get(name), Forecaster)
]
SMALL = {"width": 8, "dropout": 0.0}


def build(name, context, **changes):
    torch.manual_seed(0)
    return build_model({"name": name, **SMALL, **changes}, context)


def forward(module, x, **arguments):
    with torch.no_grad():
        return module.eval()(x, **arguments)


def walks(context, samples=400):
    kicks = np.random.default_rng(0).normal(size=(samples, context.channels, context.features))
    return forecast_windows(context, np.cumsum(kicks, axis=0) * 30.0)


def calm(context, rows=3):
    """Windows whose observed steps have the mean of the train part."""
    x = neural(context, rows)
    mean = torch.from_numpy(context.statistics.mean.astype(np.float32))
    return x - x[:, : context.observed].mean(dim=1, keepdim=True) + mean


def shifts(context, size):
    """Levels (channel,) of `size` train standard deviations."""
    return torch.from_numpy((size * context.statistics.std[:, 0]).astype(np.float32))


@pytest.mark.parametrize("name", NETWORKS)
def test_training_starts_at_the_base(name):
    context = forecast_context(4, features=2)
    x = neural(context, 3)
    answer = forward(build(name, context, base="last", features="all"), x)
    assert torch.equal(answer[:, 10:], x[:, 9:10, :, 0].expand(3, 10, 4))


@pytest.mark.parametrize("name", NETWORKS)
def test_observed_steps_come_back_and_the_others_are_not_looked_at(name):
    context = forecast_context(3, features=2)
    x = neural(context, 2)
    hidden = x.clone()
    hidden[:, 10:] = torch.nan
    module = randomize(build(name, context, features="all", adaptation="level"))
    answer = forward(module, hidden)
    assert torch.equal(answer[:, :10], x[:, :10, :, 0])
    assert torch.equal(answer, forward(module, x))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_channel_hears_of_every_other(name):
    context = forecast_context(4)
    module = randomize(build(name, context, base="last"), scale=0.3)
    x = neural(context, 2)
    changed = x.clone()
    changed[:, 7, 0] += 300.0
    moved = (forward(module, changed) - forward(module, x))[:, 10:].abs().amax(dim=(0, 1))
    assert (moved > 1e-3).all()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("threads", [1, 2])
def test_training_repeats_bit_for_bit(name, threads):
    context = forecast_context(5, features=2)
    windows = walks(context)
    states = []
    for _ in range(2):
        with deterministic(threads):
            module = build(name, context, dropout=0.1, session_embedding="additive")
            module.fit_closed_form(windows, windows)
            states.append(trained(module.train(), windows))
    assert states[0] == states[1]


def trained(module, windows):
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    for step in range(3):
        rows = np.arange(32 * step, 32 * (step + 1))
        batch = windows.batch(rows)
        x, y = (torch.from_numpy(a) for a in (batch.inputs["neural"], batch.targets["forecast"]))
        base = module.out_of_fold(x, rows)
        session = torch.zeros(len(rows), dtype=torch.int64)
        loss = (module(x, base=base, session=session) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())


@pytest.mark.parametrize(
    ("changes", "dynamic"),
    [
        ({}, True),
        ({"base": "last"}, True),
        ({"base": "linear"}, False),
        ({"statistics": "channel"}, False),
        ({"channel_embedding": "index"}, False),
    ],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_channels_is_open_where_nothing_is_learned_of_each(name, changes, dynamic):
    free = {"base": "ar", "statistics": "pooled", "channel_embedding": "none"}
    module = build(name, forecast_context(4), **{**free, **changes})
    # The edges of a graph are learned for each pair of channels.
    assert module.dynamic_channel == (dynamic and name != "graph")
    if module.dynamic_channel:
        assert forward(module, neural(forecast_context(6), 2)).shape == (2, 20, 6)


# --- drift -----------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["none", "last", "ar", "linear"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_window_within_the_threshold_is_answered_with_the_same_bits(name, base):
    context = forecast_context(4, features=2)
    common = {"base": base, "features": "all"}
    x = calm(context)
    without = randomize(build(name, context, **common), scale=0.2)
    adapted = randomize(build(name, context, **common, adaptation="level"), scale=0.2)
    assert torch.equal(forward(adapted, x), forward(without, x))
    # Where a mean lies beyond it, the answer is another one.
    x[:, :, 1, 0] += shifts(context, 9.0)[1]
    assert not torch.equal(forward(adapted, x), forward(without, x))


@pytest.mark.parametrize("base", ["none", "last", "ar", "linear"])
@pytest.mark.parametrize("statistics", ["pooled", "channel"])
def test_a_level_beyond_the_threshold_moves_the_answer_by_as_much(base, statistics):
    context = forecast_context(4)
    module = build("itransformer", context, base=base, statistics=statistics, adaptation="level")
    randomize(module, scale=0.2)
    near, far = shifts(context, 20.0), shifts(context, -2000.0)
    x = calm(context)
    answers = [forward(module, x + level[:, None]) for level in (near, near + near)]
    torch.testing.assert_close(
        answers[1] - answers[0], near.expand_as(answers[0]), rtol=1e-4, atol=0.1
    )
    below = [forward(module, x + level[:, None]) for level in (far, far + far)]
    torch.testing.assert_close(below[1] - below[0], far.expand_as(below[0]), rtol=1e-4, atol=1.0)


@given(
    rows=st.integers(2, 5),
    sizes=st.lists(st.floats(-1e4, 1e4, width=32), min_size=5, max_size=5),
    threshold=st.sampled_from([0.5, 3.0]),
)
@settings(max_examples=15, deadline=None)
def test_no_row_moves_another(rows, sizes, threshold):
    context = forecast_context(3)
    settings = {"base": "ar", "adaptation": "level", "adaptation_threshold": threshold}
    module = randomize(build("tcn", context, **settings), scale=0.2)
    x = calm(context, rows)
    moved = x + torch.tensor(sizes[:rows])[:, None, None, None]
    moved[0] = x[0]
    assert torch.equal(forward(module, moved)[0], forward(module, x)[0])
    assert torch.isfinite(forward(module, moved)).all()


@pytest.mark.parametrize("normalization", ["mean", "revin"])
@pytest.mark.parametrize("base", ["none", "last"])
def test_level_and_drift_are_the_same_bits_in_a_bfloat16_step(base, normalization):
    """They move the answer by hundreds of raw units: bfloat16 would round them to whole ones."""
    context = forecast_context(3)
    module = build("tcn", context, base=base, normalization=normalization, adaptation="level")
    x = calm(context) + shifts(context, 20.0)
    with torch.autocast("cpu", torch.bfloat16):
        half = forward(module, x)
    assert torch.equal(half, forward(module, x))


def test_the_drift_of_a_channel_is_its_own():
    context = forecast_context(3)
    module = build("itransformer", context, base="linear", adaptation="level", channel_blocks=0)
    module.fit_closed_form(walks(context), walks(context))
    x = calm(context)
    drifted = x.clone()
    drifted[:, :, 0] += shifts(context, 50.0)[0]
    seen = x.clone()
    # What base and network get instead lies at the threshold.
    seen[:, :, 0] += shifts(context, 3.0)[0]
    torch.testing.assert_close(
        forward(module, drifted)[..., 1:], forward(module, seen)[..., 1:], rtol=1e-4, atol=1e-2
    )


def test_the_last_value_is_that_of_the_window_as_recorded():
    """Noise on the inputs of a training step must not reach what the network corrects."""
    context = forecast_context(3)
    module = build("itransformer", context, base="last")
    x = calm(context)
    base = module.out_of_fold(x, np.arange(len(x)))
    assert torch.equal(base, x[:, 9:10, :, 0].expand(-1, 10, -1))
    noisy = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module(noisy, base=base)[:, 10:], base)


def test_too_few_windows_for_the_folds_are_named_by_the_setting():
    context = forecast_context(3)
    windows = forecast_windows(context, np.zeros((40, 3, 1)), 10)
    with pytest.raises(SplitError, match=r"model\.base: .* 3 windows are too few"):
        build("itransformer", context, base="ar").fit_closed_form(windows, windows)


def test_forecasts_out_of_fold_follow_the_drift_too():
    context = forecast_context(3)
    windows = walks(context)
    x = calm(context)
    rows, level = np.arange(3), shifts(context, 40.0)
    answers = {}
    for adaptation in ("none", "level"):
        module = build("itransformer", context, base="linear", adaptation=adaptation)
        module.fit_closed_form(windows, windows)
        answers[adaptation] = [
            module.out_of_fold(x + shift[:, None], rows) for shift in (0 * level, level, 2 * level)
        ]
    calm_one, near, far = answers["level"]
    assert torch.equal(calm_one, answers["none"][0])
    torch.testing.assert_close(far - near, level.expand_as(far), rtol=1e-4, atol=0.1)


# --- channels --------------------------------------------------------------------------------


def grid(channels):
    places = np.stack([np.arange(channels) // 2, np.arange(channels) % 2, np.zeros(channels)], 1)
    return places * 0.004


@pytest.mark.parametrize("kind", ["index", "position"])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_embedded_channel_is_told_from_another_with_the_same_signal(name, kind):
    context = replace(forecast_context(4), positions=grid(4))
    module = randomize(
        build(name, context, base="none", statistics="pooled", channel_embedding=kind), scale=0.3
    )
    same = neural(context, 2)[:, :, :1].expand(-1, -1, 4, -1).contiguous()
    answer = forward(module, same)[:, 10:]
    assert not torch.allclose(answer[..., 0], answer[..., 1])


def test_places_are_centred_and_scaled():
    places = np.random.default_rng(0).normal(size=(6, 3))
    waves, known = place_waves(places)
    assert known.all()
    moved, _ = place_waves(places * 0.001 + 7.0)
    np.testing.assert_allclose(moved, waves, atol=1e-4)
    assert len(np.unique(waves.round(4), axis=0)) == 6


def test_electrodes_without_a_place_share_a_vector():
    places = grid(5)
    places[[1, 3]] = np.nan
    context = replace(forecast_context(5), positions=places)
    module = randomize(build("itransformer", context, channel_embedding="position"))
    vectors = module.origin.channel()
    assert torch.isfinite(vectors).all()
    assert torch.equal(vectors[1], vectors[3])
    assert torch.equal(vectors[1], module.origin.channel.unknown)
    assert len(torch.unique(vectors, dim=0)) == 4
    vectors.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.origin.parameters())


@pytest.mark.parametrize("places", [None, np.full((3, 3), np.nan)])
@pytest.mark.parametrize("name", NETWORKS)
def test_places_that_the_data_do_not_have_are_refused(name, places):
    context = replace(forecast_context(3), positions=places)
    with pytest.raises(ValueError, match=r"model\.channel_embedding: 'position' needs the places"):
        build(name, context, channel_embedding="position")


# --- sessions --------------------------------------------------------------------------------


def with_sessions(name, sessions=3, **changes):
    context = replace(forecast_context(3), sessions=sessions)
    changes = {"session_embedding": "additive", "base": "last", **changes}
    return randomize(build(name, context, **changes), scale=0.3), neural(context, 4)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_number_the_session_is_the_unknown_one(name):
    module, x = with_sessions(name)
    assert module.takes_session
    known = forward(module, x, session=torch.tensor([0, 1, 2, 0]))
    unknown = forward(module, x)
    assert not torch.allclose(known, unknown)
    with torch.no_grad():
        module.origin.table[1:] = module.origin.table[0]
    again = forward(module, x, session=torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(again, unknown)


def test_a_network_without_the_embedding_takes_no_session():
    module, _ = with_sessions("itransformer", session_embedding="none")
    assert not module.takes_session
    assert not hasattr(module.origin, "table")


@pytest.mark.parametrize(("dropout", "trained"), [(1.0, {0}), (0.5, {0, 1, 2})])
def test_dropout_trains_the_unknown_session(dropout, trained):
    module, x = with_sessions("patchformer", session_dropout=dropout)
    torch.manual_seed(0)
    many = x.repeat(8, 1, 1, 1)
    answer = module.train()(many, session=torch.tensor([0, 1] * 16))
    answer.square().mean().backward()
    rows = module.origin.table.grad.abs().sum(dim=1)
    assert {row for row in range(4) if rows[row] > 0} == trained


# --- artifacts -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_option_exports_and_keeps_a_row_in_every_batch(name):
    context = replace(forecast_context(5, features=3), positions=grid(5), sessions=2)
    module = build(
        name,
        context,
        features="all",
        adaptation="level",
        channel_embedding="position",
        session_embedding="additive",
    )
    graph = to_onnx(randomize(module), context)
    session = onnxruntime.InferenceSession(graph, session_options())
    x = neural(context, 6)
    # One calm row, one far away, the others in between.
    x[1:] += (torch.arange(5.0) * 100)[:, None, None, None]
    expected = forward(module, x).numpy()
    (answer,) = session.run(None, {"neural": x.numpy()})
    np.testing.assert_allclose(answer, expected, rtol=0, atol=2e-6 * np.abs(expected).max())

    def run(arrays):
        return {"forecast": session.run(None, dict(arrays))[0]}

    assert batching.probe(run, {"neural": x.numpy()}).sizes == batching.BATCH_SIZES

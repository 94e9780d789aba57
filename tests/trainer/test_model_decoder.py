"""The decoder: probabilities, and behaviour that may be missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import classify_context, decode_dataset, forecast_context, neural

from trainer.data.inner_folds import inner_folds
from trainer.data.windows import Windows
from trainer.models import ModelError, build_model


def build(context, **settings):
    torch.manual_seed(0)
    return build_model({"name": "decoder", **settings}, context).eval()


def inputs(context, rows=5):
    generator = torch.Generator().manual_seed(2)
    behavior = torch.randn(rows, context.steps, 2, generator=generator)
    mask = torch.rand(rows, context.steps, generator=generator) < 0.5
    return neural(context, rows), behavior, mask


def test_rows_are_probabilities():
    context = classify_context()
    answer = build(context)(*inputs(context))
    assert answer.shape == (5, 3)
    assert (answer >= 0).all()
    torch.testing.assert_close(answer.sum(1), torch.ones(5))


@pytest.mark.parametrize("value", [0.0, 1e30, float("nan"), float("inf")])
def test_missing_behaviour_has_no_influence_whatever_its_value(value):
    context = classify_context()
    module = build(context)
    signal, behavior, mask = inputs(context)
    changed = torch.where(mask.unsqueeze(-1), behavior, torch.tensor(value))
    assert torch.equal(module(signal, behavior, mask), module(signal, changed, mask))


def test_missing_values_leave_every_gradient_finite():
    context = classify_context()
    module = build(context)
    signal, behavior, mask = inputs(context)
    behavior[~mask] = torch.nan
    module(signal, behavior, mask)[:, 0].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_measured_behaviour_and_neural_activity_matter():
    context = classify_context()
    module = build(context)
    signal, behavior, mask = inputs(context)
    answer = module(signal, behavior, mask)
    assert not torch.equal(module(signal, behavior + 1, mask), answer)
    assert not torch.equal(module(signal + 1, behavior, mask), answer)


def test_behaviour_is_normalised_by_its_measured_train_steps():
    context = classify_context()
    random = np.random.default_rng(0)
    behavior = random.normal(5.0, 3.0, size=(400, 2)).astype(np.float32)
    mask = random.random(400) < 0.7
    behavior[~mask] = np.nan
    starts = np.arange(0, 400, 20)
    train = Windows(
        task="classify",
        observed=20,
        inputs=context.inputs,
        outputs=context.outputs,
        series={
            "neural": (random.normal(size=(400, 6, 2)).astype(np.float32),),
            "behavior": (behavior,),
            "behavior_mask": (mask,),
        },
        sessions=np.zeros(len(starts), np.int64),
        starts=starts,
        targets=np.zeros(len(starts), np.int64),
    )
    module = build(context)
    module.fit_closed_form(train, train)
    measured = behavior[mask].astype(np.float64)
    np.testing.assert_allclose(module.behavior.mean, measured.mean(0), rtol=1e-5)
    np.testing.assert_allclose(module.behavior.scale, measured.std(0), rtol=1e-5)


def test_a_forecast_task_is_refused():
    with pytest.raises(ModelError, match=r"'decoder' does not do .*'forecast'; valid: .*gru"):
        build_model({"name": "decoder"}, forecast_context(3))


@pytest.mark.parametrize(
    ("base", "model"), [("linear", "linear_readout"), ("place_field", "place_field")]
)
def test_a_decoding_starts_at_its_base(base, model):
    dataset = decode_dataset(300)
    context = dataset.context()
    inputs = torch.from_numpy(dataset.test.batch(slice(0, 9)).inputs["neural"])
    alone = build_model({"name": model}, context)
    alone.fit_closed_form(dataset.train, dataset.validation)
    module = build(context, base=base)
    module.fit_closed_form(dataset.train, dataset.validation)
    torch.testing.assert_close(module(inputs), alone(inputs))


def test_a_decoding_starts_at_the_train_mean():
    context = decode_dataset(300).context()
    module = build(context, base="mean")
    mean = torch.from_numpy(context.target_statistics.mean.astype(np.float32))
    torch.testing.assert_close(module(neural(context, 9)), mean.expand(9, 2))
    assert module.out_of_fold(neural(context, 9), np.arange(9)) is None


def test_a_decoding_learns_what_fits_that_did_not_see_a_window_leave_over():
    dataset = decode_dataset(300)
    module = build(dataset.context(), base="linear")
    module.fit_closed_form(dataset.train, dataset.validation)
    fold = inner_folds(dataset.train, 5)[1]
    readout = build_model({"name": "linear_readout"}, dataset.context())
    readout.fit_closed_form(dataset.train.take(fold.fit), dataset.validation)
    seen = torch.from_numpy(dataset.train.batch(fold.held).inputs["neural"])
    base = module.out_of_fold(seen, fold.held)
    torch.testing.assert_close(base, readout(seen))
    torch.testing.assert_close(module(seen, base=base), base)
    assert not torch.allclose(module(seen), base)

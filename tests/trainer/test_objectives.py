"""Every registered objective: a finite scalar, differentiable, under torch.func."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.objectives import OBJECTIVES, ObjectiveError, cross_entropy, huber, mae, mse

CLASSES = {"cross_entropy"}  # objectives of class probabilities; the others compare like shapes
NAMES = OBJECTIVES.names()


def pair(name: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if name in CLASSES:
        logits = torch.randn(5, 3, generator=generator)
        return torch.softmax(logits, -1), torch.randint(3, (5,), generator=generator)
    return torch.randn(5, 4, 3, generator=generator), torch.randn(5, 4, 3, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_scalar_with_a_gradient_that_matches_finite_differences(name):
    prediction, target = pair(name)
    prediction = prediction.double()
    target = target if name in CLASSES else target.double()
    objective = OBJECTIVES.get(name)
    assert objective(prediction, target).shape == ()
    gradient = torch.func.grad(objective)(prediction, target)
    step = torch.zeros_like(prediction)
    step.view(-1)[4] = 1e-6
    rise = objective(prediction + step, target) - objective(prediction - step, target)
    assert float(gradient.view(-1)[4]) == pytest.approx(float(rise) / 2e-6, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_equals_a_loop(name):
    objective = OBJECTIVES.get(name)
    pairs = [pair(name, seed) for seed in range(4)]
    predictions, targets = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    values, gradients = torch.vmap(torch.func.grad_and_value(objective))(predictions, targets)[::-1]
    for i, (prediction, target) in enumerate(pairs):
        torch.testing.assert_close(values[i], objective(prediction, target))
        torch.testing.assert_close(gradients[i], torch.func.grad(objective)(prediction, target))


@pytest.mark.parametrize("name", sorted(set(NAMES) - CLASSES))
@pytest.mark.parametrize("distance", [0.0, 1.0, 1e-30, 1e10])
def test_gradients_are_finite_at_the_corners(name, distance):
    objective = OBJECTIVES.get(name)
    target = torch.zeros(2, 3)
    gradient = torch.func.grad(objective)(target + distance, target)
    assert torch.isfinite(gradient).all()


def test_cross_entropy_is_finite_for_a_true_class_of_probability_0():
    logits = torch.tensor([[200.0, 0.0], [0.0, 0.0]])

    def loss(x):
        return cross_entropy(torch.softmax(x, -1), torch.tensor([1, 0]))

    gradient, value = torch.func.grad_and_value(loss)(logits)
    assert math.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_known_values():
    prediction, target = torch.tensor([0.0, 3.0]), torch.tensor([0.5, 0.0])
    assert float(mse(prediction, target)) == pytest.approx((0.25 + 9) / 2)
    assert float(mae(prediction, target)) == pytest.approx((0.5 + 3) / 2)
    expected = torch.nn.functional.huber_loss(prediction, target)
    assert float(huber(prediction, target)) == pytest.approx(float(expected))
    probability = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    value = cross_entropy(probability, torch.tensor([0, 1]))
    assert float(value) == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)


@pytest.mark.parametrize("name", sorted(set(NAMES) - CLASSES))
def test_shapes_that_would_broadcast_are_refused(name):
    with pytest.raises(ObjectiveError, match=r"\(4, 3\) and target \(4, 1\)"):
        OBJECTIVES.get(name)(torch.zeros(4, 3), torch.zeros(4, 1))


@pytest.mark.parametrize("target", [torch.zeros(4), torch.zeros(3, dtype=torch.int64)])
def test_cross_entropy_refuses_targets_that_are_no_class_numbers(target):
    with pytest.raises(ObjectiveError, match="class numbers"):
        cross_entropy(torch.full((4, 2), 0.5), target)

"""Every registered objective: one contract for all, then what each of them is."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import torch

from trainer.objectives import (
    OBJECTIVES,
    ObjectiveError,
    checked,
    combined,
    cross_entropy,
    fc_matrix_rmse,
    fcd_kolmogorov_smirnov,
    fcd_wasserstein,
    huber,
    mae,
    mse,
    objective,
    psd,
    psd_shape,
    rmse,
)
from trainer.registry import UnknownNameError
from trainer.series import (
    correlation,
    functional_connectivity,
    functional_connectivity_dynamics,
    power_spectrum,
)

NAMES = OBJECTIVES.names()
MATRIX = {"fc_matrix_correlation", "fc_matrix_rmse"}
LIKE_SHAPED = sorted(set(NAMES) - MATRIX - {"cross_entropy"})
INVARIANT = {"cosine", "correlation", "fc_correlation", "fc_rmse", "fcd_wasserstein", "psd_shape"}
# So that the series of these tests can be short.
SHORT = {"fcd_wasserstein": {"window": 6, "step": 2}, "psd": {"segment": 8}}
SHORT["psd_shape"] = SHORT["psd"]
TIMES, NODES = 16, 4


def short(name: str):
    return objective(name, **SHORT.get(name, {}))


def pair(name: str, seed: int = 0, batch: tuple[int, ...] = ()) -> tuple:
    """A prediction and a target that suit an objective, float32."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*batch, *shape, generator=generator)

    if name == "cross_entropy":
        return torch.softmax(drawn(5, 3), -1), torch.randint(3, (*batch, 5), generator=generator)
    if name == "poisson_likelihood":
        return drawn(TIMES, NODES).exp(), drawn(TIMES, NODES).exp().round()
    if name == "bernoulli_likelihood":
        return drawn(TIMES, NODES).sigmoid(), (drawn(TIMES, NODES) > 0).float()
    if name in MATRIX:
        return drawn(TIMES, NODES), functional_connectivity(drawn(TIMES, NODES))
    return drawn(TIMES, NODES), drawn(TIMES, NODES)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    """A scalar; right gradients; grad, vmap; finite at corners; unequal shapes, units refused."""
    loss = short(name)
    prediction, target = pair(name)
    assert loss(prediction, target).shape == ()

    exact = prediction.double().requires_grad_()
    goal = target if name == "cross_entropy" else target.double()
    assert torch.autograd.gradcheck(lambda x: loss(x, goal), exact, fast_mode=True)

    pairs = [pair(name, seed) for seed in range(3)]
    predictions, targets = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    gradients, values = torch.vmap(torch.func.grad_and_value(loss))(predictions, targets)
    for row, (one, other) in enumerate(pairs):
        torch.testing.assert_close(values[row], loss(one, other))
        single = torch.func.grad(loss)(one, other)
        torch.testing.assert_close(gradients[row], single, atol=1e-5, rtol=1e-4)

    for corner, goal in corners(name, prediction, target):
        gradient, value = torch.func.grad_and_value(loss)(corner, goal)
        assert torch.isfinite(value), corner
        assert torch.isfinite(gradient).all(), corner

    for wrong in (target[..., None], target[..., :1], target[:-1, :-1] if target.ndim > 1 else 1.5):
        with pytest.raises(ObjectiveError, match=name):
            loss(prediction, torch.as_tensor(wrong))

    assert checked(loss, "mV", "mV") is loss
    assert checked(loss, "mV", None) is loss
    if name in INVARIANT | MATRIX:
        assert checked(loss, "mV", "1") is loss
        torch.testing.assert_close(loss(1000 * prediction, target), loss(prediction, target))
    else:
        with pytest.raises(ObjectiveError, match=rf"{name}: prediction is in 'mV' .* in '1'"):
            checked(loss, "mV", "1")


def corners(name: str, prediction: torch.Tensor, target: torch.Tensor):
    """Constant signals, exact matches, and numbers as large and small as they come."""
    if name == "cross_entropy":
        sure = torch.zeros_like(prediction)
        sure[:, 0] = 1.0
        yield from ((sure, target), (sure, torch.ones_like(target)))
        return
    if name not in MATRIX:
        yield target, target
        yield target.clone(), torch.zeros_like(target)
        yield torch.zeros_like(target), torch.zeros_like(target)
    partly = prediction.clone()
    partly[:, 0] = 0.3
    partly[: TIMES // 2] = 0.7
    yield partly, target
    for level in (0.0, 0.3, -2.0, 1e-30, 1e10):
        yield torch.full_like(prediction, level), target


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"cross_entropy"}))
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_prediction_that_is_not_finite_never_scores_well(name, bad):
    prediction, target = pair(name)
    prediction[3, 1] = bad
    value = short(name)(prediction, target)
    assert not torch.isfinite(value)


@pytest.mark.parametrize("name", NAMES)
def test_is_captured_whole_by_the_compiler(name):
    prediction, target = pair(name)
    prediction.requires_grad_()
    torch._dynamo.reset()
    value = torch.compile(short(name), fullgraph=True, backend="eager")(prediction, target)
    expected = short(name)(prediction, target)
    torch.testing.assert_close(value, expected)
    found = torch.autograd.grad(value, prediction)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected, prediction)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_its_gradient_compiles_whole(name):
    loss = short(name)
    prediction, target = pair(name)
    torch._dynamo.reset()
    compiled = torch.compile(torch.func.grad_and_value(loss), fullgraph=True, backend="aot_eager")
    gradient, value = compiled(prediction, target)
    expected = torch.func.grad_and_value(loss)(prediction, target)
    torch.testing.assert_close(value, expected[1])
    torch.testing.assert_close(gradient, expected[0])


@pytest.mark.slow
def test_compiles_to_machine_code():
    loss = combined(
        (1.0, "fc_correlation"),
        (0.5, objective("psd", segment=8)),
        (0.5, objective("fcd_wasserstein", window=6, step=2)),
        (2.0, "rmse"),
    )
    prediction, target = pair("rmse")
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the compiler's own modules
        value = torch.compile(loss, fullgraph=True)(prediction, target)
    torch.testing.assert_close(value, loss(prediction, target))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"cross_entropy"}))
def test_a_batch_counts_as_the_mean_of_its_members(name):
    prediction, target = pair(name, batch=(3,))
    singles = [short(name)(one, other) for one, other in zip(prediction, target, strict=True)]
    if name == "rmse":  # one root of the mean over everything
        singles = [torch.stack(singles).square().mean().sqrt()]
    torch.testing.assert_close(short(name)(prediction, target), torch.stack(singles).mean())


@pytest.mark.parametrize("name", sorted(INVARIANT - {"cosine", "correlation"} | MATRIX | {"psd"}))
def test_a_target_without_batch_is_every_members_and_may_have_another_length(name):
    prediction, target = pair(name)
    batch = torch.stack([prediction, prediction])
    value = short(name)(prediction, target)
    torch.testing.assert_close(short(name)(batch, target), value)
    longer = torch.cat([prediction, target if name not in MATRIX else prediction])
    assert torch.isfinite(short(name)(longer, target))


@pytest.mark.parametrize("name", LIKE_SHAPED)
def test_an_exact_match_is_the_least(name):
    prediction, target = pair(name)
    if name == "bernoulli_likelihood":
        prediction = target * 0.8 + 0.1
    best, other = short(name)(target, target), short(name)(prediction, target)
    assert float(best) < float(other)
    if name not in ("huber", "mae") and "likelihood" not in name:
        assert float(best) == pytest.approx(0.0, abs=1e-5)


def test_rmse_at_an_exact_match_has_no_gradient():
    target = torch.randn(3, 2)
    gradient, value = torch.func.grad_and_value(rmse)(target, target)
    assert float(value) == 0.0
    assert not gradient.any()


def test_a_constant_signal_correlates_with_nothing():
    series = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    series[:, 1] = 9357.3
    found = functional_connectivity(series)
    assert found[1].tolist() == [0.0, 1.0, 0.0]
    gradient = torch.func.grad(lambda x: functional_connectivity(x).sum())(series)
    assert not gradient[:, 1].any()
    assert float(correlation(series[:, 1], series[:, 0], -1)) == 0.0


def test_known_values():
    prediction, target = torch.tensor([0.0, 3.0]), torch.tensor([0.5, 0.0])
    assert float(mse(prediction, target)) == pytest.approx((0.25 + 9) / 2)
    assert float(rmse(prediction, target)) == pytest.approx(math.sqrt((0.25 + 9) / 2))
    assert float(mae(prediction, target)) == pytest.approx((0.5 + 3) / 2)
    expected = torch.nn.functional.huber_loss(prediction, target)
    assert float(huber(prediction, target)) == pytest.approx(float(expected))
    probability = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    value = cross_entropy(probability, torch.tensor([0, 1]))
    assert float(value) == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)


@pytest.mark.parametrize(
    ("name", "settings", "log_density"),
    [
        ("gaussian_likelihood", {"sigma": 0.7}, lambda x, t: scipy.stats.norm.logpdf(t, x, 0.7)),
        (
            "student_t_likelihood",
            {"freedom": 3.0, "scale": 0.7},
            lambda x, t: scipy.stats.t.logpdf(t, 3.0, x, 0.7),
        ),
        ("poisson_likelihood", {}, lambda x, t: scipy.stats.poisson.logpmf(t, x)),
        ("bernoulli_likelihood", {}, lambda x, t: scipy.stats.bernoulli.logpmf(t, x)),
    ],
)
def test_likelihoods_are_scipys(name, settings, log_density):
    prediction, target = (each.double() for each in pair(name))
    expected = -log_density(prediction.numpy(), target.numpy()).mean()
    assert float(objective(name, **settings)(prediction, target)) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["poisson_likelihood", "bernoulli_likelihood"])
def test_the_gradient_leads_out_of_impossible_rates(name):
    for rate in (0.0, -0.5):
        prediction, target = torch.full((2, 2), rate), torch.ones(2, 2)
        assert (torch.func.grad(OBJECTIVES.get(name))(prediction, target) < 0).all()


def test_connectivity_is_numpys():
    first, second = (each.double() for each in pair("fc_rmse"))
    fcs = [np.corrcoef(each.numpy().T) for each in (first, second)]
    np.testing.assert_allclose(functional_connectivity(first).numpy(), fcs[0], atol=1e-12)
    above = np.triu_indices(NODES, 1)
    r = np.corrcoef(fcs[0][above], fcs[1][above])[0, 1]
    for name, goal in (
        ("fc_correlation", second),
        ("fc_matrix_correlation", torch.from_numpy(fcs[1])),
    ):
        assert float(OBJECTIVES.get(name)(first, goal)) == pytest.approx(1 - r)
    apart = math.sqrt(np.mean((fcs[0][above] - fcs[1][above]) ** 2))
    assert float(OBJECTIVES.get("fc_rmse")(first, second)) == pytest.approx(apart)
    # A series in place of the matrix would have been compared as one.
    with pytest.raises(ObjectiveError, match=r"connectivity \(node, node\)"):
        fc_matrix_rmse(first, second)


def test_connectivity_dynamics_and_their_distances_are_by_definition():
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(60, 5, generator=generator).double().cumsum(0)
    second = torch.randn(90, 5, generator=generator).double()
    values = []
    for series in (first, second):
        starts = range(0, len(series) - 20 + 1, 4)
        above = np.triu_indices(5, 1)
        windows = [np.corrcoef(series[s : s + 20].numpy().T)[above] for s in starts]
        expected = np.corrcoef(windows)
        found = functional_connectivity_dynamics(series, 20, 4).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-12)
        values.append(expected[np.triu_indices(len(expected), 1)])
    distance = fcd_wasserstein(first, second, window=20, step=4)
    assert float(distance) == pytest.approx(scipy.stats.wasserstein_distance(*values), rel=0.02)
    largest = fcd_kolmogorov_smirnov(first, second, window=20, step=4)
    assert float(largest) == pytest.approx(scipy.stats.ks_2samp(*values).statistic, abs=1e-6)
    assert "fcd_kolmogorov_smirnov" not in NAMES


def test_power_is_scipys_and_its_distance_in_decades():
    series = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)).double()
    for segment in (64, 63):
        expected = scipy.signal.welch(
            series.numpy(), window="hann", nperseg=segment, noverlap=segment - segment // 2, axis=0
        )[1]
        found = power_spectrum(series, segment).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert float(psd(10 * series, series, segment=64)) == pytest.approx(2.0, abs=1e-4)
    assert float(psd_shape(10 * series, series, segment=64)) == pytest.approx(0.0, abs=1e-6)
    assert float(psd(series, series + 3, segment=64)) == pytest.approx(0.0, abs=1e-6)


def test_objectives_add_up_by_their_weights():
    prediction, target = pair("mse")
    both = combined((2.0, "mse"), (0.5, objective("psd_shape", segment=8)))
    expected = 2 * mse(prediction, target) + 0.5 * psd_shape(prediction, target, segment=8)
    torch.testing.assert_close(both(prediction, target), expected)
    assert torch.isfinite(torch.func.grad(both)(prediction, target)).all()
    with pytest.raises(ObjectiveError, match="mse: prediction is in 'mV'"):
        checked(combined((1.0, "fc_rmse"), (1.0, both)), "mV", "V")
    assert checked(combined((1.0, "fc_rmse")), "mV", "V")
    for wrong in ((), ((math.nan, "mse"),)):
        with pytest.raises(ObjectiveError, match="combined"):
            combined(*wrong)
    with pytest.raises(UnknownNameError, match="did you mean 'rmse'"):
        combined((1.0, "rmsee"))


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("fcd_wasserstein", {"window": 12, "step": 5}, "16 samples; two windows of 12, 5 apart"),
        ("fcd_wasserstein", {"window": 1}, "at least 2 and 1 samples"),
        ("psd", {"segment": 17}, "16 samples, fewer than a segment of 17"),
        ("psd", {"segment": 2}, "at least 4 samples"),
        ("gaussian_likelihood", {"sigma": 0.0}, "sigma is 0.0; must be above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, settings, text):
    with pytest.raises(ObjectiveError, match=text):
        objective(name, **settings)(*pair(name))


def test_a_setting_that_an_objective_has_not_is_refused():
    with pytest.raises(ValueError, match="segmnt"):
        objective("psd", segmnt=8)


@pytest.mark.parametrize("target", [torch.zeros(4), torch.zeros(3, dtype=torch.int64)])
def test_cross_entropy_refuses_targets_that_are_no_class_numbers(target):
    with pytest.raises(ObjectiveError, match="class numbers"):
        cross_entropy(torch.full((4, 2), 0.5), target)

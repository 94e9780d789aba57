"""`Fitter`: what it recovers, that it goes on bit for bit, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainer.dynamics import Connectome, Network, Param, Simulator, bounded, positive
from trainer.dynamics.coupling import Diffusive
from trainer.dynamics.nodes import Hopf, JansenRit, Linear
from trainer.dynamics.noise import Gaussian
from trainer.dynamics.simulator import SimulationError
from trainer.fitting import Fitter, FittingError
from trainer.objectives import OBJECTIVES
from trainer.series import functional_connectivity, upper_triangle

MSE, RMSE = OBJECTIVES.get("mse"), OBJECTIVES.get("rmse")


class Line(nn.Module):
    """slope · x + offset at ten places, of which the offset is a constant."""

    places = torch.linspace(0, 1, 10)

    def __init__(self, slope: float | Param, level: Param | None = None) -> None:
        super().__init__()
        self.slope = slope if isinstance(slope, Param) else Param(slope)
        self.level = level or Param(0.5, transform=positive())
        self.fixed = Param(1.0, fit=False)
        self.offset = 0.25

    def forward(self) -> Tensor:
        return self.slope.value() * self.places + self.level.value() + self.offset


def line(module: nn.Module) -> Tensor:
    return module()


TARGET = 2.0 * Line.places + 1.0 + 0.25


class Radius:
    """The amplitude of a Hopf oscillator after its transient, and of a whole generation."""

    def __init__(self, start: float = 0.1, dtype: torch.dtype = torch.float32, engine="compiled"):
        self.network = Network(Hopf(a=Param(start, transform=positive()), w=0.3), nodes=1)
        if dtype is torch.float64:
            self.network.double()
        self.simulator = Simulator(
            self.network, 0.1, scheme="exponential_euler", engine=engine, dtype=dtype
        )

    def run(self, **arguments) -> Tensor:
        run = self.simulator.run(300, transient=150, start={"x": 0.5}, monitors=("x",), **arguments)
        return math.sqrt(2) * run["x"].square().mean(1).sqrt()

    def one(self, _: nn.Module) -> Tensor:
        return self.run()[0]

    def many(self, values) -> Tensor:
        return self.run(values={name: value[:, None] for name, value in values.items()})

    def of(self, a: float) -> Tensor:
        with torch.no_grad():
            return self.run(values={"node.a": a})[0]


@pytest.fixture(scope="module")
def radius() -> Radius:
    return Radius()


RECOVERIES = {
    "adam": {"steps": 80, "learning_rate": 0.1},
    "lbfgs": {"steps": 8, "learning_rate": 0.5},
    "nelder_mead": {"steps": 40},
    "powell": {"steps": 60},
    "differential_evolution": {"steps": 12, "population": 12},
    "cma_es": {"steps": 12, "population": 8},
    "one_plus_one": {"steps": 40, "population": 2},
    "particle_swarm": {"steps": 60, "population": 12},
}
SLOW = {"particle_swarm", "differential_evolution"}


@pytest.mark.parametrize(
    "method",
    [pytest.param(each, marks=pytest.mark.slow if each in SLOW else ()) for each in RECOVERIES],
)
def test_the_bifurcation_parameter_of_hopf_is_recovered_within_1_percent(method, radius):
    radius.network.node.a.assign(0.1)
    target = radius.of(1.5)
    assert target.item() == pytest.approx(math.sqrt(1.5), rel=0.01)  # the radius in theory
    fitter = Fitter(radius.network, radius.one, MSE, predict_many=radius.many)
    result = fitter.fit(target, method=method, **RECOVERIES[method])
    assert result.values["node.a"].item() == pytest.approx(1.5, rel=0.01)
    assert result.loss == min(each.loss for each in result.history)
    # The module is left at the best, to the last bit.
    assert MSE(radius.one(radius.network), target).item() == pytest.approx(result.loss, abs=1e-12)
    assert torch.equal(radius.network.node.a.value(), result.values["node.a"])


def test_the_gradient_of_the_amplitude_loss_has_its_known_value():
    radius = Radius(0.8, torch.float64)
    target = radius.of(1.5)
    loss = Fitter(radius.network, radius.one, MSE).loss(target)
    loss.backward()
    # d loss / d a, through the softplus.
    raw = radius.network.node.a.raw
    slope = raw.grad / torch.sigmoid(raw)
    assert slope.item() == pytest.approx(-0.36418, abs=2e-4)
    step = 1e-4
    losses = [MSE(radius.of(0.8 + side), target).item() for side in (step, -step)]
    assert slope.item() == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("method", ["adam", "differential_evolution"])
@pytest.mark.slow
def test_the_synapses_of_jansen_rit_are_recovered_within_half_a_percent(method):
    gradient = method == "adam"
    c = Param(115.0, transform=None if gradient else bounded(110, 170))
    network = Network(JansenRit(c=c), nodes=1)
    simulator = Simulator(network, 0.1, scheme="exponential_euler", engine="compiled")

    def strength(**arguments) -> Tensor:
        run = simulator.run(600, transient=200, inputs={"E": 0.22}, monitors=("eeg",), **arguments)[
            "eeg"
        ]
        return (run - run.mean(1, keepdim=True)).square().mean(1).sqrt()

    with torch.no_grad():
        target = strength(values={"node.c": 150.0})[0]
    assert target.item() == pytest.approx(4.3312, abs=0.01)
    fitter = Fitter(
        network,
        lambda _: strength()[0],
        MSE,
        predict_many=lambda values: strength(values={"node.c": values["node.c"][:, None]}),
    )
    settings = (
        {"steps": 60, "learning_rate": 2.0, "schedule": "cosine"}
        if gradient
        else {
            "steps": 8,
            "population": 12,
        }
    )
    result = fitter.fit(target, method=method, **settings)
    assert result.values["node.c"].item() == pytest.approx(150, rel=0.005)


class Relaxation(nn.Module):
    """tau r' = −r + g tanh(1), from 0, by 50 steps of Euler."""

    def __init__(self) -> None:
        super().__init__()
        self.g = Param(0.5)

    def forward(self) -> Tensor:
        rate, rows = torch.zeros(1), []
        for _ in range(50):
            rate = rate + 1.0 / 10.0 * (-rate + self.g.value() * math.tanh(1.0))
            rows.append(rate)
        return torch.stack(rows)


def test_a_fit_equals_a_loop_written_by_hand_bit_for_bit():
    with torch.no_grad():
        model = Relaxation()
        model.g.assign(2.0)
        target = model()
    fitted = Relaxation()
    steps = 60
    result = Fitter(fitted, line, MSE).fit(target, method="adam", steps=steps, learning_rate=0.1)
    by_hand, losses = Relaxation(), []
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = MSE(by_hand(), target)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    assert [each.loss for each in result.history][:steps] == losses
    assert result.history[-1].loss == MSE(by_hand(), target).item()
    assert result.values["g"].item() == pytest.approx(2.0, rel=0.01)


def test_restarts_agree_and_their_spread_says_how_well():
    result = Fitter(Line(0.0), line, MSE).fit(
        TARGET, method="adam", steps=200, learning_rate=0.1, restarts=4, tolerance=1e12, seed=3
    )
    assert len(result.restarts) == 4
    values = torch.stack([each.values["slope"] for each in result.restarts])
    assert torch.equal(result.spread["slope"], values.std(dim=0))
    assert values.tolist() == pytest.approx([2.0] * 4, abs=0.25)
    assert result.loss == min(each.loss for each in result.restarts)
    again = Fitter(Line(0.0), line, MSE).fit(
        TARGET, method="adam", steps=200, learning_rate=0.1, restarts=4, tolerance=1e12, seed=3
    )
    assert again.history == result.history
    other = Fitter(Line(0.0), line, MSE).fit(TARGET, steps=2, restarts=2, seed=4)
    assert other.history[-1].loss != again.history[-1].loss
    assert other.spread["slope"] is None or other.spread["slope"] > 0


def test_patience_ends_a_start():
    result = Fitter(Line(2.0, Param(1.0)), line, MSE).fit(
        TARGET, method="sgd", steps=50, learning_rate=0.0, patience=3
    )
    assert result.restarts[0].ended == "no lower loss in 3 steps"
    assert len(result.history) == 4
    search = Fitter(Line(2.0, Param(1.0)), line, MSE).fit(
        TARGET, method="one_plus_one", steps=200, population=2, patience=3
    )
    assert search.restarts[0].ended == "no lower loss in 3 steps"
    assert len(search.history) == 8


def test_a_caller_may_end_a_start():
    for method in ("adam", "nelder_mead", "cma_es"):
        result = Fitter(Line(0.0), line, MSE).fit(
            TARGET, method=method, steps=30, population=4, on_step=lambda each: each.step == 5
        )
        assert "ended by the caller" in result.restarts[0].ended
        assert len(result.history) == (8 if method == "cma_es" else 5)


def explodes_above(limit: float):
    def predict(module: nn.Module) -> Tensor:
        if module.slope.value().item() > limit:
            raise SimulationError("the trajectory explodes: x of 'node 0'")
        return module()

    return predict


@pytest.mark.parametrize("method", ["adam", "nelder_mead", "differential_evolution"])
def test_a_start_that_explodes_says_why_and_the_others_go_on(method):
    result = Fitter(Line(30.0), explodes_above(20.0), MSE).fit(
        TARGET, method=method, steps=40, learning_rate=0.5, restarts=2, spread=200.0, seed=0
    )
    first = result.restarts[0]
    if method == "adam":
        assert first.ended == "step 1: the trajectory explodes: x of 'node 0'"
        assert math.isinf(first.loss)
        assert not first.values
    assert math.isfinite(result.loss)
    with pytest.raises(FittingError, match="no start has a finite loss"):
        Fitter(Line(30.0), explodes_above(-math.inf), MSE).fit(TARGET, method=method, steps=3)


def test_what_is_not_a_param_stays_and_nothing_to_fit_is_an_error():
    model = Line(0.0)
    assert list(Fitter(model, line, MSE).params) == ["slope", "level"]
    Fitter(model, line, MSE).fit(TARGET, steps=5)
    assert model.offset == 0.25
    assert model.fixed.value().item() == 1.0
    assert list(Fitter(model, line, MSE).fit(TARGET, steps=1).values) == ["slope", "level"]
    with pytest.raises(FittingError, match="nothing to fit"):
        Fitter(nn.Linear(2, 2), line, MSE)


def test_a_constraint_holds_where_its_numbers_underflow():
    """A softplus of −200 is 0, which is no value of a positive Param."""
    model = Line(0.0, Param(1e-30, transform=positive()))
    result = Fitter(model, line, MSE).fit(
        torch.full((10,), -5.0), method="powell", steps=60, restarts=1
    )
    assert math.isfinite(result.loss)
    assert result.loss == MSE(model(), torch.full((10,), -5.0)).item()


RESUMED = {
    "adam": {"steps": 70, "learning_rate": 0.1, "schedule": "cosine", "restarts": 2},
    "rmsprop": {"steps": 45, "learning_rate": 0.05},
    "nelder_mead": {"steps": 50, "restarts": 2},
    "cma_es": {"steps": 12, "population": 6, "restarts": 2},
    "differential_evolution": {"steps": 8, "population": 8},
}


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("method", RESUMED)
def test_a_stopped_fit_goes_on_to_the_same_end(method, tmp_path: Path):
    def fit(path: Path, stop: int | None):
        count = 0

        def on_step(_) -> None:
            nonlocal count
            count += 1
            if count == stop:
                raise _Stopped

        return Fitter(Line(0.0), line, MSE).fit(
            TARGET, method=method, checkpoint=path, on_step=on_step, **RESUMED[method]
        )

    whole = fit(tmp_path / "whole", None)
    for stop in (7, 41):
        path = tmp_path / f"stopped {stop}"
        with pytest.raises(_Stopped):
            fit(path, stop)
        resumed = fit(path, None)
        assert resumed.history == whole.history
        assert resumed.restarts[0].ended == whole.restarts[0].ended
        assert all(torch.equal(resumed.values[name], whole.values[name]) for name in whole.values)
        assert path.read_bytes() == (tmp_path / "whole").read_bytes()
    assert fit(tmp_path / "whole", 1).history == whole.history  # nothing is left to evaluate


def test_a_checkpoint_of_another_fit_or_a_damaged_one_is_refused(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    Fitter(Line(0.0), line, MSE).fit(TARGET, steps=5, checkpoint=path)
    for changed in ({"steps": 6}, {"steps": 5, "seed": 1}, {"steps": 5, "method": "sgd"}):
        with pytest.raises(FittingError, match="left by another fit"):
            Fitter(Line(0.0), line, MSE).fit(TARGET, checkpoint=path, **changed)
    with pytest.raises(FittingError, match="left by another fit"):
        Fitter(Line(0.5), line, MSE).fit(TARGET, steps=5, checkpoint=path)
    with pytest.raises(FittingError, match="left by another fit"):
        Fitter(Line(0.0), line, MSE).fit(0.5 * TARGET, steps=5, checkpoint=path)
    data = path.read_bytes()
    for damaged in (b"", b"no checkpoint", data[: len(data) // 2], b"{}" + data):
        path.write_bytes(damaged)
        with pytest.raises(FittingError, match="is no checkpoint of a fit"):
            Fitter(Line(0.0), line, MSE).fit(TARGET, steps=5, checkpoint=path)
    with pytest.raises(FittingError, match="lbfgs keeps too much"):
        Fitter(Line(0.0), line, MSE).fit(
            TARGET, method="lbfgs", steps=5, checkpoint=tmp_path / "other"
        )


def test_a_stopped_search_in_batches_goes_on_with_whole_ones(tmp_path: Path):
    def fit(path: Path, stop: int | None):
        sizes = []

        def many(values) -> Tensor:
            sizes.append(len(values["slope"]))
            # As a run whose sums depend on how many run together.
            slope, level = values["slope"][:, None], values["level"][:, None]
            return slope * Line.places + level + 0.25 + 1e-3 * sizes[-1]

        def on_step(_) -> None:
            if stop == len(sizes) * 7:
                raise _Stopped

        fitter = Fitter(Line(0.0), line, MSE, predict_many=many)
        settings = {"method": "differential_evolution", "steps": 6, "population": 7}
        return fitter.fit(TARGET, checkpoint=path, on_step=on_step, **settings)

    whole = fit(tmp_path / "whole", None)
    # The checkpoint holds 20 evaluations: two generations and 6 of the third one's 7.
    with pytest.raises(_Stopped):
        fit(tmp_path / "stopped", 28)
    assert fit(tmp_path / "stopped", None).history == whole.history


@pytest.mark.parametrize("method", ["cma_es", "differential_evolution", "nelder_mead"])
def test_a_generation_in_one_batch_equals_one_by_one(method, radius):
    target, found = radius.of(1.5), []
    for many in (radius.many, None):
        radius.network.node.a.assign(0.1)
        fitter = Fitter(radius.network, radius.one, MSE, predict_many=many)
        found.append(fitter.fit(target, method=method, steps=4, population=6, seed=5))
    together, alone = ([each.loss for each in result.history] for result in found)
    assert len(together) == (4 if method == "nelder_mead" else 24)
    # A batch sums in another order.
    assert together == pytest.approx(alone, rel=1e-3, abs=1e-6)


MISTAKES = {
    "method": ({"method": "adamm"}, "method 'adamm' is none of adam, "),
    "steps": ({"steps": 0}, "steps 0"),
    "restarts": ({"restarts": 0}, "restarts 0: at least 1"),
    "population": ({"population": 1}, "population 1"),
    "schedule": ({"schedule": "cosin"}, "schedule 'cosin' is none of constant, cosine"),
    "rates": ({"rates": {"slop": 2.0}}, "'slop' matches no parameter; there are slope, level"),
    "lbfgs": ({"method": "lbfgs", "rates": {"slope": 2.0}}, "lbfgs has one learning rate"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_wrong_arguments_are_refused(case):
    arguments, expected = MISTAKES[case]
    with pytest.raises(FittingError, match=expected):
        Fitter(Line(0.0), line, MSE).fit(TARGET, **arguments)


def test_rates_scale_the_steps_of_the_parameters_that_a_pattern_names():
    model = Line(0.0, Param(0.5))
    Fitter(model, line, MSE).fit(
        TARGET, method="sgd", steps=1, learning_rate=0.1, rates={"sl*": 0.5, "*": 2.0}
    )
    plain = Line(0.0, Param(0.5))
    loss = MSE(plain(), TARGET)
    slope, level = torch.autograd.grad(loss, [plain.slope.raw, plain.level.raw])
    assert model.slope.value().item() == pytest.approx(-0.1 * slope.item(), rel=1e-6)
    assert model.level.value().item() == pytest.approx(0.5 - 0.2 * level.item(), rel=1e-6)


def test_a_loss_without_a_gradient_and_a_penalty():
    with pytest.raises(FittingError, match="no gradient in any Param"):
        Fitter(Line(0.0), lambda module: module().detach(), MSE).fit(TARGET, steps=2)
    held = Fitter(
        Line(0.0), line, MSE, penalty=lambda module: 100 * module.slope.value().square()
    ).fit(TARGET, steps=300, learning_rate=0.05)
    assert abs(held.values["slope"].item()) < 0.1


# --- networks of 80 regions, driven by noise ---------------------------------------------------

REGIONS = 80


def brain(k: Param | float, a: Param | Tensor | float, *, dtype=torch.float32) -> Simulator:
    """Noisy linear nodes on a made-up connectome of 80 regions."""
    draws = torch.Generator().manual_seed(1)
    weights = torch.rand(REGIONS, REGIONS, generator=draws).pow(4)
    weights = (weights + weights.mT) / 2
    weights.fill_diagonal_(0)
    weights = weights / weights.sum(1).max()
    network = Network(
        Linear(gamma=a),
        Connectome(weights.double().numpy()),
        coupling=Diffusive(k=k),
        noise=Gaussian(sigma=0.1),
    )
    return Simulator(network, 0.5, scheme="euler", engine="compiled", dtype=dtype)


def readout(simulator: Simulator, seed: int, duration: float, **arguments) -> Tensor:
    """Log variances of the nodes beside their functional connectivity, over ten members."""
    run = simulator.run(
        duration, transient=100, sample_every=4, seed=seed, monitors=("x",), **arguments
    )["x"]
    variance = run.var(dim=1).mean(0).log()
    return torch.cat([variance, upper_triangle(functional_connectivity(run)).mean(0)])


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "tolerance"), [(1, 0.01), (2, 0.05)])
def test_the_global_coupling_of_80_regions_is_recovered(seed, tolerance):
    simulator = brain(Param(0.02, transform=positive()), -0.1)
    with torch.no_grad():
        target = readout(simulator, 1, 2000, batch_size=8, values={"coupling.k": 0.2})
    result = Fitter(
        simulator.network, lambda _: readout(simulator, seed, 2000, batch_size=8), RMSE
    ).fit(target, steps=40, learning_rate=0.3, schedule="cosine")
    assert result.values["coupling.k"].item() == pytest.approx(0.2, rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "tolerance"), [(1, 0.01), (2, 0.1)])
def test_the_parameters_of_80_regions_are_recovered(seed, tolerance):
    simulator = brain(0.05, Param(torch.full((REGIONS,), -0.1)))
    truth = -0.1 - 0.1 * torch.rand(REGIONS, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        target = readout(simulator, 1, 2000, batch_size=8, values={"node.gamma": truth})
    result = Fitter(
        simulator.network, lambda _: readout(simulator, seed, 2000, batch_size=8), RMSE
    ).fit(target, steps=80, learning_rate=0.01, schedule="cosine")
    error = (result.values["node.gamma"] - truth) / truth
    assert error.square().mean().sqrt().item() < tolerance

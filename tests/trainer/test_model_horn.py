"""`horn`, oscillators that classify windows, and `gru_classifier`, which it is compared with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from contexts import answered_windows, classify_context, rows_of
from pydantic import ValidationError

from artifact import batching
from artifact.model import load
from artifact.providers import session_options
from trainer import cli
from trainer.dynamics import Simulator
from trainer.graph import to_onnx
from trainer.models import build_model
from trainer.models.horn_layer import SCHEME, HornLayer

UNIT = {"alpha": 0.2, "omega": 0.3, "gamma": 0.05, "v": 0.4}
VARIANTS = {
    "one layer": {},
    "two layers": {"hidden_sizes": [6, 4]},
    "differ": {"spread": 0.5},
    "fitted": {"spread": 0.5, "fit": ["alpha", "omega", "gamma", "v"]},
    "delays": {"delay": 5.0},
    "all": {"hidden_sizes": [5, 4], "layer_delay": 3.0, "delay": 4.0, "spread": 0.3, "fit": ["v"]},
}
CONFIG = Path(__file__).parents[2] / "configs" / "delayed_match.yaml"


def layer(units=5, inputs=2, **settings):
    torch.manual_seed(0)
    return HornLayer(inputs, units, values=UNIT, **settings)


def model(**settings):
    torch.manual_seed(0)
    settings = {"hidden_sizes": [6], "alpha": 0.2, **settings}
    return build_model({"name": "horn", **settings}, classify_context(3, 1, dim=0))


def perturbed(module):
    """Noise on every weight, so that biases and feedback are not 0; delays stay whole steps."""
    with torch.no_grad():
        for number, weight in enumerate(module.parameters()):
            weight.add_(0.05 * signal(*weight.shape, seed=number))
    return module.eval()


def signal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_the_single_runs(variant):
    module = perturbed(model(**VARIANTS[variant]))
    (rows,) = rows_of(classify_context(3, 1, dim=0), 4).values()
    with torch.no_grad():
        together = module(rows)
        alone = torch.cat([module(rows[k : k + 1]) for k in range(4)])
    assert float((together - alone).abs().max()) < 1e-6
    assert float((together[0] - together[1]).abs().max()) > 1e-4


def test_every_minibatch_starts_at_rest():
    module = model(delay=3.0)
    (rows,) = rows_of(classify_context(3, 1, dim=0), 4).values()
    before = {name: each.clone() for name, each in module.state_dict().items()}
    first = module(rows)
    module(10 * rows[:2])
    assert torch.equal(module(rows), first)
    assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())


def test_the_layer_reads_velocities_of_the_step_before():
    units = layer(units=3, inputs=1).double()
    drive = signal(1, 4, 1).double()
    x = y = torch.zeros(1, 3, dtype=torch.float64)
    weights, bias = units.network.weights.value(), units.network.coupling.b.value()
    found = units(drive)
    for step in range(4):
        current = units.project(drive[:, step]) + y @ weights.T + bias
        push = UNIT["alpha"] * torch.tanh(current + UNIT["v"] * x)
        y = y + push - UNIT["omega"] ** 2 * x - 2 * UNIT["gamma"] * y
        x = x + y
        torch.testing.assert_close(found[:, step], x, rtol=0, atol=1e-12)


def test_delays_are_those_of_each_pair():
    units = layer(units=4, inputs=3, delay=6.0, input_delay=5.0, bias=False).double()
    assert units.steps.min() == 0
    assert units.steps.max() <= 6
    drive = signal(2, 12, 3).double()
    weights, ahead = units.network.weights.value(), units.project.weight
    x = [torch.zeros(2, 4, dtype=torch.float64)]
    y = [x[0]]
    found = units(drive)
    for step in range(12):
        current = units.project.bias.expand(2, 4).clone()
        for i in range(4):
            for j in range(4):
                late = step - units.steps[i, j]
                current[:, i] += weights[i, j] * (y[late][:, j] if late >= 0 else 0)
            for j in range(3):
                late = step - units.input_steps[i, j]
                current[:, i] += ahead[i, j] * (drive[:, late, j] if late >= 0 else 0)
        push = UNIT["alpha"] * torch.tanh(current + UNIT["v"] * x[-1])
        y.append(y[-1] + push - UNIT["omega"] ** 2 * x[-1] - 2 * UNIT["gamma"] * y[-1])
        x.append(x[-1] + y[-1])
        torch.testing.assert_close(found[:, step], x[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"delay": 3.0, "input_delay": 2.0}])
def test_gradients_of_every_weight(settings):
    units = layer(units=3, inputs=2, fit=("alpha", "omega", "gamma", "v"), **settings).double()
    names = [name for name, _ in units.named_parameters()]
    drive = signal(2, 6, 2).double().requires_grad_()
    weights = [each.detach().clone().requires_grad_() for each in units.parameters()]

    def positions(drive, *weights):
        return torch.func.functional_call(units, dict(zip(names, weights, strict=True)), (drive,))

    assert torch.autograd.gradcheck(positions, (drive, *weights))


def test_only_what_is_asked_for_is_fitted():
    weights = {"project.weight", "project.bias", "network.weights.raw", "network.coupling.b.raw"}
    assert {name for name, _ in layer().named_parameters()} == weights
    assert {name for name, _ in layer(bias=False).named_parameters()} == weights - {
        "network.coupling.b.raw"
    }
    fitted = dict(layer(spread=0.5, fit=("omega",)).named_parameters())
    assert fitted.keys() == weights | {"network.node.omega.raw"}
    values = layer(spread=0.5, fit=("omega",)).network.values()
    assert values["node.omega"].shape == values["node.alpha"].shape == (5,)
    assert values["node.v"] == UNIT["v"]
    omega = values["node.omega"].detach().numpy()
    assert np.ptp(omega) > 0.01
    assert np.abs(omega / UNIT["omega"] - 1).max() <= 0.5


def test_draws_are_of_the_settings_and_not_of_the_weights_seed():
    torch.manual_seed(1)
    other = HornLayer(2, 5, values=UNIT, spread=0.5, delay=4.0)
    own = layer(spread=0.5, delay=4.0)
    assert np.array_equal(other.steps, own.steps)
    assert torch.equal(other.network.node.omega, own.network.node.omega)
    assert not torch.equal(other.project.weight, own.project.weight)
    assert not np.array_equal(layer(delay=4.0, seed=1).steps, own.steps)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_graph_is_one_scan_a_layer_and_answers_the_same(variant):
    context = classify_context(3, 1, dim=0)
    module = perturbed(model(**VARIANTS[variant]))
    graph = to_onnx(module, context)
    session = onnxruntime.InferenceSession(graph, session_options())
    rows = rows_of(context, 5)
    with torch.no_grad():
        expected = module(*rows.values()).numpy()
    arrays = {name: value.numpy() for name, value in rows.items()}
    np.testing.assert_allclose(session.run(None, arrays)[0], expected, rtol=0, atol=2e-6)

    def answer(feed):
        return {"answer": session.run(None, dict(feed))[0]}

    assert batching.probe(answer, arrays).sizes == batching.BATCH_SIZES
    assert graph.count(b"Scan") >= len(module.layers)


@pytest.mark.slow
def test_the_compiled_engine_gives_the_same_answers_and_gradients():
    found = {}
    for engine in ("plain", "compiled"):
        units = layer(units=8, spread=0.5, fit=("omega",), delay=3.0)
        drive = units.current(signal(6, 30, 2))
        simulator = Simulator(units.network, 1.0, scheme=SCHEME, engine=engine)
        x = simulator.run(30.0, inputs={"I": drive}, monitors=("x",))["x"]
        x[:, -1].square().sum().backward()
        found[engine] = [x.detach(), *(each.grad for each in units.parameters())]
    for plain, compiled in zip(found["plain"], found["compiled"], strict=True):
        scale = float(plain.abs().max())
        torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"hidden_sizes": []}, "hidden_sizes"),
        ({"hidden_sizes": [0]}, "hidden_sizes"),
        ({"alpha": 0.0}, "alpha"),
        ({"spread": 1.0}, "spread"),
        ({"fit": ["beta"]}, "fit"),
        ({"delay": -1.0}, "delay"),
        ({"engine": "fast"}, "engine"),
    ],
)
def test_settings_out_of_range_are_named(settings, text):
    with pytest.raises(ValidationError, match=text):
        model(**settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"omega": 1.5}, r"model.omega: 1.5 rad/ms with steps of 1 ms; must be below 1.41"),
        ({"omega": 1.0, "spread": 0.5}, r"model.omega: 1.5 rad/ms"),
        ({"dt": 10.0}, r"model.omega: 0.224399 rad/ms with steps of 10 ms; must be below 0.141"),
        ({"gamma": 0.6}, r"model.gamma: 0.6 /ms .* must be below 0.5"),
    ],
)
def test_units_that_would_explode_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        model(**settings)


@pytest.mark.parametrize("name", ["horn", "gru_classifier"])
def test_a_few_steps_learn_the_train_windows(name):
    torch.manual_seed(0)
    context = classify_context(4, 1, dim=0)
    windows = answered_windows(context, 60)
    module = build_model({"name": name}, context)
    neural = torch.from_numpy(windows.batch(slice(None)).inputs["neural"])
    targets = torch.from_numpy(windows.targets)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-2)
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.nll_loss(torch.log(module(neural) + 1e-9), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_a_horn_and_the_gru_of_the_benchmark_have_equally_many_parameters():
    context = dataclasses.replace(classify_context(1, 1, steps=64, dim=0), classes=10)
    counts = [
        sum(each.numel() for each in build_model({"name": name}, context).parameters())
        for name in ("horn", "gru_classifier")
    ]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [(), ("--model.delay", "4", "--model.spread", "0.5")])
def test_delayed_match_is_learnt_by_epoch_12_and_becomes_an_artifact(tmp_path, changed):
    output = tmp_path / "run"
    assert cli.main(["train", str(CONFIG), "--output", str(output), *changed]) == 0
    manifest = json.loads((output / "artifact" / "manifest.json").read_text())
    card = (output / "artifact" / "README.md").read_text()
    assert "Classes, in this order: `other`, `same`." in card
    assert manifest["metrics"]["epoch"] <= 12
    assert manifest["metrics"]["test_accuracy"] == 1.0
    (certificate,) = manifest["determinism"]["certificate"]
    assert certificate["batch_sizes"] == list(batching.BATCH_SIZES)
    # Loading checks the golden rows.
    served = load(output / "artifact")
    cue = np.zeros((2, 8, 2, 1), np.float32)
    cue[:, 0, 0] = 1
    cue[[0, 1], -1, [0, 1]] = 1
    answer = served.predict({"neural": cue})["probability"]
    assert answer.argmax(axis=1).tolist() == [1, 0]

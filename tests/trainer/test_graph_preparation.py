"""The graph's preparation: numpy, torch, ONNX Runtime and an artifact give the same numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import forecast_context
from hypothesis import given, settings
from hypothesis import strategies as st

import artifact
from artifact import providers
from recording.contract import Channel, Recording, Series
from recording.plan import cut, window_values
from recording.preparation import Preparation, evaluate, parse_steps
from recording.preparation.operations import Clip, Project, Scale, Take
from trainer.config import RunConfig
from trainer.data.building import build_recordings
from trainer.data.windows import Dataset, forecast_specs
from trainer.export import export_artifact
from trainer.graph import to_onnx
from trainer.graph_preparation import WithPreparation
from trainer.models import build_model
from trainer.registry import Registry

CHANNELS, STEPS = 5, 6
SPECIAL = np.array([0.0, -0.0, 1e-40, -1e-40, 3.4e38, -3.4e38, 1 / 3, 300.0], np.float32)


class Prepared(torch.nn.Module):
    """Feature 0 of what it gets."""

    def forward(self, neural: torch.Tensor) -> torch.Tensor:
        return neural[..., 0]


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def windows(rows: int = 9, seed: int = 0) -> np.ndarray:
    """Windows (batch, time, channel, 1) with values that are easily got wrong."""
    random = np.random.default_rng(seed)
    values = random.normal(300, 100, (rows, STEPS, CHANNELS, 1)).astype(np.float32)
    values.reshape(-1)[::3] = random.choice(SPECIAL, values.size // 3)
    return values


def in_torch(operations, values: np.ndarray) -> np.ndarray:
    module = WithPreparation(operations, Prepared()).eval()
    with torch.no_grad():
        return module(torch.from_numpy(values)).numpy()


def in_onnx(operations, *batches: np.ndarray) -> list[np.ndarray]:
    """What the exported graph answers to each batch."""
    prepared = evaluate(operations, batches[0])
    _, outputs = forecast_specs(steps=STEPS, channels=prepared.shape[2], features=1, unit="raw")
    context = replace(forecast_context(CHANNELS, steps=STEPS, observed=3), outputs=outputs)
    graph = to_onnx(WithPreparation(operations, Prepared()), context)
    session = providers.create_session(graph)
    return [session.run(["forecast"], {"neural": values})[0] for values in batches]


EXACT = {
    "take": [Take((3, 0, 3, 2))],
    "scale": [Scale(column(0, 1, -5, 1 / 3, 4200), column(1e6, 1e-7, 0.1, 1 / 3, -2))],
    "clip": [Clip(column(-0.0, 0, 290, -np.inf, -1e30), column(0, 310, 300, 0, np.inf))],
    "all": [
        Scale(column(*[0] * 5), column(*[1e-3] * 5)),
        Take((4, 1, 0)),
        Clip(column(-0.1, 0, 0.25), column(0.25, 0.3, np.inf)),
        Scale(column(0.1, 0.2, 0.3), column(3, 7, 11)),
    ],
}


@pytest.mark.parametrize("name", EXACT)
def test_taking_scaling_and_clipping_agree_bit_for_bit(name):
    operations, values = EXACT[name], windows()
    wanted = evaluate(operations, values)[..., 0]
    assert wanted.dtype == np.float32
    assert in_torch(operations, values).tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "all" else pytest.mark.slow) for name in EXACT]
)
def test_the_graph_agrees_bit_for_bit(name):
    operations, values = EXACT[name], windows()
    wanted = evaluate(operations, values)[..., 0]
    together, alone = in_onnx(operations, values, values[3:4])
    assert together.tobytes() == wanted.tobytes()
    assert alone.tobytes() == wanted[3:4].tobytes()


@pytest.mark.slow
def test_mixing_channels_agrees_to_rounding():
    matrix = np.random.default_rng(1).normal(size=(CHANNELS, 3)).astype(np.float32)
    operations = [Project(matrix), Take((2, 0))]
    values = np.random.default_rng(2).normal(0, 50, (9, STEPS, CHANNELS, 1)).astype(np.float32)
    wanted = np.einsum("btcf,cd->btdf", values.astype(float), matrix.astype(float))
    wanted = wanted[:, :, [2, 0], 0]
    for found in (
        evaluate(operations, values)[..., 0],
        in_torch(operations, values),
        *in_onnx(operations, values),
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)


numbers = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60)
@given(st.data())
def test_torch_follows_any_steps(data):
    steps = data.draw(st.lists(st.sampled_from(["take", "scale", "clip"]), max_size=5))
    operations, channels = [], CHANNELS
    for kind in steps:
        draw = [
            np.array(data.draw(st.lists(numbers, min_size=channels, max_size=channels))).astype(
                np.float32
            )[:, None]
            for _ in range(2)
        ]
        if kind == "take":
            chosen = data.draw(st.lists(st.integers(0, channels - 1), min_size=1, max_size=6))
            operations.append(Take(tuple(chosen)))
            channels = len(chosen)
        elif kind == "scale":
            operations.append(Scale(draw[0], draw[1] / np.float32(1e6)))
        else:
            operations.append(Clip(np.minimum(*draw), np.maximum(*draw)))
    values = windows(3, seed=len(operations))
    wanted = evaluate(operations, values)[..., 0]
    assert in_torch(operations, values).tobytes() == wanted.tobytes()


def test_missing_values_stay_missing_and_features_are_kept():
    values = np.concatenate([windows(), windows(seed=1)], axis=3)
    values[0, 0, :, 0] = np.nan
    found = evaluate(EXACT["all"], values)
    assert found.shape == (9, STEPS, 3, 2)
    assert np.isnan(found[0, 0, :, 0]).all()
    assert in_torch(EXACT["all"], values).tobytes() == found[..., 0].tobytes()


TAIL = [
    {"step": "filter", "low": 0.5},
    {"step": "declare", "unit": "V", "factor": 0.5, "names": ["c0"]},
    {"step": "scale", "unit": "µV"},
    {"step": "clip", "around": "median", "by": 90.0},
    {"step": "drop", "names": ["c3"]},
]


def recording() -> Recording:
    values = np.random.default_rng(0).normal(0, 60, (500, 4)).astype(np.float32)
    values *= np.array([2e-6, 1, 1e-3, 1], np.float32)
    units = ("V", "µV", "mV", "µV")
    channels = tuple(Channel(f"c{i}", "eeg", unit) for i, unit in enumerate(units))
    return Recording("a.edf", "edf", "one", {"neural": Series(values, 50.0, channels)})


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return build_recordings(
        "made",
        [recording()],
        description="made",
        task="forecast",
        window=10,
        observed=5,
        preparation=parse_steps(TAIL),
    )


@pytest.mark.slow
def test_an_artifact_prepares_as_the_trainer_did(dataset, tmp_path):
    assert dataset.plan.graph_steps == 4
    assert dataset.plan.steps[3].fitted
    run = RunConfig(
        name="small",
        data={"name": "synthetic", "channels": 5, "samples": 600},
        model={"name": "persistence"},
        training={"epochs": 1, "threads": 1},
    )
    module = build_model(run.model, dataset.context())
    folder = export_artifact(module, dataset, run, {"test": {"mse": 0.5}}, tmp_path / "artifact")
    model = artifact.load(folder)
    inside, outside = dataset.test, dataset.test.outside()
    batch = inside.batch(slice(None)).inputs["neural"]
    given_ = outside.batch(slice(None)).inputs["neural"]
    assert (given_.shape[2], batch.shape[2]) == (4, 3)
    found = model.predict({"neural": given_})["forecast"]
    with torch.no_grad():
        wanted = module(torch.from_numpy(batch)).numpy()
    # Persistence gives masked inputs back: the graph's preparation is all there is.
    assert found.tobytes() == wanted.tobytes() == batch[..., 0].tobytes()
    prepared = dataset.plan.prepare(recording())
    whole = cut(prepared, dataset.plan, stride=1)
    settled = np.concatenate(list(prepared.neural.values.produce()))
    neural = prepared.neural.with_values(settled)
    again = window_values(neural, whole.starts[dataset.test.starts], dataset.plan)
    assert again.tobytes() == given_.tobytes()


def test_a_preparation_is_a_setting_of_a_data_set():
    """As `trainer.config` builds and writes settings: strict JSON in, plain JSON out."""
    registry = Registry("data set", "axonnx.none")

    @registry.register("dummy")
    def dummy(*, preparation: Preparation = (), window: int = 10) -> tuple:
        """Gives its preparation back."""
        return preparation

    form = registry.settings("dummy")
    plain = {"preparation": TAIL, "window": 20}
    made = form.model_validate_json(json.dumps(plain), strict=True)
    assert [one.step for one in made.preparation] == [step["step"] for step in TAIL]
    written = made.model_dump(mode="json")
    assert written["preparation"][0] == {
        "step": "filter",
        "low": 0.5,
        "high": None,
        "order": 4,
        "phase": "causal",
    }
    again = form.model_validate_json(json.dumps(written), strict=True)
    assert again.model_dump(mode="json") == written
    assert registry.build({"name": "dummy", "preparation": TAIL}) == parse_steps(TAIL)
    assert registry.build({"name": "dummy"}) == ()
    assert "preparation" in form.model_json_schema()["properties"]
    bad = json.dumps({"preparation": [TAIL[0], {"step": "filter", "low": 1, "order": 0}]})
    with pytest.raises(ValueError, match=r"preparation\n.*\[1\] \(filter\): order: Input should"):
        form.model_validate_json(bad, strict=True)

"""From a network to its artifact: seeds, defaults, BOLD, bytes, what stands in the way."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import artifact
from artifact import batching
from artifact.errors import InputError
from trainer.dynamics import (
    NODES,
    Additive,
    Connectome,
    Gaussian,
    Network,
    OrnsteinUhlenbeck,
    Param,
    Simulator,
    positive,
)
from trainer.dynamics.balloon import Bold
from trainer.graph import ExportError
from trainer.network_export import NetworkExport, export_network

REGIONS, DT = 4, 0.5


def network(**changes: Any) -> Network:
    generator = np.random.default_rng(5)
    weights = generator.random((REGIONS, REGIONS))
    lengths = 10 * (weights + weights.T)
    labels = ("V1", "V2", "MT", "IT")
    regions = Connectome(
        (weights + weights.T) / 2, lengths=lengths, labels=labels, name="four regions"
    )
    settings: dict[str, Any] = {
        "coupling": Additive(k=Param(0.6, transform=positive())),
        "noise": OrnsteinUhlenbeck(sigma=0.4, tau=5.0),
        "speed": 8.0,
    }
    node = changes.pop("node", None) or NODES.get("wilson_cowan")()
    return Network(node, regions, **{**settings, **changes})


def export(destination: Path, made: Network | None = None, **changes: Any) -> Path:
    settings = NetworkExport(**{"dt": DT, "amplitude": 1.0, **changes})
    return export_network(
        made or network(),
        settings,
        destination,
        name="four-regions",
        config={"name": "four-regions", "simulation": {"dt": DT}},
        metrics={"fc_correlation": 0.7},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(
        tmp_path_factory.mktemp("network") / "artifact",
        parameters=("coupling.k", "noise.0.sigma"),
        sample_every=2,
        bold=Bold(period=40.0),
        seed=3,
    )


@pytest.fixture(scope="module")
def model(folder: Path) -> artifact.Model:
    return artifact.load(folder)


def test_it_says_what_it_is(folder: Path, model: artifact.Model) -> None:
    manifest = model.manifest
    assert (manifest.task, manifest.model, manifest.name) == (
        "simulate",
        "wilson_cowan",
        "four-regions",
    )
    assert [spec.name for spec in manifest.inputs] == [
        "stimulus",
        "seed",
        "member",
        "coupling.k",
        "noise.0.sigma",
    ]
    assert [spec.default for spec in manifest.inputs[1:]] == [
        0,
        0,
        pytest.approx(0.6),
        pytest.approx(0.4),
    ]
    assert [spec.name for spec in manifest.outputs] == ["E", "I", "bold"]
    facts = manifest.provenance["simulation"]
    assert facts["labels"] == ["V1", "V2", "MT", "IT"]
    assert facts["step_ms"] == {"E": 1.0, "I": 1.0, "bold": 40.0}
    assert facts["stimulus"] == {"stimulus": "E"}
    card = (folder / "README.md").read_text()
    assert "for the task `simulate`. 4 WilsonCowan nodes on four regions." in card
    assert "| fc_correlation | 0.7 |" in card
    assert "- Steps of 0.5 ms by the scheme heun" in card
    assert "`E` 1 ms, `I` 1 ms, `bold` 40 ms" in card
    assert "- Nodes, in this order: V1, V2, MT, IT." in card
    assert "- `coupling.k` is 0.6 where it is left out." in card
    assert model.golden.identical
    policy = model.policies()[batching.row_shape(model.golden_inputs)]
    assert policy.sizes == (1, 2, 4, 8, 16)


def test_seed_and_member_give_the_run_of_the_simulator(model: artifact.Model) -> None:
    steps = 170
    stimulus = np.random.default_rng(0).normal(size=(3, steps, REGIONS)).astype(np.float32)
    coupling = np.float32([[0.3], [0.6], [0.9]])
    answer = model.predict(
        {
            "stimulus": stimulus,
            "seed": np.full(3, 21),
            "member": np.arange(4, 7),
            "coupling.k": coupling,
        }
    )
    made = network()
    simulator = Simulator(made, DT, engine="plain")
    start = artifact_start(made)
    with torch.no_grad():
        run = simulator.run(
            steps * DT,
            inputs={"E": torch.from_numpy(stimulus)},
            values={"coupling.k": torch.from_numpy(coupling)},
            state=start,
            first_member=4,
            sample_every=2,
        )
    for name in ("E", "I"):
        wanted = run[name].numpy()
        assert answer[name].shape == wanted.shape == (3, steps // 2, REGIONS)
        np.testing.assert_allclose(answer[name], wanted, rtol=0, atol=1e-4 * wanted.std())
    bold = Bold(period=40.0).observe(run["E"], 2 * DT)[0].numpy()
    assert answer["bold"].shape == bold.shape == (3, 2, REGIONS)
    np.testing.assert_allclose(answer["bold"], bold, rtol=0, atol=2e-7)


def artifact_start(made: Network) -> Any:
    """Where the artifact starts, in three rows, with the seed of the test."""
    from dataclasses import replace

    from trainer.dynamics.scan_reference import begin

    state = begin(made, DT, "heun", inputs={}, seed=3)
    assert state.history is not None
    carry = tuple(each.expand(3, -1) for each in state.carry)
    return replace(state, carry=carry, history=state.history.expand(-1, -1, 3, -1), seed=21)


def test_batches_are_rows_and_steps_are_free(model: artifact.Model) -> None:
    stimulus = np.random.default_rng(1).normal(size=(5, 90, REGIONS)).astype(np.float32)
    members = np.arange(5)
    whole = model.predict({"stimulus": stimulus, "member": members})
    for row in range(5):
        rows = slice(row, row + 1)
        alone = model.predict({"stimulus": stimulus[rows], "member": members[rows]})
        for name, values in alone.items():
            assert values.tobytes() == whole[name][rows].tobytes()
    short = model.predict({"stimulus": stimulus[:, :31], "member": members})
    assert short["E"].shape == (5, 15, REGIONS)
    assert np.array_equal(short["E"], whole["E"][:, :15])
    assert short["bold"].shape == (5, 0, REGIONS)


def test_inputs_of_other_sizes_are_refused(model: artifact.Model) -> None:
    with pytest.raises(InputError, match="axis node has 5; must have 4"):
        model.predict({"stimulus": np.zeros((1, 10, 5), np.float32)})
    one = np.zeros(1, np.float32)
    endless = np.lib.stride_tricks.as_strided(one, (1, 20_000_000, REGIONS), (0, 0, 0))
    with pytest.raises(InputError, match="a row holds more than 67108864 values"):
        model.predict({"stimulus": endless})


def test_noise_itself_may_be_the_input_and_runs_may_carry_on(tmp_path: Path) -> None:
    made = network(noise=Gaussian(sigma=0.05))
    loaded = artifact.load(
        export(tmp_path / "a", made, noise="input", carries_on=True, transient=20.0)
    )
    assert [spec.name for spec in loaded.manifest.inputs] == ["stimulus", "noise", "state"]
    generator = np.random.default_rng(2)
    feed = {
        "stimulus": generator.normal(size=(2, 30, REGIONS)),
        "noise": generator.normal(size=(2, 30, 1, REGIONS)),
        "state": loaded.golden_inputs["state"][:2],
    }
    feed = {name: values.astype(np.float32) for name, values in feed.items()}
    whole = loaded.predict(feed)
    begun = loaded.predict({n: v if n == "state" else v[:, :12] for n, v in feed.items()})
    rest = {n: begun["final_state"] if n == "state" else v[:, 12:] for n, v in feed.items()}
    ended = loaded.predict(rest)
    assert np.array_equal(np.concatenate([begun["E"], ended["E"]], axis=1), whole["E"])
    assert np.array_equal(ended["final_state"], whole["final_state"])
    # A transient moves the start away from where the node would begin.
    assert np.abs(feed["state"][0, :REGIONS]).max() > 0


def test_a_network_without_noise_and_with_a_parameter_per_node(tmp_path: Path) -> None:
    made = Network(NODES.get("hopf")(a=torch.linspace(0.1, 0.4, 3)), nodes=3)
    settings = NetworkExport(
        dt=0.5, parameters=("node.a",), inputs={"y": 0.01}, driven=("x", "y"), monitors=("x",)
    )
    loaded = artifact.load(
        export_network(made, settings, tmp_path / "hopf", name="hopf", config={"name": "hopf"})
    )
    specs = {spec.name: spec for spec in loaded.manifest.inputs}
    assert list(specs) == ["stimulus.x", "stimulus.y", "node.a"]
    assert specs["node.a"].layout == "(batch, node=3)"
    assert specs["node.a"].default is None
    zeros = np.zeros((1, 40, 3), np.float32)
    feed = {"stimulus.x": zeros, "stimulus.y": zeros, "node.a": np.float32([[0.1, 0.2, 0.4]])}
    answer = loaded.predict(feed)["x"]
    with torch.no_grad():
        run = Simulator(made, 0.5, engine="plain").run(
            20.0, inputs={"y": 0.01}, values={"node.a": torch.from_numpy(feed["node.a"])}
        )
    np.testing.assert_allclose(answer, run["x"].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parameters": ("coupling.g",)}, "'coupling.g' cannot be an input"),
        ({"sample_every": 0}, "sample_every is 0"),
        ({"monitors": ()}, "monitors: at least one"),
        ({"bold": Bold(period=40.0), "sample_every": 160}, "bold: its step of 20 ms is shorter"),
        ({"bold": Bold(period=40.0), "carries_on": True}, "cannot carry on"),
    ],
)
def test_what_stands_in_the_way(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        export(tmp_path / "never", **changes)
    assert not (tmp_path / "never").exists()


def test_an_existing_folder_is_left_alone(folder: Path) -> None:
    with pytest.raises(FileExistsError):
        export(folder)


def test_a_folder_that_is_no_artifact_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="is no artifact; it is left alone"):
        export_network(
            network(), NetworkExport(dt=DT), tmp_path, name="n", config={}, overwrite=True
        )
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_config_may_name_the_model(tmp_path: Path) -> None:
    settings = NetworkExport(dt=DT, golden_steps=20)
    config = {"name": "own", "model": {"name": "cortex", "regions": 4}}
    path = export_network(network(), settings, tmp_path / "own", name="own", config=config)
    assert json.loads((path / "manifest.json").read_text())["model"] == "cortex"


ELSEWHERE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_network_export import export
export(Path(sys.argv[1]), sample_every=2)
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for seed in ("1", "2"):
        place = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", ELSEWHERE, place, Path(__file__).parent]
        subprocess.run(command, check=True, env=environment)
        content = b"".join(path.read_bytes() for path in sorted(place.iterdir()))
        digests.add(hashlib.sha256(content).hexdigest())
        assert str(tmp_path).encode() not in content
    assert len(digests) == 1


def test_the_code_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "data_driven" / "export.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(compile(code, str(page), "exec"), {})
    assert Path("runs/three/model.onnx").is_file()


def slow_network() -> Network:
    """Oscillators of resting BOLD in steps of 100 ms, whose cubic term a stimulus of 0.1 bursts."""
    mass = NODES.get("hopf")(a=-5e-5, w=3.14e-4, beta=1e-3)
    return network(node=mass, coupling=Additive(k=1e-6), noise=(), speed=None)


def test_the_golden_stimulus_is_one_that_the_network_bears(tmp_path: Path) -> None:
    settings = {"dt": 100.0, "scheme": "euler", "amplitude": None}
    made = export(tmp_path / "slow", slow_network(), **settings)
    assert artifact.load(made).manifest.provenance["simulation"]["amplitude"] == 1e-3
    usual = export(tmp_path / "usual", amplitude=None)
    assert artifact.load(usual).manifest.provenance["simulation"]["amplitude"] == 0.1


def test_a_network_that_bears_no_stimulus_is_refused_by_name(tmp_path: Path) -> None:
    unstable = network(node=NODES.get("linear")(gamma=100.0), noise=())
    with pytest.raises(ExportError, match=r"under a stimulus of 1e-07 .* explodes: x of 'V1'"):
        export(tmp_path / "unstable", unstable, amplitude=None)
    assert not list(tmp_path.iterdir())

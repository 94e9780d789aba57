"""`axonnx simulate`: what it writes, that it writes it twice alike, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from artifact.arrays import decode_npz
from trainer import cli
from trainer.dynamics_pictures import brain
from trainer.progress import steps_teller
from trainer.simulation import PICTURES, simulate
from trainer.simulation_config import build, build_observations, load_simulation
from trainer.simulation_report import spectrum

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("simulate_*.yaml"))
QUIET = Console(file=io.StringIO())
SMALL = """
network:
  node: {name: hopf, w: 0.628}
  nodes: 3
  noise: [{name: gaussian, sigma: 0.02}]
simulation: {duration: 60, dt: 0.5, batch_size: 2, transient: 10, engine: plain}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "small.yaml").write_text(SMALL)
    return Path("small.yaml")


def axonnx(*words: object) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as left:
        return int(left.code or 0)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_writes_numbers_and_pictures_twice_alike(config, capsys):
    assert axonnx("simulate", config, "--seed", "4") == 0
    out = capsys.readouterr().out
    assert "small: 3 nodes, batch 2, 100 samples every 0.5 ms" in out
    found = files(Path("runs/small"))
    pictures = {name for name in PICTURES if name != "brain.png"}
    assert set(found) == {"config.yaml", "trajectory.npz", "summary.json"} | pictures
    assert all(found[name][:4] == b"\x89PNG" for name in pictures)
    arrays = decode_npz(found["trajectory.npz"])
    assert arrays["x"].shape == arrays["y"].shape == (2, 100, 3)
    assert arrays["time"][[0, -1]].tolist() == [10.5, 60.0]
    summary = json.loads(found["summary.json"])
    assert summary["signals"]["x"]["std"] == pytest.approx(float(arrays["x"].std()), rel=1e-5)

    assert axonnx("simulate", config) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert files(Path("runs/small")) == found
    written = Path("runs/small/config.yaml")
    Path("again").mkdir()
    Path("again/config.yaml").write_text("of a run before")
    assert axonnx("simulate", written, "--output", "again", "--overwrite") == 0
    assert files(Path("again")) == found


MISTAKES = {
    "unknown key": (("--network.nose", "1"), "--network.nose: unknown key; did you mean 'noise'?"),
    "no such parameter": (("--network.node.W", "1"), "--network.node.W: "),
    "list of another length": (("--network.node.a", "[1, 2]"), "node.a: shape (2,); must be (),"),
    "no such state": (("--simulation.monitors", "[z]"), "Hopf has no 'z'; one of x, y"),
    "no such input": (("--simulation.inputs.z", "1"), "Hopf has no input 'z'; one of x, y"),
    "explodes": (("--network.node.beta", "-1"), "the trajectory explodes: x of 'node "),
    "noise on nothing": (("--network.noise.0.target", "z"), "noise.0.target: Hopf has no state"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_ends_with_2_and_leaves_nothing(case, config, capsys):
    words, expected = MISTAKES[case]
    start = ("--simulation.start.x", "1.5") if case == "explodes" else ()
    assert axonnx("simulate", config, *words, *start) == 2
    assert expected in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_file_that_is_not_there_and_a_folder_of_something_else(config, capsys):
    assert axonnx("simulate", "none.yaml") == 2
    assert "none.yaml: cannot be read: No such file" in capsys.readouterr().err
    assert axonnx("simulate", config, "--output", ".", "--overwrite") == 2
    assert "small.yaml and is no simulation" in capsys.readouterr().err
    assert axonnx("simulate", config, "--output", config) == 2
    assert "is a file" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_told_before_the_run(config, capsys, monkeypatch):
    def run(*_: object, **__: object) -> None:
        raise AssertionError("ran")

    monkeypatch.setattr("trainer.dynamics.Simulator.run", run)
    assert axonnx("simulate", config, "--output", "/proc/none/run") == 2
    assert "/proc cannot be written to: " in capsys.readouterr().err


def test_many_nodes_and_a_single_one_are_drawn(config, tmp_path):
    for nodes in (1, 40):
        words = [("network.nodes", str(nodes)), ("simulation.batch_size", "1")]
        found = simulate(load_simulation(config, words), tmp_path / str(nodes), console=QUIET)
        names = {path.name for path in found.files}
        assert ("connectivity.png" in names) == (nodes > 1)
        assert {"time_series.png", "phase_portrait.png", "power_spectrum.png"} <= names


@pytest.mark.slow
def test_a_connectome_is_drawn_and_observed(config, tmp_path):
    """At its positions, and on a ring where there are none; in what instruments see too."""
    words = [
        ("network.nodes", "null"),
        ("network.connectome.name", "example_connectome"),
        ("network.speed", "20.0"),
        ("simulation.duration", "600"),
    ]
    text = "observation:\n- {name: temporal_average, period: 5.0, transient: 20}\n"
    text += "- {name: bold, monitor: y, period: 100.0}\n"
    config.write_text(SMALL + text)
    found = simulate(load_simulation(config, words), tmp_path / "a", console=QUIET)
    names = [path.name for path in found.files]
    assert names[-5:] == [
        "brain.png",
        "observed_temporal_average.png",
        "observed_temporal_average_connectivity.png",
        "observed_bold.png",
        "observed_bold_connectivity.png",
    ]
    arrays = decode_npz((tmp_path / "a" / "trajectory.npz").read_bytes())
    assert arrays["observed_bold"].shape == (2, 5, 12)
    assert arrays["observed_bold_time"][[0, -1]].tolist() == pytest.approx([110.0, 510.0])
    means = arrays["x"][:, :10].mean(axis=1)
    averages, times = arrays["observed_temporal_average"], arrays["observed_temporal_average_time"]
    assert times[0] == pytest.approx(35.0)
    np.testing.assert_allclose(arrays["x"][:, 40:50].mean(axis=1), averages[:, 0], atol=1e-6)
    assert not np.allclose(means, averages[:, 0])


def test_a_network_without_positions_stands_on_a_ring(tmp_path):
    weights = np.array([[0, 1, 0.5], [1, 0, 0.2], [0.5, 0.2, 0]])
    drawn = [
        brain(
            tmp_path / f"{number}.png",
            positions,
            weights,
            np.arange(3.0),
            labels=["a", "b", "c"],
            meaning="m",
            title="t",
        ).read_bytes()
        for number, positions in enumerate([None, None, np.eye(3)])
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_observation_that_sees_nothing_is_refused(config, capsys):
    for text, expected in (
        ("{name: bold, period: 720.0}", "observation bold: sees nothing in 50 ms"),
        ("{name: bold, monitor: z}", "observation bold: no monitor 'z'; x, y are kept"),
        ("{name: bold, balloon: {kapa: 1.0}}", "observation.0: bold: "),
        ("{name: bold, perod: 1.0}", "observation.0.perod: unknown key of observation bold; did"),
        ("{name: bolt}", "observation.0.name: no observation 'bolt' (did you mean 'bold'?)"),
        ("{name: bold, transient: -1}", "observation.0.transient: is -1; input should be greater"),
    ):
        config.write_text(SMALL + f"observation:\n- {text}\n")
        assert axonnx("simulate", config) == 2
        assert expected in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_spectrum_finds_an_oscillation():
    milliseconds = np.arange(1, 2001) * 0.5
    series = np.sin(2 * np.pi * 40.0 * milliseconds / 1000)[:, None]
    hertz, power = spectrum(milliseconds, series)
    assert hertz[int(np.argmax(power[:, 0]))] == pytest.approx(40.0)
    assert float(power[:, 0].sum() * (hertz[1] - hertz[0])) == pytest.approx(0.5, rel=0.01)


def test_progress_is_told_after_two_seconds_alone(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("trainer.progress.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    with steps_teller(Console(file=stream, width=100), "steps") as tell:
        for second in range(6):
            clock[0] = second
            tell(100 * (second + 1), 600)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "steps: 300 of 600, some 3 s left",
        "steps: 500 of 600, some 1 s left",
    ]


def test_every_example_can_be_built():
    assert CONFIGS
    for path in CONFIGS:
        config = load_simulation(path, [])
        assert config.name == path.stem
        assert f"axonnx simulate configs/{path.name}" in path.read_text(), "it says how to run it"
        network, _ = build(config)
        assert network.nodes > 1
        build_observations(config)

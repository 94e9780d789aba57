"""`axonnx simulate`: a network through time, to a folder of numbers and pictures."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from artifact.arrays import encode_npz
from artifact.bundle import write_file
from trainer import dynamics_pictures, folder
from trainer.determinism import deterministic
from trainer.dynamics import Network, Trajectory
from trainer.progress import plain_console, steps_teller
from trainer.series import functional_connectivity
from trainer.simulation_config import SimulationConfig, build, load_simulation, run_arguments

CONFIG, TRAJECTORY, SUMMARY = folder.CONFIG, "trajectory.npz", "summary.json"
PICTURES = (
    "time_series.png",
    "phase_portrait.png",
    "power_spectrum.png",
    "connectivity.png",
    "brain.png",
)


class SimulationFolderError(ValueError):
    """A folder that a simulation may not be written to."""


@dataclass(frozen=True, eq=False)
class Simulated:
    """What a simulation has left.

    summary: the plain values of summary.json; files: what was written, in that order.
    """

    config: SimulationConfig
    network: Network
    trajectory: Trajectory
    summary: dict[str, Any]
    files: tuple[Path, ...]


def run(argv: list[str], overrides: Sequence[tuple[str, str]] = ()) -> int:
    """The command; overrides are (dotted key, value)."""
    parser = argparse.ArgumentParser(
        prog="axonnx simulate",
        usage="axonnx simulate CONFIG [--section.key value …] [--output DIR] [--overwrite]",
        description="Simulate a network of neural masses from a YAML file. Any key of the file can "
        "be overridden: --network.node.a 0.5, --simulation.duration 2000, --seed 3.",
        epilog="example: axonnx simulate configs/simulate_hopf.yaml --network.node.a 0.5",
        allow_abbrev=False,
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of the simulation")
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: runs/<config name>")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the simulation that is there"
    )
    options = parser.parse_args(argv)
    config = load_simulation(options.config, list(overrides), SimulationConfig)
    output = options.output or Path("runs") / config.name
    console = plain_console()
    simulated = simulate(config, output, console=console, overwrite=options.overwrite)
    console.print(summary_table(simulated))
    for path in simulated.files:
        console.print(f"  {path}", soft_wrap=True)
    return 0


def simulate(
    config: SimulationConfig, output: Path, *, console: Console, overwrite: bool = False
) -> Simulated:
    """Run `config` and write numbers, summary and pictures to `output`.

    The same config leaves the same bytes. Raises SimulationFolderError where the folder is taken,
    and what the parts of a network raise.
    """
    check_folder(output, overwrite=overwrite)
    with deterministic(config.simulation.threads), told_warnings(console):
        network, simulator = build(config)
        with torch.no_grad(), steps_teller(console, "steps") as tell:
            trajectory = simulator.run(**run_arguments(config), on_steps=tell)
        summary = summarise(config, network, trajectory)
    output.mkdir(parents=True, exist_ok=True)
    folder.sweep(output)
    for name in (*PICTURES, SUMMARY, TRAJECTORY):
        folder.remove(output / name)
    arrays = {"time": trajectory.time}
    arrays |= {name: values.numpy() for name, values in trajectory.values.items()}
    files = [
        write_file(output / CONFIG, config.to_yaml().encode()),
        write_file(output / TRAJECTORY, encode_npz(arrays)),
        write_file(output / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode()),
        *draw(config, network, trajectory, output),
    ]
    return Simulated(config, network, trajectory, summary, tuple(files))


def check_folder(output: Path, *, overwrite: bool) -> None:
    """Raise SimulationFolderError unless a simulation may be written to `output`."""
    if output.exists() and not output.is_dir():
        raise SimulationFolderError(f"{output} is a file; --output takes a folder")
    names = {path.name for path in output.iterdir()} if output.exists() else set()
    names = {name for name in names if ".tmp-" not in name}
    if names and not names <= {CONFIG, TRAJECTORY, SUMMARY, *PICTURES}:
        other = sorted(names - {CONFIG, TRAJECTORY, SUMMARY, *PICTURES})
        raise SimulationFolderError(
            f"{output} holds {', '.join(other[:3])} and is no simulation; choose another --output"
        )
    if names and not overwrite:
        raise SimulationFolderError(
            f"{output} holds a simulation: --overwrite replaces it, --output DIR writes elsewhere"
        )


def summarise(config: SimulationConfig, network: Network, trajectory: Trajectory) -> dict[str, Any]:
    """Plain numbers of a run: of every signal over batch, time and nodes, and of connectivity."""
    signals = {}
    for name, values in trajectory.values.items():
        series = values.double().numpy()
        hertz, power = spectrum(trajectory.time, series[0])
        strongest = float(hertz[int(np.argmax(power.mean(axis=1)))]) if power.any() else None
        signals[name] = {
            "unit": trajectory.units[name],
            "mean": float(series.mean()),
            "std": float(series.std()),
            "lowest": float(series.min()),
            "highest": float(series.max()),
            "strongest_hz": strongest,
        }
    first = next(iter(trajectory.values))
    summary: dict[str, Any] = {
        "name": config.name,
        "labels": list(trajectory.labels),
        "batch_size": int(trajectory[first].shape[0]),
        "samples": len(trajectory.time),
        "interval_ms": interval(trajectory),
        "signals": signals,
    }
    if network.nodes > 1 and len(trajectory.time) > 1:
        functional = functional_connectivity(trajectory[first][0].double()).numpy()
        above = np.triu_indices(network.nodes, 1)
        summary["mean_functional_connectivity"] = float(functional[above].mean())
    return summary


def summary_table(simulated: Simulated) -> Table:
    """The signals of a run, one row each."""
    summary = simulated.summary
    title = f"{summary['name']}: {len(summary['labels'])} nodes, batch {summary['batch_size']}, "
    title += f"{summary['samples']} samples every {summary['interval_ms']:g} ms"
    table = Table("signal", "unit", "mean", "std", "lowest", "highest", "strongest", title=title)
    for name, row in summary["signals"].items():
        peak = "–" if row["strongest_hz"] is None else f"{row['strongest_hz']:.4g} Hz"
        numbers = (f"{row[key]:.4g}" for key in ("mean", "std", "lowest", "highest"))
        table.add_row(name, row["unit"], *numbers, peak)
    return table


def draw(
    config: SimulationConfig, network: Network, trajectory: Trajectory, output: Path
) -> list[Path]:
    """The pictures of the first batch member, those that it has enough signals and nodes for."""
    labels, units = trajectory.labels, trajectory.units
    values = {name: each[0].double().numpy() for name, each in trajectory.values.items()}
    names = list(values)
    first = values[names[0]]
    size = next(iter(trajectory.values.values())).shape[0]
    title = config.name + (f", member 0 of {size}" if size > 1 else "")
    files = [
        dynamics_pictures.time_series(
            output / "time_series.png",
            trajectory.time,
            values,
            labels=labels,
            units=units,
            title=title,
        )
    ]
    if len(names) > 1:
        files.append(
            dynamics_pictures.phase_portrait(
                output / "phase_portrait.png",
                first,
                values[names[1]],
                names=(names[0], names[1]),
                labels=labels,
                title=title,
            )
        )
    if len(first) > 1:
        hertz, power = spectrum(trajectory.time, first)
        files.append(
            dynamics_pictures.power_spectrum(
                output / "power_spectrum.png",
                hertz,
                power,
                labels=labels,
                name=names[0],
                unit=units[names[0]],
                title=title,
            )
        )
    if network.nodes > 1 and len(first) > 1:
        files += _draw_network(network, names[0], first, labels, output, title)
    return files


def _draw_network(
    network: Network,
    name: str,
    series: np.ndarray,
    labels: Sequence[str],
    output: Path,
    title: str,
) -> list[Path]:
    weights = network.values().get("weights")
    structural = weights.detach().double().numpy() if isinstance(weights, torch.Tensor) else None
    functional = functional_connectivity(torch.from_numpy(series)).numpy()
    files = [
        dynamics_pictures.connectivity(
            output / "connectivity.png",
            functional,
            structural,
            labels=labels,
            title=f"{title}: connectivity of {name}",
        )
    ]
    if structural is not None:
        assert network.connectome is not None
        files.append(
            dynamics_pictures.brain(
                output / "brain.png",
                network.connectome.positions,
                structural,
                series.std(axis=0),
                labels=labels,
                meaning=f"standard deviation of {name}",
                title=f"{title}: nodes, and their strongest connections",
            )
        )
    return files


def spectrum(milliseconds: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz and power densities (frequency, node) by Welch's method, 0 Hz left out.

    Segments are half the series long: the longest that leave something to average.
    """
    from scipy.signal import welch

    if len(series) < 2:
        return np.zeros(1), np.zeros((1, series.shape[1]))
    rate = 1000.0 * (len(milliseconds) - 1) / (milliseconds[-1] - milliseconds[0])
    segment = max(2, len(series) // 2) if len(series) >= 64 else len(series)
    hertz, power = welch(series, fs=rate, nperseg=segment, axis=0)
    return hertz[1:], power[1:]


def interval(trajectory: Trajectory) -> float:
    """Time in ms between samples, 0 of a single one."""
    time = trajectory.time
    return float(f"{(time[-1] - time[0]) / max(1, len(time) - 1):.9g}")


@contextmanager
def told_warnings(console: Console) -> Iterator[None]:
    """Shows warnings as one line each on a console."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        console.print(f"warning: {message}", soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield

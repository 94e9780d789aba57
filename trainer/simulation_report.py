"""What a simulation is reported by: plain numbers, a table and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from trainer import dynamics_pictures
from trainer.dynamics import Network, Trajectory
from trainer.dynamics.observation import interval_of
from trainer.series import functional_connectivity
from trainer.simulation_config import SimulationConfig

OBSERVED = "observed_"  # what begins the names of an observation's pictures and arrays


@dataclass(frozen=True, eq=False)
class Observed:
    """What an instrument saw: values (batch, time, channel), and times (time,) in ms."""

    values: torch.Tensor
    time: np.ndarray
    channels: tuple[str, ...]
    unit: str


def summarise(
    config: SimulationConfig,
    network: Network,
    trajectory: Trajectory,
    observed: Mapping[str, Observed],
) -> dict[str, Any]:
    """Plain numbers of a run: of every signal over batch, time and nodes, and of connectivity."""
    signals = {
        name: _signal(trajectory.time, values, trajectory.units[name])
        for name, values in trajectory.values.items()
    }
    for name, each in observed.items():
        signals[OBSERVED + name] = _signal(each.time, each.values, each.unit)
    first = next(iter(trajectory.values))
    summary: dict[str, Any] = {
        "name": config.name,
        "labels": list(trajectory.labels),
        "batch_size": int(trajectory[first].shape[0]),
        "samples": len(trajectory.time),
        "interval_ms": interval_of(trajectory) if len(trajectory.time) > 1 else None,
        "signals": signals,
    }
    if network.nodes > 1 and len(trajectory.time) > 1:
        functional = functional_connectivity(trajectory[first][0].double()).numpy()
        above = np.triu_indices(network.nodes, 1)
        summary["mean_functional_connectivity"] = float(functional[above].mean())
    return summary


def _signal(milliseconds: np.ndarray, values: torch.Tensor, unit: str) -> dict[str, Any]:
    series = values.double().numpy()
    hertz, power = spectrum(milliseconds, series[0])
    return {
        "unit": unit,
        "mean": float(series.mean()),
        "std": float(series.std()),
        "lowest": float(series.min()),
        "highest": float(series.max()),
        "strongest_hz": float(hertz[int(np.argmax(power.mean(axis=1)))]) if power.any() else None,
    }


def summary_table(summary: Mapping[str, Any]) -> Table:
    """The signals of a run, one row each."""
    title = f"{summary['name']}: {len(summary['labels'])} nodes, batch {summary['batch_size']}, "
    title += f"{summary['samples']} samples"
    if summary["interval_ms"] is not None:
        title += f" every {summary['interval_ms']:g} ms"
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
    title = _title(config)
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


def draw_observed(
    config: SimulationConfig, observed: Mapping[str, Observed], output: Path
) -> list[Path]:
    """Two pictures of every observation's first batch member: over time, and its connectivity."""
    files = []
    for name, each in observed.items():
        values = each.values[0].double()
        files.append(
            dynamics_pictures.time_series(
                output / f"{OBSERVED}{name}.png",
                each.time,
                {name: values.numpy()},
                labels=each.channels,
                units={name: each.unit},
                title=_title(config),
            )
        )
        if min(values.shape) > 2:
            files.append(
                dynamics_pictures.connectivity(
                    output / f"{OBSERVED}{name}_connectivity.png",
                    functional_connectivity(values).numpy(),
                    None,
                    labels=each.channels,
                    title=f"{_title(config)}: connectivity of {name}",
                )
            )
    return files


def _title(config: SimulationConfig) -> str:
    size = config.simulation.batch_size
    return config.name + (f", member 0 of {size}" if size > 1 else "")


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

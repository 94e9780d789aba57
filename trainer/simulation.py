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

from artifact.arrays import encode_npz
from artifact.bundle import write_file
from trainer import folder
from trainer.determinism import deterministic
from trainer.dynamics import Network, SimulationError, Trajectory
from trainer.dynamics.observation import interval_of
from trainer.progress import plain_console, steps_teller
from trainer.simulation_config import (
    SimulationConfig,
    build,
    build_observations,
    load_simulation,
    run_arguments,
)
from trainer.simulation_report import (
    OBSERVED,
    Observed,
    draw,
    draw_observed,
    summarise,
    summary_table,
)

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

    observed: by name of the observation. summary: the plain values of summary.json. files: what was
    written, in that order.
    """

    config: SimulationConfig
    network: Network
    trajectory: Trajectory
    observed: dict[str, Observed]
    summary: dict[str, Any]
    files: tuple[Path, ...]


def run(argv: list[str], overrides: Sequence[tuple[str, str]] = ()) -> int:
    """The command; overrides are (dotted key, value)."""
    parser = argparse.ArgumentParser(
        prog="axonnx simulate",
        usage="axonnx simulate CONFIG [--section.key value …] [--output DIR] [--overwrite] "
        "[--export DIR]",
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
    parser.add_argument(
        "--export", metavar="DIR", type=Path, help="write the network's artifact to this folder too"
    )
    options = parser.parse_args(argv)
    config = load_simulation(options.config, list(overrides), SimulationConfig)
    output = options.output or Path("runs") / config.name
    if options.export is not None and options.export.exists() and not options.overwrite:
        raise FileExistsError(f"{options.export} exists; choose another --export, or --overwrite")
    console = plain_console()
    simulated = simulate(config, output, console=console, overwrite=options.overwrite)
    console.print(summary_table(simulated.summary))
    for path in simulated.files:
        console.print(f"  {path}", soft_wrap=True)
    if options.export is not None:
        _export(config, simulated.network, options.export, console, overwrite=options.overwrite)
    return 0


def _export(
    config: SimulationConfig, network: Network, place: Path, console: Console, *, overwrite: bool
) -> None:
    from trainer.simulation_export import export_simulation  # slow to import

    console.print("exporting …")
    with deterministic(config.simulation.threads):
        export_simulation(config, place, network=network, overwrite=overwrite)
    console.print(f"  {place}: axonnx serve {place}", soft_wrap=True)


def simulate(
    config: SimulationConfig, output: Path, *, console: Console, overwrite: bool = False
) -> Simulated:
    """Run `config` and write numbers, summary and pictures to `output`.

    The same config leaves the same bytes. Raises SimulationFolderError where the folder is taken,
    RunFolderError where nothing can be written, and what the parts of a network raise.
    """
    check_folder(output, overwrite=overwrite)
    folder.check_writable(output)
    with deterministic(config.simulation.threads), told_warnings(console):
        network, simulator = build(config)
        with torch.no_grad(), steps_teller(console, "steps") as tell:
            trajectory = simulator.run(**run_arguments(config), on_steps=tell)
            observed = observe(config, trajectory)
        summary = summarise(config, network, trajectory, observed)
    output.mkdir(parents=True, exist_ok=True)
    folder.sweep(output)
    for name in (*PICTURES, SUMMARY, TRAJECTORY, OBSERVED + "*.png"):
        for path in output.glob(name):
            folder.remove(path)
    arrays = {"time": trajectory.time}
    arrays |= {name: values.numpy() for name, values in trajectory.values.items()}
    for name, each in observed.items():
        arrays |= {OBSERVED + name: each.values.numpy(), f"{OBSERVED}{name}_time": each.time}
    files = [
        write_file(output / CONFIG, config.to_yaml().encode()),
        write_file(output / TRAJECTORY, encode_npz(arrays)),
        write_file(output / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode()),
        *draw(config, network, trajectory, output),
        *draw_observed(config, observed, output),
    ]
    return Simulated(config, network, trajectory, observed, summary, tuple(files))


def observe(config: SimulationConfig, trajectory: Trajectory) -> dict[str, Observed]:
    """What the observations of a config see of a trajectory, by their names.

    Raises SimulationError where one sees nothing in so short a time.
    """
    found = {}
    for name, (watched, observation) in build_observations(config).items():
        own = interval_of(trajectory)
        monitor = watched.monitor or next(iter(trajectory.values))
        if monitor not in trajectory.values:
            kept = ", ".join(trajectory.values)
            raise SimulationError(f"observation {name}: no monitor {monitor!r}; {kept} are kept")
        values = trajectory[monitor]
        seen, interval, _ = observation.observe(values, own)
        since = interval * np.arange(1, seen.shape[1] + 1)
        late = since > watched.transient
        if not late.any():
            raise SimulationError(
                f"observation {name}: sees nothing in {len(trajectory.time) * own:g} ms beyond its "
                f"transient of {watched.transient:g} ms; a longer simulation.duration would do"
            )
        time = trajectory.time[0] - own + since[late]
        channels = observation.channels(trajectory.labels)
        found[name] = Observed(seen[:, torch.from_numpy(late)], time, channels, observation.unit)
    return found


def check_folder(output: Path, *, overwrite: bool) -> None:
    """Raise SimulationFolderError unless a simulation may be written to `output`."""
    if output.exists() and not output.is_dir():
        raise SimulationFolderError(f"{output} is a file; --output takes a folder")
    names = {path.name for path in output.iterdir()} if output.exists() else set()
    names = {name for name in names if ".tmp-" not in name}
    own = {CONFIG, TRAJECTORY, SUMMARY, *PICTURES}
    other = sorted(name for name in names - own if not name.startswith(OBSERVED))
    if other:
        raise SimulationFolderError(
            f"{output} holds {', '.join(other[:3])} and is no simulation; choose another --output"
        )
    if names and not overwrite:
        raise SimulationFolderError(
            f"{output} holds a simulation: --overwrite replaces it, --output DIR writes elsewhere"
        )


@contextmanager
def told_warnings(console: Console) -> Iterator[None]:
    """Shows warnings as one line each on a console."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        console.print(f"warning: {message}", soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield

"""From a simulation's config, or a fit of it, to an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.dynamics.balloon import Bold
from trainer.dynamics.network import Network
from trainer.dynamics.scan_reference import begin
from trainer.network_export import NetworkExport, export_network
from trainer.simulation_config import (
    SimulationConfig,
    build_network,
    build_observations,
    run_arguments,
)


def export_simulation(
    config: SimulationConfig,
    destination: Path,
    *,
    network: Network | None = None,
    metrics: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    **changes: Any,
) -> Path:
    """Write the artifact of the network that a config describes; returns its folder.

    network: fitted, in place of the one that is built from the config. metrics: on held-out data.
    Runs begin where a run of the config with its seed is after its transient; its first BOLD
    observation is among the outputs. changes: see `NetworkExport`; by default the stimulus enters
    the first input, and callers may set the global coupling and every fitted parameter that all
    nodes share.
    Raises ExportError, FileExistsError.
    """
    network = network or build_network(config.network)
    settings = network_settings(config, network, **changes)
    resolved = {**config.resolved(), "model": {"name": config.network.node["name"]}}
    return export_network(
        network,
        settings,
        destination,
        name=config.name,
        config=resolved,
        metrics=metrics,
        overwrite=overwrite,
    )


def network_settings(config: SimulationConfig, network: Network, **changes: Any) -> NetworkExport:
    """How the network of a config is exported; changes: what is to be otherwise."""
    arguments, run = run_arguments(config), config.simulation
    start = begin(
        network,
        run.dt,
        run.scheme,
        inputs=arguments["inputs"],
        seed=config.seed,
        start=arguments["start"],
        transient=run.transient,
    )
    found: dict[str, Any] = {
        "dt": run.dt,
        "scheme": run.scheme,
        "inputs": arguments["inputs"],
        "parameters": _open(network),
        "monitors": arguments["monitors"],
        "sample_every": run.sample_every,
        "seed": config.seed,
        "start": start,
        **_bold(config),
        **changes,
    }
    return NetworkExport(**found)


def _open(network: Network) -> tuple[str, ...]:
    """The parameters that callers may set: one number for all nodes."""
    fixed = {"weights", "speed", *(f"node.{name}" for _, name in network.node.lags.values())}
    names = [name for name, param in network.fitted().items() if param.raw.ndim == 0]
    names += ["coupling.k"] if "coupling.k" in network.values() else []
    return tuple(dict.fromkeys(name for name in names if name not in fixed))


def _bold(config: SimulationConfig) -> dict[str, Any]:
    for watched, observation in build_observations(config).values():
        if isinstance(observation, Bold):
            return {"bold": observation, "observed": watched.monitor}
    return {}

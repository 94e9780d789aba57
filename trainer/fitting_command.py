"""`axonnx fit`: the network of a config fitted to a target, to a folder of values and pictures."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from artifact.bundle import write_file
from trainer import folder
from trainer.determinism import deterministic
from trainer.dynamics import Network, SimulationError, Simulator, Trajectory
from trainer.fitting import FitResult, Fitter, FittingError
from trainer.fitting_config import FittedSimulation, TargetConfig, read_target
from trainer.fitting_record import Evaluation
from trainer.fitting_report import (
    compare_connectivity,
    compare_series,
    convergence,
    fitted_values,
    remarks,
    values_table,
)
from trainer.fitting_search import NEVERGRAD, SCIPY
from trainer.graph import ExportError
from trainer.objectives import ObjectiveError
from trainer.progress import plain_console, steps_teller
from trainer.series import functional_connectivity
from trainer.simulation import observe, told_warnings
from trainer.simulation_config import build, load_simulation, run_arguments

CONFIG, CHECKPOINT, ARTIFACT = folder.CONFIG, folder.CHECKPOINT, folder.ARTIFACT
FITTED, HISTORY = "fitted.json", "history.jsonl"
CONVERGENCE, COMPARISON = "convergence.png", "comparison.png"
OWN = (ARTIFACT, COMPARISON, CONVERGENCE, HISTORY, FITTED, CHECKPOINT, CONFIG)
INTERRUPTED = 130


class FitFolderError(ValueError):
    """A folder that a fit may not be written to."""


def run(argv: list[str], overrides: Sequence[tuple[str, str]] = ()) -> int:
    """The command; overrides are (dotted key, value)."""
    parser = argparse.ArgumentParser(
        prog="axonnx fit",
        usage="axonnx fit CONFIG [--section.key value …] [--output DIR] [--resume | --overwrite]",
        description="Fit a network of neural masses to a target from a YAML file. Any key of the "
        "file can be overridden: --fit.method cma_es, --fit.steps 200, --seed 3.",
        epilog="example: axonnx fit configs/fit_hopf.yaml --fit.method nelder_mead",
        allow_abbrev=False,
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="YAML file of the fit")
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: runs/<config name>")
    taken = parser.add_mutually_exclusive_group()
    taken.add_argument("--resume", action="store_true", help="continue the fit that is there")
    taken.add_argument("--overwrite", action="store_true", help="start anew in its folder")
    options = parser.parse_args(argv)
    config = load_simulation(options.config, list(overrides), FittedSimulation)
    output = options.output or Path("runs") / config.name
    console = plain_console()
    try:
        found = fit(
            config, output, console=console, resume=options.resume, overwrite=options.overwrite
        )
    except KeyboardInterrupt:
        words = ["axonnx", "fit", str(options.config)]
        for key, value in overrides:
            words += [f"--{key.removeprefix('--')}", value]
        words += ["--output", str(output), "--resume"]
        print(f"axonnx: interrupted; to go on: {shlex.join(words)}", file=sys.stderr)
        return INTERRUPTED
    console.print(values_table(found, f"{config.name}: loss {found['loss']:.5g}"))
    for line in remarks(found):
        console.print(line, soft_wrap=True)
    if found["held_out_loss"] is not None:
        console.print(f"held out: loss {found['held_out_loss']:.5g}")
    for name in reversed(OWN):
        if (output / name).exists():
            console.print(f"  {output / name}", soft_wrap=True)
    return 0


def fit(
    config: FittedSimulation,
    output: Path,
    *,
    console: Console,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fit the network of `config` and write `output`; returns the plain numbers of fitted.json.

    The same config leaves the same bytes, whether it was stopped and resumed or not. Raises
    FitFolderError where the folder is taken, FittingError, and what the parts of a network raise.
    """
    check_folder(config, output, resume=resume, overwrite=overwrite)
    if resume and not (output / CHECKPOINT).exists():
        console.print(f"{output} holds nothing to continue: begun anew", soft_wrap=True)
    with deterministic(config.simulation.threads), told_warnings(console):
        problem = Problem.of(config)
        target = problem.target(config.fit.target)
        loss = config.fit.loss()
        start = {n: p.value().detach().clone() for n, p in problem.network.fitted().items()}
        fitter = Fitter(
            problem.network,
            problem.predict,
            loss,
            predict_many=problem.predict_many if problem.batches() else None,
        )
        _first_loss(fitter, target)
        held_out = config.fit.held_out
        judged = None if held_out is None else problem.target(held_out)
        if judged is not None:
            try:
                _first_loss(fitter, judged)
            except ObjectiveError as error:
                raise ObjectiveError(f"fit.held_out: {error}") from None
        _claim(config, output, overwrite=overwrite)
        with steps_teller(console, "evaluations") as tell:
            result = _fitted(config, fitter, target, output, tell)
        found = {"name": config.name, **fitted_values(result, start), "held_out_loss": None}
        with torch.no_grad():
            prediction = problem.predict(problem.network)
            if judged is not None:
                found["held_out_loss"] = float(loss(prediction, judged))
        rows = [_row(each) for each in result.history]
        write_file(output / HISTORY, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        write_file(output / FITTED, (json.dumps(found, indent=1) + "\n").encode())
        convergence(output / CONVERGENCE, result, title=f"{config.name}: {result.method}")
        _compare(config, problem, prediction, target, output / COMPARISON)
        if config.fit.export:
            _export(config, problem.network, found, output / ARTIFACT, console)
    return found


@dataclass(eq=False)
class Problem:
    """A network, its run loop, and what of a run is compared with a target."""

    config: FittedSimulation
    network: Network
    simulator: Simulator
    trajectory: Trajectory | None = None

    @classmethod
    def of(cls, config: FittedSimulation) -> Problem:
        """The problem that a config describes; raises FittingError where nothing is fitted."""
        network, simulator = build(config)
        if not network.fitted():
            raise FittingError(
                "no parameter of the network is fitted; say which in its place, as in "
                "network.node.a: {value: 0.1, fit: true}"
            )
        return cls(config, network, simulator)

    def predict(self, _: torch.nn.Module) -> Tensor:
        """The readout (batch, time, node) with the parameters as they are."""
        return self.readout(self.simulator.run(**run_arguments(self.config)))

    def predict_many(self, values: Any) -> Tensor:
        """The readouts (candidate, 1, time, node) of values {name: (candidate, …)}."""
        arguments = run_arguments(self.config) | {"batch_size": None}
        many = {name: each[:, None] if each.ndim == 1 else each for name, each in values.items()}
        return self.readout(self.simulator.run(**arguments, values=many))[:, None]

    def batches(self) -> bool:
        """Whether a batch of candidates has the same run for each that it has alone."""
        settings, node = self.config.simulation, self.network.node
        drawn = {n for n, begin in node.start.items() if isinstance(begin, tuple)}
        fitted = self.network.fitted()
        return (
            settings.batch_size == 1
            and not self.config.network.noise
            and drawn <= set(settings.start)
            and not {"weights", "speed"} & set(fitted)
            and all(param.raw.ndim <= 1 for param in fitted.values())
        )

    def readout(self, trajectory: Trajectory) -> Tensor:
        """What is compared: a monitor, or what an observation sees."""
        self.trajectory = trajectory
        name = self.name
        if name in trajectory.values:
            return trajectory[name]
        seen = observe(self.config, trajectory)
        if name not in seen:
            raise SimulationError(
                f"fit.readout: no {name!r}; one of {', '.join((*trajectory.values, *seen))}"
            )
        return seen[name].values

    @property
    def name(self) -> str:
        """The name of the readout."""
        observed = [each["name"] for each in self.config.observation]
        monitors = self.config.simulation.monitors or list(self.network.node.states)
        return self.config.fit.readout or (observed or monitors)[0]

    def target(self, target: TargetConfig) -> Tensor:
        """The target as the objective takes it: (batch, time, node), or (node, node)."""
        of_matrices = self.config.fit.of_matrices
        if target.simulate is None:
            found = read_target(target, of_matrices, self.config.simulation.dtype)
            if found.shape[-1] != self.network.nodes and self.name in self.network.node.states:
                raise FittingError(
                    f"fit.target has {found.shape[-1]} nodes, the network {self.network.nodes}"
                )
            return found if of_matrices else found[None]
        arguments = run_arguments(self.config)
        arguments["seed"] = arguments["seed"] if target.seed is None else target.seed
        values = {name: torch.tensor(value) for name, value in target.simulate.items()}
        with torch.no_grad():
            series = self.readout(self.simulator.run(**arguments, values=values))
            return functional_connectivity(series).mean(0) if of_matrices else series


def _first_loss(fitter: Fitter, target: Tensor) -> None:
    """Evaluate once, so that what does not fit together is told before a folder is made."""
    with torch.no_grad():
        try:
            fitter.loss(target)
        except SimulationError as error:
            if "explodes" not in str(error):  # another start may not
                raise


def _fitted(
    config: FittedSimulation, fitter: Fitter, target: Tensor, output: Path, tell: Any
) -> FitResult:
    plan, done = config.fit, 0
    each = 1 if plan.method in SCIPY else plan.population if plan.method in NEVERGRAD else 0
    total = plan.restarts * (plan.steps * each if each else plan.steps + 1)

    def on_step(_: Evaluation) -> None:
        nonlocal done
        done += 1
        tell(done, total)

    return fitter.fit(
        target,
        **plan.arguments(),
        seed=config.seed,
        checkpoint=None if plan.method == "lbfgs" else output / CHECKPOINT,
        on_step=on_step,
    )


def _row(each: Evaluation) -> dict[str, Any]:
    numbers = {"loss": each.loss, "best": each.best}
    finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    return {"restart": each.restart, "step": each.step, **finite}


def _compare(
    config: FittedSimulation, problem: Problem, prediction: Tensor, target: Tensor, path: Path
) -> None:
    """Draw the fit against the target: series where both last as long, else connectivity."""
    title = f"{config.name}: {problem.name}"
    shapes_agree = not config.fit.of_matrices and prediction.shape[1:] == target.shape[1:]
    if shapes_agree and not any("fc" in term["name"] for term in config.fit.objectives):
        nodes = prediction.shape[-1]
        labels = problem.network.labels
        names = labels if len(labels) == nodes else [f"channel {k}" for k in range(nodes)]
        assert problem.trajectory is not None
        time = problem.trajectory.time
        if len(time) != prediction.shape[1]:
            time = np.linspace(time[0], time[-1], prediction.shape[1])
        both = (each[0].double().numpy() for each in (target, prediction))
        compare_series(path, time, *both, labels=names, meaning=problem.name, title=title)
    elif prediction.shape[-1] > 1:
        fit = functional_connectivity(prediction.double()).mean(0).numpy()
        aim = target if config.fit.of_matrices else functional_connectivity(target).mean(0)
        compare_connectivity(path, aim.double().numpy(), fit, title=title)


def _export(
    config: FittedSimulation, network: Network, found: Any, place: Path, console: Console
) -> None:
    from trainer.simulation_export import export_simulation  # slow to import

    judged = found["held_out_loss"]  # the loss of the fit itself says nothing of other data
    metrics = {} if judged is None else {"held_out_loss": judged}
    console.print("exporting …")
    try:
        export_simulation(
            config.simulation_only(), place, network=network, metrics=metrics, overwrite=True
        )
    except ExportError as error:
        raise ExportError(
            f"the fit is complete, its artifact cannot be made: {error}; fit.export false "
            "leaves it out"
        ) from error


def check_folder(config: FittedSimulation, output: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise FitFolderError unless the fit may be written to `output`."""
    if output.exists() and not output.is_dir():
        raise FitFolderError(f"{output} is a file; --output takes a folder")
    names = {path.name for path in output.iterdir()} if output.exists() else set()
    names = {name for name in names if ".tmp-" not in name}
    if other := sorted(names - set(OWN)):
        raise FitFolderError(
            f"{output} holds {', '.join(other[:3])} and is no fit; choose another --output"
        )
    if names and not (resume or overwrite):
        raise FitFolderError(
            f"{output} holds a fit: --resume continues it, --overwrite starts it anew, "
            "--output DIR writes elsewhere"
        )
    written = output / CONFIG
    if resume and written.exists() and written.read_bytes() != config.to_yaml().encode():
        raise FitFolderError(
            f"{written} differs from this config: --resume continues the same fit alone; "
            "--overwrite starts anew"
        )


def _claim(config: FittedSimulation, output: Path, *, overwrite: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    folder.sweep(output)
    if overwrite:
        for name in OWN:
            folder.remove(output / name)
    write_file(output / CONFIG, config.to_yaml().encode())

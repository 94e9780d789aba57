"""Fits whose held-out data are none are refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config_document import ConfigError
from trainer.fitting_config import FittedSimulation
from trainer.simulation_config import load_simulation

FIT_HCP = Path(__file__).resolve().parents[2] / "configs" / "fit_hcp.yaml"

LEAKS = {
    "one of the target": (
        {"fit.held_out.hcp.subjects": "['377451', '102311']"},
        "subjects 102311 are in target and in held_out",
    ),
    "all to fit on": ({"fit.target.hcp.subjects": "[]"}, "subjects 377451 are in target"),
    "all to judge by": ({"fit.held_out.hcp.subjects": "[]"}, "subjects 101309, 102311, 102816"),
    "their own connectome": (
        {"network.connectome.subjects": "[]"},
        "network.connectome: subjects 377451 are in its mean and in fit.held_out",
    ),
    "the target itself": (
        {"fit.held_out.hcp.subjects": "['131217']", "fit.target.hcp.subjects": "['131217']"},
        "held_out is the target itself",
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_held_out_people_are_not_those_of_the_fit(leak: str) -> None:
    overrides, message = LEAKS[leak]
    with pytest.raises(ConfigError, match=message):
        load_simulation(FIT_HCP, list(overrides.items()), FittedSimulation)


def test_people_that_are_apart_are_taken() -> None:
    assert load_simulation(FIT_HCP, [], FittedSimulation).fit.held_out is not None

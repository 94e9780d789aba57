from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.schedule import ScheduleError, cycle_ends, factor, parameter_groups


@given(st.integers(1, 200), st.integers(0, 20), st.integers(1, 6))
def test_factors_rise_then_fall_in_every_cycle(total: int, warmup: int, cycles: int) -> None:
    values = [
        factor(step, total, schedule="cycles", warmup=warmup, cycles=cycles)
        for step in range(total)
    ]
    assert all(0 <= value <= 1 for value in values)
    ends = cycle_ends(total, warmup=warmup, cycles=cycles)
    assert ends[-1] == max(total, warmup + 1)
    for first, end in itertools.pairwise([warmup, *ends]):
        cycle = values[first:end]
        assert cycle == sorted(cycle, reverse=True)
        assert cycle[:1] in ([], [1.0])


def test_cycles_of_one_are_a_cosine() -> None:
    for step in range(30):
        one = factor(step, 30, schedule="cosine", warmup=5)
        assert one == factor(step, 30, schedule="cycles", warmup=5, cycles=1)
    assert factor(29, 30, schedule="constant", warmup=5) == 1.0


def test_parameters_go_by_the_product_of_the_patterns_that_match() -> None:
    module = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1)})
    module["body"].bias.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(module, {})] == [3]
    groups = parameter_groups(module, {"head.*": 0.1, "*.bias": 0.5})
    sizes = {group["factor"]: [p.numel() for p in group["params"]] for group in groups}
    assert sizes == {1.0: [4], 0.1: [2], 0.05: [1]}
    assert parameter_groups(torch.nn.Identity(), {"head.*": 0.1}) == []


def test_a_pattern_without_a_parameter_names_those_there_are() -> None:
    with pytest.raises(ScheduleError, match=r"'tail\.\*' matches no .* weight, bias"):
        parameter_groups(torch.nn.Linear(2, 2), {"tail.*": 2.0})

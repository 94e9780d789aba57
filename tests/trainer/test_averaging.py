from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer import averaging


@given(st.floats(0.01, 0.999), st.lists(st.floats(-5, 5), min_size=1, max_size=20))
def test_the_average_is_the_weighted_mean_of_all_weights_so_far(
    decay: float, values: list[float]
) -> None:
    average: averaging.Weights = {}
    for step, value in enumerate(values, start=1):
        weights = {"w": torch.tensor([value], dtype=torch.float64), "count": torch.tensor(step)}
        averaging.update(average, weights, decay, step)
    counts = [decay ** (len(values) - 1 - i) for i in range(len(values))]
    mean = sum(c * v for c, v in zip(counts, values, strict=True)) / sum(counts)
    assert float(average["w"]) == pytest.approx(mean, abs=1e-9)
    assert int(average["count"]) == len(values)


def test_the_average_is_no_view_of_the_weights() -> None:
    module, average = torch.nn.Linear(2, 2), {}
    averaging.update(average, module.state_dict(), 0.9, 1)
    with torch.no_grad():
        module.weight.add_(1)
    assert torch.equal(average["weight"] + 1, module.weight)


def test_swapped_weights_come_back_even_after_an_error() -> None:
    module = torch.nn.Linear(2, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    other = {name: torch.zeros_like(value) for name, value in before.items()}
    with averaging.swapped(module, other):
        assert not module.weight.any()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    block = averaging.swapped(module, other)
    block.__enter__()
    with pytest.raises(KeyError):
        block.gen.throw(KeyError())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

from __future__ import annotations

import pytest
import torch

from trainer.models.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_lost_and_the_mean_stays(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(101, 3, 331, dtype=dtype, requires_grad=True)
    dropped = Dropout(share)(x)
    assert dropped.dtype == dtype
    assert dropped.shape == x.shape
    assert float((dropped == 0).float().mean()) == pytest.approx(share, abs=0.01)
    assert float(dropped.detach().float().mean()) == pytest.approx(1.0, abs=0.01)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)


@pytest.mark.parametrize("share", [0.9981, 0.9999])
def test_a_share_next_to_one_keeps_something(share: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(share)(torch.ones(200_000))
    assert torch.isfinite(dropped).all()
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.2)


def test_neighbours_are_lost_independently() -> None:
    torch.manual_seed(0)
    lost = Dropout(0.5)(torch.ones(800_000)).view(-1, 8) == 0
    assert torch.corrcoef(lost.T.float()).sub(torch.eye(8)).abs().max() < 0.02


def test_the_seed_decides_and_evaluation_passes_through() -> None:
    module, x = Dropout(0.3), torch.randn(5, 7)
    torch.manual_seed(1)
    first = module(x)
    torch.manual_seed(1)
    assert torch.equal(module(x), first)
    assert module.eval()(x) is x
    assert Dropout(0.0)(x) is x

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer import checkpoint
from trainer.checkpoint import Checkpoint, CheckpointError, Snapshot


def example(seed: int = 0) -> Checkpoint:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator)
    last = {
        "weight": weight,
        "tied": weight,
        "bias": torch.randn(3, generator=generator).double(),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 2),
    }
    best = {name: value.clone() for name, value in last.items()}
    slots = {"step": torch.tensor(4.0), "exp_avg": torch.randn(3, 4, generator=generator)}
    return Checkpoint(
        epoch=3,
        step=12,
        last=last,
        best=best,
        optimizer={0: slots, 10: {"step": torch.tensor(5.0)}},
        history=[{"step": 0, "loss": None, "epoch": 0, "mse": 0.1 + 0.2}],
        best_epoch=2,
        best_metric=0.1 + 0.2,
        config={"name": "µ", "training": {"learning_rate": 1e-3}},
        config_sha256="0" * 64,
        data_fingerprint="1" * 64,
    )


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    for field in dataclasses.fields(Checkpoint):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("last", "best", "average"):
            a, b = {0: a}, {0: b}
        if field.name in ("last", "best", "average", "optimizer"):
            assert {k: set(v) for k, v in a.items()} == {k: set(v) for k, v in b.items()}
            for key in a:
                for name in a[key]:
                    assert a[key][name].dtype == b[key][name].dtype
                    assert torch.equal(a[key][name], b[key][name])
        else:
            assert repr(a) == repr(b)  # the order of keys too: it is metrics.jsonl's


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    for saved in (example(), dataclasses.replace(example(), average=example(1).last)):
        checkpoint.save(saved, tmp_path / "c.safetensors")
        assert_same(checkpoint.load(tmp_path / "c.safetensors"), saved)


def test_same_state_same_bytes(tmp_path: Path) -> None:
    checkpoint.save(example(), tmp_path / "a")
    checkpoint.save(checkpoint.load(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_module_without_tensors_has_a_checkpoint(tmp_path: Path) -> None:
    bare = dataclasses.replace(example(), last={}, best={}, optimizer={})
    checkpoint.save(bare, tmp_path / "c")
    assert_same(checkpoint.load(tmp_path / "c"), bare)


def test_snapshots_come_back_and_are_no_checkpoints(tmp_path: Path) -> None:
    snapshot = Snapshot(example().last, 2, 8, "0" * 64, "1" * 64)
    checkpoint.save_snapshot(snapshot, tmp_path / "snapshots" / "1.safetensors")
    found = checkpoint.load_snapshot(tmp_path / "snapshots" / "1.safetensors")
    assert (found.epoch, found.step, found.config_sha256) == (2, 8, "0" * 64)
    for name, value in snapshot.weights.items():
        assert torch.equal(found.weights[name], value)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "snapshots" / "1.safetensors")
    checkpoint.save(example(), tmp_path / "c")
    with pytest.raises(CheckpointError, match="not a snapshot"):
        checkpoint.load_snapshot(tmp_path / "c")


def test_non_finite_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.save(dataclasses.replace(example(), best_metric=float("inf")), tmp_path / "c")
    assert not any(tmp_path.iterdir())


def test_pickles_are_not_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "model.pth")
    (tmp_path / "plain").write_bytes(pickle.dumps({"weight": 1}))
    for name in ("model.pth", "plain"):
        with pytest.raises(CheckpointError, match=name):
            checkpoint.load(tmp_path / name)


def test_missing_file_and_foreign_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(CheckpointError, match="no checkpoint there"):
        checkpoint.load(tmp_path / "none")
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="foreign"):
        checkpoint.load(tmp_path / "foreign")


@given(st.data())
def test_a_cut_file_is_refused(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c"
        checkpoint.save(example(), path)
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


def test_weights_fit_whole_or_not_at_all() -> None:
    module = torch.nn.Linear(4, 3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    wrong = {"weight": torch.zeros(3, 5), "gain": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_weights(module, wrong)
    for word in ("bias is missing", "gain is not in the model", "(3, 5), the model has (3, 4)"):
        assert word in str(caught.value)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_which_weights() -> None:
    assert example().weights("best").keys() == example().last.keys()
    assert example().weights("last") is not example().average
    averaged = dataclasses.replace(example(), average=example(1).last)
    assert averaged.weights("last") is averaged.average
    with pytest.raises(CheckpointError, match="'best', 'last' or"):
        example().weights("newest")

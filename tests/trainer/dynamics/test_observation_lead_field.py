"""Lead fields: units, covariance of the noise, pieces, gradients, helpers for vertices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.dynamics import Param
from trainer.dynamics.lead_field import (
    EegLeadField,
    MegLeadField,
    Readout,
    compress_vertices,
    fixed_orientations,
    sensor_normals,
)
from trainer.dynamics.observation import OBSERVATIONS, ObservationError

COVARIANCE = np.array([[1.5, 0.5, 0.5], [0.5, 1.5, 0.5], [0.5, 0.5, 1.5]])
MATRIX = np.random.default_rng(0).normal(size=(3, 4))


def sources(samples: int = 6, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, samples, 4, generator=generator, dtype=torch.float64)


def test_sensors_see_the_weighted_sum_in_their_unit() -> None:
    # 20 nA·m under a lead field of 100 V per A·m are 2 µV; 2000 fT per nA·m at 10 nA·m are 20 pT.
    eeg = EegLeadField(matrix=[[100.0]])
    meg = MegLeadField(matrix=[[2e-12 / 1e-9]])
    assert (eeg.unit, meg.unit) == ("V", "T")
    seen, interval, _ = eeg.observe(torch.full((1, 1, 1), 20.0), 4.0)
    assert interval == 4.0
    assert float(seen) == pytest.approx(2e-6)
    assert float(meg.observe(torch.full((1, 1, 1), 10.0), 4.0)[0]) == pytest.approx(2e-11)
    # Activity in mV that stands for 3 nA·m per mV.
    scaled = EegLeadField(matrix=[[100.0]], scale=3e-9)
    assert float(scaled.observe(torch.ones(1, 1, 1), 4.0)[0]) == pytest.approx(3e-7)
    values = sources()
    seen, _, _ = EegLeadField(matrix=MATRIX, scale=1.0).observe(values, 1.0)
    np.testing.assert_allclose(seen, values.numpy() @ MATRIX.T, rtol=1e-12)


def test_the_noise_has_the_covariance_asked_for() -> None:
    lead_field = EegLeadField(matrix=MATRIX, covariance=COVARIANCE, seed=3)
    noise, _, _ = lead_field.observe(torch.zeros(4, 20_000, 4, dtype=torch.float64), 1.0)
    # Lower triangular times its transpose, not the other way around: every variance is 1.5.
    found = np.cov(noise.reshape(-1, 3).numpy().T)
    np.testing.assert_allclose(found, COVARIANCE, atol=0.03)
    # White in time, and another for every member.
    flat = noise[..., 0].numpy()
    assert abs(np.corrcoef(flat[0, 1:], flat[0, :-1])[0, 1]) < 0.03
    assert abs(np.corrcoef(flat[0], flat[1])[0, 1]) < 0.03


def test_one_standard_deviation_for_all_sensors_in_tesla() -> None:
    meg = MegLeadField(matrix=np.zeros((2, 4)), covariance=5e-15)
    noise, _, _ = meg.observe(torch.zeros(1, 20_000, 4), 1.0)
    np.testing.assert_allclose(noise.std(dim=(0, 1)), [5e-15, 5e-15], rtol=0.03)


def test_pieces_equal_the_whole_bit_for_bit_and_members_may_be_apart() -> None:
    values = sources(2500).float()
    lead_field = EegLeadField(matrix=MATRIX, covariance=COVARIANCE, seed=1)
    whole, _, _ = lead_field.observe(values, 1.0)
    for cut in (1, 1000, 1024, 2499):
        first, _, state = lead_field.observe(values[:, :cut], 1.0)
        second, _, state = lead_field.observe(values[:, cut:], 1.0, state)
        assert torch.equal(torch.cat([first, second], dim=1), whole)
        assert state.done == 2500
    second_member = EegLeadField(matrix=MATRIX, covariance=COVARIANCE, seed=1, first_member=1)
    assert torch.equal(second_member.observe(values[1:], 1.0)[0], whole[1:])


def test_the_noise_is_not_the_simulation_s_of_the_same_seed() -> None:
    from trainer.dynamics.noise import standard_normals

    simulated = standard_normals(0, range(1), 0, 50, 1, 3)[0, :, 0]
    assert not np.isclose(sensor_normals(0, range(1), 0, 50, 3)[0], simulated).any()


def test_gradients_of_sources_and_matrix() -> None:
    matrix = Param(MATRIX)

    class Seen(EegLeadField):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.observe(values, 1.0)[0]

    lead_field = Seen(matrix=matrix, scale=1.0, covariance=COVARIANCE)

    def observed(values: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(lead_field, {"matrix.raw": raw}, (values,))

    raw = torch.tensor(MATRIX, requires_grad=True)
    assert torch.autograd.gradcheck(observed, (sources(2, batch=1).requires_grad_(), raw))


@pytest.mark.parametrize("normalize", ["l1", "l2", None])
@pytest.mark.parametrize("demean", [True, False])
def test_the_readout_normalises_rows_then_takes_the_mean_over_sensors(
    normalize: str | None, demean: bool
) -> None:
    readout = Readout(matrix=MATRIX, gain=2.0, offset=0.5, normalize=normalize, demean=demean)  # type: ignore[arg-type]
    wanted = MATRIX.copy()
    if normalize is not None:
        size = np.abs(MATRIX).sum(1) if normalize == "l1" else np.linalg.norm(MATRIX, axis=1)
        wanted /= size[:, None]
    if demean:
        wanted -= wanted.mean(axis=0)
    values = sources()
    seen, _, _ = readout.observe(values, 1.0)
    np.testing.assert_allclose(seen, 2.0 * values.numpy() @ wanted.T - 0.5, atol=1e-12)


def test_a_fitted_readout_has_gradients_even_for_a_sensor_without_weights() -> None:
    matrix = MATRIX.copy()
    matrix[1] = 0.0
    readout = Readout(matrix=Param(matrix), gain=Param(1.0), offset=Param(0.0), normalize="l2")
    readout.observe(sources(), 1.0)[0].square().sum().backward()
    gradients = {name: each.grad for name, each in readout.named_parameters()}
    assert set(gradients) == {"matrix.raw", "gain.raw", "offset.raw"}
    assert all(each is not None and bool(torch.isfinite(each).all()) for each in gradients.values())


def test_sensors_under_vmap_equal_a_loop() -> None:
    values = sources(batch=3)
    for model in (EegLeadField(matrix=MATRIX, scale=1.0), Readout(matrix=MATRIX)):

        def seen(one: torch.Tensor, model: EegLeadField | Readout = model) -> torch.Tensor:
            return model.observe(one[None], 1.0)[0][0]

        looped = torch.stack([seen(one) for one in values])
        torch.testing.assert_close(torch.func.vmap(seen)(values), looped)


def test_vertices_with_fixed_orientations() -> None:
    normals = torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    parcels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    weights = fixed_orientations(normals, parcels, torch.tensor([1.0, 3.0, 0.5]))
    assert weights.shape == (9, 2)
    assert weights[:, 0].tolist() == [0, 0, 1, 3, 0, 0, 0, 0, 0]
    assert weights[:, 1].tolist() == [0, 0, 0, 0, 0, 0, 0, 0.5, 0]
    lead_field = torch.arange(18.0).reshape(2, 9)
    regions = compress_vertices(lead_field, weights)
    assert regions.tolist() == [[2 + 3 * 3, 3.5], [11 + 3 * 12, 8.0]]
    with pytest.raises(ObservationError, match=r"normals\[1\] is 0"):
        fixed_orientations(torch.tensor([[1.0, 0, 0], [0, 0, 0]]), torch.ones(2, 1))
    with pytest.raises(ObservationError, match="3 · vertex"):
        compress_vertices(lead_field, weights[:6])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"matrix": [1.0, 2.0]}, r"must be \(sensor, node\)"),
        ({"matrix": [[1.0, float("nan")]]}, r"matrix\[0, 1\] is no finite number"),
        ({"matrix": [["a"]]}, "no .sensor, node. matrix of numbers"),
        ({"matrix": "absent.npy"}, "there is no file absent"),
        ({"matrix": MATRIX, "scale": 0.0}, "scale is 0"),
        ({"matrix": MATRIX, "covariance": np.eye(2)}, r"must be finite, \(3, 3\)"),
        ({"matrix": MATRIX, "covariance": -np.eye(3)}, "not positive definite"),
        ({"matrix": MATRIX, "covariance": np.triu(np.ones((3, 3)))}, "not symmetric"),
        ({"matrix": MATRIX, "sensors": ("a", "b")}, "2 names for 3 sensors"),
        ({"matrix": MATRIX, "seed": -1}, "seed -1"),
    ],
)
def test_a_lead_field_that_cannot_be_used_is_refused(settings: dict, problem: str) -> None:
    with pytest.raises(ObservationError, match=problem):
        EegLeadField(**settings)


def test_activity_of_another_number_of_nodes_is_refused() -> None:
    with pytest.raises(ObservationError, match="is for 4 nodes"):
        EegLeadField(matrix=MATRIX).observe(torch.zeros(1, 2, 5), 1.0)


def test_a_lead_field_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "field.npy"
    np.save(path, MATRIX.astype(np.float32))
    lead_field = OBSERVATIONS.build({"name": "eeg", "matrix": str(path)})
    np.testing.assert_array_equal(lead_field.matrix, MATRIX.astype(np.float32))
    np.save(path, np.array([[None]]))
    with pytest.raises(ObservationError, match=r"matrix: field\.npy: holds Python objects"):
        EegLeadField(matrix=path)


def test_it_is_built_by_name_with_its_sensors() -> None:
    settings = {"name": "meg", "matrix": [[1.0, 2.0]], "sensors": ("MEG0111",)}
    assert OBSERVATIONS.build(settings).channels(("a", "b")) == ("MEG0111",)
    assert {"bold", "eeg", "meg", "readout", "temporal_average"} <= set(OBSERVATIONS.names())

"""Noise from a seed, and inputs that may be left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seeded_artifact import GAIN, NODES, NOISE, STEPS, expected, specs, write_seeded

import artifact
from artifact.errors import GoldenError, InputError, ManifestError
from artifact.inputs import MAX_ROW_ELEMENTS, with_defaults
from artifact.manifest import Axis, SeededNoise, TensorSpec
from artifact.noise import BLOCK, check_steps, standard_normals


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> artifact.Model:
    return artifact.load(write_seeded(tmp_path_factory.mktemp("noise") / "seeded"))


@given(
    seed=st.integers(0, 2**63 - 1),
    member=st.integers(0, 2**63 - 1),
    first=st.integers(0, 3 * BLOCK),
    steps=st.integers(1, 40),
    cut=st.integers(1, 39),
)
@settings(max_examples=40, deadline=None)
def test_numbers_of_a_step_are_the_same_however_a_run_is_cut(
    seed: int, member: int, first: int, steps: int, cut: int
) -> None:
    members = range(member, member + 2)
    whole = standard_normals(seed, members, first, steps, 2, 3)
    near = min(cut, steps)
    parts = [standard_normals(seed, members, first, near, 2, 3)]
    if steps > near:
        parts.append(standard_normals(seed, members, first + near, steps - near, 2, 3))
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    alone = standard_normals(seed, members[1:], first, steps, 2, 3)
    assert np.array_equal(alone[0], whole[1])
    assert not np.array_equal(whole[0], whole[1])


def test_numbers_are_standard_normal() -> None:
    drawn = standard_normals(1, range(4), 1000, 5000, 1, 5)
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02


def test_a_seed_becomes_noise(seeded: artifact.Model) -> None:
    assert seeded.golden.identical
    stimulus = np.random.default_rng(0).normal(size=(3, 25, NODES)).astype(np.float32)
    seeds, members = np.array([7, 7, 2**62]), np.array([0, 9, 1])
    answer = seeded.predict({"stimulus": stimulus, "seed": seeds, "member": members})["x"]
    noise = np.concatenate(
        [
            standard_normals(seed, range(member, member + 1), 0, 25, 1, NODES)
            for seed, member in zip(seeds.tolist(), members.tolist(), strict=True)
        ]
    )
    np.testing.assert_allclose(answer, expected(stimulus, noise), atol=1e-6)
    for row in range(3):
        one = {"stimulus": stimulus, "seed": seeds, "member": members}
        alone = seeded.predict({name: values[row : row + 1] for name, values in one.items()})
        assert alone["x"].tobytes() == answer[row : row + 1].tobytes()


def test_what_has_a_default_may_be_left_out(seeded: artifact.Model) -> None:
    stimulus = np.ones((2, 5, NODES), np.float32)
    whole = {
        "stimulus": stimulus,
        "seed": np.zeros(2, np.int64),
        "member": np.zeros(2, np.int64),
        "gain": np.full((2, 1), GAIN, np.float32),
    }
    wanted = seeded.predict(whole)["x"]
    assert np.array_equal(seeded.predict({"stimulus": stimulus})["x"], wanted)
    quiet = seeded.predict({"stimulus": stimulus, "gain": np.zeros((2, 1), np.float32)})["x"]
    noiseless = np.zeros((2, 5, 1, NODES), np.float32)
    np.testing.assert_allclose(quiet, expected(stimulus, noiseless), atol=1e-6)
    with pytest.raises(InputError, match="stimulus: missing"):
        seeded.predict({"seed": np.zeros(2, np.int64)})
    with pytest.raises(InputError, match="stimulus: missing"):
        seeded.predict({})
    with pytest.raises(InputError, match="unknown"):
        seeded.predict({"stimulus": stimulus, "noise": noiseless})
    with pytest.raises(InputError, match="seed: axis batch has 3, but 2 in stimulus"):
        seeded.predict({"seed": np.zeros(3, np.int64), "stimulus": stimulus})


def test_defaults_fill_rows_in_the_inputs_own_dtype() -> None:
    filled = with_defaults(specs(), {"stimulus": np.zeros((4, 2, NODES), np.float32)})
    assert filled["seed"].dtype == np.int64
    assert filled["gain"].shape == (4, 1)
    assert filled["gain"].dtype == np.float32


@pytest.mark.parametrize("name", ["seed", "member"])
def test_seeds_below_zero_are_refused(seeded: artifact.Model, name: str) -> None:
    stimulus = np.zeros((2, 3, NODES), np.float32)
    with pytest.raises(InputError, match=f"{name}: is -4 at batch 1; must be 0 up"):
        seeded.predict({"stimulus": stimulus, name: np.array([0, -4])})


def test_the_number_of_steps_is_bounded() -> None:
    noise = replace(NOISE, numbers=1024)
    most = MAX_ROW_ELEMENTS // (1024 * NODES)
    check_steps(noise, {"stimulus": np.zeros((1, most, 1))})
    with pytest.raises(InputError, match=f"at most {most} steps"):
        check_steps(noise, {"stimulus": np.zeros((1, most + 1, 1))})


def test_golden_rows_with_a_seed_below_zero_do_not_load(tmp_path: Path) -> None:
    answers = {"x": np.zeros((2, STEPS, NODES), np.float32)}
    with pytest.raises(OverflowError):
        write_seeded(tmp_path / "never", seeds=(1, -1))
    source = write_seeded(tmp_path / "good", seeds=(1, 1))
    golden = artifact.arrays.decode_npz((source / "golden.npz").read_bytes())
    golden["input.seed"] = np.array([1, -1])
    manifest = artifact.manifest.Manifest.from_json((source / "manifest.json").read_bytes())
    files = {
        "model.onnx": (source / "model.onnx").read_bytes(),
        "config.yaml": b"",
        "README.md": b"",
        "golden.npz": artifact.arrays.encode_npz({**golden, "output.x": answers["x"]}),
    }
    artifact.write(tmp_path / "bad", replace(manifest, files=()), files)
    with pytest.raises(GoldenError, match="seed: is -1"):
        artifact.load(tmp_path / "bad")


def noise_of(**changes: Any) -> dict[str, Any]:
    return {**vars(NOISE), **changes}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "noise: must be an object"),
        ({}, "noise: lacks tensor"),
        (noise_of(more=1), "noise: unknown more"),
        (noise_of(seed="gain"), r"noise\.seed: must be the name of an int64 input"),
        (noise_of(member="nothing"), r"noise\.member: must be the name"),
        (noise_of(time="seed"), r"noise\.time: must be the name of an input \(batch, time"),
        (noise_of(tensor="gain"), "noise: two tensors share a name"),
        (noise_of(member="seed"), "noise: two tensors share a name"),
        (noise_of(nodes=0), r"noise\.nodes: must be a whole number"),
        (noise_of(numbers=True), r"noise\.numbers: must be a whole number"),
        (noise_of(nodes=1 << 40), r"noise\.nodes: must be a whole number"),
    ],
)
def test_a_manifest_with_wrong_noise_says_so(value: Any, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        SeededNoise.from_json(value, specs())


def test_noise_survives_the_manifest() -> None:
    assert SeededNoise.from_json(vars(NOISE), specs()) == NOISE


@pytest.mark.parametrize(
    ("default", "said"),
    [
        ("1", "must be a number"),
        (True, "must be a number"),
        (float("inf"), "must be finite"),
        (float("nan"), "must be finite"),
    ],
)
def test_a_default_is_a_finite_number(default: Any, said: str) -> None:
    plain = specs()[3].to_json()
    assert TensorSpec.from_json(plain) == specs()[3]
    with pytest.raises(ManifestError, match=rf"tensor\.default: .*{said}"):
        TensorSpec.from_json({**plain, "default": default})


def test_an_input_of_any_length_has_no_default() -> None:
    open_axis = TensorSpec("x", "float32", (Axis("batch"), Axis("time")), "", "", default=0.0)
    with pytest.raises(ManifestError, match="an axis may vary"):
        TensorSpec.from_json(open_axis.to_json())


def test_an_input_without_a_default_is_written_as_ever() -> None:
    assert "default" not in specs()[0].to_json()

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.errors import ArtifactError, ConfigMismatchError, ManifestError
from artifact.manifest import DTYPES, Axis, FileEntry, Manifest, TensorSpec, config_digest

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
axes = st.lists(
    st.builds(Axis, names, st.none() | st.integers(1, 500)),
    max_size=4,
    unique_by=lambda axis: axis.name,
).map(lambda rest: (Axis("batch"), *(axis for axis in rest if axis.name != "batch")))
printable = st.text().filter(str.isprintable)
specs = st.lists(
    st.builds(TensorSpec, names, st.sampled_from(DTYPES), axes, printable, printable),
    min_size=1,
    max_size=3,
    unique_by=lambda spec: spec.name,
).map(tuple)


def make(**changes: object) -> Manifest:
    config = {"model": {"name": "gru"}, "seed": 3}
    spec = TensorSpec("neural", "float32", (Axis("batch"), Axis("time", 20)), "uV", "window")
    manifest = Manifest(
        name="run",
        version="1",
        task="forecast",
        model="gru",
        inputs=(spec,),
        outputs=(replace(spec, name="forecast"),),
        provenance={"config_sha256": config_digest(config)},
        config=config,
        metrics={"mse": 0.5},
        determinism={"golden_bound": {"forecast": 1e-6}},
        files=(FileEntry("model.onnx", 3, "0" * 64),),
    )
    return replace(manifest, **changes)


@given(specs, specs, st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)))
def test_json_and_back(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], metrics: dict[str, float]
) -> None:
    bounds = {"golden_bound": {spec.name: 1.0 for spec in outputs}}
    manifest = make(inputs=inputs, outputs=outputs, metrics=metrics, determinism=bounds)
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text).to_json() == text


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("schema",), 2, "schema"),
        (("name",), "../x", "name"),
        (("name",), 7, "name: must be text"),
        (("inputs",), [], "inputs: is empty"),
        (("inputs", 0, "dtype"), "float16", r"inputs\[0\].dtype"),
        (("inputs", 0, "axes", 0, "size"), 4, r"inputs\[0\].axes\[0\]"),
        (("inputs", 0, "axes", 1, "size"), 0, r"inputs\[0\].axes\[1\].size"),
        (("inputs", 0, "axes", 1, "size"), True, r"inputs\[0\].axes\[1\].size"),
        (("inputs", 0, "nonfinite"), "maybe", r"inputs\[0\].nonfinite"),
        (("files", 0, "name"), "a/b", r"files\[0\].name"),
        (("files", 0, "name"), "..", r"files\[0\].name"),
        (("files", 0, "size"), -1, r"files\[0\].size"),
        (("files", 0, "sha256"), "ABC", r"files\[0\].sha256"),
        (("metrics",), [], "metrics: must be an object"),
        (("determinism",), {}, "golden_bound"),
        (("determinism", "golden_bound", "forecast"), -1.0, "golden_bound.forecast"),
        (("determinism", "golden_bound", "forecast"), 10**400, "golden_bound.forecast"),
        (("determinism", "certificate"), 5, "determinism.certificate"),
        (("determinism", "certificate"), ["x"], r"determinism.certificate\[0\]"),
        (("determinism", "certificate"), [{"row": {"x": 5}, "batch_sizes": []}], "certificate"),
        (("determinism", "certificate"), [{"row": {}, "batch_sizes": 5}], "certificate"),
        (("inputs", 0, "unit"), "\x1b[31m", "control characters"),
    ],
)
def test_a_wrong_field_is_named(path: tuple[str | int, ...], value: object, said: str) -> None:
    table = json.loads(make().to_json())
    place = table
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ManifestError, match=said):
        Manifest.from_json(json.dumps(table).encode())


def test_unknown_and_missing_keys_are_named() -> None:
    table = json.loads(make().to_json())
    with pytest.raises(ManifestError, match="unknown extra"):
        Manifest.from_json(json.dumps({**table, "extra": 1}).encode())
    del table["task"]
    with pytest.raises(ManifestError, match="lacks task"):
        Manifest.from_json(json.dumps(table).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":1,"a":2}', b"NaN"])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(text)


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_errors(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        Manifest.from_json(data)


def test_config_that_names_another_model_is_refused() -> None:
    config = {"model": {"name": "patchformer"}}
    manifest = make(config=config, provenance={"config_sha256": config_digest(config)})
    with pytest.raises(ConfigMismatchError, match=r"'gru'.*'patchformer'"):
        Manifest.from_json(manifest.to_json())


def test_config_that_was_changed_is_refused() -> None:
    manifest = make(config={"model": {"name": "gru"}, "seed": 4})
    with pytest.raises(ConfigMismatchError, match="config_sha256"):
        Manifest.from_json(manifest.to_json())

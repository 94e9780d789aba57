"""From recordings in files to artifacts: their graph, their plan, and the same bytes twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import artifact
from recording.opening import open_recording
from recording.plan import Plan, cut, window_values
from trainer import scoring
from trainer.config import RunConfig, load_config
from trainer.data import DataError, load_dataset
from trainer.pipeline import train_and_export

STEPS = [
    {"step": "filter", "low": 1.0, "order": 2},
    {"step": "clip", "around": "median", "by": 2.5},
    {"step": "drop", "names": ["1"]},
]


@pytest.fixture
def file(tmp_path) -> Path:
    values = np.random.default_rng(7).normal(size=(1200, 4)).cumsum(axis=0)
    path = tmp_path / "walk.npy"
    np.save(path, values.astype(np.float32))
    return path


def config(path: Path | list[Path], **data) -> RunConfig:
    paths = [str(one) for one in path] if isinstance(path, list) else str(path)
    settings = {
        "name": "recording",
        "path": paths,
        "reader": {"rate": 50.0, "unit": "µV", "type": "eeg"},
        "preparation": STEPS,
        **data,
    }
    return RunConfig(
        name="walk", data=settings, model={"name": "linear"}, training={"device": "cpu"}
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_file_becomes_an_artifact_that_takes_it(file, tmp_path):
    run = train_and_export(config(file), tmp_path / "one")
    model = artifact.load(tmp_path / "one" / "artifact")
    assert model.manifest.inputs[0].layout == "(batch, time=20, channel=4, feature=1)"
    assert model.manifest.outputs[0].shape[2] == 3
    windows = run.dataset.test
    batch = windows.outside().batch(slice(None))
    answer = model.predict(batch.inputs)["forecast"]
    with torch.no_grad():
        own = scoring.forward(
            run.module, windows, windows.batch(slice(None)), torch.device("cpu")
        ).numpy()
    np.testing.assert_allclose(answer, own, atol=1e-4)

    # The plan alone gives the same windows of the same file.
    table = model.manifest.provenance["data"]["plan"]
    plan = Plan.read(table)
    assert plan.graph_steps == 2
    assert plan.steps[1].medians is not None
    prepared = plan.prepare(open_recording(file, plan.reader, format=plan.format))
    from recording.signals import settle

    neural = prepared.neural.with_values(settle(prepared.neural.values))
    found = cut(prepared.with_modality("neural", neural), plan, stride=1)
    rows = np.isin(found.starts, windows.starts)
    np.testing.assert_array_equal(
        window_values(neural, found.starts[rows], plan), batch.inputs["neural"]
    )
    ((_, first, stop),) = plan.test
    assert first == pytest.approx(windows.starts.min() / 50)
    assert stop == pytest.approx(24.0)


@pytest.mark.slow
def test_two_runs_from_two_folders_have_the_same_bytes(file, tmp_path):
    other = tmp_path / "elsewhere" / file.name
    other.parent.mkdir()
    other.write_bytes(file.read_bytes())
    for name, path in (("one", file), ("two", other)):
        train_and_export(config(path), tmp_path / name)
    one, two = (contents(tmp_path / name / "artifact") for name in ("one", "two"))
    assert one == two
    assert not any(str(tmp_path).encode() in content for content in one.values())


def test_the_config_comes_back_from_its_file(file, tmp_path):
    first = config(file)
    (tmp_path / "walk.yaml").write_text(first.to_yaml())
    assert load_config(tmp_path / "walk.yaml", []) == first


def test_files_are_sessions_with_subjects(file, tmp_path):
    other = tmp_path / "other.npy"
    np.save(other, np.load(file)[::-1].copy())
    split = {"by": "subject", "train": ["a"], "validation": ["b"], "test": ["c"]}
    third = tmp_path / "third.npy"
    np.save(third, np.load(file) * 2)
    data = load_dataset(config([file, other, third], subjects=["a", "b", "c"], split=split).data)
    assert data.session_names == ("walk", "other", "third")
    assert [set(part.sessions) for part in data.parts.values()] == [{0}, {1}, {2}]
    with pytest.raises(DataError, match="subjects: 1 names for 3 recordings"):
        load_dataset(config([file, other, third], subjects=["a"], split=split).data)

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from challenge_artifacts import DIM, STEPS, SUBJECTS, write_encoder
from emulated_worker import emulate
from pydantic import ValidationError
from submission_helpers import members, python_or_skip

import artifact
from artifact.arrays import encode_npz
from artifact.bundle import write_zip
from submission import cli, pickled, programs
from submission.build import build
from submission.challenges import ARRAY_KEY, Definition
from submission.challenges.algonauts2025 import CHALLENGE
from submission.checking.check import Report, check
from submission.config import SubmissionConfig, load_config
from submission.errors import ConfigError, ContractError
from submission.scoring.score import score
from submission.worker import sandbox

PARCELS = 6
FILE = "fmri_predictions_friends_s7.npy"
EPISODES = {"s07e01a": 14, "s07e01b": 13}
SAMPLES = {subject: EPISODES for subject in SUBJECTS[:2]}
SETTINGS = {"subjects": list(SAMPLES), "parcels": PARCELS, "target_samples": SAMPLES}
ROOT = Path(__file__).parents[2]

Tree = dict[str, dict[str, Any]]


def settings(**changes: object) -> Any:
    return CHALLENGE.settings.model_validate({**SETTINGS, **changes})


def define(**changes: object) -> Definition:
    return CHALLENGE.definition(settings(**changes), ())


def features(rows: int) -> dict[str, np.ndarray]:
    """Windows of features, a row by sample; with one array that no artifact takes."""
    generator = np.random.default_rng(rows)
    stimulus = generator.normal(size=(rows, STEPS, DIM)).astype(np.float32)
    return {"stimulus": stimulus, "text": stimulus[:, 0]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    for episode, rows in EPISODES.items():
        (folder / f"{episode}.npz").write_bytes(encode_npz(features(rows)))
    return folder


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {
        subject: write_encoder(root / subject, parcels=PARCELS, seed=place)
        for place, subject in enumerate(SAMPLES)
    }


def configuration(
    encoders: Mapping[str, Path] | Path, data: Path | None, output: Path, **changes: object
) -> SubmissionConfig:
    given = {"artifact": encoders} if isinstance(encoders, Path) else {"models": encoders}
    return SubmissionConfig.model_validate(
        {
            "challenge": "algonauts2025",
            "settings": {**SETTINGS, **changes},
            "data": data,
            "output": output,
            **given,
        }
    )


@pytest.fixture(scope="module")
def built(encoders: dict[str, Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(configuration(encoders, data, tmp_path_factory.mktemp("built") / "a.zip")).path


def failures(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.status == "failed"]


def test_definition_has_the_published_facts():
    samples = {subject: {"s07e02a": 480, "s07e01a": 592} for subject in SUBJECTS}
    definition = CHALLENGE.definition(
        CHALLENGE.settings.model_validate({"target_samples": samples}), SUBJECTS
    )
    assert (definition.kind, definition.format, definition.entry) == ("result", "pickled", FILE)
    first = definition.sets[0]
    assert (first.name, first.subject, first.key) == (
        "sub-01_s07e01a",
        "sub-01",
        ("sub-01", "s07e01a"),
    )
    assert (first.input, first.output, first.reference) == (
        "s07e01a.npz",
        FILE,
        "sub-01_s07e01a.npz",
    )
    assert [entry.rows for entry in definition.sets[:2]] == [592, 480]
    assert len(definition.sets) == 8
    assert definition.contract("sub-01", None).outputs[ARRAY_KEY].shape == (1000,)
    assert definition.options["trim"] == 5
    assert definition.options["subjects"]["sub-05_s07e02a"] == "sub-05"
    assert [column.key for column in definition.columns] == [*SUBJECTS, "mean"]
    assert define(split="ood").entry == "fmri_predictions_ood.npy"
    assert load_config(ROOT / "configs/submissions/algonauts2025.yaml").challenge == CHALLENGE.name


def lay_out(root: Path, samples: Mapping[str, Mapping[str, Any]], name: str) -> Path:
    """The challenge's folder, written as its organisers wrote it."""
    for subject, episodes in samples.items():
        folder = root / subject / "target_sample_number"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{subject}_{name}_fmri_samples.npy", dict(episodes), allow_pickle=True)
    return root


@pytest.mark.parametrize("kind", [int, np.int64, np.array])
def test_sample_numbers_from_the_challenges_folder(kind: Callable[[int], Any], tmp_path: Path):
    samples = {s: {e: kind(rows) for e, rows in EPISODES.items()} for s in SAMPLES}
    lay_out(tmp_path / "fmri", samples, "friends-s7")
    lay_out(tmp_path / "fmri", {s: {"chaplin1": 20} for s in SAMPLES}, "ood")
    found = define(target_samples=str(tmp_path))
    assert found.sets == define().sets
    assert define(target_samples=str(tmp_path / "fmri")).sets == found.sets
    films = define(target_samples=str(tmp_path), split="ood").sets
    assert [(entry.key, entry.rows) for entry in films] == [
        (("sub-01", "chaplin1"), 20),
        (("sub-02", "chaplin1"), 20),
    ]


@pytest.mark.parametrize("name", ["samples.json", "samples.yaml"])
def test_sample_numbers_from_a_file(name: str, tmp_path: Path):
    path = tmp_path / name
    path.write_text(json.dumps(SAMPLES))
    assert define(target_samples=str(path)).sets == define().sets
    path.write_text('{"sub-01": {"s07e01a": "many"}}')
    with pytest.raises(
        ConfigError, match=rf"{name}: sub-01.s07e01a: .*number of samples is wanted"
    ):
        define(target_samples=str(path))
    path.write_text('{"sub-01"')
    with pytest.raises(ConfigError, match=rf"challenge.target_samples: .*{name}: "):
        define(target_samples=str(path))


def test_sample_numbers_that_were_not_fetched(tmp_path: Path):
    lay_out(tmp_path, SAMPLES, "friends-s7")
    path = tmp_path / "sub-02/target_sample_number/sub-02_friends-s7_fmri_samples.npy"
    pointers = ["../../../.git/annex/objects/Z4/4j/MD5E-s518--a4.npy/MD5E-s518--a4.npy"]
    pointers.append("/annex/objects/MD5E-s518--a45cf300c425acfe4d9cef3795cdaba0.npy\n")
    for pointer in pointers:
        path.write_text(pointer)
        with pytest.raises(ConfigError, match=rf"git-annex pointer.*datalad get {path}"):
            define(target_samples=str(tmp_path))
    path.unlink()
    path.symlink_to(pointers[0])
    with pytest.raises(ConfigError, match=rf"git-annex pointer.*datalad get {path}"):
        define(target_samples=str(tmp_path))


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.mark}",))


def evil(mark: Path) -> bytes:
    """A pickled `.npy` with a command in it."""
    value = np.empty((), object)
    value[()] = {"sub-01": Evil(mark)}
    return pickled.encode({})[:128] + pickle.dumps(value, 3)


def test_sample_numbers_are_never_unpickled(tmp_path: Path):
    lay_out(tmp_path / "fmri", SAMPLES, "friends-s7")
    path = tmp_path / "fmri/sub-01/target_sample_number/sub-01_friends-s7_fmri_samples.npy"
    path.write_bytes(evil(tmp_path / "ran"))
    with pytest.raises(ConfigError, match=r"samples\.npy: asks for .*system: refused"):
        define(target_samples=str(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_samples": "absent"}, "challenge.target_samples: absent: No such file"),
        ({"target_samples": {"sub-01": EPISODES}}, "no episodes of sub-02; it has sub-01"),
        (
            {"target_samples": SAMPLES | {"sub-01": {"s": 11}}},
            "sub-01, s: 11 samples; .* 12 or more",
        ),
        ({"target_samples": str(ROOT / "tests")}, r"holds no \*friends-s7_fmri_samples.npy"),
    ],
)
def test_sample_numbers_that_do_not_fit(changes: Mapping[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        define(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_samples": {"sub-01": {"s": 0}}}, "greater than or equal to 1"),
        ({"target_samples": {"sub-01": {"a/b": 20}}}, "'a/b' is no name"),
        ({"subjects": ["sub-01", "sub-01"]}, "a name of its own"),
        ({"split": "friends"}, "friends_s7"),
    ],
)
def test_settings_that_cannot_be(changes: Mapping[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        define(**changes)


def test_zip_is_the_platforms_dictionary_of_what_model_predict_answers(
    built: Path, encoders: dict[str, Path], data: Path, tmp_path: Path
):
    assert set(members(built)) == {FILE}
    (tmp_path / FILE).write_bytes(members(built)[FILE])
    # The platform reads it so; here it is a file of our own.
    tree = np.load(tmp_path / FILE, allow_pickle=True).item()
    assert {subject: set(episodes) for subject, episodes in tree.items()} == {
        subject: set(EPISODES) for subject in SAMPLES
    }
    decoded = pickled.decode(members(built)[FILE])
    for subject, path in encoders.items():
        model = artifact.load(path)
        for episode, rows in EPISODES.items():
            wanted = model.predict({"stimulus": features(rows)["stimulus"]})["response"]
            for found in (tree[subject][episode], decoded[subject][episode]):
                assert (found.dtype, found.shape) == (np.float32, (rows, PARCELS))
                assert found.tobytes() == wanted.tobytes()
    again = build(configuration(encoders, data, tmp_path / "again.zip")).path
    assert again.read_bytes() == built.read_bytes()


def test_one_artifact_for_all_takes_the_subject_from_files_of_its_own(tmp_path: Path):
    encoder = write_encoder(tmp_path / "all", parcels=PARCELS, whose=True)
    for place, subject in enumerate(SAMPLES):
        for episode, rows in EPISODES.items():
            arrays = {**features(rows), "subject": np.full(rows, place)}
            (tmp_path / f"{subject}_{episode}.npz").write_bytes(encode_npz(arrays))
    config = configuration(encoder, tmp_path, tmp_path / "a.zip", features="subject")
    tree = pickled.decode(members(build(config).path)[FILE])
    gap = tree["sub-02"]["s07e01a"] - tree["sub-01"]["s07e01a"]
    assert np.ptp(gap, axis=0).max() < 1e-5 < np.abs(gap).min()


def test_build_says_what_features_are_missing_or_too_few(
    encoders: dict[str, Path], data: Path, tmp_path: Path
):
    def refused(folder: Path | None, models: Mapping[str, Path] = encoders) -> str:
        with pytest.raises((ConfigError, ContractError)) as caught:
            build(configuration(models, folder, tmp_path / "a.zip"))
        assert not (tmp_path / "a.zip").exists()
        return str(caught.value)

    assert "data: is missing" in refused(None)
    assert "holds no s07e01a.npz, s07e01b.npz" in refused(tmp_path)
    for name in ("s07e01a.npz", "s07e01b.npz"):
        (tmp_path / name).write_bytes(encode_npz(features(13)))
    text = refused(tmp_path)
    assert text.startswith("sub-01_s07e01a: ")
    assert "has 13 rows; the challenge asks for 14" in text
    (tmp_path / "s07e01a.npz").write_bytes(encode_npz({"text": np.zeros((14, 2))}))
    assert "holds text; the artifact encoder takes stimulus" in refused(tmp_path)
    narrow = write_encoder(tmp_path / "narrow", parcels=5)
    assert "response is" in (text := refused(data, {**encoders, "sub-02": narrow}))
    assert "models.sub-02" in text
    assert "not (batch, 6)" in text
    double = write_encoder(tmp_path / "double", parcels=PARCELS, dtype="float64")
    assert "is float64, not float32" in refused(data, {**encoders, "sub-01": double})
    assert "lacks sub-02" in refused(data, {"sub-01": encoders["sub-01"]})


def without_an_episode(tree: Tree) -> None:
    del tree["sub-02"]["s07e01b"]


def with_a_stranger(tree: Tree) -> None:
    tree["sub-04"] = tree["sub-01"]


def with_another_episode(tree: Tree) -> None:
    tree["sub-01"]["s07e09z"] = tree["sub-01"]["s07e01a"]


def with_a_row_less(tree: Tree) -> None:
    tree["sub-01"]["s07e01a"] = tree["sub-01"]["s07e01a"][1:]


def with_nan(tree: Tree) -> None:
    tree["sub-02"]["s07e01a"][3, 2] = np.nan


def with_float64(tree: Tree) -> None:
    tree["sub-01"]["s07e01b"] = tree["sub-01"]["s07e01b"].astype(np.float64)


def with_text(tree: Tree) -> None:
    tree["sub-01"]["s07e01b"] = "later"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_an_episode, "holds nothing under sub-02 / s07e01b"),
        (with_a_stranger, "holds sub-04, which the challenge does not ask for"),
        (with_another_episode, "holds sub-01 / s07e09z, which the challenge does not ask for"),
        (with_a_row_less, "sub-01_s07e01a: arr_0 has shape (13, 6); must be (14, 6)"),
        (with_nan, "sub-02_s07e01a: arr_0 holds 1 NaN or infinite values, the first in row 3"),
        (with_float64, "sub-01_s07e01b: arr_0 is float64; must be float32"),
        (with_text, "sub-01 / s07e01b is str, not an array"),
    ],
)
def test_broken_predictions(
    built: Path, tmp_path: Path, change: Callable[[Tree], None], message: str
):
    tree = pickled.decode(members(built)[FILE])
    change(tree)
    path = write_zip({FILE: pickled.encode(tree)}, tmp_path / "bent.zip")
    (text,) = failures(check(path, challenge=(CHALLENGE, settings()), pythons=["3.11"]))
    assert FILE in text
    assert message in text


def test_a_command_in_a_pickle_is_refused_and_never_run(tmp_path: Path):
    path = write_zip({FILE: evil(tmp_path / "ran")}, tmp_path / "evil.zip")
    (text,) = failures(check(path, challenge=(CHALLENGE, settings()), pythons=["3.11"]))
    assert "system: refused" in text
    assert not (tmp_path / "ran").exists()


def test_another_file_is_no_submission(built: Path, tmp_path: Path):
    path = write_zip({f"sub/{FILE}": members(built)[FILE]}, tmp_path / "nested.zip")
    (text,) = failures(check(path, challenge=(CHALLENGE, settings()), pythons=["3.11"]))
    assert "has a top folder sub/" in text
    (text,) = failures(check(built, challenge=(CHALLENGE, settings(split="ood"))))
    assert "has no fmri_predictions_ood.npy at its root" in text


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11"])
def test_check_passes_in_the_process_engine(built: Path, version: str):
    python_or_skip(version)
    report = check(built, challenge=(CHALLENGE, settings()), pythons=[version])
    assert failures(report) == []
    assert {row.set: row.rows for row in report.rows} == {
        f"{subject}_{episode}": rows for subject in SAMPLES for episode, rows in EPISODES.items()
    }
    assert all(row.equal for row in report.rows)


@pytest.mark.slow
def test_command_with_the_settings_of_a_file(
    built: Path, encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lay_out(tmp_path / "fmri", SAMPLES, "friends-s7")
    config = tmp_path / "algonauts.yaml"
    config.write_text(
        f"challenge: {{name: algonauts2025, target_samples: {tmp_path}, parcels: {PARCELS}, "
        "subjects: [sub-01, sub-02]}\n"
        f"models: {json.dumps({name: str(path) for name, path in encoders.items()})}\n"
    )
    words = ["submission", "check", str(built), "--config", str(config), "--python", "3.11"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "mean " in printed
    assert "passed" in printed


def write_answers(built: Path) -> dict[str, dict[str, np.ndarray]]:
    """Made-up responses to every episode, near the predictions in the zip."""
    definition, tree = define(), pickled.decode(members(built)[FILE])
    return {
        entry.name: dict(definition.truth({ARRAY_KEY: tree[entry.key[0]][entry.key[1]]}))
        for entry in definition.sets
    }


def correlation(built: Path, answers: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Pearson r by subject over its episodes one after the other, five samples less at each end."""
    tree, found = pickled.decode(members(built)[FILE]), {}
    for subject in SAMPLES:
        one, other = (
            np.concatenate([part[5:-5] for part in parts]).astype(np.float64)
            for parts in (
                [tree[subject][episode] for episode in EPISODES],
                [answers[f"{subject}_{episode}"][ARRAY_KEY] for episode in EPISODES],
            )
        )
        each = [np.corrcoef(one[:, place], other[:, place])[0, 1] for place in range(PARCELS)]
        found[subject] = float(np.mean(each))
    return {**found, "mean": float(np.mean(list(found.values())))}


@pytest.mark.slow
def test_score_and_the_emulated_worker_give_the_correlation(
    built: Path, shared_data: Path, tmp_path: Path
):
    definition, answers = define(), write_answers(built)
    task = programs.write_task(definition, definition.sets, {}, answers, tmp_path / "task")
    wanted = correlation(built, answers)
    result = score(built, data=tmp_path / "task", challenge=(CHALLENGE, settings()), python="3.11")
    assert result.status == "Finished", result.causes
    assert {found.column.key: found.score for found in result.columns} == pytest.approx(wanted)
    # Some of the episodes alone, whose file holds the others as well.
    (tmp_path / "task/reference_data/sub-01_s07e01a.npz").rename(tmp_path / "away.npz")
    some = score(built, data=tmp_path / "task", challenge=(CHALLENGE, settings()), python="3.11")
    assert some.status == "Finished", some.causes
    (tmp_path / "away.npz").rename(tmp_path / "task/reference_data/sub-01_s07e01a.npz")
    python = sandbox.environment(python_or_skip("3.11"), definition.image.packages).path
    emulator = shared_data.parent / "tools" / "codabench-worker"
    report = emulate(emulator, task, built, list(wanted), python, tmp_path / "work")
    assert report["leaderboard"] == pytest.approx(wanted)

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from submission import pickled
from submission.rules import correlation, forecast_error, generic_metric

OUTPUTS = ["detailed_results.html", "scores.json", "statistics.npz"]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


class Folder:
    """A scoring job's folder, made by hand."""

    def __init__(self, root: Path, rule: ModuleType, plan: Mapping[str, Any]) -> None:
        self.program, self.input = root / "program", root / "input"
        self.result, self.truth = self.input / "res", self.input / "ref"
        for folder in (self.program, self.result, self.truth):
            folder.mkdir(parents=True)
        template = resources.files("submission").joinpath("templates/scoring.py.template")
        (self.program / "scoring.py").write_bytes(template.read_bytes())
        (self.program / "rule.py").write_bytes(Path(rule.__file__).read_bytes())
        (self.program / "pickled.py").write_bytes(Path(pickled.__file__).read_bytes())
        (self.program / "plan.json").write_text(json.dumps(plan))

    def run(self, output: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-W", "error", str(self.program / "scoring.py")]
        command += [str(self.input), str(output), str(self.program)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def described(names: list[str]) -> list[dict[str, Any]]:
    files = {"output": "test_{}.predictions.npz", "reference": "truth_{}.npz"}
    return [
        {"name": n, "subject": n, "key": [], **{k: v.format(n) for k, v in files.items()}}
        for n in names
    ]


def forecast(root: Path, names: list[str], **more: Any) -> Folder:
    options = {"observed": 3, "sets": names}
    columns = [f"MSE_{name}" for name in names] + ["total_MSR"]
    plan = {"format": "npz", "sets": described(names), "options": options, "columns": columns}
    folder = Folder(root, forecast_error, {**plan, **more})
    for seed, name in enumerate(names):
        np.savez(folder.truth / f"truth_{name}.npz", normal(seed, 40, 5, 3, 2))
        answer = normal(seed + 10, 40, 5, 3).astype(np.float32)
        np.savez(folder.result / f"test_{name}.predictions.npz", answer)
    return folder


def test_scores_statistics_and_page(tmp_path: Path):
    names = ["a", "b<i>"]
    folder = forecast(tmp_path, names)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    outputs = [tmp_path / "out" / str(i) for i in range(2)]
    for output in outputs:
        done = folder.run(output)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(os.listdir(output)) == OUTPUTS
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for name in OUTPUTS:
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()
    scores = json.loads((outputs[0] / "scores.json").read_text())
    assert list(scores) == ["MSE_a", "MSE_b<i>", "total_MSR"]
    with np.load(outputs[0] / "statistics.npz") as data:
        statistics = {name: data[name] for name in data.files}
    assert {name: rows.shape for name, rows in statistics.items()} == {n: (40, 2) for n in names}
    for seed, name in enumerate(names):
        truth, answer = normal(seed, 40, 5, 3, 2)[..., 0], normal(seed + 10, 40, 5, 3)
        expected = np.mean((answer.astype(np.float32) - truth)[:, 3:] ** 2)
        assert scores[f"MSE_{name}"] == pytest.approx(expected, rel=1e-12)
    totals = {name: rows.sum(axis=0) for name, rows in statistics.items()}
    assert forecast_error.columns(totals, {"sets": names}) == scores
    page = (outputs[0] / "detailed_results.html").read_text()
    assert "b&lt;i&gt;" in page
    assert "<i>" not in page
    assert "Mean squared error of a window" in page
    assert not re.search(r"https?://|<script|src=", page)
    pictures = re.findall(r"<svg.*?</svg>", page)
    assert len(pictures) == 2
    for picture in pictures:
        assert ElementTree.fromstring(picture).attrib["aria-label"].startswith("median ")


def test_every_problem_is_named_at_once(tmp_path: Path):
    names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"]
    folder = forecast(tmp_path, names)
    script = folder.program / "scoring.py"
    script.write_text(script.read_text().replace("8 << 30", "1 << 20"))
    paths = {name: folder.result / f"test_{name}.predictions.npz" for name in names}
    paths["a"].unlink()
    (folder.result / "sub").mkdir()
    paths["b"].rename(folder.result / "sub" / paths["b"].name)
    paths["c"].write_bytes(b"no zip")
    np.savez(paths["d"], np.array([{"a": 1}], dtype=object))
    np.savez(paths["e"], normal(0, 40, 4, 3))
    np.savez(paths["f"], np.full((40, 5, 3), np.nan))
    np.savez(paths["g"], predictions=normal(0, 40, 5, 3))
    content = bytearray(paths["h"].read_bytes())
    content[len(content) // 2] ^= 0xFF
    paths["h"].write_bytes(content)
    (folder.truth / "truth_i.npz").unlink()
    np.savez(folder.truth / "truth_j.npz", normal(0, 3))
    for name, member in (("k", b"text"), ("l", b"\x93NUMPY\x01\x00\x02\x00{}")):
        with zipfile.ZipFile(paths[name], "w") as archive:
            archive.writestr("arr_0.npy", member)
    np.savez_compressed(paths["m"], np.zeros(1 << 18))
    trace = 'Traceback (most recent call last):\n  File "model.py"\nValueError: <no weights>\n'
    (folder.result / "ingestion_error.txt").write_text(trace)
    done = folder.run(tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr.partition("The submission failed")[0]
    for line in (
        "  - test_a.predictions.npz is missing; the output holds test_c.predictions.npz, test_d",
        "  - test_b.predictions.npz is missing; there is sub/test_b.predictions.npz, which must",
        "  - c (test_c.predictions.npz): is no .npz file; numpy.savez writes one\n",
        "  - d (test_d.predictions.npz): holds Python objects; must hold arrays of numbers\n",
        "  - e (test_e.predictions.npz): has shape (40, 4, 3); must be (40, 5, 3): (window, step",
        "  - f (test_f.predictions.npz): holds 240 NaN or infinite values from step 3 on, the",
        "  - g (test_g.predictions.npz): holds predictions; must hold arr_0\n",
        "  - h (test_h.predictions.npz): is no .npz file; numpy.savez writes one\n",
        "  - i: the organiser's reference is missing\n",
        "  - j (test_j.predictions.npz): the reference is float64 (3,), no (window, step",
        "  - k (test_k.predictions.npz): holds arr_0, no array\n",
        "  - l (test_l.predictions.npz): cannot be read: ValueError: ",
        "  - m (test_m.predictions.npz): unpacks to 2097280 bytes; up to 1048576 are read\n",
        "The submission failed while it was predicting:\n  | Traceback (most recent call last):\n",
        "  | ValueError: <no weights>\n",
    ):
        assert line in done.stderr
    assert "truth_" not in done.stderr
    assert os.listdir(tmp_path / "out") == ["detailed_results.html"]
    page = (tmp_path / "out" / "detailed_results.html").read_text()
    assert page.count("<li>") == 13
    assert "&lt;no weights&gt;" in page


def test_an_empty_output_and_many_problems(tmp_path: Path):
    names = [f"set{i}" for i in range(120)]
    plan = {"sets": described(names), "options": {"observed": 3}}
    folder = Folder(tmp_path, forecast_error, plan)
    done = folder.run(tmp_path / "out")
    assert done.returncode == 1
    first = "  - test_set0.predictions.npz is missing; the output holds nothing\n"
    assert first in done.stderr
    assert done.stderr.count("  - ") == 100
    assert done.stderr.endswith("  and 20 more\n")
    odd = os.fsencode(tmp_path / "input" / "res") + b"/\xff.npz"
    with open(odd, "wb"):
        done = folder.run(tmp_path / "out")
    assert "Traceback" not in done.stderr
    assert "the output holds ?.npz" in (tmp_path / "out" / "detailed_results.html").read_text()


EPISODES = [("sub-01", "e1"), ("sub-01", "e2"), ("sub-02", "e1")]


def responses(root: Path, **more: Any) -> Folder:
    sets = [
        {
            "name": f"{subject}_{episode}",
            "subject": subject,
            "key": [subject, episode],
            "output": "predictions.npy",
            "reference": "truth.npy" if subject == "sub-01" else f"{subject}_{episode}.npz",
        }
        for subject, episode in EPISODES
    ]
    options = {"subjects": {entry["name"]: entry["subject"] for entry in sets}}
    plan = {"format": "pickled", "sets": sets, "options": options, "columns": ["mean"], **more}
    folder = Folder(root, correlation, plan)
    truth: dict[str, dict[str, np.ndarray]] = {"sub-01": {}}
    for seed, (subject, episode) in enumerate(EPISODES):
        array = normal(seed, 60, 4)
        if subject == "sub-01":
            truth[subject][episode] = array
        else:
            np.savez(folder.truth / f"{subject}_{episode}.npz", array)
    (folder.truth / "truth.npy").write_bytes(pickled.encode(truth))
    return folder


def answers() -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {"sub-01": {}, "sub-02": {}}
    for seed, (subject, episode) in enumerate(EPISODES):
        noise = normal(seed + 9, 60, 4)
        tree[subject][episode] = (normal(seed, 60, 4) + 0.1 * noise).astype(np.float32)
    return tree


def test_pickled_predictions_whose_large_statistics_are_added_together(tmp_path: Path):
    folder = responses(tmp_path)
    script = folder.program / "scoring.py"
    script.write_text(script.read_text().replace("64 << 20", "1500"))  # two rows for each set
    (folder.result / "predictions.npy").write_bytes(pickled.encode(answers()))
    done = folder.run(tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert list(scores) == ["mean"]
    assert scores["mean"] == pytest.approx(0.995, abs=0.005)
    with np.load(tmp_path / "out" / "statistics.npz") as data:
        statistics = {name: data[name] for name in data.files}
    # 50 samples make three blocks, of which two are added together.
    assert {rows.shape for rows in statistics.values()} == {(2, 29)}
    totals = {name: rows.sum(axis=0) for name, rows in statistics.items()}
    options = json.loads((folder.program / "plan.json").read_text())["options"]
    assert correlation.columns(totals, options)["mean"] == pytest.approx(scores["mean"], rel=1e-12)


def test_pickled_problems(tmp_path: Path):
    folder = responses(tmp_path)
    tree = answers()
    del tree["sub-02"]
    tree["sub-01"] = {"e1": tree["sub-01"]["e1"][:50], "e3": 1, "e2": 2}
    (folder.result / "predictions.npy").write_bytes(pickled.encode(tree))
    done = folder.run(tmp_path / "out")
    assert done.returncode == 1
    for line in (
        "  - sub-01_e1 (predictions.npy): has shape (50, 4); must be (60, 4): (sample, parcel)\n",
        "  - sub-01_e2 (predictions.npy): holds a int; must be an array\n",
        "  - sub-02_e1 (predictions.npy): has no 'sub-02'; the dict holds sub-01\n",
    ):
        assert line in done.stderr
    marker = tmp_path / "ran"
    evil = pickled.encode(tree).replace(
        b"cnumpy.core.multiarray\n_reconstruct\n", b"cos\nmkdir\n", 1
    )
    (folder.result / "predictions.npy").write_bytes(evil)
    done = folder.run(tmp_path / "out")
    lines = done.stderr.splitlines()
    assert lines[1:] == [
        "  - predictions.npy: asks for os.mkdir: refused; such a file holds arrays alone"
    ]
    assert not marker.exists()


def generic(root: Path, metric: str, columns: list[str], truth: np.ndarray) -> Folder:
    options = {"metric": metric, "output": "y"}
    plan = {"sets": described(["a"]), "options": options, "columns": columns}
    folder = Folder(root, generic_metric, plan)
    np.savez(folder.truth / "truth_a.npz", y=truth)
    np.savez(folder.result / "test_a.predictions.npz", y=1e6 * normal(1, *truth.shape))
    return folder


def test_scores_that_cannot_be_stored(tmp_path: Path):
    done = generic(tmp_path / "1", "r2", ["r2", "f1"], np.full(9, 0.5)).run(tmp_path / "out")
    assert done.returncode == 1
    assert "  - r2 is not defined: the answers of a set, or the predictions, never" in done.stderr
    assert "  - f1: the rule of this challenge gives no such column\n" in done.stderr
    done = generic(tmp_path / "2", "mse", [], normal(0, 9)).run(tmp_path / "out")
    assert done.returncode == 1
    assert re.search(r"  - mse is [0-9.]+e\+1[12]; the platform stores scores below", done.stderr)
    assert "units?" in done.stderr


def test_organisers_mistakes(tmp_path: Path):
    more = {"options": {"observed": 3, "sets": ["a", "z"]}}
    done = forecast(tmp_path / "1", ["a"], **more).run(tmp_path / "out")
    assert (done.returncode, done.stderr.splitlines()[1:]) == (1, ["  - no statistics of z"])
    done = forecast(tmp_path / "2", ["a"], options={}).run(tmp_path / "out")
    assert "  - a (test_a.predictions.npz): cannot be scored: KeyError: 'observed'" in done.stderr

"""A small competition for the emulated worker: ingestion, scoring, data and answers."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
from submission_helpers import CHANNELS

import artifact

SCORING = """
import json, os
import numpy as np

plan = json.load(open("/app/program/plan.json"))
scores = {}
for name in plan:
    ref = np.load(f"/app/input/ref/{name}.npz")["arr_0"]
    got = np.load(f"/app/input/res/test_{name}.predictions.npz")["arr_0"]
    assert got.shape == ref.shape, (name, got.shape, ref.shape)
    scores["MSE_" + name] = float(((got[:, 10:] - ref[:, 10:]) ** 2).mean())
json.dump(scores, open("/app/output/scores.json", "w"))
"""


def write_competition(folder: Path, windows: int = 64) -> Path:
    """Folders `ingestion`, `scoring`, `input`, `ref`; `windows` rows per subject."""
    for name in ("ingestion", "scoring", "input", "ref"):
        (folder / name).mkdir(parents=True)
    drive = resources.files("submission").joinpath("templates", "drive.py.template")
    (folder / "ingestion" / "ingestion.py").write_bytes(drive.read_bytes())
    sets = []
    generator = np.random.default_rng(8)
    for subject, channels in CHANNELS.items():
        truth = generator.normal(100, 40, (windows, 20, channels, 9)).astype(np.float32)
        truth[0] = 1e6
        truth[1] = -1e-30
        masked = truth.copy()
        masked[:, 10:] = masked[:, 9:10]
        np.savez(folder / "input" / f"{subject}.npz", masked)
        np.savez(folder / "ref" / f"{subject}.npz", truth[..., 0])
        output = f"test_{subject}.predictions.npz"
        sets.append(
            {"name": subject, "subject": subject, "input": f"{subject}.npz", "output": output}
        )
    plan = json.dumps({"call": "array", "sets": sets})
    (folder / "ingestion" / "plan.json").write_text(plan)
    (folder / "ingestion" / "metadata.yaml").write_text(
        "command: python3 /app/program/ingestion.py /app/ingested_program /app/input_data "
        "/app/output /app/program/plan.json /app/output/report.json\n"
    )
    (folder / "scoring" / "scoring.py").write_text(SCORING)
    (folder / "scoring" / "plan.json").write_text(json.dumps(sorted(CHANNELS)))
    (folder / "scoring" / "metadata.yaml").write_text("command: python3 /app/program/scoring.py\n")
    return folder


def words(folder: Path, submission: Path, work: Path) -> list[str]:
    """Arguments of the emulated worker for this competition."""
    return [
        *("--ingestion", str(folder / "ingestion"), "--scoring", str(folder / "scoring")),
        *("--input", str(folder / "input"), "--ref", str(folder / "ref")),
        *("--submission", str(submission), "--work", str(work), "--json"),
        *("--leaderboard", ",".join(f"MSE_{name}" for name in CHANNELS), "--time-limit", "120"),
    ]


def check_outcome(report: dict[str, object], folder: Path, artifacts: dict[str, Path]) -> None:
    """Finished, imported from /app/output, and every prediction equal to `Model.predict`."""
    assert report["status"][-1] == "Finished", report  # type: ignore[index]
    assert report["missing_columns"] == []
    output = Path(report["prediction"]["root"]) / "output"  # type: ignore[index]
    modules = json.loads((output / "report.json").read_text())["modules"]
    assert modules["model"] == "/app/output/model.py"
    assert modules["artifact"] == "/app/output/artifact/__init__.py"
    assert modules["onnxruntime"].startswith("/app/output/vendor/")
    for subject, path in artifacts.items():
        inputs = np.load(folder / "input" / f"{subject}.npz")["arr_0"]
        expected = artifact.load(path).predict({"neural": inputs})["forecast"]
        got = np.load(output / f"test_{subject}.predictions.npz")["arr_0"]
        assert got.dtype == expected.dtype
        assert got.tobytes() == expected.tobytes()

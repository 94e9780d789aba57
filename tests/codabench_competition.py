"""A small competition for the emulated worker: ingestion, scoring, data and answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from submission_helpers import CHANNELS

import artifact
from submission import challenges
from submission.challenges import ARRAY_KEY
from submission.programs import write_task


def write_competition(folder: Path, windows: int = 64) -> Path:
    """Folders of the organiser's side of the small challenge; `windows` rows per subject."""
    challenge = challenges.get("neural_forecasting")
    files = {n: {"file": f"test_data_{n}_masked.npz", "subject": n} for n in CHANNELS}
    settings = challenge.settings.model_validate({"channels": CHANNELS, "data": files})
    definition = challenge.definition(settings, tuple(CHANNELS))
    generator = np.random.default_rng(8)
    truth = {}
    for subject, channels in CHANNELS.items():
        rows = generator.normal(100, 40, (windows, 20, channels, 9)).astype(np.float32)
        rows[0] = 3e4
        rows[1] = -1e-30
        truth[subject] = {ARRAY_KEY: rows}
    masked = {name: definition.mask(arrays) for name, arrays in truth.items()}
    write_task(definition, definition.sets, masked, truth, folder)
    return folder


def words(folder: Path, submission: Path, work: Path) -> list[str]:
    """Arguments of the emulated worker for this competition."""
    return [
        *(
            "--ingestion",
            str(folder / "ingestion_program"),
            "--scoring",
            str(folder / "scoring_program"),
        ),
        *("--input", str(folder / "input_data"), "--ref", str(folder / "reference_data")),
        *("--submission", str(submission), "--work", str(work), "--json"),
        *("--leaderboard", "MSE_affi,MSE_beignet,total_MSR", "--time-limit", "120"),
    ]


def check_outcome(report: dict[str, object], folder: Path, artifacts: dict[str, Path]) -> None:
    """Finished, imported from /app/output, and every prediction equal to `Model.predict`."""
    assert report["status"][-1] == "Finished", report  # type: ignore[index]
    assert report["missing_columns"] == []
    output = Path(report["prediction"]["root"]) / "output"  # type: ignore[index]
    modules = json.loads((output / "ingestion.json").read_text())["modules"]
    assert modules["model"] == "/app/output/model.py"
    assert modules["artifact"] == "/app/output/artifact/__init__.py"
    assert modules["onnxruntime"].startswith("/app/output/vendor/")
    for subject, path in artifacts.items():
        inputs = np.load(folder / "input_data" / f"test_data_{subject}_masked.npz")["arr_0"]
        expected = artifact.load(path).predict({"neural": inputs})["forecast"]
        got = np.load(output / f"test_{subject}.predictions.npz")["arr_0"]
        assert got.dtype == expected.dtype
        assert got.tobytes() == expected.tobytes()

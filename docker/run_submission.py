#!/usr/bin/env python3
"""Run one submission as CodaBench's prediction job does, and keep its predictions.

usage: run-submission [ZIP [INPUT [PREDICTIONS]]]

Unpacks ZIP (default /submission.zip), copies its files to the output folder, where the platform
imports them from, lets the challenge's ingestion program predict the test sets that lie in INPUT
(default /app/input_data) and copies the prediction files to PREDICTIONS (default /predictions).
Needs the standard library alone, the ingestion program what the challenge's image has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

INGESTION = os.environ.get("AXONNX_INGESTION", "/usr/local/lib/axonnx/ingestion.py")


def main(
    archive: str = "/submission.zip",
    inputs: str = "/app/input_data",
    predictions: str = "/predictions",
) -> int:
    """0 when every set of INPUT was predicted; 2 for a missing zip, or when INPUT holds no set.

    Also 2 for a zip that names files outside INPUT and PREDICTIONS; else the program's status.
    """
    if not os.path.isfile(archive):
        return complain(f"{archive}: no such file; mount your zip there")
    if os.path.isdir(predictions) and not os.access(predictions, os.W_OK):
        return complain(f'{predictions}: may not be written; run with --user "$(id -u):$(id -g)"')
    with tempfile.TemporaryDirectory() as work:
        folders = {name: os.path.join(work, name) for name in ("submission", "output", "program")}
        with zipfile.ZipFile(archive) as members:
            members.extractall(folders["submission"])
        if not os.path.isfile(INGESTION):
            return results(folders["submission"], predictions)
        shutil.copytree(folders["submission"], folders["output"])
        os.mkdir(folders["program"])
        with open(os.path.join(folders["submission"], "submission.json"), encoding="utf-8") as file:
            plan = json.load(file)["plan"]
        for entry in plan["sets"]:
            for name in (entry["input"], entry["output"]):
                if os.path.basename(name) != name:
                    return complain(f"{archive}: submission.json: {name!r} is no plain file name")
        wanted = [entry["input"] for entry in plan["sets"]]
        plan["sets"] = [
            entry for entry in plan["sets"] if os.path.isfile(os.path.join(inputs, entry["input"]))
        ]
        if not plan["sets"]:
            return complain(f"{inputs}: holds none of {', '.join(wanted)}; mount your data there")
        with open(os.path.join(folders["program"], "plan.json"), "w", encoding="utf-8") as file:
            json.dump(plan, file)
        words = [inputs, folders["output"], folders["program"], folders["submission"]]
        status = subprocess.run([sys.executable, INGESTION, *words]).returncode
        if status == 0:
            keep([entry["output"] for entry in plan["sets"]], folders["output"], predictions)
    return status


def results(submission: str, predictions: str) -> int:
    """Where a challenge runs nothing, the files of a submission are its predictions; 0."""
    files = [entry.name for entry in os.scandir(submission) if entry.is_file()]
    keep(files, submission, predictions)
    return 0


def keep(files: list[str], output: str, predictions: str) -> None:
    """Copy prediction files; each appears whole or not at all."""
    os.makedirs(predictions, exist_ok=True)
    for name in files:
        beside = os.path.join(predictions, name + ".tmp")
        shutil.copyfile(os.path.join(output, name), beside)
        os.replace(beside, os.path.join(predictions, name))


def complain(text: str) -> int:
    """Say what is wrong; the exit status of a wrong argument."""
    print(f"run-submission: error: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

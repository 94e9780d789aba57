#!/usr/bin/env python3
"""Run one submission as CodaBench's prediction job does, and keep its predictions.

usage: run-submission [ZIP [INPUT [PREDICTIONS]]]

Unpacks ZIP (default /submission.zip), copies its files to the output folder, where the platform
imports them from, predicts the test sets that lie in INPUT (default /app/input_data) and copies the
prediction files to PREDICTIONS (default /predictions). Needs numpy alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zipfile

sys.path.insert(0, "/usr/local/lib/axonnx")


def main(
    archive: str = "/submission.zip",
    inputs: str = "/app/input_data",
    predictions: str = "/predictions",
) -> int:
    """0 when every set of INPUT was predicted; 2 for a missing zip, or when INPUT holds no set.

    Also 2 for a zip that names files outside INPUT and PREDICTIONS.
    """
    import drive

    if not os.path.isfile(archive):
        return complain(f"{archive}: no such file; mount your zip there")
    with tempfile.TemporaryDirectory() as work:
        submission, output = os.path.join(work, "ingested_program"), os.path.join(work, "output")
        with zipfile.ZipFile(archive) as members:
            members.extractall(submission)
        shutil.copytree(submission, output)
        with open(os.path.join(submission, "submission.json"), encoding="utf-8") as stream:
            plan = json.load(stream)
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
        chosen = os.path.join(work, "plan.json")
        with open(chosen, "w", encoding="utf-8") as stream:
            json.dump(plan, stream)
        drive.main(submission, inputs, output, chosen)
        os.makedirs(predictions, exist_ok=True)
        for entry in plan["sets"]:
            beside = os.path.join(predictions, entry["output"] + ".tmp")
            shutil.copyfile(os.path.join(output, entry["output"]), beside)
            os.replace(beside, os.path.join(predictions, entry["output"]))
    return 0


def complain(text: str) -> int:
    """Say what is wrong; the exit status of a wrong argument."""
    print(f"run-submission: error: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""`axonnx call URL RECORDING`: prepared here by the model's own plan, answered by the service.

The service never sees the file: windows travel as they would from any other program.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from recording.errors import RecordingError
from serve.client import BadAnswer, Client


def call(client: Client, options: argparse.Namespace) -> int:
    """Predict a recording; 0 done, 2 where file and model do not fit. Raises ServiceError."""
    from recording.plan import Plan
    from recording.predictions import Chosen, default_output, open_for, predict_file

    try:
        about = client.describe(options.model)
        name, manifest = str(about["name"]), about["manifest"]
        data = manifest["provenance"]["data"]
        taken, given = manifest["inputs"][0]["name"], manifest["outputs"][0]["name"]
    except (KeyError, TypeError, IndexError):
        raise BadAnswer("the service describes its model in no way known here") from None
    try:
        plan = Plan.read(_plan(data, name))
        recording = open_for(plan, options.file, options.option, options.format, None)
        output = options.output or default_output(options.file)

        def ask(values: np.ndarray) -> np.ndarray:
            return client.predict(name, {taken: values})[given]

        chosen = Chosen(options.part, options.start, options.stop)
        lines = predict_file(recording, plan, ask, chosen, output, output.with_suffix(".png"))
    except RecordingError as error:
        print(f"axonnx: error: {error}", file=sys.stderr)
        return 2
    print("\n".join([*lines, f"artifact {about.get('artifact')}"]))
    return 0


def _plan(data: Any, name: str) -> Mapping[str, Any]:
    plan = data.get("plan") if isinstance(data, Mapping) else None
    if not isinstance(plan, Mapping):
        raise RecordingError(
            f"model {name} was trained on windows, not on recordings: send it an .npy or .npz"
        )
    return plan

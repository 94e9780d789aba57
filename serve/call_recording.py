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
    from recording.predictions import (
        Chosen,
        check_outputs,
        default_output,
        open_for,
        predict_file,
    )

    try:
        about = client.describe(options.model)
        name, manifest = str(about["name"]), about["manifest"]
        data = manifest["provenance"].get("data")
        taken, given = manifest["inputs"][0]["name"], manifest["outputs"][0]["name"]
    except (KeyError, TypeError, IndexError, AttributeError):
        raise BadAnswer("the service describes its model in no way known here") from None
    try:
        plan = Plan.read(_plan(data, name))
        output = options.output or default_output(options.file)
        picture = output.with_suffix(".png")
        check_outputs(options.file, output, picture)
        recording = open_for(plan, options.file, options.option, options.format, None)

        def ask(values: np.ndarray) -> np.ndarray:
            prediction = client.predict(name, {taken: values})
            if prediction.artifact not in (None, about.get("artifact")):
                raise BadAnswer(f"model {name} was exchanged meanwhile; call again")
            return prediction[given]

        chosen = Chosen(options.part, options.start, options.stop)
        lines = predict_file(recording, plan, ask, chosen, output, picture)
    except RecordingError as error:
        return _complain(error)
    except OSError as error:
        return _complain(f"{error.filename or options.file}: {error.strerror or error}")
    print("\n".join([*lines, f"artifact {about.get('artifact')}"]))
    return 0


def _complain(error: object) -> int:
    print(f"axonnx: error: {error}", file=sys.stderr)
    return 2


def _plan(data: Any, name: str) -> Mapping[str, Any]:
    plan = data.get("plan") if isinstance(data, Mapping) else None
    if not isinstance(plan, Mapping):
        raise RecordingError(
            f"model {name} was trained on windows, not on recordings: send it an .npy or .npz"
        )
    return plan

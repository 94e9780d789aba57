"""A file from a stranger, prepared for a model: a process of its own, with bounds on what it takes.

    python -m recording.windows_process FOLDER NAME

FOLDER holds `request.json` (the plan, which windows are wanted, the bounds) and the file, as
`given/NAME`. Standard output gets an NPZ: `neural` (time, channel, feature) float32, the prepared
samples; `starts` (batch,) int64, the first sample of each window among them; one array per column
of the table that is not an answer; `about`, the UTF-8 JSON of all columns. Ends with 0; otherwise
standard output has the reason: 2 the file does not fit, 3 a package is missing, 1 a fault here.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from recording.errors import RecordingError
from recording.windows_confinement import confine

REQUEST, GIVEN = "request.json", "given"
FAULT, UNFIT, MISSING = 1, 2, 3


def main(argv: list[str]) -> int:
    """Run; see the module's text."""
    folder, name = Path(argv[0]), argv[1]
    request = json.loads((folder / REQUEST).read_text())
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries talk
        confine(folder, request["seconds"])
        code, answer = _answer(folder / GIVEN / name, request)
        out.write(answer)
    return code


def _answer(path: Path, request: dict[str, Any]) -> tuple[int, bytes]:
    try:
        return 0, _windows(path, request)
    except RecordingError as error:
        missing = _missing(error)
        return (MISSING, missing.encode()) if missing else (UNFIT, str(error).encode())
    except ModuleNotFoundError as error:
        return MISSING, _missing(error).encode()
    except MemoryError:
        return UNFIT, f"{path.name}: takes more memory than one request may".encode()
    except Exception:
        return FAULT, traceback.format_exc().encode()


def _missing(error: BaseException | None) -> str:
    """The package whose absence led to an error; nothing where that was not the reason."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return str(error.name)
        error = error.__cause__ or error.__context__
    return ""


def _windows(path: Path, request: dict[str, Any]) -> bytes:
    from artifact.arrays import encode_npz
    from recording.opening import find_format
    from recording.plan import Plan
    from recording.prediction_table import column_names, table
    from recording.predictions import Chosen, open_for, predict, ready

    plan = Plan.read(request["plan"])
    if not find_format(path).one_file:
        raise RecordingError(
            "its format may point at other files; send it through `axonnx call`, which reads it "
            "where it lies",
            file=path.name,
        )
    recording = open_for(plan, path, [], None, None)
    prepared = ready(recording, plan, Chosen(start=request["start"], stop=request["stop"]))
    windows, neural = prepared.windows, prepared.recording.neural
    first, stop = int(windows.starts.min()), int(windows.starts.max()) + plan.window
    steps = plan.window - plan.observed if plan.task == "forecast" else 1
    _bound(
        {
            "prepared samples": (stop - first) * len(neural.channels) * len(neural.features) * 4,
            "predictions": len(windows) * steps * (4 * len(plan.outputs) + 16),
        },
        request,
        path.name,
    )
    tail = (plan.window,) if plan.task == "forecast" else ()
    shape = (*tail, len(plan.outputs))

    def nothing(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.float32(0), (len(values), *shape))

    parts = [table(plan, block) for block in predict(nothing, plan, prepared)]
    names = column_names(plan)
    columns = [name for name in parts[0] if name not in names]
    arrays = {
        f"column.{index}": np.concatenate([part[name] for part in parts])
        for index, name in enumerate(columns)
        if name != "predicted"
    }
    samples = np.asarray(neural.values[first:stop], np.float32)
    arrays["neural"] = samples.reshape(stop - first, len(neural.channels), len(neural.features))
    arrays["starts"] = windows.starts - first
    about = {"columns": columns, "answers": names}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    return encode_npz(arrays)


def _bound(sizes: dict[str, int], request: dict[str, Any], name: str) -> None:
    for what, size in sizes.items():
        if size > request["bytes"]:
            raise RecordingError(
                f"its {what} take {size} bytes; at most {request['bytes']} are held for one "
                "request: choose a stretch with start and stop",
                file=name,
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

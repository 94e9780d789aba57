"""A file from a stranger, turned into windows: a process of its own, with bounds on what it takes.

    python -m recording.windows_process FOLDER FILE

FOLDER holds the file and `request.json`: the plan, and which windows are wanted. Standard output
gets an NPZ: `neural` (batch, time, channel, feature), one array per column of the table that is not
an answer, and `about`, the UTF-8 JSON of the answers' columns. Ends with 0, 2 for a file that does
not fit (standard error says why), 3 where a package is missing.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from recording.errors import RecordingError

MEMORY_BYTES = 6 * 2**30  # of addresses: libraries reserve far more than they touch
REQUEST = "request.json"


def main(argv: list[str]) -> int:
    """Run; see the module's text."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder, name = Path(argv[0]), argv[1]
    request = json.loads((folder / REQUEST).read_text())
    try:
        answer = _windows(folder / name, request)
    except RecordingError as error:
        print(error, file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"the package {error.name!r} is not installed here", file=sys.stderr)
        return 3
    except MemoryError:
        print(f"{name}: takes more memory than one request may", file=sys.stderr)
        return 2
    sys.stdout.buffer.write(answer)
    return 0


def _windows(path: Path, request: dict[str, Any]) -> bytes:
    from artifact.arrays import encode_npz
    from recording.opening import find_format
    from recording.plan import Plan, window_values
    from recording.prediction_table import Block, column_names, table
    from recording.predictions import Chosen, open_for, ready

    plan = Plan.read(request["plan"])
    if not find_format(path).one_file:
        raise RecordingError(
            "its format may point at other files; send it through `axonnx call`, which reads it "
            "where it lies",
            file=path.name,
        )
    recording = open_for(plan, path, [], None, None)
    prepared = ready(recording, plan, Chosen(start=request["start"], stop=request["stop"]))
    windows = prepared.windows
    neural = prepared.recording.neural
    size = plan.window * len(neural.channels) * len(neural.features) * 4
    if len(windows) * size > request["bytes"]:
        raise RecordingError(
            f"its {len(windows)} windows take {len(windows) * size} bytes; at most "
            f"{request['bytes']} are answered in one request: choose a stretch with start and stop",
            file=path.name,
        )
    values = window_values(neural, windows.starts, plan)
    tail = (plan.window,) if plan.task == "forecast" else ()
    nothing = np.zeros((1, *(1 for _ in tail), 1), np.float32)
    answers = np.broadcast_to(nothing, (len(windows), *tail, len(plan.outputs)))
    columns = table(plan, Block(windows.starts, windows.times, windows.trials, answers))
    names = column_names(plan)
    about = {"columns": [name for name in columns if name not in names], "answers": names}
    arrays = {
        f"column.{index}": columns[name]
        for index, name in enumerate(about["columns"])
        if name != "predicted"
    }
    arrays["neural"] = values
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    return encode_npz(arrays)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

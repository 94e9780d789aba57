"""A recording sent whole: prepared by the model's plan in a process of its own, then predicted.

The file is hostile until it has been read: the process that reads it has bounds on memory and time,
an empty folder, and takes formats only that lie in one file. The service itself never parses it.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.responses import Response

from artifact.arrays import Array, decode_npz
from serve.answers import artifact_header, find
from serve.errors import DeadlineExceeded, InvalidInput, NotSupported
from serve.negotiation import JSON
from serve.repository import Served
from serve.schemas import RECORDING_EXTRA, recording_answers
from serve.service import Service

CSV = "text/csv"
ROWS = 256  # windows in one run
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def add_recordings(api: FastAPI, service: Service) -> None:
    """Add the routes that take a recording."""
    turn = asyncio.Semaphore(1)

    @api.post("/predict-recording", responses=recording_answers(), openapi_extra=RECORDING_EXTRA)
    async def recording_lone(
        request: Request,
        filename: str,
        start: float | None = None,
        stop: float | None = None,
    ) -> Response:
        """Answer with the only model."""
        return await _predict(service, turn, request, None, filename, start, stop)

    @api.post(
        "/models/{name}/predict-recording",
        responses=recording_answers(),
        openapi_extra=RECORDING_EXTRA,
    )
    async def recording_named(
        request: Request,
        name: str,
        filename: str,
        start: float | None = None,
        stop: float | None = None,
    ) -> Response:
        """Answer with the newest version of the model of this name."""
        return await _predict(service, turn, request, name, filename, start, stop)


async def _predict(
    service: Service,
    turn: asyncio.Semaphore,
    request: Request,
    name: str | None,
    filename: str,
    start: float | None,
    stop: float | None,
) -> Response:
    deadline = service.deadline()
    served = find(service, request, name, None)
    plan = plan_of(served)
    if not _SAFE.fullmatch(filename):
        raise InvalidInput("filename: letters, digits, dots, - and _ only", "filename")
    with service.engine.admit() as place:
        body = await service.read_body(request, place, deadline, False)
        limit = 4 * service.settings.max_body_bytes
        wanted = {"plan": plan, "start": start, "stop": stop, "bytes": limit}
        async with turn:
            packed = await _windows(body, filename, wanted, deadline)
        found = await service.work(
            lambda: decode_npz(packed, max_bytes=2 * limit),
            len(packed),
            deadline,
        )
        place.hold(len(body) + sum(array.nbytes for array in found.values()))
        answers = await _answers(service, request, served, found["neural"], deadline)
        columns = _columns(plan, found, answers)
        csv_wanted = JSON not in request.headers.get("accept", "")
        content = await service.work(
            lambda: _csv(columns) if csv_wanted else _json(columns, served), 1 << 24, deadline
        )
    headers = artifact_header(served)
    return Response(content, media_type=CSV if csv_wanted else JSON, headers=headers)


def plan_of(served: Served) -> Mapping[str, Any]:
    """How a recording becomes this model's inputs; raises NotSupported where none says so."""
    data = served.model.manifest.provenance.get("data")
    plan = data.get("plan") if isinstance(data, Mapping) else None
    if not isinstance(plan, Mapping):
        raise NotSupported(
            f"model {served.name} was trained on windows, not on recordings; send it arrays"
        )
    return plan


async def _windows(body: bytes, filename: str, wanted: Mapping[str, Any], deadline: float) -> bytes:
    """What the reading process writes; raises InvalidInput, NotSupported, DeadlineExceeded."""
    with tempfile.TemporaryDirectory(prefix="axonnx-recording-") as folder:
        (Path(folder) / "request.json").write_text(json.dumps(wanted))
        name = f"recording-{filename}"  # never the request's own file
        await asyncio.to_thread((Path(folder) / name).write_bytes, body)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "recording.windows_process", folder, name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env=_environment(folder),
        )
        try:
            async with asyncio.timeout(deadline - monotonic()):
                packed, said = await process.communicate()
        except TimeoutError:
            raise DeadlineExceeded("the recording was not read in time; send less of it") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    text = said.decode(errors="replace").replace(name, filename).strip()
    if process.returncode == 3:
        raise NotSupported(f"this service does not read such files: {text}")
    if process.returncode == 2:
        raise InvalidInput(text[:1000], "body")
    if process.returncode != 0:
        raise InvalidInput(f"{filename}: cannot be read", "body")
    return packed


def _environment(folder: str) -> dict[str, str]:
    """Nothing of the service's own environment, where its keys are, but where packages lie."""
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "HOME": folder,
        "TMPDIR": folder,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


async def _answers(
    service: Service, request: Request, served: Served, values: Array, deadline: float
) -> Array:
    taken, given = served.model.manifest.inputs[0].name, served.model.manifest.outputs[0].name
    parts = []
    for at in range(0, len(values), ROWS):
        inputs = {taken: values[at : at + ROWS]}
        parts.append((await service.predict(request, served, inputs, deadline))[given])
    request.scope["rows"] = len(values)
    return np.concatenate(parts)


def _columns(
    plan: Mapping[str, Any], found: Mapping[str, Array], answers: Array
) -> dict[str, Array]:
    """The table of `axonnx predict`, whose fixed columns come from the reading process."""
    about = json.loads(found["about"].tobytes())
    if plan["task"] == "forecast":
        answers = answers[:, plan["observed"] :]
        answers = answers.reshape(-1, answers.shape[-1])
    columns: dict[str, Array] = {}
    for index, name in enumerate(about["columns"]):
        if name == "predicted":
            columns[name] = np.array(plan["outputs"])[answers.argmax(axis=1)]
        else:
            columns[name] = found[f"column.{index}"]
    return columns | {name: answers[:, index] for index, name in enumerate(about["answers"])}


def _csv(columns: Mapping[str, Array]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    # str of a numpy float is the shortest text that reads back as the same number.
    table.writerows(zip(*([str(v) for v in values] for values in columns.values()), strict=True))
    return text.getvalue().encode()


def _json(columns: Mapping[str, Array], served: Served) -> bytes:
    lists = {name: values.tolist() for name, values in columns.items()}
    return json.dumps(
        {"model": served.name, "artifact": served.model.id, "columns": lists}
    ).encode()

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
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import FastAPI, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from artifact.arrays import Array, decode_npz
from serve.answers import find
from serve.errors import InvalidInput, UnsupportedMediaType
from serve.negotiation import JSON
from serve.recording_process import Turns, read_recording
from serve.repository import Served
from serve.schemas import RECORDING_EXTRA, recording_answers
from serve.service import Service

CSV = "text/csv"
ROWS = 256  # windows in one run
RUN_BYTES = 1 << 24  # and their bytes
LEFT = 499  # nobody reads it: the caller is gone
MOST_NAME = 200  # bytes
_BLOCK = 1 << 14  # rows of a table that are text at the same time
_NAME = re.compile(r"\w[\w .()+,=@-]*")
Name = Annotated[str, Query(description="the file's name, whose suffix tells formats apart")]
Seconds = Annotated[
    float | None, Query(allow_inf_nan=False, description="seconds on the recording's own clock")
]


def add_recordings(api: FastAPI, service: Service) -> None:
    """Add the routes that take a recording."""
    turns = Turns()

    @api.post("/predict-recording", responses=recording_answers(), openapi_extra=RECORDING_EXTRA)
    async def recording_lone(
        request: Request, filename: Name, start: Seconds = None, stop: Seconds = None
    ) -> Response:
        """Answer with the only model."""
        wanted = {"start": start, "stop": stop}
        return await _while_heard(service, turns, request, None, filename, wanted)

    @api.post(
        "/models/{name}/predict-recording",
        responses=recording_answers(),
        openapi_extra=RECORDING_EXTRA,
    )
    async def recording_named(
        request: Request, name: str, filename: Name, start: Seconds = None, stop: Seconds = None
    ) -> Response:
        """Answer with the newest version of the model of this name."""
        wanted = {"start": start, "stop": stop}
        return await _while_heard(service, turns, request, name, filename, wanted)


async def _while_heard(
    service: Service,
    turns: Turns,
    request: Request,
    name: str | None,
    filename: str,
    wanted: Mapping[str, Any],
) -> Response:
    """The answer; nothing is done any more once the caller has left."""
    request.scope["predicts"] = asyncio.current_task()  # the connection's end cancels it
    try:
        return await _predict(service, turns, request, name, filename, wanted)
    except (ClientDisconnect, asyncio.CancelledError):
        if not request.scope.get("left"):
            raise
        return Response(status_code=LEFT)
    finally:
        request.scope["predicts"] = None


async def _predict(
    service: Service,
    turns: Turns,
    request: Request,
    name: str | None,
    filename: str,
    wanted: Mapping[str, Any],
) -> Response:
    deadline = service.deadline()
    served = find(service, request, name, None)
    plan = plan_of(served)
    check_name(filename)
    csv_wanted = JSON not in request.headers.get("accept", "")
    with service.engine.admit() as place:
        body = await service.read_body(request, place, deadline, False)
        limit = 2 * service.settings.max_body_bytes
        asked = {"plan": plan, **wanted, "bytes": limit}
        async with turns.take(deadline):
            packed = await read_recording(
                body, filename, asked, deadline, lambda size: place.hold(len(body) + size)
            )
        held = len(body) + 2 * len(packed)
        place.hold(held)
        found = await service.work(
            lambda: decode_npz(packed, max_bytes=2 * limit), len(packed), deadline
        )
        answers = await _answers(service, request, served, plan, found, deadline)
        place.hold(held + answers.nbytes)
        columns = _columns(plan, found, answers)
        content = await service.work(
            lambda: _csv(columns) if csv_wanted else _json(columns, served),
            16 * answers.size,
            deadline,
        )
    return Response(content, media_type=CSV if csv_wanted else JSON)


def plan_of(served: Served) -> Mapping[str, Any]:
    """How a recording becomes this model's inputs; raises UnsupportedMediaType where none says."""
    data = served.model.manifest.provenance.get("data")
    plan = data.get("plan") if isinstance(data, Mapping) else None
    if not isinstance(plan, Mapping):
        raise UnsupportedMediaType(
            f"model {served.name} was trained on windows, not on recordings; send it arrays"
        )
    return plan


def check_name(filename: str) -> None:
    """Raise InvalidInput for a name that no file shall have here."""
    if not _NAME.fullmatch(filename) or len(filename.encode()) > MOST_NAME:
        raise InvalidInput(
            "filename: begins with a letter or digit and holds letters, digits, spaces and "
            f"_ . ( ) + , = @ - alone; at most {MOST_NAME} bytes",
            "filename",
        )


async def _answers(
    service: Service,
    request: Request,
    served: Served,
    plan: Mapping[str, Any],
    found: Mapping[str, Array],
    deadline: float,
) -> Array:
    """The model's answers to all windows, (batch, …): as `recording.plan` cuts them."""
    taken, given = served.model.manifest.inputs[0].name, served.model.manifest.outputs[0].name
    neural, observed = found["neural"], int(plan["observed"])
    starts = np.asarray(found["starts"], np.int64)
    steps = np.arange(int(plan["window"]))
    size = max(1, len(steps) * neural[:1].nbytes)
    rows = max(1, min(ROWS, RUN_BYTES // size))
    parts = []
    for at in range(0, len(starts), rows):
        windows = neural[starts[at : at + rows, None] + steps]
        windows[:, observed:] = windows[:, observed - 1 : observed]
        parts.append((await service.predict(request, served, {taken: windows}, deadline))[given])
    request.scope["rows"] = len(starts)
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
    """The bytes that `axonnx predict` writes."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    parts = [text.getvalue().encode()]
    for at in range(0, len(next(iter(columns.values()))), _BLOCK):
        text = io.StringIO()
        # str of a numpy float is the shortest text that reads back as the same number.
        cells = ([str(value) for value in part[at : at + _BLOCK]] for part in columns.values())
        csv.writer(text, lineterminator="\n").writerows(zip(*cells, strict=True))
        parts.append(text.getvalue().encode())
    return b"".join(parts)


def _json(columns: Mapping[str, Array], served: Served) -> bytes:
    lists = {
        name: values.tolist() if values.dtype.kind == "U" else np.ascontiguousarray(values)
        for name, values in columns.items()
    }
    return orjson.dumps(
        {"model": served.name, "artifact": served.model.id, "columns": lists},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )

"""What every protocol does with a prediction: a place, a body, inputs, a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from artifact.arrays import Array
from serve.engine import Engine, Place
from serve.errors import BodyTooLarge, MalformedBody, SlowBody
from serve.repository import Repository, Served
from serve.settings import Settings
from serve.statistics import Statistics

Result = TypeVar("Result")
# Work on more bytes than these would hold up the event loop for more than about a millisecond.
INLINE_BINARY = 1 << 20
INLINE_JSON = 1 << 17


@dataclass(frozen=True, eq=False)
class Service:
    """The parts of a running service.

    `statistics` counts requests that concern no model; `connections` are those now open.
    """

    repository: Repository
    engine: Engine
    settings: Settings
    statistics: Statistics = field(default_factory=Statistics)
    connections: set[Any] = field(default_factory=set)

    def deadline(self) -> float:
        """When a prediction that begins now must be over, a `time.monotonic()` value."""
        return monotonic() + self.settings.request_timeout

    async def read_body(self, request: Request, place: Place, deadline: float) -> bytes:
        """The body, its size reserved before it is read and counted while it streams.

        Raises BodyTooLarge, Overloaded, SlowBody when it is not there by `deadline`, MalformedBody
        where it is empty.
        """
        limit = self.settings.max_body_bytes
        announced = request.scope["fields"].get(b"content-length", b"")
        if announced.isdigit():
            if len(announced) > 18 or int(announced) > limit:
                size = announced[:18].decode()
                raise BodyTooLarge(f"the body has {size} bytes; at most {limit} are read")
            place.hold(int(announced))
        if request.scope.get("whole"):  # nothing to wait for: no clock is needed
            body = await _whole_body(request)
        else:
            body = await _body_in_time(request, place, limit, deadline)
        if not body:
            raise MalformedBody("the body is empty")
        return body

    async def work(
        self, work: Callable[[], Result], size: int, deadline: float, inline: int = INLINE_BINARY
    ) -> Result:
        """The result of work on `size` bytes: done here where they are few, else in a thread."""
        if size <= inline:
            return work()
        return await self.engine.aside(work, deadline)

    async def predict(
        self, request: Request, served: Served, inputs: Mapping[str, Array], deadline: float
    ) -> dict[str, Array]:
        """Check the inputs and run the model; raises what both raise."""
        served.model.check_layout(inputs)
        request.scope["rows"] = len(next(iter(inputs.values())))
        outputs, request.scope["waited"] = await self.engine.predict(served, inputs, deadline)
        return outputs


async def _whole_body(request: Request) -> bytes:
    """A body that came with its head, in one message."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return bytes(message["body"])


async def _body_in_time(request: Request, place: Place, limit: int, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(deadline - monotonic()):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise BodyTooLarge(f"the body has more than the {limit} bytes that are read")
                place.hold(size)
                chunks.append(chunk)
    except TimeoutError:
        raise SlowBody(f"only {size} bytes of the body arrived in time") from None
    return b"".join(chunks)

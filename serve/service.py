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
from serve.inflate import inflate, read_encoding
from serve.json_bodies import AS_BYTES
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

    async def read_body(
        self, request: Request, place: Place, deadline: float, only_json: bool
    ) -> bytes:
        """The body, inflated where it came compressed; its bytes are counted as they come.

        `only_json` says that all of it is JSON. When it is there, the place is taken. Raises
        UnsupportedEncoding, BodyTooLarge, Overloaded, SlowBody when it is not there by `deadline`,
        MalformedBody where it is empty.
        """
        fields = request.scope["fields"]
        encoding = fields.get(b"content-encoding")
        if encoding is not None:
            encoding = read_encoding(encoding.decode("latin-1"))
        limit = self.settings.max_body_bytes
        if only_json:
            limit = min(limit, self.settings.max_json_bytes)
        try:
            announced = fields.get(b"content-length", b"")
            if announced.isdigit():
                size = int(announced[:18])
                if size > limit:
                    raise BodyTooLarge(f"the body has {size} bytes; at most {limit} are read")
                place.check(size)
            if request.scope.get("whole"):  # nothing to wait for: no clock is needed
                body = await _whole_body(request, place, limit)
            else:
                body = await _body_in_time(request, place, limit, deadline)
            if encoding is not None:
                body = await self._inflated(body, encoding, place, limit, deadline)
        except BodyTooLarge as error:
            if only_json:
                raise BodyTooLarge(f"{error}; {AS_BYTES}") from None
            raise
        if not body:
            raise MalformedBody("the body is empty")
        place.take()
        return body

    async def _inflated(
        self, body: bytes, encoding: str, place: Place, limit: int, deadline: float
    ) -> bytes:
        """A compressed body, inflated in a thread; each piece is counted before the next."""
        pieces = inflate(body, encoding, limit)
        inflated: list[bytes] = []
        size = len(body)
        while piece := await self.engine.aside(lambda: next(pieces, b""), deadline):
            size += len(piece)
            place.hold(size)
            inflated.append(piece)
        return b"".join(inflated)

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
        inputs = served.model.complete(inputs)
        served.model.check_layout(inputs)
        request.scope["rows"] = len(next(iter(inputs.values())))
        outputs, request.scope["waited"] = await self.engine.predict(served, inputs, deadline)
        return outputs


async def _whole_body(request: Request, place: Place, limit: int) -> bytes:
    """A body that came with its head, in one message."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    body = bytes(message["body"])
    if len(body) > limit:
        raise BodyTooLarge(f"the body has {len(body)} bytes; at most {limit} are read")
    place.hold(len(body))
    return body


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

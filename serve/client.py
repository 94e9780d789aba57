"""Clients of the service, and of others that speak the V2 protocol: numpy in, numpy out.

    from serve.client import Client

    with Client("http://127.0.0.1:8000") as client:
        prediction = client.predict("patchformer", neural=windows)
    prediction["forecast"], prediction.artifact

Arrays travel as bytes, are never converted, and come back as `Model.predict` gave them. A call that
finds the service overloaded, not ready or unreachable is sent again, after the pause that the
service asks for and longer each time, until `retries` or `timeout` is used up; predictions may be
repeated, since their answers do not depend on how often they are asked for. What else can go wrong
is raised at once: the tree of errors is in `serve.client_errors`, and all of it is a ServiceError.

Needs numpy, httpx and orjson; no ONNX Runtime and no server framework. Proxies of
the environment are not used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from serve.client_calls import (
    LIMITS,
    Answer,
    Attempts,
    Verify,
    control_path,
    description_path,
    make_target,
    merge,
    model_path,
    only_name,
    read_answer,
    read_names,
    trust,
)
from serve.client_errors import (
    BadAnswer,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
    RequestRefused,
    ServerFault,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreachable,
    Untrusted,
)
from serve.client_tensors import Prediction, decode_prediction, read_object

if TYPE_CHECKING:
    from artifact.arrays import Array

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "Client",
    "DeadlineExceeded",
    "Forbidden",
    "InvalidInput",
    "NotFound",
    "NotReady",
    "Overloaded",
    "Prediction",
    "RequestRefused",
    "ServerFault",
    "ServiceError",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "Untrusted",
]
TIMEOUT, RETRIES = 60.0, 5
_NO_ANSWER = (Unavailable, Unreachable, DeadlineExceeded)


class Client:
    """A client that waits for its answers; one may serve many threads, and should.

    It keeps its connections open; 32 calls are under way at once, more wait for their turn.

    `url` is the service's address, with a path where a balancer wants one; `timeout` the seconds
    for a call with all its attempts; `retries` how many follow a first one that failed; `verify`
    whom to trust for https: True for the usual authorities (and `SSL_CERT_FILE`), a file of
    certificates, or a context. Raises ValueError for arguments that cannot be right.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        verify: Verify = True,
    ) -> None:
        self._target = make_target(url, api_key, timeout, retries)
        self._transport = httpx.HTTPTransport(verify=trust(self._target.url, verify), limits=LIMITS)

    def predict(
        self,
        model: str | None = None,
        inputs: Mapping[str, Array] | None = None,
        /,
        *,
        version: str | int | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
        **arrays: Array,
    ) -> Prediction:
        """The outputs of a model for `arrays`, its inputs by name: `predict(model, neural=…)`.

        Inputs may also come as a mapping, which suits any name. Without `model`, the service is
        asked for its only one first; without `version`, the newest answers. `timeout` (seconds)
        takes the place of the client's and is also the service's limit; `request_id` is the name of
        this call in the service's log, drawn where none is given. Raises ServiceError.
        """
        given = merge(model, inputs, arrays)
        attempts = self._target.attempts(timeout, request_id)
        path = model_path(self._name(model, attempts), version, "infer")
        answer = self._send("POST", path, attempts, given)
        return decode_prediction(answer.headers, answer.content, attempts.request_id)

    def live(self, *, timeout: float | None = None) -> bool:
        """Whether the service answers at all; asks once."""
        return self._answers("/v2/health/live", timeout)

    def ready(
        self,
        model: str | None = None,
        *,
        version: str | int | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Whether the service, or one model, answers predictions now; asks once.

        Raises NotFound for a model that the service does not know.
        """
        path = "/v2/health/ready" if model is None else model_path(model, version, "ready")
        return self._answers(path, timeout)

    def models(self) -> list[str]:
        """The names of the models that answer."""
        return read_names(self._send("GET", "/v2/models", self._target.attempts()))

    def metadata(
        self, model: str | None = None, *, version: str | int | None = None
    ) -> dict[str, Any]:
        """Name, versions, inputs and outputs of a model, as the V2 protocol has them."""
        attempts = self._target.attempts()
        path = model_path(self._name(model, attempts), version)
        return read_object(self._send("GET", path, attempts).content)

    def describe(self, model: str | None = None) -> dict[str, Any]:
        """Artifact id, manifest and more of a model's newest version (None: the only one)."""
        attempts = self._target.attempts()
        path = description_path(self._name(model, attempts))
        return read_object(self._send("GET", path, attempts).content)

    def load(self, model: str, *, timeout: float | None = None) -> None:
        """Let the service load a model, or load it again; it must allow that. Sent once."""
        attempts = self._target.attempts(timeout, retry=False)
        self._send("POST", control_path(model, "load"), attempts)

    def unload(self, model: str, *, timeout: float | None = None) -> None:
        """Let the service drop a model; it must allow that. Sent once."""
        attempts = self._target.attempts(timeout, retry=False)
        self._send("POST", control_path(model, "unload"), attempts)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _name(self, model: str | None, attempts: Attempts) -> str:
        """`model`, or the only one that the service has."""
        while model is None:
            try:
                model = only_name(self._send("GET", "/v2/models", attempts))
            except NotReady as error:
                time.sleep(attempts.pause(error))
        return model

    def _answers(self, path: str, timeout: float | None) -> bool:
        try:
            self._send("GET", path, self._target.attempts(timeout, retry=False))
        except _NO_ANSWER:
            return False
        return True

    def _send(
        self,
        method: str,
        path: str,
        attempts: Attempts,
        inputs: Mapping[str, Array] | None = None,
    ) -> Answer:
        """The answer, after as many attempts as it takes; raises ServiceError."""
        while True:
            request = self._target.request(method, path, attempts, inputs)
            try:
                return self._exchange(request, attempts)
            except httpx.TransportError as fault:
                error = self._target.broken(fault, attempts)
            except (Unavailable, Unreachable) as refusal:
                error = refusal
            time.sleep(attempts.pause(error))

    def _exchange(self, request: httpx.Request, attempts: Attempts) -> Answer:
        response = self._transport.handle_request(request)
        chunks = []
        try:
            for chunk in response.iter_raw():
                chunks.append(chunk)
                attempts.left()  # httpx bounds the wait for each chunk, not for all of them
        finally:
            response.close()
        return read_answer(response.status_code, response.headers.raw, b"".join(chunks), attempts)


class AsyncClient:
    """The same for asyncio: the arguments and methods of `Client`, awaited; for one event loop."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        verify: Verify = True,
    ) -> None:
        self._target = make_target(url, api_key, timeout, retries)
        self._transport = httpx.AsyncHTTPTransport(
            verify=trust(self._target.url, verify), limits=LIMITS
        )

    async def predict(
        self,
        model: str | None = None,
        inputs: Mapping[str, Array] | None = None,
        /,
        *,
        version: str | int | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
        **arrays: Array,
    ) -> Prediction:
        """As `Client.predict`."""
        given = merge(model, inputs, arrays)
        attempts = self._target.attempts(timeout, request_id)
        path = model_path(await self._name(model, attempts), version, "infer")
        answer = await self._send("POST", path, attempts, given)
        return decode_prediction(answer.headers, answer.content, attempts.request_id)

    async def live(self, *, timeout: float | None = None) -> bool:
        """As `Client.live`."""
        return await self._answers("/v2/health/live", timeout)

    async def ready(
        self,
        model: str | None = None,
        *,
        version: str | int | None = None,
        timeout: float | None = None,
    ) -> bool:
        """As `Client.ready`."""
        path = "/v2/health/ready" if model is None else model_path(model, version, "ready")
        return await self._answers(path, timeout)

    async def models(self) -> list[str]:
        """As `Client.models`."""
        return read_names(await self._send("GET", "/v2/models", self._target.attempts()))

    async def metadata(
        self, model: str | None = None, *, version: str | int | None = None
    ) -> dict[str, Any]:
        """As `Client.metadata`."""
        attempts = self._target.attempts()
        path = model_path(await self._name(model, attempts), version)
        return read_object((await self._send("GET", path, attempts)).content)

    async def describe(self, model: str | None = None) -> dict[str, Any]:
        """As `Client.describe`."""
        attempts = self._target.attempts()
        path = description_path(await self._name(model, attempts))
        return read_object((await self._send("GET", path, attempts)).content)

    async def load(self, model: str, *, timeout: float | None = None) -> None:
        """As `Client.load`."""
        attempts = self._target.attempts(timeout, retry=False)
        await self._send("POST", control_path(model, "load"), attempts)

    async def unload(self, model: str, *, timeout: float | None = None) -> None:
        """As `Client.unload`."""
        attempts = self._target.attempts(timeout, retry=False)
        await self._send("POST", control_path(model, "unload"), attempts)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _name(self, model: str | None, attempts: Attempts) -> str:
        while model is None:
            try:
                model = only_name(await self._send("GET", "/v2/models", attempts))
            except NotReady as error:
                await asyncio.sleep(attempts.pause(error))
        return model

    async def _answers(self, path: str, timeout: float | None) -> bool:
        try:
            await self._send("GET", path, self._target.attempts(timeout, retry=False))
        except _NO_ANSWER:
            return False
        return True

    async def _send(
        self,
        method: str,
        path: str,
        attempts: Attempts,
        inputs: Mapping[str, Array] | None = None,
    ) -> Answer:
        while True:
            request = self._target.request(method, path, attempts, inputs)
            try:
                return await self._exchange(request, attempts)
            except httpx.TransportError as fault:
                error = self._target.broken(fault, attempts)
            except (Unavailable, Unreachable) as refusal:
                error = refusal
            await asyncio.sleep(attempts.pause(error))

    async def _exchange(self, request: httpx.Request, attempts: Attempts) -> Answer:
        try:
            async with asyncio.timeout(attempts.left()):
                response = await self._transport.handle_async_request(request)
                try:
                    chunks = [chunk async for chunk in response.aiter_raw()]
                finally:
                    await response.aclose()
        except TimeoutError:
            raise attempts.late() from None
        return read_answer(response.status_code, response.headers.raw, b"".join(chunks), attempts)

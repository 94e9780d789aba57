"""The life of the process: live at once, ready when the models are, drained, stopped.

The first SIGTERM makes the service not ready. For `drain_seconds` it still answers whoever calls,
and tells them to connect elsewhere next time: so long the outside may take to notice. Then it
listens no more, finishes what it has accepted within `shutdown_timeout`, and ends. Ctrl-C leaves
the drain out. A second signal ends it at once.
"""

from __future__ import annotations

import functools
import signal
import socket
import ssl
import threading
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from serve.protocol import Bounds, Protocol
from serve.service import Service

if TYPE_CHECKING:
    from serve.grpc_server import GrpcServer

# Beyond the time for a request: so long may the rest of a message take that nobody reads.
_MESSAGE_MARGIN = 5.0


class Server(uvicorn.Server):
    """uvicorn's server, with a drain before its shutdown and a look at the connections.

    Where gRPC is served, it starts and stops with HTTP. `up` is set once both are answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        tls: ssl.SSLContext | None = None,
        grpc: GrpcServer | None = None,
    ) -> None:
        super().__init__(_config(app, service, tls))
        self.server_state.connections = service.connections
        self.up = threading.Event()
        self._service = service
        self._grpc = grpc
        self._drained_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer from now on; raises SettingsError where the port for gRPC is not to be had."""
        if self._grpc is not None:
            await self._grpc.start(self._service)
        await super().startup(sockets)
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted, in the time that there is for it."""
        if self._grpc is not None:
            self._grpc.stop(self.server_state.tasks)
        await super().shutdown(sockets)
        if self._grpc is not None:
            await self._grpc.cut_short()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: drain, which Ctrl-C cuts short; a second one: stop."""
        if self._drained_at is None:
            self._service.repository.draining = True
            wait = 0.0 if sig == signal.SIGINT else self._service.settings.drain_seconds
            self._drained_at = monotonic() + wait
        else:
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: end the drain, cut connections that keep us waiting."""
        now = monotonic()
        if self._drained_at is not None and now >= self._drained_at:
            self.should_exit = True
        if counter % 5 == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.expire(now)
        return await super().on_tick(counter)


def _config(app: ASGIApp, service: Service, tls: ssl.SSLContext | None) -> uvicorn.Config:
    settings = service.settings
    bounds = Bounds(
        settings.max_connections,
        settings.header_timeout,
        settings.request_timeout + _MESSAGE_MARGIN,
    )
    return uvicorn.Config(
        app,
        log_config=None,  # serve.logs writes what uvicorn logs
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=settings.shutdown_timeout,
        timeout_keep_alive=settings.keep_alive,
        server_header=False,
        proxy_headers=False,
        http=functools.partial(  # type: ignore[arg-type]
            Protocol, bounds=bounds, statistics=service.statistics
        ),
        ws="none",
        lifespan="off",
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )


def listen(host: str, port: int, backlog: int = 2048) -> socket.socket:
    """A listening socket that finds out about callers who are gone; raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    try:
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener

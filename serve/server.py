"""The life of the process: live at once, ready when the models are, drained, stopped.

The first SIGTERM makes the service not ready. For `drain_seconds` it still answers whoever calls,
and tells them to connect elsewhere next time: so long the outside may take to notice. Then it
takes no new connections, reads what those that it has are sending, finishes that within
`shutdown_timeout`, and ends. Ctrl-C leaves the drain out. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import signal
import socket
import ssl
import struct
import sys
import threading
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp

from serve.protocol import Bounds, Protocol
from serve.service import Service

if TYPE_CHECKING:
    from serve.grpc_server import GrpcServer

# Beyond the time for a request: so long may the rest of a message take that nobody reads.
_MESSAGE_MARGIN = 5.0
# At the end of the drain: as long as nobody sends anything new, and at most as long as the other.
_QUIET = 0.1
_SETTLE = 0.5
# linux/filter.h, of the TCP header: load the flags; where SYN is among them drop, else let through.
_SO_ATTACH_FILTER = 26
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


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
        """Answer on `sockets` from now on; raises SettingsError where gRPC's port is taken."""
        if self._grpc is not None:
            await self._grpc.start(self._service)
        loop, config = asyncio.get_running_loop(), self.config
        patience = self._service.settings.header_timeout if config.is_ssl else None
        protocol: Any = config.http_protocol_class
        connect = functools.partial(
            protocol, config=config, server_state=self.server_state, app_state={}
        )
        self.servers = [
            await loop.create_server(
                connect,
                sock=listener,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=patience,
            )
            for listener in sockets or ()
        ]
        self.started = True
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted, in the time that there is for it."""
        if self._grpc is not None:
            self._grpc.stop(self.server_state.tasks)
        for listener in sockets or ():
            take_no_more(listener)
        await self._settle()
        await super().shutdown(sockets)
        if self._grpc is not None:
            await self._grpc.cut_short()

    async def _settle(self) -> None:
        """Read what is on its way on connections that are made, as long as more is coming."""
        now = monotonic()
        end, quiet_at = now + _SETTLE, now + _QUIET
        seen: set[Any] = set(self.server_state.connections)
        while now < end and not self.force_exit:
            connections: set[Any] = set(self.server_state.connections)
            if connections - seen or any(one.awaits_head() for one in connections):
                quiet_at = now + _QUIET
            elif now >= quiet_at:
                break
            seen |= connections
            await asyncio.sleep(0.01)
            now = monotonic()

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


def take_no_more(listener: socket.socket) -> None:
    """Let nobody connect any more, but those who have: closing would reset who is not yet accepted.

    Who comes is not answered, and refused once the socket is closed. Only Linux can do that;
    elsewhere it changes nothing, and a connection made just before the close may be reset.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    what = struct.pack("HL", len(_NO_SYN), ctypes.addressof(program))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, what)


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

"""The server for gRPC: it listens, starts and stops beside the HTTP server, in its event loop."""

from __future__ import annotations

import asyncio
import logging

import grpc  # type: ignore[import-untyped]

from serve.grpc_calls import METHODS, SERVICE, SMALL_READS, Calls
from serve.logs import life
from serve.service import Service
from serve.settings import PREFIX, Settings, SettingsError

_LAST_WORDS = 1.0  # seconds for telling callers that their calls are cut short


class GrpcServer:
    """The server; raises SettingsError for a certificate that gRPC cannot take."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._credentials = _credentials(settings)

    async def start(self, service: Service) -> None:
        """Listen, and say where; raises SettingsError."""
        settings = self._settings
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
        self._calls = Calls(service)
        self._server = grpc.aio.server(
            options=_options(settings), maximum_concurrent_rpcs=settings.max_connections
        )
        # To the wire one message and a stream of one are the same; a stream is read when there is
        # a place for it, and within a time.
        handlers = {
            method: grpc.stream_unary_rpc_method_handler(self._calls.handler(method))
            for method in METHODS
        }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, handlers)]
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        port = self._bind(f"{host}:{settings.grpc_port}")
        await self._server.start()
        life.info("%s", f"gRPC on {host}:{port}")

    def _bind(self, address: str) -> int:
        try:
            if self._credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, self._credentials))
        except RuntimeError:  # which does not say why
            raise SettingsError(
                f"{PREFIX}GRPC_PORT: cannot listen on {address}; the port is taken, or the "
                "address is none of this machine"
            ) from None

    def stop(self, tasks: set[asyncio.Task[None]]) -> None:
        """Take no new calls; `tasks` get one that ends with the last call."""
        patience = self._settings.shutdown_timeout + self._settings.request_timeout
        task = asyncio.create_task(self._server.stop(patience))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def cut_short(self) -> None:
        """Tell callers whose calls still run that they get no answer, and end."""
        await self._calls.cut_short(_LAST_WORDS)
        await self._server.stop(None)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the library has more to say than that a caller did not wait for its answer."""
    return not record.getMessage().startswith("ExecuteBatchError raised in core")


def _options(settings: Settings) -> list[tuple[str, int]]:
    """The bounds of the HTTP side, as far as the library has them."""
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.max_pending + SMALL_READS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_connection_idle_ms", settings.keep_alive * 1000),
        ("grpc.server_handshake_timeout_ms", int(settings.header_timeout * 1000)),
        ("grpc.keepalive_time_ms", 60_000),  # finds callers who are gone
        ("grpc.so_reuseport", 0),  # a port that is taken is an error
    ]


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """The certificate and key of the HTTP side; None where there are none."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    if settings.tls_key_password is not None:
        raise SettingsError(
            f"{PREFIX}GRPC_PORT: gRPC takes a private key without a pass phrase only; decrypt "
            f"{settings.tls_key}, or serve HTTP alone"
        )
    pair = settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes()
    return grpc.ssl_server_credentials([pair])

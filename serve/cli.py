"""`axonnx serve`: listen, load artifacts, answer until told to stop."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from artifact import load
from artifact.providers import CHOICES
from serve import logs
from serve.app import create_app
from serve.engine import Engine
from serve.repository import Listing, Repository
from serve.server import Server, listen
from serve.service import Service
from serve.settings import PREFIX, Settings, SettingsError, forget_secrets, read_settings
from serve.tls import read_context
from serve.tracing import Tracing, start_tracing

if TYPE_CHECKING:
    from serve.grpc_server import GrpcServer

INSTALL_GRPC = "uv sync --extra serve --extra cpu --extra grpc"


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT.

    0 stopped, 1 no artifact loads or requests were cut short at the end, 2 wrong arguments.
    """
    flags = _parser().parse_args(argv[1:])
    # A signal is only noted until there is a server to heed it: an exception thrown into whatever
    # happens to run would leave it half done, or be lost in it.
    early: list[int] = []
    _heed_signals(lambda number, _: early.append(number))
    with logs.writing(as_json=logs.wants_json()):
        try:
            return _start(flags, early)
        except Exception:
            logs.life.critical("the service failed", exc_info=True)
            return 1


def _start(flags: argparse.Namespace, early: Sequence[int]) -> int:
    try:
        settings = read_settings(
            models=tuple(flags.paths) or None,
            host=flags.host,
            port=flags.port,
            provider=flags.provider,
        )
        logs.set_level(settings.log_level)
        forget_secrets()
        _refuse_missing(settings.models)
        tls = read_context(settings)
        tracing = start_tracing() if settings.tracing else None
        grpc = _grpc_server(settings) if settings.grpc_port is not None else None
        listener = _listen(settings.host, settings.port)
    except SettingsError as error:
        return _fail(str(error), 2)
    with listener:
        host, port = listener.getsockname()[:2]
        scheme = "https" if tls else "http"
        _say(f"listening on {scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        return serve(create_service(settings), listener, early, tls, tracing, grpc)


def create_service(settings: Settings) -> Service:
    """The parts of a service, nothing loaded yet."""
    read = partial(
        load,
        provider=settings.provider,
        max_rows=settings.max_rows,
        device_id=settings.device_id,
        gpu_memory=settings.gpu_memory,
    )
    repository = Repository(settings.models, read, settings.model_name)
    engine = Engine(settings.slots, settings.max_pending, settings.max_pending_bytes)
    return Service(repository, engine, settings)


def serve(
    service: Service,
    listener: socket.socket,
    early: Sequence[int] = (),
    tls: ssl.SSLContext | None = None,
    tracing: Tracing | None = None,
    grpc: GrpcServer | None = None,
) -> int:
    """Answer on `listener` until a signal, then finish what is running; the exit code.

    `early` are the signals that came before.
    """
    app = create_app(service)
    server = Server(tracing.around(app) if tracing else app, service, tls, grpc)
    _heed_signals(server.handle_exit)
    for number in early:
        server.handle_exit(number, None)
    gc.freeze()  # what was imported stays: no collection looks through it again
    gc.set_threshold(10_000, 20, 20)
    none_loads = threading.Event()
    loader = threading.Thread(target=_load_all, args=(service, server, none_loads), daemon=True)
    loader.start()
    refused = ""
    try:
        server.run(sockets=[listener])
    except SettingsError as error:  # the port for gRPC is not to be had
        refused = str(error)
    service.engine.close()
    service.repository.changes.close()
    if tracing:
        tracing.close()
    if refused:
        code = _fail(refused, 2)
    elif cut := service.engine.cut:
        why = "by a second signal" if server.force_exit else "after AXONNX_SHUTDOWN_TIMEOUT"
        code = _fail(f"stopped {why}; requests cut short: {cut}", 1)
    elif none_loads.is_set():  # each has said why
        code = 1
    else:
        _say("stopped")
        code = 0
    loading = loader.is_alive() or service.repository.changes.busy
    if loading or not service.engine.join(1.0):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # ONNX Runtime is at work in a thread and must not see the interpreter go
    _heed_signals(signal.SIG_IGN)  # all is done: one that comes now shall not change the exit code
    return code


def _load_all(service: Service, server: Server, none_loads: threading.Event) -> None:
    """Load the models, say what became of each, and stop the server where none loads."""
    loaded = False
    for result in service.repository.load_all():
        if isinstance(result, Listing):
            _fail(f"{result.source}: {result.reason}", 1)
        else:
            loaded = True
            logs.log_model(result)
    if loaded:
        server.up.wait()
        if not service.repository.draining:
            _say("ready")
    else:
        none_loads.set()
        server.should_exit = True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="axonnx serve",
        description="Answer over HTTP with one or several artifacts.",
        epilog=f"Every setting also has an environment variable {PREFIX}…; flags override them.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="artifact, or folder of artifacts",
    )
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for a free one (8000)")
    parser.add_argument("--provider", choices=CHOICES, help="execution provider (cpu)")
    return parser


def _refuse_missing(paths: Sequence[Path]) -> None:
    if not paths:
        raise SettingsError(f"no artifact: name its folder or zip, or set {PREFIX}MODELS")
    for path in paths:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise SettingsError(f"{path}: no such file or folder") from None
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from None


def _grpc_server(settings: Settings) -> GrpcServer:
    """The server for gRPC, whose libraries are imported where it is asked for and nowhere else."""
    # The library's own words on standard error: what fails is told to callers, or raised.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from serve.grpc_server import GrpcServer
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{PREFIX}GRPC_PORT: {error.name} is not installed; get it with `{INSTALL_GRPC}`"
        ) from None
    return GrpcServer(settings)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host} port {port}: {error.strerror}") from None


def _heed_signals(heed: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heed)


def _say(text: str) -> None:
    logs.life.info("%s", text)


def _fail(text: str, code: int) -> int:
    logs.life.error("%s", text)
    return code

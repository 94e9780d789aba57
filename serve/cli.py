"""`axonnx serve`: load artifacts, listen, answer until told to stop."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from artifact import ArtifactError, Model, load
from artifact.providers import CHOICES
from serve.app import create_app
from serve.protocol import Protocol
from serve.settings import PREFIX, Settings, SettingsError, read_settings

BACKLOG = 2048


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; 0 stopped, 1 an artifact does not load, 2 wrong arguments."""
    flags = _parser().parse_args(argv[1:])
    signal.signal(signal.SIGTERM, _stop)
    try:
        settings = read_settings(
            models=tuple(flags.paths) or None,
            host=flags.host,
            port=flags.port,
            provider=flags.provider,
        )
        _refuse_missing(settings.models)
        listener = _bind(settings.host, settings.port)
    except SettingsError as error:
        return _fail(str(error), 2)
    with listener:
        try:
            models = load_models(settings)
        except ArtifactError as error:
            return _fail(str(error), 1)
        listener.listen(BACKLOG)
        for name, model in models.items():
            _say(f"model {name}, artifact {model.id[:12]}, on {model.providers[0]}")
        host, port = listener.getsockname()[:2]
        _say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        serve(models, settings, listener)
    return 0


def load_models(settings: Settings) -> dict[str, Model]:
    """Load and verify every artifact of the settings, by the names in their manifests.

    Raises ArtifactError naming the file or folder that does not load.
    """
    models: dict[str, Model] = {}
    for path in settings.models:
        try:
            model = load(path, provider=settings.provider, max_rows=settings.max_rows)
        except ArtifactError as error:
            raise type(error)(f"{path.name}: {error}") from None
        except OSError as error:
            raise ArtifactError(f"{path.name}: {error.strerror}") from None
        if model.manifest.name in models:
            raise ArtifactError(
                f"{path.name}: a model {model.manifest.name!r} is there already; "
                "names of models served together must differ"
            )
        models[model.manifest.name] = model
    return models


def serve(models: dict[str, Model], settings: Settings, listener: socket.socket) -> None:
    """Answer on `listener` until SIGTERM or SIGINT, then finish what is running."""
    config = uvicorn.Config(
        create_app(models, settings),
        log_level="info" if settings.access_log else settings.log_level,
        access_log=settings.access_log,
        timeout_graceful_shutdown=settings.shutdown_timeout,
        server_header=False,
        http=Protocol,
        ws="none",
    )
    # uvicorn hands the signal on once it has stopped.
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        uvicorn.Server(config).run(sockets=[listener])
    _say("stopped")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="axonnx serve",
        description="Answer over HTTP with one or several artifacts.",
        epilog=f"Every setting also has an environment variable {PREFIX}…; flags override them.",
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="artifact, folder or zip"
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


def _bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address; it refuses callers until the models are loaded."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


def _stop(signum: int, frame: object) -> None:
    raise SystemExit(0)


def _say(text: str) -> None:
    print(f"axonnx: {text}", flush=True)


def _fail(text: str, code: int) -> int:
    for line in text.splitlines():
        print(f"axonnx: error: {line}", file=sys.stderr)
    return code

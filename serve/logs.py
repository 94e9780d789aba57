"""What the process writes: a line per event, as text for people or as one JSON object.

The logger `axonnx.life` says where the service stands, on standard output, and errors that end it
on standard error; `axonnx.access` writes a line per request, on standard output; all others, those
of libraries and Python's warnings among them, go to standard error from `log_level` on. No line
holds a query string, a header or a body, and nothing that a caller sends begins a line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.types import Scope

from serve.settings import PREFIX

if TYPE_CHECKING:
    from serve.repository import Served

life = logging.getLogger("axonnx.life")
access = logging.getLogger("axonnx.access")
# What a record may hold beside its message, in the order in which it is written.
FIELDS = (
    *("client", "method", "path", "status", "seconds", "request_id", "trace_id", "protocol"),
    *("model", "version", "artifact", "rows", "waited", "error"),
)
IN_MESSAGE = frozenset({"client", "method", "path", "status"})
MAX_PATH = 1000


class JsonFormatter(logging.Formatter):
    """One JSON object: time (RFC 3339, UTC), level, logger, message, fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The object, one line of ASCII."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        for name, value in entry.items():
            if isinstance(value, str):  # JSON has no word for half a character
                entry[name] = value.encode("utf-8", "backslashreplace").decode()
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """`axonnx: ` and what the service says of itself; the rest with time, level and logger."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; several where the service says several, and for a traceback, indented."""
        text = record.getMessage()
        if record.name == life.name:
            start = "axonnx: error: " if record.levelno >= logging.ERROR else "axonnx: "
            return "\n".join(start + _escape(line) for line in text.splitlines())
        line = f"{_time(record)} {record.levelname.lower()} {record.name}: {_escape(text)}"
        for name, value in _fields(record).items():
            if record.name == access.name and name not in IN_MESSAGE:
                line += f" {name}={_word(value)}"
        if not record.exc_info:
            return line
        trace = self.formatException(record.exc_info).split("\n")
        return "\n".join([line, *("  " + _escape(part) for part in trace)])


def wants_json() -> bool:
    """Whether the environment asks for JSON, known before all settings are read and checked."""
    name = f"{PREFIX}LOG_FORMAT"
    return any(key.upper() == name and value == "json" for key, value in os.environ.items())


@contextmanager
def writing(as_json: bool) -> Iterator[None]:
    """Write what is logged, until the end of the block; then everything is as it was."""
    root = logging.getLogger()
    formatter = JsonFormatter() if as_json else TextFormatter()
    out, err = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    out.addFilter(_goes_out)
    err.addFilter(lambda record: not _goes_out(record))
    before = root.level, threading.excepthook
    for logger in (life, access):
        logger.setLevel(logging.INFO)
    for handler in (out, err):
        handler.setFormatter(formatter)
        root.addHandler(handler)
    if as_json:
        logging.captureWarnings(True)
        threading.excepthook = _thread_failed
    try:
        yield
    finally:
        root.removeHandler(out)
        root.removeHandler(err)
        root.setLevel(before[0])
        threading.excepthook = before[1]
        if as_json:
            logging.captureWarnings(False)


def set_level(level: str) -> None:
    """From which level on other loggers than those of the service's life and access write."""
    logging.getLogger().setLevel(level.upper())


def log_answer(scope: Scope, status: int, seconds: float) -> None:
    """Write the line of one request, from what the layers around it have left in `scope`."""
    method, path = scope["method"], scope["path"][:MAX_PATH]
    client = scope["client"][0] if scope["client"] else "-"
    fields = {
        "client": client,
        "method": method,
        "path": path,
        "status": status,
        "seconds": round(seconds, 6),
        "request_id": scope["request_id"],
        "trace_id": scope.get("trace_id"),
        "protocol": scope["protocol"],
        "error": scope["error_type"],
        "rows": scope.get("rows"),
    }
    if "waited" in scope:
        fields["waited"] = round(scope["waited"], 6)
    if (served := scope["served"]) is not None:
        fields |= _names(served)
    http = scope["http_version"]
    text = f'{client} "{method} {quote(path, errors="replace")} HTTP/{http}" {status}'
    access.info("%s", text, extra=fields)


def log_model(served: Served) -> None:
    """Write that a model answers from now on, and on which provider."""
    model = served.model
    why = f" ({model.choice.reason})" if model.choice.reason else ""
    text = (
        f"model {served.name} version {served.version}, artifact {model.id[:12]}, "
        f"on {model.providers[0]}{why}"
    )
    life.info("%s", text, extra=_names(served))


def _names(served: Served) -> dict[str, str]:
    return {"model": served.name, "version": served.version, "artifact": served.model.id}


def _goes_out(record: logging.LogRecord) -> bool:
    """Whether a record goes to standard output."""
    return record.name in (life.name, access.name) and record.levelno < logging.ERROR


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    name = failure.thread.name if failure.thread else "?"
    error = failure.exc_value
    logging.getLogger("axonnx.serve").critical("the thread %s failed", name, exc_info=error)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    values = {name: getattr(record, name, None) for name in FIELDS}
    return {name: value for name, value in values.items() if value is not None}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escape(text: str) -> str:
    """Text without what could end its line, move a terminal's cursor or turn the order round."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _word(value: object) -> str:
    text = str(value)
    return json.dumps(text) if " " in text else text

"""Settings of the service: one class, read from `AXONNX_…` variables, overridden by flags."""

from __future__ import annotations

import difflib
import math
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from artifact.batching import BATCH_SIZES
from serve.json_bodies import MAX_JSON_BYTES
from serve.keys import read_keys

PREFIX = "AXONNX_"
# Read by the trainer, the client and compose.yaml, which may share the service's environment.
OTHERS = frozenset(
    PREFIX + name
    for name in (
        "API_KEY",
        "ARTIFACT",
        "CACHE",
        "DATA",
        "PREDICTIONS",
        "STORAGE",
        "SUBMISSION",
        "TEST_DATA",
    )
)
SECRETS = frozenset({"api_keys", "tls_key_password"})
Provider = Literal["cpu", "cuda", "auto"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
# As browsers send it: lower case, and nothing behind the port.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s,A-Z]+")


def processors() -> int:
    """Processors this process may use: its affinity, and a container's quota of them."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group of version 2, or "max"
        return count


class SettingsError(Exception):
    """A setting is wrong; the text names the variable, what is wrong and what was given."""


class Settings(BaseSettings):
    """Settings of the service; the field `port` is the variable `AXONNX_PORT`, and so on."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, protected_namespaces=()
    )

    models: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="artifacts to serve (folders or zips) or folders of them, as in `PATH`"
    )
    model_name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}$",
        description="name to serve under, in place of the one in the artifact",
    )
    host: str = Field("127.0.0.1", description="address to listen on; `0.0.0.0` for all")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    provider: Provider = Field(
        "cpu",
        description="`cpu`, `cuda`, or `auto` (CUDA where it starts); never a silent fallback",
    )
    device_id: int = Field(0, ge=0, description="which CUDA device")
    gpu_memory: int | None = Field(
        None, ge=1, description="bytes of GPU memory that one model may take; none: no limit"
    )
    max_rows: int = Field(
        BATCH_SIZES[-1],
        ge=1,
        le=BATCH_SIZES[-1],
        description=f"rows run at a time, 1 to {BATCH_SIZES[-1]}; bounds the memory of one run",
    )
    slots: int = Field(
        default_factory=processors,
        ge=1,
        description="runs at the same time; by default one per processor",
    )
    max_pending: int = Field(64, ge=1, description="predictions waiting or running; beyond it 503")
    max_pending_bytes: int = Field(
        512 * 1024 * 1024, ge=1, description="bytes of all bodies held at once; beyond it 503"
    )
    max_body_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        description="largest body, also inflated, and largest inflated `.npz`; beyond it 413",
    )
    max_json_bytes: int = Field(
        MAX_JSON_BYTES, ge=1, description="largest JSON, a body or its part; beyond it 413"
    )
    request_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="seconds for one prediction, body and wait included; then 504",
    )
    max_connections: int = Field(1024, ge=1, description="open connections; beyond it 503")
    header_timeout: float = Field(
        10.0, gt=0, le=3600, description="seconds for the head of a request; then it is cut"
    )
    keep_alive: int = Field(
        20, ge=1, le=3600, description="seconds that an idle connection is kept open"
    )
    drain_seconds: float = Field(
        1.0,
        ge=0,
        le=3600,
        description="seconds after SIGTERM in which callers are still answered, and sent elsewhere",
    )
    shutdown_timeout: int = Field(
        10, ge=0, description="seconds that running predictions get after that"
    )
    model_control: bool = Field(
        False, description="let callers load and unload models (V2 repository)"
    )
    api_keys: SecretStr = Field(
        SecretStr(""), description="keys that callers must send one of, separated by commas"
    )
    tls_certificate: Path | None = Field(None, description="file of the TLS certificate chain")
    tls_key: Path | None = Field(None, description="file of its private key")
    tls_key_password: SecretStr | None = Field(None, description="pass phrase of that key")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose pages may call, separated by commas; `*` for all"
    )
    page: bool = Field(True, description="the page for people at `/`, and `/docs`")
    tracing: bool = Field(
        False, description="OpenTelemetry traces, sent as the `OTEL_…` variables say (extra `otel`)"
    )
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="port of the V2 protocol over gRPC (extra `grpc`)"
    )
    access_log: bool = Field(False, description="write one line per request")
    log_format: LogFormat = Field("text", description="`text`, or `json`: one object per line")
    log_level: LogLevel = Field("warning", description="`debug`, `info`, `warning` or `error`")

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for part in value.split(os.pathsep) if part)
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _refuse_no_keys(cls, value: object) -> object:
        if value == "":  # given; the default is a SecretStr. Whoever sets it wants a closed service
            raise ValueError("is set and empty; name at least one key, or unset it to let all in")
        return value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, value: SecretStr) -> SecretStr:
        read_keys(value.get_secret_value())
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin[:100]!r} is no origin: scheme://host[:port] and no more")
        return value

    @model_validator(mode="after")
    def _pair(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            given, other = (
                ("certificate", "key") if self.tls_certificate else ("key", "certificate")
            )
            raise ValueError(f"{PREFIX}TLS_{given.upper()} needs {PREFIX}TLS_{other.upper()} too")
        return self


def read_settings(**flags: object) -> Settings:
    """Settings from the environment, overridden by the flags that are not None.

    Raises SettingsError with one line per wrong setting, a misspelt variable among them.
    """
    if strangers := [name for name in sorted(os.environ) if _is_stranger(name)]:
        raise SettingsError(
            "\n".join(f"{name}: no such setting{_hint(name)}" for name in strangers)
        )
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            text = str(fault["msg"]).removeprefix("Value error, ")
            if not fault["loc"]:  # a rule about several settings, which names them itself
                lines.append(text)
                continue
            name = str(fault["loc"][0])
            source = f"--{name}" if name in given else f"{PREFIX}{name.upper()}"
            shown = "" if name in SECRETS else f"; given: {fault['input']!r}"
            lines.append(f"{source}: {text}{shown}")
        raise SettingsError("\n".join(lines)) from None


def forget_secrets() -> None:
    """Take the secrets out of the environment, which all that is started from here would get."""
    secrets = {f"{PREFIX}{name.upper()}" for name in SECRETS}
    for name in [name for name in os.environ if name.upper() in secrets]:
        del os.environ[name]


def _names() -> list[str]:
    return [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]


def _is_stranger(name: str) -> bool:
    """Whether a variable carries our prefix and nothing reads it."""
    upper = name.upper()  # as pydantic-settings reads the environment
    return upper.startswith(PREFIX) and upper not in {*_names(), *OTHERS}


def _hint(name: str) -> str:
    known = list(Settings.model_fields)
    near = difflib.get_close_matches(name[len(PREFIX) :].lower(), known, 1)
    if near:
        return f"; did you mean {PREFIX}{near[0].upper()}?"
    return f"; there are {', '.join(_names())}"


def settings_table() -> str:
    """All settings as a Markdown table, for the documentation."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if field.default_factory is not None:
            default = "processors"
        elif field.default in ((), None) or name in SECRETS:
            default = "none"
        else:
            default = f"`{str(field.default).lower()}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"

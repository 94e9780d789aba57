"""Settings of the service: one class, read from `AXONNX_…` variables, overridden by flags."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from artifact.batching import BATCH_SIZES

PREFIX = "AXONNX_"
# Read by the trainer and by compose.yaml, which may share an environment with the service.
OTHERS = frozenset(
    PREFIX + name for name in ("DATA", "ARTIFACT", "SUBMISSION", "TEST_DATA", "PREDICTIONS")
)
Provider = Literal["cpu", "cuda", "auto"]
LogLevel = Literal["debug", "info", "warning", "error"]


def processors() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SettingsError(Exception):
    """A setting is wrong; the text names the variable, what is wrong and what was given."""


class Settings(BaseSettings):
    """Settings of the service; the field `port` is the variable `AXONNX_PORT`, and so on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    models: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="artifacts to serve (folders or zips), separated as in `PATH`"
    )
    host: str = Field("127.0.0.1", description="address to listen on; `0.0.0.0` for all")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    provider: Provider = Field(
        "cpu",
        description="`cpu`, `cuda`, or `auto` (CUDA where it starts); never a silent fallback",
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
        description="predictions that run at the same time; by default one per processor",
    )
    max_pending: int = Field(
        64, ge=1, description="predictions being read, waiting or running; beyond it 503"
    )
    max_body_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1,
        description="largest body, and largest inflated `.npz`; beyond it 413",
    )
    request_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="seconds for one prediction, body and wait included; then 504",
    )
    shutdown_timeout: int = Field(
        10, ge=0, description="seconds that running predictions get after SIGTERM"
    )
    access_log: bool = Field(False, description="write one line per request")
    log_level: LogLevel = Field("warning", description="`debug`, `info`, `warning` or `error`")

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for part in value.split(os.pathsep) if part)
        return value


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
            name = str(fault["loc"][0])
            source = f"--{name}" if name in given else f"{PREFIX}{name.upper()}"
            lines.append(f"{source}: {fault['msg']}; given: {fault['input']!r}")
        raise SettingsError("\n".join(lines)) from None


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
        elif field.default == ():
            default = "none"
        else:
            default = f"`{str(field.default).lower()}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"

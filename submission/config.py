"""What a submission is made of, read from YAML and validated once.

    challenge: {name: neural_forecasting}
    models: {affi: runs/affi/artifact, beignet: runs/beignet/artifact}
    python: ["3.10", "3.11"]
    onnxruntime: null
    data: null
    output: submission.zip

Relative paths start at the current directory.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from submission import challenges
from submission.challenges import Name
from submission.errors import ConfigError
from submission.source import SourceError, parse


def _quoted(value: object) -> object:
    if isinstance(value, float):
        raise ValueError(f'{value} is a number; write a version in quotes, such as "3.10"')
    return value


Version = Annotated[
    str, BeforeValidator(_quoted), Field(pattern=r"^\d+(\.\d+)+$", examples=["3.10"])
]


class SubmissionConfig(BaseModel):
    """One submission: challenge, an artifact per subject, the Pythons to carry a runtime for.

    `onnxruntime` names one version for every Python; left out, each takes the table's default.
    `artifact` stands for `models` where one artifact serves every subject. `data` is the folder of
    inputs that a result submission is predicted from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    challenge: str
    settings: SerializeAsAny[BaseModel]
    models: dict[Name, Path] = {}
    artifact: Path | None = None
    python: tuple[Version, ...] = Field(default=("3.10", "3.11"), min_length=1)
    onnxruntime: Version | None = None
    data: Path | None = None
    output: Path = Path("submission.zip")

    @field_validator("settings", mode="before")
    @classmethod
    def _settings(cls, value: Any, info: ValidationInfo) -> BaseModel:
        if "challenge" not in info.data:
            return BaseModel()
        return challenges.get(info.data["challenge"]).settings.model_validate(value)

    def artifacts(self) -> dict[str, Path]:
        """The artifact of every subject; raises ConfigError where none or both is said."""
        if bool(self.models) == (self.artifact is not None):
            raise ConfigError("models: name an artifact per subject, or `artifact` for all of them")
        if self.artifact is None:
            return dict(self.models)
        subjects = challenges.get(self.challenge).definition(self.settings, ()).subjects
        return dict.fromkeys(subjects or ("main",), self.artifact)


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> SubmissionConfig:
    """Read `path`, lay `overrides` over its keys, validate.

    `overrides` may hold `models` (merged name by name), `artifact` (instead of `models`), `python`,
    `onnxruntime`, `data` and `output`.
    Raises ConfigError with file, line and key.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason})") from None
    try:
        root, content = parse(text)
    except SourceError as error:
        raise ConfigError(f"{path}:{error.line}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}:1: must be keys and values, such as `challenge: …`")
    merged = {**content, **(overrides or {})}
    if isinstance(content.get("models"), dict) and "models" in (overrides or {}):
        merged["models"] = _merged(content["models"], (overrides or {})["models"], path)
    if "artifact" in (overrides or {}):
        merged.pop("models", None)
    elif "models" in (overrides or {}):
        merged.pop("artifact", None)
    chosen = merged.pop("challenge", None)
    section = {"name": chosen} if isinstance(chosen, str) else chosen
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        line = line_of(root, ("challenge",))
        known = ", ".join(challenges.names())
        raise ConfigError(f"{path}:{line}: challenge.name: must name one of {known}")
    if "settings" in merged:
        line = line_of(root, ("settings",))
        raise ConfigError(f"{path}:{line}: settings: unknown key; they stand under challenge")
    merged["challenge"] = section["name"]
    merged["settings"] = {key: value for key, value in section.items() if key != "name"}
    try:
        return SubmissionConfig.model_validate(merged)
    except ConfigError as error:
        raise ConfigError(f"{path}:{line_of(root, ('challenge', 'name'))}: {error}") from None
    except ValidationError as error:
        raise ConfigError("\n".join(_complaint(path, root, e) for e in error.errors())) from None


def _merged(written: Mapping[str, Any], given: Mapping[str, Path], path: Path) -> dict[str, Any]:
    """The file's models with those of the command line in their place."""
    for name in given:
        if name not in written:
            near = difflib.get_close_matches(name, map(str, written), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(map(str, written))
            raise ConfigError(f"--model {name}=…: {path} has the models {known}{hint}")
    return {**written, **given}


def _complaint(path: Path, root: yaml.Node | None, error: Any) -> str:
    parts = (part for part in error["loc"] if part != "[key]")
    place = tuple("challenge" if part == "settings" else part for part in parts)
    keys = ".".join(str(part) for part in place)
    text = str(error["msg"]).removeprefix("Value error, ")
    if not place:
        return f"{path}:1: {text}"
    if error["type"] == "extra_forbidden":
        owner = "challenge" if place[0] == "challenge" else "a submission"
        text = f"unknown key of {owner}"
        if len(place) == 1:
            known = [name for name in SubmissionConfig.model_fields if name != "settings"]
            text += f"; known: {', '.join(known)}"
    return f"{path}:{line_of(root, place)}: {keys}: {text}"


def line_of(root: yaml.Node | None, place: Sequence[str | int]) -> int:
    """Line, from 1, of the deepest node on the way to `place`."""
    node, line = root, 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line

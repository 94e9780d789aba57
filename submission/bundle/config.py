"""What a competition bundle is made of, read from YAML and validated once.

    challenge: {name: neural_forecasting, channels: {affi: 239}}
    competition:
      title: Forecasting of the cortex
      phases: [{name: Development, start: "2027-01-01", end: "2027-03-01", per_day: 5}]

Dates are quoted; without a zone they are UTC. Relative paths start at the current directory.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from submission import challenges
from submission.bundle.competition import MAX_KEY, When
from submission.challenges import Challenge, Definition
from submission.config import line_of
from submission.errors import ConfigError
from submission.source import SourceError, parse

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
Count = Annotated[int, Field(ge=1)]
Key = Annotated[str, Field(min_length=1, max_length=MAX_KEY)]


class PhaseSettings(BaseModel):
    """A phase; seconds for each job, submissions a day and in all: None takes the challenge's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Text
    start: When
    end: When | None = None
    description: str = ""
    seconds: Count | None = None
    per_day: Count | None = None
    total: Count | None = None


class LeaderboardSettings(BaseModel):
    """The leaderboard; `rule` says which submissions stand on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: Key = "Results"
    key: Key = "main"
    rule: Literal[
        "Add",
        "Add_And_Delete",
        "Add_And_Delete_Multiple",
        "Force_Last",
        "Force_Latest_Multiple",
        "Force_Best",
    ] = "Force_Best"


class CompetitionSettings(BaseModel):
    """The site of the competition.

    `docker_image` None is the challenge's. `pages` are Markdown by title, after the generated
    ones (Overview, Data, Evaluation, Submission), of which one with the same title replaces one.
    `terms` None is a short text that promises little. `logo` None is drawn from the title.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: Text
    phases: Annotated[tuple[PhaseSettings, ...], Field(min_length=1)]
    description: str = ""
    docker_image: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    contact: str | None = None
    queue: Text | None = None
    reward: Text | None = None
    terms: Text | None = None
    pages: dict[Text, Text] = {}
    logo: Path | None = None
    leaderboard: LeaderboardSettings = LeaderboardSettings()
    auto_approve: bool = False
    programs_available: bool = False
    inputs_available: bool = False
    score_output_available: bool = False


class BundleConfig(BaseModel):
    """The two sections of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    challenge: dict[str, Any]
    competition: CompetitionSettings


SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): BundleConfig,
    ("competition",): CompetitionSettings,
    ("competition", "phases"): PhaseSettings,
    ("competition", "leaderboard"): LeaderboardSettings,
}


def load_config(path: Path) -> tuple[Challenge, Definition, CompetitionSettings]:
    """The challenge that `path` describes, defined without artifacts, and its competition.

    Raises ConfigError with file, line and key.
    """
    try:
        root, content = parse(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason})") from None
    except SourceError as error:
        raise ConfigError(f"{path}:{error.line}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}:1: must be keys and values: `challenge: …`, `competition: …`")
    section = content.get("challenge")
    content["challenge"] = {"name": section} if isinstance(section, str) else section
    try:
        config = BundleConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_complaints(path, root, (), error)) from None
    settings = dict(config.challenge)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        known = ", ".join(challenges.names())
        line = line_of(root, ("challenge", "name"))
        raise ConfigError(f"{path}:{line}: challenge.name: must name one of {known}")
    return *_challenge(path, root, name, settings), config.competition


def _challenge(
    path: Path, root: yaml.Node | None, name: str, settings: dict[str, Any]
) -> tuple[Challenge, Definition]:
    line = line_of(root, ("challenge",))
    try:
        challenge = challenges.get(name)
        definition = challenge.definition(challenge.settings.model_validate(settings), ())
    except ValidationError as error:
        raise ConfigError(_complaints(path, root, ("challenge",), error)) from None
    except ConfigError as error:
        raise ConfigError(f"{path}:{line}: challenge: {error}") from None
    except IndexError:
        definition = None
    if definition is None or not definition.sets:
        raise ConfigError(
            f"{path}:{line}: challenge: has no test set; name them under challenge.data"
        )
    return challenge, definition


def _near(place: tuple[str | int, ...]) -> str:
    """What an unknown key of the competition may have been meant to be."""
    *above, key = (part for part in place if isinstance(part, str))
    model = SECTIONS.get(tuple(above))
    near = difflib.get_close_matches(key, model.model_fields if model else (), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _complaints(
    path: Path, root: yaml.Node | None, start: tuple[str, ...], error: ValidationError
) -> str:
    lines = []
    for entry in error.errors():
        place = (*start, *(part for part in entry["loc"] if part != "[key]"))
        keys = ".".join(map(str, place))
        text = str(entry["msg"]).removeprefix("Value error, ")
        if entry["type"] == "extra_forbidden":
            text = f"unknown key{_near(place)}"
        lines.append(f"{path}:{line_of(root, place)}: {keys}: {text}")
    return "\n".join(lines)

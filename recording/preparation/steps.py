"""What a step is, the registry of steps, and running a list of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from recording.contract import Channel, Recording, Series
from recording.errors import RecordingError
from recording.preparation.operations import Operation, Take, evaluate
from recording.signals import Pointwise

# Seconds from and to on a session's clock: what belongs to the train part.
Ranges = Sequence[tuple[float, float]]


class Step(BaseModel):
    """One step of a preparation: its fields are its settings, its docstring what `--help` says.

    A step overrides `apply`; one that an ONNX graph can perform overrides `operations` (and, where
    channels change, `channels_after`) instead. One with statistics overrides `fit`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    step: str

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes `yes` for 1; a setting that is a number does not."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation is not bool:
            raise ValueError(f"is {str(value).lower()}; must be no truth value")
        return value

    @property
    def fitted(self) -> bool:
        """Whether everything is known that the step needs; where not, `fit` finds it out."""
        return True

    def fit(self, sessions: Sequence[tuple[Recording, Ranges]]) -> Step:
        """The step with its statistics, from the train ranges of prepared sessions alone."""
        return self

    def has_work(self, recording: Recording) -> bool:
        """Whether there is what the step works on; a prediction leaves it out where not.

        A recording to predict need not hold the behaviour that a model was trained to decode.
        """
        return True

    def operations(self, channels: tuple[Channel, ...]) -> tuple[Operation, ...] | None:
        """The step as operations on `neural` with these channels; None where it is none."""
        return None

    def channels_after(self, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        """Channels of `neural` after the operations."""
        return channels

    def apply(self, recording: Recording) -> Recording:
        """The recording after this step, lazily where possible; raises RecordingError."""
        neural = recording.neural
        operations = self.operations(neural.channels)
        if operations is None:
            raise NotImplementedError(f"step {self.step!r} does nothing")
        channels = self.channels_after(neural.channels)
        shape = neural.values.shape
        tail = (len(channels), *shape[2:])
        taken = tuple(takewhile(lambda operation: isinstance(operation, Take), operations))

        def run(values: np.ndarray) -> np.ndarray:
            values = values.reshape(len(values), shape[1], -1)
            # What is left out need not be converted.
            values = np.asarray(evaluate(taken, values), np.float32)
            return evaluate(operations[len(taken) :], values).reshape(len(values), *tail)

        series: Series = neural.with_values(Pointwise(neural.values, run, tail), channels=channels)
        return recording.with_modality("neural", series)


STEPS: dict[str, type[Step]] = {}
AnyStep = TypeVar("AnyStep", bound=type[Step])


def step(name: str) -> Callable[[AnyStep], AnyStep]:
    """Decorator that registers a step class under `name`; raises ValueError where it is taken."""

    def decorate(kind: AnyStep) -> AnyStep:
        if name in STEPS:
            raise ValueError(f"step {name!r} is registered already")
        STEPS[name] = kind
        return kind

    return decorate


def parse_steps(values: Any) -> tuple[Step, ...]:
    """Steps from plain values, `[{step: filter, …}, …]`; raises ValueError naming the entry."""
    if not isinstance(values, (list, tuple)):
        raise ValueError("must be a list of steps, each with a key `step`")
    return tuple(_parse(index, value) for index, value in enumerate(values))


def dump_steps(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Steps as plain JSON values, every setting filled in."""
    return [one.model_dump(mode="json") for one in steps]


Preparation = Annotated[
    tuple[Step, ...],
    PlainValidator(parse_steps),
    PlainSerializer(dump_steps, return_type=list[dict[str, Any]]),
]


def prepare(recording: Recording, steps: Sequence[Step], *, first: int = 0) -> Recording:
    """The recording after the steps, in order; raises RecordingError naming the step.

    `first` is the place of the first of them in the whole preparation.
    """
    for index, one in enumerate(steps, start=first):
        try:
            recording = one.apply(recording)
        except RecordingError as error:
            raise RecordingError(
                f"preparation[{index}] ({one.step}): {error.problem}",
                file=error.file or recording.source,
                stream=error.stream,
                at=error.at,
            ) from None
    return recording


def graph_tail(steps: Sequence[Step]) -> int:
    """How many of the last steps are operations on `neural`, so that a graph performs them."""
    count = 0
    for one in reversed(steps):
        if type(one).operations is Step.operations:
            break
        count += 1
    return count


def _parse(index: int, value: Any) -> Step:
    if isinstance(value, Step):
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("step"), str):
        raise ValueError(f"[{index}]: must be a mapping with the key `step`, one of {_names()}")
    name = value["step"]
    if name not in STEPS:
        close = difflib.get_close_matches(name, STEPS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"[{index}]: no step {name!r}{hint}; valid: {_names()}")
    try:
        return STEPS[name].model_validate(dict(value))
    except ValidationError as error:
        details = error.errors()[0]
        key = ".".join(map(str, details["loc"]))
        problem = details["msg"].removeprefix("Value error, ")
        valid = ", ".join(field for field in STEPS[name].model_fields if field != "step")
        where = f"[{index}] ({name}): {key}: " if key else f"[{index}] ({name}): "
        raise ValueError(f"{where}{problem}; settings: {valid or 'none'}") from None


def _names() -> str:
    return ", ".join(sorted(STEPS))

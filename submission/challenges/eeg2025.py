"""EEG Foundation Challenge (NeurIPS 2025): two numbers for each two seconds of EEG.

`Submission(SFREQ, DEVICE)`, `get_model_challenge_1()`, `get_model_challenge_2()`: each gives a
torch module whose forward takes float32 (batch, 129, 200), EEG at 100 Hz, and answers float32
(batch, 1). Challenge 1 is the response time, challenge 2 the externalizing factor.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from artifact import Manifest, TensorSpec
from submission.challenges import (
    ARRAY_KEY,
    Array,
    Arrays,
    Challenge,
    Column,
    Contract,
    Definition,
    FileName,
    Image,
    Limits,
    Tensor,
    TestSet,
    template,
)
from submission.rules import normalized_error

Subject = Literal["challenge_1", "challenge_2"]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
SUBJECTS: tuple[Subject, ...] = get_args(Subject)
WEIGHTS = {"challenge_1": 0.3, "challenge_2": 0.7}  # in the overall score
AXES = ("batch", "channel", "time")  # of the challenge's windows
FEATURE = "feature"
# Its name is not published; it also holds scipy, braindecode, mne and lightning.
IMAGE = Image(None, "3.10", ("numpy==2.2.6", "torch==2.2.2"))


class Settings(BaseModel):
    """Sizes, sampling rate in Hz and files of the challenge; the defaults are the published ones.

    `batch` is how many windows the ingestion program of our own hands over at a time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    channels: Count = 129
    samples: Count = 200
    rate: PositiveFloat = 100.0
    batch: Count = 128
    files: dict[Subject, FileName] = {}
    rows: dict[Subject, Count] = {}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        names = [self.file(subject) for subject in SUBJECTS]
        if len(set(names)) != len(names):
            raise ValueError(f"files: {names[0]} is named twice; each challenge has its own")
        return self

    def file(self, subject: Subject) -> str:
        """The file of a challenge's windows in the input data, of its answers in the reference."""
        return self.files.get(subject, f"{subject}.npz")


def _define(settings: Settings, models: tuple[str, ...]) -> Definition:
    row = (settings.channels, settings.samples)
    contract = Contract({ARRAY_KEY: Tensor("float32", row)}, {ARRAY_KEY: Tensor("float32", (1,))})

    def problems(subject: str, manifest: Manifest) -> list[str]:
        windows = dict(zip(AXES[1:], row, strict=True))
        return [
            *(_one("input", manifest.inputs) or _input_problems(manifest.inputs[0], windows)),
            *(_one("output", manifest.outputs) or _output_problems(manifest.outputs[0])),
        ]

    return Definition(
        kind="code",
        entry="submission.py",
        interface=("Submission", tuple(f"get_model_{name}" for name in SUBJECTS)),
        subjects=SUBJECTS,
        sets=tuple(_set(settings, name) for name in SUBJECTS),
        columns=(
            Column("challenge_1", "Challenge 1, nRMSE", precision=5),
            Column("challenge_2", "Challenge 2, nRMSE", precision=5),
            Column("overall", "0.3 challenge 1 + 0.7 challenge 2", precision=5),
        ),
        rule=normalized_error,
        options={"weights": WEIGHTS, "batch": settings.batch, "rate": settings.rate},
        contract=lambda subject, manifest: contract,
        image=IMAGE,
        limits=Limits(),  # the challenge's own are not published: the platform's defaults
        template=_template(settings),
        ingestion=template("ingestion_eeg2025.py"),
        fewest=2,  # one target has no standard deviation
        problems=problems,
        to_model=to_model,
        from_model=from_model,
    )


def _set(settings: Settings, subject: Subject) -> TestSet:
    file = settings.file(subject)
    rows = settings.rows.get(subject)
    return TestSet(subject, subject, file, f"{subject}.predictions.npz", file, rows)


def _template(settings: Settings) -> bytes:
    sizes = f"{settings.channels}, {settings.samples}, {settings.rate}"
    return f"\nCHANNELS, SAMPLES, RATE = {sizes}\n".encode() + template("eeg2025.py")


def to_model(arrays: Arrays, manifest: Manifest) -> dict[str, Array]:
    """Windows (batch, channel, time) with the axes in the order of the artifact's input."""
    (spec,) = manifest.inputs
    axes = [axis.name for axis in spec.axes]
    array = arrays[ARRAY_KEY].transpose([AXES.index(name) for name in axes if name in AXES])
    if FEATURE in axes:
        array = np.expand_dims(array, axes.index(FEATURE))
    return {spec.name: np.ascontiguousarray(array)}


def from_model(answer: Arrays, manifest: Manifest) -> dict[str, Array]:
    """One number for each window, (batch, 1), from (batch, 1) or (batch,)."""
    (spec,) = manifest.outputs
    return {ARRAY_KEY: answer[spec.name].reshape(-1, 1)}


def _one(role: str, specs: tuple[TensorSpec, ...]) -> list[str]:
    """What is wrong with the number of tensors of a role, in words."""
    if len(specs) == 1:
        return []
    found = ", ".join(spec.name for spec in specs)
    return [f"has the {role}s {found}; the challenge has one {role}"]


def _input_problems(spec: TensorSpec, wanted: dict[str, int]) -> list[str]:
    """What is wrong with the input: its axes may lie in any order, a feature axis has size 1."""
    sizes = {axis.name: axis.size for axis in spec.axes[1:]}
    feature = sizes.pop(FEATURE, 1)
    fits = sizes.keys() == wanted.keys() and all(
        sizes[name] in (None, size) for name, size in wanted.items()
    )
    layout = ", ".join(f"{name}={size}" for name, size in wanted.items())
    problems = [
        f"input {spec.name} is {spec.layout}; it must have the axes (batch, {layout}), in any "
        f"order behind batch, and may have a feature axis of size 1"
    ]
    return [*(problems if not fits or feature != 1 else []), *_dtype_problems("input", spec)]


def _output_problems(spec: TensorSpec) -> list[str]:
    """What is wrong with the output, in words."""
    problems = [
        f"output {spec.name} is {spec.layout}; it must be (batch,) or (batch, 1): one number "
        f"for each window"
    ]
    fits = spec.shape[1:] in ((), (1,))
    return [*(problems if not fits else []), *_dtype_problems("output", spec)]


def _dtype_problems(role: str, spec: TensorSpec) -> list[str]:
    return [] if spec.dtype == "float32" else [f"{role} {spec.name} is {spec.dtype}, not float32"]


CHALLENGE = Challenge("eeg2025", "EEG Foundation Challenge 2025", Settings, _define)

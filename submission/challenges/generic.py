"""Any benchmark, described by the YAML file itself: code that is called, or prediction files.

    challenge:
      name: generic
      kind: code                  # or result: predictions made here, their files are submitted
      call: mapping               # arrays by name; array: one array, stored as arr_0
      seconds: 600
      python: "3.11"              # of the benchmark's image
      image: registry/image:tag
      packages: ["numpy==2.2.6"]
      whitelist: [numpy]          # what a requirements.txt may name
      data: {test: {subject: main, input: test.npz, output: test.predictions.npz, rows: 100}}
      metric: mse                 # of submission.rules.generic_metric

Code is `Model(name)`, `load()`, `predict(inputs)`. Left out, `data` is one file per model.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from artifact import Manifest
from submission import challenges
from submission.challenges import (
    ARRAY_KEY,
    Call,
    Challenge,
    Column,
    Contract,
    Definition,
    FileName,
    Image,
    Limits,
    Name,
    Tensor,
    TestSet,
    template,
)
from submission.rules import generic_metric

Metric = Literal["mse", "mae", "rmse", "r2", "pearson", "accuracy"]
Text = Annotated[str, Field(min_length=1, max_length=128)]
RISING = ("r2", "pearson", "accuracy")


class DataFile(BaseModel):
    """A test set: who answers it, its files in the input data, the output and the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    subject: Name
    input: FileName | None = None
    output: FileName | None = None
    reference: FileName | None = None
    rows: Annotated[int, Field(ge=1)] | None = None


class Settings(BaseModel):
    """The benchmark; names, sizes and dtypes of tensors are the artifacts' own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["code", "result"] = "code"
    call: Call = "mapping"
    seconds: PositiveFloat = 600.0
    python: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None
    image: Text | None = None
    packages: tuple[Text, ...] = ()
    whitelist: tuple[Text, ...] | None = None
    data: dict[Name, DataFile] | None = None
    metric: Metric = "mse"
    target: Text | None = Field(default=None, description="output that is scored; None: the only")


def _define(settings: Settings, models: tuple[str, ...]) -> Definition:
    data = settings.data or {name: DataFile(subject=name) for name in models}
    subjects = tuple(dict.fromkeys(entry.subject for entry in data.values()))
    subjects = challenges.subjects_of(models, subjects, "this benchmark") if models else subjects
    sets = tuple(_set(name, entry) for name, entry in data.items())
    single = settings.call == "array"
    key = ARRAY_KEY if single else settings.target
    order: Literal["asc", "desc"] = "desc" if settings.metric in RISING else "asc"

    def contract(subject: str, manifest: Manifest | None) -> Contract | None:
        if manifest is None:
            return None
        inputs, outputs = (
            {
                ARRAY_KEY if single else spec.name: Tensor(spec.dtype, spec.shape[1:])
                for spec in specs
            }
            for specs in (manifest.inputs, manifest.outputs)
        )
        return Contract(inputs, outputs)

    def problems(subject: str, manifest: Manifest) -> list[str]:
        if single and (len(manifest.inputs), len(manifest.outputs)) != (1, 1):
            return ["has several inputs or outputs; `call: array` is for one of each"]
        return []

    return Definition(
        kind=settings.kind,
        entry="model.py" if settings.kind == "code" or not sets else sets[0].output,
        subjects=subjects,
        sets=sets,
        columns=(
            *(Column(f"{settings.metric}_{entry.name}", entry.name, order) for entry in sets),
            Column(settings.metric, settings.metric, order),
        ),
        rule=generic_metric,
        options={"metric": settings.metric, "key": settings.metric, "output": key},
        contract=contract,
        image=Image(settings.image, settings.python, settings.packages),
        limits=Limits(settings.seconds),
        call=settings.call,
        template=template("generic.py") if settings.kind == "code" else None,
        ingestion=template("ingestion_model.py") if settings.kind == "code" else None,
        whitelist=settings.whitelist,
        problems=problems,
        to_model=challenges.single_to_model if single else challenges.named_to_model,
        from_model=challenges.single_from_model if single else challenges.named_from_model,
    )


def _set(name: str, entry: DataFile) -> TestSet:
    output = entry.output or f"{name}.predictions.npz"
    files = (entry.input or f"{name}.npz", output, entry.reference or f"{name}.npz")
    return TestSet(name, entry.subject, *files, rows=entry.rows)


CHALLENGE = Challenge("generic", "any benchmark, arrays by name", Settings, _define)

"""The starting kit of a competition: a first submission, made-up rows, the programs to run it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from string import Template
from typing import Any

import numpy as np

from artifact.arrays import encode_npz
from submission import predictions
from submission.bundle.data import Data
from submission.challenges import ARRAY_KEY, Array, Arrays, Definition, Tensor, TestSet, template
from submission.programs import Files, ingestion_program, scoring_program

ROWS = 4
INTERFACES = {  # class that is called -> template of a first submission
    "Model": "bundle_model.py",
    "Submission": "bundle_submission.py",
}
MAKER = "make_predictions.py"


@dataclass(frozen=True)
class First:
    """A submission that shows how one looks: what it answers in words, the files of its zip.

    `kit` are the files it has in the starting kit, `answers` its predictions by set.
    """

    what: str
    files: Files
    kit: Files
    answers: Mapping[str, Arrays]


def first(definition: Definition, data: Data) -> First | None:
    """A first submission that needs numpy alone (or torch); None where none can be made up.

    It repeats the last value where the challenge forecasts what it is given, and answers zeros
    elsewhere.
    """
    if definition.kind == "result":
        return _made_predictions(definition, data)
    if definition.kind == "code" and definition.interface[0] in INTERFACES:
        return _called(definition, data)
    return None


def outputs(definition: Definition, data: Data, entry: TestSet) -> dict[str, Tensor]:
    """The arrays of a set's prediction: those of the challenge, else as its answers."""
    contract = definition.contract(entry.subject, None)
    if contract is not None and contract.outputs:
        return dict(contract.outputs)
    answers = data.references[entry.name]
    single = definition.call == "array" or definition.format == "pickled"
    return {
        ARRAY_KEY if single and len(answers) == 1 else key: Tensor("float32", array.shape[1:])
        for key, array in answers.items()
    }


def _zeros(tensors: Mapping[str, Tensor], rows: int) -> dict[str, Array]:
    return {
        key: np.zeros((rows, *(size or 1 for size in tensor.shape)), tensor.dtype)
        for key, tensor in tensors.items()
    }


def _rows(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _called(definition: Definition, data: Data) -> First:
    tensors = {entry.subject: outputs(definition, data, entry) for entry in definition.sets}
    last = all(_forecasts(definition, data, entry) for entry in definition.sets)
    answers: dict[str, Arrays] = {}
    for entry in definition.sets:
        asked, wanted = data.inputs[entry.name], tensors[entry.subject]
        answers[entry.name] = (
            {ARRAY_KEY: asked[ARRAY_KEY][..., 0]} if last else _zeros(wanted, _rows(asked))
        )
    what = "the last value, repeated" if last else "zeros"
    text = Template(template(INTERFACES[definition.interface[0]]).decode()).substitute(
        what=what,
        answers=_literal(
            {
                subject: {
                    key: (tensor.dtype, tuple(size or 1 for size in tensor.shape))
                    for key, tensor in found.items()
                }
                for subject, found in tensors.items()
            }
        ),
        signature=_signature(definition),
        body=_body(definition, last),
    )
    files = {definition.entry: text.encode()}
    return First(what, files, files, answers)


def _forecasts(definition: Definition, data: Data, entry: TestSet) -> bool:
    """Whether an answer has an input's axes but the last, whose feature 0 it continues."""
    wanted = outputs(definition, data, entry).get(ARRAY_KEY)
    asked = data.inputs[entry.name].get(ARRAY_KEY)
    return (
        definition.call == "array"
        and wanted is not None
        and asked is not None
        and asked.ndim > 2
        and asked.shape[1:-1] == wanted.shape
        and str(asked.dtype) == wanted.dtype
    )


def _signature(definition: Definition) -> str:
    if definition.call == "array":
        return "One array, (row, ...), to one array as ANSWERS has it, (row, ...)."
    return "Arrays by name, each (row, ...), to arrays by name as ANSWERS has them, (row, ...)."


def _body(definition: Definition, last: bool) -> str:
    if last:
        lines = ["# Hidden steps repeat the last one that is seen; feature 0 is the target."]
        lines += ["return np.ascontiguousarray(inputs[..., 0])"]
    elif definition.call == "array":
        lines = ["((dtype, shape),) = ANSWERS[self.name].values()"]
        lines += ["return np.zeros((len(inputs), *shape), dtype)"]
    else:
        lines = ["rows = len(next(iter(inputs.values())))"]
        lines += ["wanted = ANSWERS[self.name].items()"]
        lines += [
            "return {name: np.zeros((rows, *shape), dtype) for name, (dtype, shape) in wanted}"
        ]
    return "\n".join(f"        {line}" for line in lines)


def _literal(value: Mapping[str, Any]) -> str:
    """A dict as Python text, one line for each key."""
    return "{\n" + "".join(f"    {key!r}: {entry!r},\n" for key, entry in value.items()) + "}"


def _made_predictions(definition: Definition, data: Data) -> First:
    answers = {
        entry.name: _zeros(outputs(definition, data, entry), _rows(data.references[entry.name]))
        for entry in definition.sets
    }
    return First(
        "zeros",
        predictions.encode(definition, answers),
        {MAKER: _maker(definition, answers)},
        answers,
    )


def _maker(definition: Definition, answers: Mapping[str, Arrays]) -> bytes:
    files: dict[str, list[Any]] = {}
    for entry in definition.sets:
        arrays = {key: (str(a.dtype), a.shape) for key, a in answers[entry.name].items()}
        files.setdefault(entry.output, []).append((entry.key, arrays))
    text = template("bundle_predictions.py").decode()
    return Template(text).substitute(what="zeros", files=_literal(files)).encode()


def kit(definition: Definition, data: Data, made: First | None) -> Files:
    """Programs, made-up rows, the first submission and how to run it; no README yet."""
    sample = _sample(definition, data)
    sets = tuple(
        replace(entry, reference=f"sample_{number}.npz", rows=None)
        for number, entry in enumerate(definition.sets)
    )
    start = definition.entry if definition.kind == "code" else MAKER
    local = Template(template("bundle_run_local.py").decode()).substitute(first=repr(start))
    programs = {
        "ingestion_program": ingestion_program(definition, sets) or {},
        "scoring_program": scoring_program(definition, sets),
    }
    return {
        **(made.kit if made else {}),
        "run_local.py": local.encode(),
        **{f"{name}/{file}": d for name, files in programs.items() for file, d in files.items()},
        **{
            f"sample_data/input_data/{entry.input}": encode_npz(dict(sample.inputs[entry.name]))
            for entry in sets
            if entry.name in sample.inputs
        },
        **{
            f"sample_data/reference_data/{entry.reference}": encode_npz(
                dict(sample.references[entry.name])
            )
            for entry in sets
        },
    }


def _sample(definition: Definition, data: Data) -> Data:
    """Made-up rows in the layout of the data.

    Of a result challenge as many as the real ones, since its predictions are; two in turn, so that
    they take little room in a zip.
    """
    generator = np.random.default_rng(0)
    inputs: dict[str, Arrays] = {}
    answers: dict[str, Arrays] = {}
    for entry in definition.sets:
        real, asked = data.references[entry.name], data.inputs.get(entry.name, {})
        if definition.kind == "result":
            inputs |= {entry.name: _made_up(asked, ROWS, generator)} if asked else {}
            pair = _made_up(real, 2, generator)
            answers[entry.name] = {
                key: np.resize(pair[key], array.shape) for key, array in real.items()
            }
            continue
        rows = max(ROWS, definition.fewest)
        made = _made_up(asked, rows, generator)
        inputs[entry.name] = definition.mask(made)
        shapes = ({key: a.shape[1:] for key, a in arrays.items()} for arrays in (asked, real))
        if definition.kind == "graph":
            answers[entry.name] = definition.truth(made)
        else:
            answers[entry.name] = made if operator.eq(*shapes) else _made_up(real, rows, generator)
    return Data(inputs, answers, {}, {})


def _made_up(arrays: Arrays, rows: int, generator: np.random.Generator) -> dict[str, Array]:
    found = {}
    for key, array in arrays.items():
        shape = (rows, *array.shape[1:])
        values = generator.normal(size=shape)
        found[key] = (values if array.dtype.kind == "f" else values > 0).astype(array.dtype)
    return found

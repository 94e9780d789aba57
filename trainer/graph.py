"""From a torch module to the bytes of an ONNX graph that are a function of its weights alone."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import onnx
import torch

from artifact.errors import GraphError
from artifact.graph import check
from artifact.manifest import Axis, TensorSpec
from trainer import VERSION
from trainer.data.windows import ModelContext

OPSET = 20
IR_VERSION = 10
# Named axes that a model may leave open, besides `batch`, which always is.
OPEN_AXES = frozenset({"channel"})
# What torch's exporter says of itself while it translates a GRU, and where inputs share an axis;
# everything else is shown.
KNOWN_WARNINGS: tuple[tuple[type[Warning], str], ...] = (
    (FutureWarning, r"_check_is_size will be removed in a future PyTorch release"),
    (UserWarning, r"The tensor attributes? .*_flat_weights.* assigned during export"),
    (
        UserWarning,
        r"# The axis name: (\w+) will not be used, .* another axis: \1\.",
    ),
)
# The exporter names every optional package that it does not find.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


class ExportError(Exception):
    """The module cannot become an artifact; the text says what stands in the way."""


def exported_specs(
    module: torch.nn.Module, context: ModelContext
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The specs of inputs and outputs as the module has them.

    `channel` is open where `module.dynamic_channel` is true, and outputs are in the unit
    `normalized` where `module.output_units` says so.
    """
    inputs, outputs = context.inputs, context.outputs
    if getattr(module, "dynamic_channel", False):
        inputs, outputs = tuple(map(_open_channel, inputs)), tuple(map(_open_channel, outputs))
    if getattr(module, "output_units", "raw") == "normalized":
        outputs = tuple(replace(spec, unit="normalized") for spec in outputs)
    return inputs, outputs


def example_inputs(
    specs: tuple[TensorSpec, ...], rows: int, channels: int, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Example tensors by name, open axes of size `channels`: normal floats, ones for the rest."""
    generator = torch.Generator().manual_seed(seed)
    examples = {}
    for spec in specs:
        shape = (rows, *(channels if size is None else size for size in spec.shape[1:]))
        dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point:
            examples[spec.name] = torch.randn(shape, generator=generator, dtype=dtype)
        else:
            examples[spec.name] = torch.ones(shape, dtype=dtype)
    return examples


def to_onnx(module: torch.nn.Module, context: ModelContext) -> bytes:
    """Translate `module` into an ONNX graph: opset 20, IR 10, weights inline, only the maths.

    Inputs and outputs are named and shaped by `context`; `batch` is always dynamic, `channel` where
    `module.dynamic_channel` is true. The bytes hold no path, no source location and no date, and
    two calls in two processes give the same ones.

    Raises ExportError where the graph is invalid, uses a random or foreign operator, keeps data
    outside, or does not have the inputs and outputs that `context` states.
    """
    inputs, outputs = exported_specs(module, context)
    exported = copy.deepcopy(module).to("cpu").eval().requires_grad_(False)
    examples = example_inputs(inputs, rows=2, channels=max(context.channels, 2))
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            exported,
            tuple(examples[spec.name] for spec in inputs),
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            dynamic_shapes=_dynamic_shapes(inputs),
            external_data=False,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned nothing")
    model = program.model_proto
    _strip(model)
    model.ir_version = IR_VERSION
    model.producer_name = "axonnx"
    model.producer_version = VERSION
    _check_interface(model, inputs, outputs)
    try:
        onnx.checker.check_model(model, full_check=True)
        graph = bytes(model.SerializeToString(deterministic=True))
        check(graph)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        GraphError,
    ) as error:
        raise ExportError(f"the exported graph cannot be used: {error}") from error
    return graph


def _open_channel(spec: TensorSpec) -> TensorSpec:
    axes = (Axis(a.name) if a.name in OPEN_AXES else a for a in spec.axes)
    return replace(spec, axes=tuple(axes))


def _dynamic_shapes(specs: tuple[TensorSpec, ...]) -> tuple[dict[int, Any], ...]:
    # One Dim per name: inputs that share an axis name share its size.
    dims = {name: torch.export.Dim(name) for name in ("batch", *sorted(OPEN_AXES))}
    return tuple(
        {i: dims[axis.name] for i, axis in enumerate(spec.axes) if axis.size is None}
        for spec in specs
    )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    with warnings.catch_warnings():
        for category, message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def _strip(message: Any) -> None:
    """Clear metadata and doc strings in a protobuf message and in everything below it."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for item in value if hasattr(value, "__len__") else (value,):
                _strip(item)


def _check_interface(
    model: onnx.ModelProto, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> None:
    for kind, values, specs in (
        ("input", model.graph.input, inputs),
        ("output", model.graph.output, outputs),
    ):
        found = [_declared(value) for value in values]
        wanted = [
            (
                spec.name,
                spec.dtype,
                tuple(a.name if a.size is None else a.size for a in spec.axes),
            )
            for spec in specs
        ]
        if found != wanted:
            raise ExportError(f"{kind}s of the graph are {found}; the data set states {wanted}")


def _declared(value: onnx.ValueInfoProto) -> tuple[str, str, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    sizes = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
    return value.name, dtype, sizes

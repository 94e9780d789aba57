"""Calls over gRPC with the messages of the service's own table, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from server_process import Server

from serve.grpc_calls import SERVICE
from serve.grpc_messages import MESSAGES

Code = grpc.StatusCode
CONTENTS = {
    "bool": "bool_contents",
    "uint8": "uint_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
}
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FP32",
    "float64": "FP64",
}


class Caller:
    """Calls over one channel, with the messages of the service's own table."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def __call__(self, method: str, metadata: Any = (), timeout: float = 30, **fields: Any) -> Any:
        """The answer; its trailing metadata are in `trailing`. Raises grpc.RpcError."""
        message = MESSAGES[f"{method}Request"](**fields)
        return self.send(method, message.SerializeToString(), metadata, timeout)

    def send(self, method: str, data: bytes, metadata: Any = (), timeout: float = 30) -> Any:
        """The same for the bytes of a message."""
        ask = self._channel.unary_unary(f"/{SERVICE}/{method}")
        answer, call = ask.with_call(data, timeout, tuple(metadata))
        self.trailing = dict(call.trailing_metadata())
        return MESSAGES[f"{method}Response"].FromString(answer)

    def begin(self, method: str, **fields: Any) -> grpc.Future:
        """A call that runs while others are made."""
        message = MESSAGES[f"{method}Request"](**fields)
        ask = self._channel.unary_unary(
            f"/{SERVICE}/{method}", None, MESSAGES[f"{method}Response"].FromString
        )
        return ask.future(message.SerializeToString(), 120)

    def slowly(self, method: str, messages: Iterator[bytes]) -> bytes:
        """The answer to a stream of messages."""
        answer = self._channel.stream_unary(f"/{SERVICE}/{method}")(messages, 30)
        return bytes(answer)


def address(server: Server) -> str:
    (line,) = [line for line in server.said if line.startswith("axonnx: gRPC on ")]
    return line.split()[-1]


@contextmanager
def calling(server: Server) -> Iterator[Caller]:
    alone = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    with grpc.insecure_channel(address(server), alone) as channel:
        yield Caller(channel)


def tensors(
    inputs: Mapping[str, np.ndarray], typed: bool = False
) -> dict[str, list[dict[str, Any]] | list[bytes]]:
    """The fields of a ModelInferRequest that hold these arrays."""
    heads: list[dict[str, Any]] = [
        {"name": name, "datatype": DATATYPES[str(values.dtype)], "shape": values.shape}
        for name, values in inputs.items()
    ]
    if not typed:
        return {
            "inputs": heads,
            "raw_input_contents": [values.tobytes() for values in inputs.values()],
        }
    for head, values in zip(heads, inputs.values(), strict=True):
        head["contents"] = {CONTENTS[str(values.dtype)]: values.ravel().tolist()}
    return {"inputs": heads}


def refused(code: grpc.StatusCode, ask: Callable[[], object]) -> grpc.RpcError:
    """The error that asking ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    assert caught.value.code() == code, caught.value.details()
    return caught.value


def outcome(ask: Callable[[], object]) -> grpc.StatusCode:
    try:
        ask()
    except grpc.RpcError as error:
        return error.code()
    return Code.OK


def forecast(call: Caller, rows: int = 1, **changes: Any) -> Any:
    values = np.ones((rows, 20, 4, 9), np.float32)
    return call(
        "ModelInfer", model_name="small-forecaster", **tensors({"neural": values}) | changes
    )

"""The deterministic session: its options, and a strict choice of execution provider.

ONNX Runtime falls back to the CPU without raising when CUDA cannot start, and swallows wrong
provider options; here asking for CUDA and getting the CPU is an error that names what is missing.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from artifact import cuda
from artifact.errors import GraphError, ProviderError

GRAPH_OPTIMIZATION = "all"
INTRA_OP_THREADS = 1
CHOICES = ("cpu", "cuda", "auto")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CUDA_OPTIONS = {
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv1d_pad_to_nc1d": "0",
    "cudnn_conv_algo_search": "DEFAULT",
    "cudnn_conv_use_max_workspace": "1",
    "do_copy_in_default_stream": "1",
    "enable_cuda_graph": "0",
    "enable_skip_layer_norm_strict_mode": "1",
    "fuse_conv_bias": "0",
    "prefer_nhwc": "0",
    "sdpa_kernel": "0",
    "tunable_op_enable": "0",
    "tunable_op_tuning_enable": "0",
    "use_ep_level_unified_stream": "0",
    "use_tf32": "0",
}
"""No algorithm is chosen by timing, no TF32, and an arena that does not double when it grows."""
_CPU_FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16", "amx_int8"),
    *("asimd", "sve", "sve2", "i8mm", "bf16", "asimddp"),
)


@dataclass(frozen=True)
class Choice:
    """The provider taken, `cpu` or `cuda`, and why: which GPU it is, or why it is not CUDA.

    `reason` is empty where the CPU was asked for.
    """

    provider: str
    reason: str


def session_options() -> onnxruntime.SessionOptions:
    """Options under which one graph gives one answer: see DESIGN, determinism, step 1."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = INTRA_OP_THREADS
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what it would write is in its exceptions
    for key, value in {
        "session.intra_op.allow_spinning": "0",
        "session.inter_op.allow_spinning": "0",
        "session.set_denormal_as_zero": "0",
        "mlas.enable_gemm_fastmath_arm64_bfloat16": "0",
        "mlas.disable_kleidiai": "1",
    }.items():
        options.add_session_config_entry(key, value)
    return options


def choose(provider: str = "auto", *, device_id: int = 0, gpu_memory: int | None = None) -> Choice:
    """What `provider` (`cpu`, `cuda` or `auto`) comes to on this machine, without a session.

    `auto` is CUDA where it starts as asked, else the CPU. Raises ProviderError where an argument is
    no valid one, and where CUDA was asked for and cannot start: its text names what is missing.
    """
    if provider not in CHOICES:
        raise ProviderError(f"provider {provider!r}; must be one of {', '.join(CHOICES)}")
    if device_id < 0:
        raise ProviderError(f"device_id is {device_id}; must be 0 or more")
    if gpu_memory is not None and gpu_memory < 1:
        raise ProviderError(f"gpu_memory is {gpu_memory}; must be at least 1 byte")
    if provider == "cpu":
        return Choice("cpu", "")
    try:
        return Choice("cuda", cuda.find(device_id, gpu_memory).describe())
    except ProviderError as error:
        return _without_cuda(provider, error)


def create_session(
    model: bytes, provider: str = "cpu", *, device_id: int = 0, gpu_memory: int | None = None
) -> onnxruntime.InferenceSession:
    """The session of `open_session`, which states the arguments and errors."""
    return open_session(model, provider, device_id=device_id, gpu_memory=gpu_memory)[0]


def open_session(
    model: bytes, provider: str = "cpu", *, device_id: int = 0, gpu_memory: int | None = None
) -> tuple[onnxruntime.InferenceSession, Choice]:
    """A deterministic session on `cpu`, `cuda`, or with `auto` on CUDA where it starts.

    `device_id` counts the GPUs that the driver shows from 0; `gpu_memory` bounds ONNX Runtime's
    arena on the GPU in bytes (cuBLAS and cuDNN take their own workspace beside it). Raises
    ProviderError where CUDA was asked for and is not what the session got, GraphError where ONNX
    Runtime refuses the graph.
    """
    choice = choose(provider, device_id=device_id, gpu_memory=gpu_memory)
    if choice.provider == "cpu":
        return _start(model, [CPU]), choice
    try:
        return _start_cuda(model, cuda_options(device_id, gpu_memory)), choice
    except ProviderError as error:
        return _start(model, [CPU]), _without_cuda(provider, error)


def cuda_options(device_id: int = 0, gpu_memory: int | None = None) -> dict[str, str]:
    """Options of the CUDA provider under which a machine repeats its answers; memory in bytes."""
    options = {**CUDA_OPTIONS, "device_id": str(device_id)}
    if gpu_memory is not None:
        options["gpu_mem_limit"] = str(gpu_memory)
    return options


def _without_cuda(provider: str, error: ProviderError) -> Choice:
    if provider == "cuda":
        raise ProviderError(f"CUDA was asked for and cannot start: {error}") from None
    return Choice("cpu", f"CUDA cannot start: {error}")


def _start_cuda(model: bytes, options: dict[str, str]) -> onnxruntime.InferenceSession:
    """A session that has CUDA; ProviderError where ONNX Runtime does not give it."""
    # NVIDIA's condition for cuBLAS to repeat its answers when several models run at a time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        session = _start(model, [(CUDA, options), CPU])
    except GraphError as error:
        _start(model, [CPU])  # a graph that the CPU refuses, too, is the graph's fault
        failure = re.search(r"CUDA failure \d+: [^;]*", str(error))
        raise ProviderError(failure[0].strip() if failure else str(error)) from None
    if session.get_providers()[0] != CUDA:
        raise ProviderError("ONNX Runtime left CUDA out; its log on standard error says why")
    return session


def _start(model: bytes, providers: list[object]) -> onnxruntime.InferenceSession:
    try:
        # Without `enable_fallback=0` a failing GPU is replaced by the CPU, at any later run, too.
        return onnxruntime.InferenceSession(
            model, session_options(), providers=providers, enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        text = str(error).split("\n")[0]
        raise GraphError(f"ONNX Runtime {onnxruntime.__version__} refuses it: {text}") from None


def processor() -> str:
    """Architecture, vendor, family, model and vector instructions of this machine's processor.

    Vendor and model belong to it: numerical libraries choose kernels by them, too.
    """
    facts: dict[str, str] = {}
    source = Path("/proc/cpuinfo")
    if source.exists():
        for line in source.read_text(errors="replace").split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            facts[key.strip()] = value.strip()
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    keys = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    kind = [facts.get(key) for key in keys]
    name = "-".join(part for part in kind if part) or platform.processor() or "unknown"
    return " ".join([platform.machine(), name, *(flag for flag in _CPU_FLAGS if flag in flags)])

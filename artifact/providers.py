"""The deterministic session: its options, and a strict choice of execution provider.

ONNX Runtime falls back to the CPU without raising when CUDA cannot start, and swallows wrong
provider options; here asking for CUDA and getting the CPU is an error that names what is missing.
"""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import onnxruntime

from artifact.errors import GraphError, ProviderError

GRAPH_OPTIMIZATION = "all"
INTRA_OP_THREADS = 1
CHOICES = ("cpu", "cuda", "auto")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "DEFAULT",
    "use_tf32": "0",
    "tunable_op_enable": "0",
    "tunable_op_tuning_enable": "0",
    "do_copy_in_default_stream": "1",
    "enable_skip_layer_norm_strict_mode": "1",
    "prefer_nhwc": "0",
}
_CPU_FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16", "amx_int8"),
    *("asimd", "sve", "sve2", "i8mm", "bf16", "asimddp"),
)


def session_options() -> onnxruntime.SessionOptions:
    """Options under which one graph gives one answer: see DESIGN, determinism, step 1."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = INTRA_OP_THREADS
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    for key, value in {
        "session.intra_op.allow_spinning": "0",
        "session.inter_op.allow_spinning": "0",
        "session.set_denormal_as_zero": "0",
        "mlas.enable_gemm_fastmath_arm64_bfloat16": "0",
        "mlas.disable_kleidiai": "1",
    }.items():
        options.add_session_config_entry(key, value)
    return options


def create_session(
    model: bytes, provider: str = "cpu", *, device_id: int = 0, gpu_memory: int | None = None
) -> onnxruntime.InferenceSession:
    """A deterministic session on `cpu`, `cuda`, or with `auto` on CUDA where it starts.

    Raises ProviderError where CUDA was asked for and is not what the session got, GraphError where
    ONNX Runtime refuses the graph.
    """
    if provider not in CHOICES:
        raise ProviderError(f"provider {provider!r}; must be one of {', '.join(CHOICES)}")
    if provider == "auto":
        provider = "cpu" if _why_no_cuda() else "cuda"
    if provider == "cpu":
        return _start(model, [CPU])
    if reason := _why_no_cuda():
        raise ProviderError(f"CUDA was asked for and cannot start: {reason}")
    onnxruntime.preload_dlls()
    session = _start(model, [(CUDA, {**CUDA_OPTIONS}), CPU])
    if session.get_providers()[0] != CUDA:
        raise ProviderError(
            "CUDA was asked for and ONNX Runtime fell back to "
            f"{', '.join(session.get_providers())}: its log above names the library it misses"
        )
    return session


def _start(model: bytes, providers: list[object]) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(model, session_options(), providers=providers)
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        text = str(error).split("\n")[0]
        raise GraphError(f"ONNX Runtime {onnxruntime.__version__} refuses it: {text}") from None


def _why_no_cuda() -> str:
    """Why CUDA cannot start here, or nothing."""
    if CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime is the CPU build; install the `gpu` extra"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return (
            "libcuda.so.1, the NVIDIA driver, is missing "
            "(in a container: run it with --gpus all and the NVIDIA container toolkit)"
        )
    return ""


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

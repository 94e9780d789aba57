"""What CUDA needs on this machine, looked up before a session is built.

ONNX Runtime logs what it misses and goes on with the CPU. Here the driver (through NVIDIA's driver
API), the device and the libraries are tried first, so that an error can name what is missing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from artifact.errors import ProviderError

DRIVER = "libcuda.so.1"
DRIVER_RELEASES = {12: "525", 13: "580"}
"""First driver release of each CUDA major version (NVIDIA, CUDA Compatibility, minor versions)."""
OLDEST_CAPABILITY = {13: (7, 5)}
"""Compute capability from which on a CUDA major version has kernels (CUDA 13.0 release notes)."""
_NO_DEVICE = 100
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Device:
    """A GPU as its driver names it; `memory` in bytes, `driver` is the CUDA version it supports."""

    name: str
    capability: tuple[int, int]
    memory: int
    driver: tuple[int, int]

    def describe(self) -> str:
        """The device in words."""
        return (
            f"{self.name}, compute capability {_dotted(self.capability)}, "
            f"{_gib(self.memory)}, driver for CUDA {_dotted(self.driver)}"
        )


def find(device_id: int = 0, gpu_memory: int | None = None) -> Device:
    """The GPU `device_id`, on which CUDA can start with an arena of `gpu_memory` bytes.

    Loads the CUDA libraries on the way, those of NVIDIA's Python packages first, where ONNX Runtime
    then finds them. Raises ProviderError naming what is missing or too old, and what would help.
    """
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ProviderError(
            f"this onnxruntime {onnxruntime.__version__} is the CPU build; "
            "install the `gpu` extra in its place"
        )
    needed = _needed_version()
    driver = _open_driver()
    supported = _driver_version(driver)
    if supported[0] < needed[0]:
        raise ProviderError(_too_old(supported, needed))
    device = _device(driver, device_id, supported)
    oldest = OLDEST_CAPABILITY.get(needed[0], (0, 0))
    if device.capability < oldest:
        raise ProviderError(
            f"GPU {device_id} is {device.describe()}; CUDA {_dotted(needed)} needs compute "
            f"capability {_dotted(oldest)} or higher: use the CUDA 12 image"
        )
    if gpu_memory is not None and gpu_memory > device.memory:
        raise ProviderError(
            f"gpu_memory is {gpu_memory} bytes ({_gib(gpu_memory)}); "
            f"GPU {device_id} has {device.memory} ({_gib(device.memory)})"
        )
    _load_libraries(needed[0])
    return device


def load_library(name: str) -> Any:
    """The shared library of that file name or path; raises OSError where it does not load."""
    return ctypes.CDLL(name)


def libraries(major: int) -> dict[str, str]:
    """What ONNX Runtime loads for CUDA `major`, and the extra of onnxruntime-gpu that brings it.

    Newer versions run without cuDNN, cuFFT and NVRTC, on other kernels: with other bits. All are
    asked for, so that answers do not depend on which of them happen to be installed.
    """
    return {
        f"libcudart.so.{major}": "cuda",
        f"libcublasLt.so.{major}": "cudnn",
        f"libcublas.so.{major}": "cudnn",
        f"libnvrtc.so.{major}": "cuda",
        "libcurand.so.10": "cuda",
        f"libcufft.so.{major - 1}": "cuda",
        "libcudnn.so.9": "cudnn",
    }


def _needed_version() -> tuple[int, int]:
    major, minor = str(onnxruntime.cuda_version).split(".")[:2]
    return int(major), int(minor)


def _open_driver() -> Any:
    try:
        return load_library(DRIVER)
    except OSError as error:
        found = "is missing" if "No such file" in str(error) else f"does not load ({error})"
        raise ProviderError(
            f"{DRIVER}, the NVIDIA driver, {found} "
            "(in a container: run it with --gpus all and the NVIDIA container toolkit)"
        ) from None


def _driver_version(driver: Any) -> tuple[int, int]:
    """The newest CUDA version that the driver supports; its library says 12040 for 12.4."""
    value = ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(value))
    return value.value // 1000, value.value % 1000 // 10


def _too_old(supported: tuple[int, int], needed: tuple[int, int]) -> str:
    release = DRIVER_RELEASES.get(needed[0])
    update = f"update the driver to {release} or newer" if release else "update the driver"
    image = ", or use the CUDA 12 image" if needed[0] > 12 <= supported[0] else ""
    return (
        f"the driver found{_release_found()} is for CUDA {_dotted(supported)}, onnxruntime "
        f"{onnxruntime.__version__} needs {_dotted(needed)}: {update}{image}"
    )


def _release_found() -> str:
    """The release of the loaded kernel module, where the system shows it."""
    try:
        return f" ({Path('/sys/module/nvidia/version').read_text().strip()})"
    except OSError:
        return ""


def _device(driver: Any, device_id: int, supported: tuple[int, int]) -> Device:
    count = _count(driver)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    mask = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    if count == 0:
        raise ProviderError(
            f"the driver is there and shows no GPU{mask}; in a container: run it with --gpus all"
        )
    if device_id >= count:
        last = "only GPU 0" if count == 1 else f"GPUs 0 to {count - 1}"
        raise ProviderError(f"device_id is {device_id}; the driver shows {last}{mask}")
    handle, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    _call(driver, "cuDeviceGet", ctypes.byref(handle), device_id)
    _call(driver, "cuDeviceGetName", name, len(name), handle)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
    capability = (
        _attribute(driver, _CAPABILITY_MAJOR, handle),
        _attribute(driver, _CAPABILITY_MINOR, handle),
    )
    return Device(name.value.decode(errors="replace"), capability, memory.value, supported)


def _count(driver: Any) -> int:
    if driver.cuInit(0) == _NO_DEVICE:
        return 0
    _call(driver, "cuInit", 0)
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    return count.value


def _attribute(driver: Any, attribute: int, handle: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
    return value.value


def _call(driver: Any, function: str, *arguments: object) -> None:
    """Call the driver API; raise ProviderError with its own name of the error."""
    code = getattr(driver, function)(*arguments)
    if code:
        name = ctypes.c_char_p()
        driver.cuGetErrorName(code, ctypes.byref(name))
        text = (name.value or b"an unknown error").decode()
        raise ProviderError(f"the NVIDIA driver's {function} gave {text} ({code})")


def _load_libraries(major: int) -> None:
    """Load every CUDA library into this process, or raise ProviderError naming those missing."""
    failures: dict[str, str] = {}
    for name in libraries(major):
        try:
            load_library(_installed(name))
        except OSError as error:
            failures[name] = str(error)
    if failures:
        extras = ",".join(sorted({libraries(major)[name] for name in failures}))
        raise ProviderError(
            f"{', '.join(failures)} cannot be loaded ({next(iter(failures.values()))}); "
            f"`pip install 'onnxruntime-gpu[{extras}]=={onnxruntime.__version__}'` brings it"
        )


def _installed(name: str) -> str:
    """The library's path in NVIDIA's Python packages, else its name, for the loader to find."""
    packages = importlib.util.find_spec("nvidia")
    for folder in (packages and packages.submodule_search_locations) or []:
        for path in sorted(Path(folder).glob(f"*/lib/{name}")):
            return str(path)
    return name


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"

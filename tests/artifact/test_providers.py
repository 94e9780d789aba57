"""The choice of execution provider, on machines made up by a fake driver and loader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state
from small_artifacts import STEPS, forecaster_graph

from artifact import cuda, providers
from artifact.errors import GraphError, ProviderError
from artifact.providers import Choice

GRAPH = forecaster_graph().SerializeToString()
WINDOW = {"neural": np.ones((1, STEPS, 4, 9), np.float32)}
GIB = 1 << 30
FLAGS = {"0", "1"}
# Names and values of the CUDA provider's documentation; ONNX Runtime 1.26 and 1.31 parse them.
DOCUMENTED = {
    "arena_extend_strategy": {"kNextPowerOfTwo", "kSameAsRequested"},
    "cudnn_conv1d_pad_to_nc1d": FLAGS,
    "cudnn_conv_algo_search": {"EXHAUSTIVE", "HEURISTIC", "DEFAULT"},
    "cudnn_conv_use_max_workspace": FLAGS,
    "do_copy_in_default_stream": FLAGS,
    "enable_cuda_graph": FLAGS,
    "enable_skip_layer_norm_strict_mode": FLAGS,
    "fuse_conv_bias": FLAGS,
    "prefer_nhwc": FLAGS,
    "sdpa_kernel": {"0"},
    "tunable_op_enable": FLAGS,
    "tunable_op_tuning_enable": FLAGS,
    "use_ep_level_unified_stream": FLAGS,
    "use_tf32": FLAGS,
}


@dataclass
class Machine:
    """A machine with a GPU on which CUDA starts, unless told otherwise."""

    available: tuple[str, ...] = (providers.CUDA, providers.CPU)
    needed: str = "13.0"
    driver: int | None = 13010
    init: int = 0
    count: int = 1
    capability: tuple[int, int] = (9, 0)
    memory: int = 80 * GIB
    missing: frozenset[str] = frozenset()
    loaded: list[str] = field(default_factory=list)

    def load(self, name: str) -> Any:
        file = Path(name).name
        if file in self.missing or (file == cuda.DRIVER and self.driver is None):
            raise OSError(f"{file}: cannot open shared object file: No such file or directory")
        self.loaded.append(name)
        return self

    # The driver API as ctypes calls it: results go where a reference points.
    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.driver
        return 0

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, handle: Any, device_id: int) -> int:
        handle._obj.value = device_id
        return 0 if device_id < self.count else 101

    def cuDeviceGetName(self, name: Any, size: int, handle: Any) -> int:
        name.value = b"GPU %d" % handle.value
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> int:
        memory._obj.value = self.memory
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = self.capability[{75: 0, 76: 1}[attribute]]
        return 0

    def cuGetErrorName(self, code: int, name: Any) -> int:
        name._obj.value = b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
        return 0


@contextmanager
def on(machine: Machine) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "get_available_providers", lambda: list(machine.available))
        patch.setattr(onnxruntime, "cuda_version", machine.needed, raising=False)
        patch.setattr(onnxruntime, "__version__", "1.31.1")
        patch.setattr(cuda, "load_library", machine.load)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        yield patch


def refusal(machine: Machine, **options: Any) -> str:
    with on(machine), pytest.raises(ProviderError) as caught:
        providers.choose("cuda", **options)
    text = str(caught.value)
    assert text.startswith("CUDA was asked for and cannot start: ")
    with on(machine):
        choice = providers.choose("auto", **options)
    assert choice == Choice("cpu", text.replace("CUDA was asked for and cannot", "CUDA cannot"))
    return text


def test_cuda_is_taken_where_everything_is_there() -> None:
    machine = Machine()
    expected = Choice("cuda", "GPU 0, compute capability 9.0, 80.0 GiB, driver for CUDA 13.1")
    with on(machine):
        assert providers.choose("cuda", gpu_memory=80 * GIB) == expected
        assert [Path(name).name for name in machine.loaded] == [cuda.DRIVER, *cuda.libraries(13)]
        assert providers.choose("auto") == expected


def test_the_cpu_needs_no_look_at_the_gpu() -> None:
    machine = Machine()
    with on(machine):
        assert providers.choose("cpu", device_id=7, gpu_memory=1) == Choice("cpu", "")
    assert machine.loaded == []


@pytest.mark.parametrize("provider", providers.CHOICES)
def test_wrong_arguments_are_refused_whatever_the_provider(provider: str) -> None:
    for options, said in (
        ({"device_id": -1}, "device_id is -1; must be 0 or more"),
        ({"gpu_memory": 0}, "gpu_memory is 0; must be at least 1 byte"),
        ({"gpu_memory": -5}, "gpu_memory is -5"),
    ):
        with on(Machine()), pytest.raises(ProviderError, match=said):
            providers.open_session(GRAPH, provider, **options)
    with pytest.raises(ProviderError, match="'CUDA'; must be one of cpu, cuda, auto"):
        providers.choose("CUDA")


def test_the_cpu_build_of_onnxruntime() -> None:
    machine = Machine(available=("AzureExecutionProvider", providers.CPU))
    assert "onnxruntime 1.31.1 is the CPU build; install the `gpu` extra" in refusal(machine)
    assert machine.loaded == []


def test_a_missing_driver() -> None:
    said = refusal(Machine(driver=None))
    assert "libcuda.so.1, the NVIDIA driver, is missing" in said
    assert "--gpus all" in said


def test_a_driver_that_does_not_load() -> None:
    class Broken(Machine):
        def load(self, name: str) -> Any:
            raise OSError(f"{name}: file too short")

    assert "does not load (libcuda.so.1: file too short)" in refusal(Broken())


@pytest.mark.parametrize(
    ("driver", "found", "image"), [(12040, "12.4", True), (11080, "11.8", False)]
)
def test_a_driver_too_old_is_named_with_the_one_needed(
    driver: int, found: str, image: bool
) -> None:
    said = refusal(Machine(driver=driver))
    assert f"is for CUDA {found}, onnxruntime 1.31.1 needs 13.0" in said
    assert "update the driver to 580 or newer" in said
    assert ("CUDA 12 image" in said) == image


def test_the_minor_version_of_the_driver_does_not_matter() -> None:
    with on(Machine(driver=12020, needed="12.8")):
        assert providers.choose("cuda").reason.endswith("driver for CUDA 12.2")
    assert "525 or newer" in refusal(Machine(driver=11080, needed="12.8"))


@pytest.mark.parametrize("machine", [Machine(count=0), Machine(init=100)])
def test_no_gpu(machine: Machine) -> None:
    assert "shows no GPU; in a container: run it with --gpus all" in refusal(machine)
    with on(machine) as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        with pytest.raises(ProviderError, match=r"\(CUDA_VISIBLE_DEVICES is '-1'\)"):
            providers.choose("cuda")


def test_a_device_id_out_of_range() -> None:
    assert "device_id is 1; the driver shows only GPU 0" in refusal(Machine(), device_id=1)
    assert "device_id is 4; the driver shows GPUs 0 to 3" in refusal(Machine(count=4), device_id=4)
    with on(Machine(count=4)):
        assert providers.choose("cuda", device_id=3).reason.startswith("GPU 3, ")


def test_other_errors_of_the_driver_have_their_name() -> None:
    said = refusal(Machine(init=803))
    assert "driver's cuInit gave CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)" in said


def test_a_gpu_too_old_for_cuda_13() -> None:
    said = refusal(Machine(capability=(7, 0)))
    assert "CUDA 13.0 needs compute capability 7.5 or higher" in said
    with on(Machine(capability=(7, 0), needed="12.8")):
        assert providers.choose("cuda").provider == "cuda"


def test_more_memory_than_the_gpu_has() -> None:
    said = refusal(Machine(memory=8 * GIB), gpu_memory=9 * GIB)
    assert f"gpu_memory is {9 * GIB} bytes (9.0 GiB); GPU 0 has {8 * GIB} (8.0 GiB)" in said


@pytest.mark.parametrize("major", [12, 13])
def test_each_missing_library_is_named_with_the_extra_that_brings_it(major: int) -> None:
    for name, extra in cuda.libraries(major).items():
        machine = Machine(driver=13000, needed=f"{major}.0", missing=frozenset({name}))
        said = refusal(machine)
        assert f"{name} cannot be loaded" in said
        assert f"onnxruntime-gpu[{extra}]==1.31.1" in said


def test_all_missing_libraries_are_named_at_once() -> None:
    names = frozenset({"libcudnn.so.9", "libcufft.so.12"})
    said = refusal(Machine(missing=names))
    assert all(name in said for name in names)
    assert "onnxruntime-gpu[cuda,cudnn]==" in said


def test_the_libraries_of_the_python_packages_come_first(tmp_path: Path) -> None:
    library = tmp_path / "nvidia" / "vendor" / "lib" / "libcurand.so.10"
    library.parent.mkdir(parents=True)
    library.touch()
    machine = Machine()
    with on(machine) as patch:
        patch.syspath_prepend(tmp_path)
        providers.choose("cuda")
    assert str(library) in machine.loaded
    assert "libcurand.so.10" not in machine.loaded


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    refusal(Machine(missing=frozenset({"libcudnn.so.9"})))
    with on(Machine()):
        providers.choose("auto")
    assert capfd.readouterr() == ("", "")


machines = st.builds(
    Machine,
    available=st.sampled_from([(providers.CUDA, providers.CPU), (providers.CPU,)]),
    needed=st.sampled_from(["12.8", "13.0", "14.2"]),
    driver=st.sampled_from([None, 11080, 12040, 13000, 14000]),
    init=st.sampled_from([0, 0, 100, 803]),
    count=st.integers(0, 3),
    capability=st.tuples(st.integers(6, 12), st.integers(0, 9)),
    memory=st.integers(1, 4).map(GIB.__mul__),
    missing=st.frozensets(st.sampled_from(list(cuda.libraries(13))), max_size=2),
)


@given(machine=machines, device_id=st.integers(0, 3), gpu_memory=st.none() | st.just(2 * GIB))
def test_auto_takes_cuda_exactly_where_cuda_starts(
    machine: Machine, device_id: int, gpu_memory: int | None
) -> None:
    with on(machine):
        auto = providers.choose("auto", device_id=device_id, gpu_memory=gpu_memory)
        if auto.provider == "cuda":
            assert providers.choose("cuda", device_id=device_id, gpu_memory=gpu_memory) == auto
        else:
            reason = re.escape(auto.reason.removeprefix("CUDA "))
            with pytest.raises(ProviderError, match=f"^CUDA was asked for and {reason}$"):
                providers.choose("cuda", device_id=device_id, gpu_memory=gpu_memory)


# From here on ONNX Runtime itself: this build has no CUDA and, told to use it, goes on without.
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_cuda_left_out_by_onnxruntime_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with on(Machine()):
        with pytest.raises(ProviderError, match="ONNX Runtime left CUDA out"):
            providers.create_session(GRAPH, "cuda")
        session, choice = providers.open_session(GRAPH, "auto", gpu_memory=GIB)
        assert choice.provider == "cpu"
        assert "ONNX Runtime left CUDA out" in choice.reason
        assert session.get_providers() == [providers.CPU]
        assert session.run(None, WINDOW)[0].shape == (1, STEPS, 4)
        with pytest.raises(GraphError, match="refuses it"):
            providers.create_session(GRAPH[:100], "auto")


def test_an_error_of_cuda_is_told_from_one_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxruntime.InferenceSession
    offered: list[Any] = []

    def full(model: bytes, options: Any, *, providers: list[Any], **rest: Any) -> Any:
        if providers == ["CPUExecutionProvider"]:
            return real(model, options, providers=providers, **rest)
        offered.extend(providers)
        raise RuntimeError("/build/cuda_call.cc:129 CUDA failure 2: out of memory ; GPU=0 ; host=a")

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(onnxruntime, "InferenceSession", full)
    with on(Machine(count=2)):
        with pytest.raises(ProviderError, match=r"start: CUDA failure 2: out of memory$"):
            providers.create_session(GRAPH, "cuda", device_id=1, gpu_memory=3 * GIB)
        with pytest.raises(GraphError):
            providers.create_session(b"no graph", "cuda")
        choice = providers.open_session(GRAPH, "auto")[1]
    assert choice == Choice("cpu", "CUDA cannot start: CUDA failure 2: out of memory")
    name, options = offered[0]
    assert name == providers.CUDA
    assert options["device_id"] == "1"
    assert options["gpu_mem_limit"] == str(3 * GIB)


def test_a_run_that_fails_on_its_provider_does_not_move_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

        def run(self, *arguments: object) -> None:
            raise onnxruntime_pybind11_state.EPFail("the GPU fell off the bus")

    session = providers.create_session(GRAPH)
    whole = session._sess
    monkeypatch.setattr(session, "_sess", Failing())
    with pytest.raises(onnxruntime_pybind11_state.EPFail):
        session.run(None, WINDOW)
    assert capfd.readouterr().out == ""


def test_the_options_of_cuda_are_documented_ones_and_leave_nothing_to_timing() -> None:
    for name, value in providers.CUDA_OPTIONS.items():
        assert value in DOCUMENTED[name], name
    assert providers.cuda_options() == {**providers.CUDA_OPTIONS, "device_id": "0"}
    limited = providers.cuda_options(3, 5 * GIB)
    assert limited == {
        **providers.CUDA_OPTIONS,
        "device_id": "3",
        "gpu_mem_limit": str(5 * GIB),
    }
    wanted = {
        "cudnn_conv_algo_search": "DEFAULT",
        "use_tf32": "0",
        "tunable_op_enable": "0",
        "arena_extend_strategy": "kSameAsRequested",
    }
    assert wanted.items() <= limited.items()

"""On an NVIDIA GPU: CUDA is really used, answers repeat, and never depend on who else called.

Small graphs, and the demo artifact as a trained model. `-s` shows the throughput.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from small_artifacts import STEPS, write_decoder, write_forecaster

import artifact
from artifact import providers
from artifact.batching import PADDED_ROWS
from artifact.errors import ArtifactError, ProviderError

pytestmark = pytest.mark.gpu
ROOT = Path(artifact.__file__).parent.parent
DEMO = ROOT / "demo"
GIB = 1 << 30
Inputs = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def demo() -> artifact.Model:
    return artifact.load(DEMO, provider="cuda")


def windows(rows: int, channels: int = 4) -> np.ndarray:
    values = np.random.default_rng(rows).normal(100, 50, (rows, STEPS, channels, 9))
    return values.astype(np.float32)


def repeated(inputs: Inputs, rows: int) -> dict[str, np.ndarray]:
    """`rows` different rows, made of the golden ones by scaling."""
    index = np.arange(rows)
    made = {}
    for name, values in inputs.items():
        made[name] = values[index % len(values)]
        if values.dtype == np.float32:
            scale = 1 + 0.01 * index.reshape(-1, *[1] * (values.ndim - 1))
            made[name] = (made[name] * scale).astype(np.float32)
    return made


def row_of(inputs: Inputs, row: int) -> dict[str, np.ndarray]:
    return {name: values[row : row + 1] for name, values in inputs.items()}


def test_cuda_is_used_and_close_to_the_cpu(tmp_path: Path) -> None:
    folder = write_forecaster(tmp_path / "artifact")
    gpu, cpu = artifact.load(folder, provider="cuda"), artifact.load(folder)
    assert gpu.providers[0] == "CUDAExecutionProvider"
    assert artifact.load(folder, provider="auto").providers == gpu.providers
    x = windows(33)
    got, want = (model.predict({"neural": x})["forecast"] for model in (gpu, cpu))
    assert np.abs(got - want).max() <= gpu.golden.bound["forecast"]


def test_the_nodes_of_a_trained_model_run_on_cuda(tmp_path: Path, demo: artifact.Model) -> None:
    assert demo.providers[0] == providers.CUDA
    options = providers.session_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(
        DEMO / "model.onnx",
        options,
        providers=[(providers.CUDA, providers.cuda_options()), providers.CPU],
        enable_fallback=0,
    )
    session.run(None, dict(row_of(demo.golden_inputs, 0)))
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [
        event for event in events if event.get("cat") == "Node" and "provider" in event["args"]
    ]
    heavy = [
        event for event in nodes if event["args"]["op_name"] in ("MatMul", "Gemm", "FusedMatMul")
    ]
    assert heavy
    assert {event["args"]["provider"] for event in heavy} == {providers.CUDA}


def test_onnxruntime_took_the_options() -> None:
    data = (DEMO / "model.onnx").read_bytes()
    session = providers.create_session(data, "cuda", gpu_memory=2 * GIB)
    effective = session.get_provider_options()[providers.CUDA]
    wanted = providers.cuda_options(0, 2 * GIB)
    shown = wanted.keys() & effective.keys()
    assert {"device_id", "gpu_mem_limit", "use_tf32", "cudnn_conv_algo_search"} <= shown
    assert {name: effective[name] for name in shown} == {name: wanted[name] for name in shown}


def test_the_choice_names_the_gpu() -> None:
    choice = providers.choose("auto")
    assert choice.provider == "cuda"
    assert choice == providers.choose("cuda")
    assert "compute capability" in choice.reason
    assert "driver for CUDA" in choice.reason


def test_the_difference_to_the_cpu_is_within_the_bound(demo: artifact.Model) -> None:
    cpu = artifact.load(DEMO)
    for spec in demo.manifest.outputs:
        bound = demo.golden.bound[spec.name]
        assert demo.golden.gap[spec.name] <= bound
        got, want = (model.predict(model.golden_inputs)[spec.name] for model in (demo, cpu))
        assert np.abs(got - want).max() <= 2 * bound  # each within the bound of the stored answer


def test_repeated_runs_give_the_same_bytes(demo: artifact.Model) -> None:
    inputs = repeated(demo.golden_inputs, 20)
    first = demo.predict(inputs)
    again = artifact.load(DEMO, provider="cuda")
    for _ in range(20):
        for model in (demo, again):
            answer = model.predict(inputs)
            assert all(answer[name].tobytes() == first[name].tobytes() for name in first)


@pytest.mark.parametrize("rows", [1, 5, PADDED_ROWS, 20])
def test_a_row_has_the_same_bytes_alone_and_in_company(tmp_path: Path, rows: int) -> None:
    model = artifact.load(write_decoder(tmp_path / "artifact"), provider="cuda")
    inputs = repeated(model.golden_inputs, rows)
    together = model.predict(inputs)["probability"]
    for row in range(rows):
        alone = model.predict(row_of(inputs, row))["probability"]
        assert alone.tobytes() == together[row].tobytes()


def test_rows_of_a_trained_model_keep_their_bytes_among_callers(demo: artifact.Model) -> None:
    inputs = repeated(demo.golden_inputs, 40)
    alone = [demo.predict(row_of(inputs, row)) for row in range(40)]
    parts = [(start, min(start + size, 40)) for start in range(0, 40, 5) for size in (1, 3, 8, 17)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda part: demo.predict({n: v[slice(*part)] for n, v in inputs.items()}), parts
        )
        for (start, stop), answer in zip(parts, answers, strict=True):
            for name, values in answer.items():
                want = b"".join(alone[row][name].tobytes() for row in range(start, stop))
                assert values.tobytes() == want


@pytest.mark.parametrize("source", ["small", "demo"])
def test_fresh_processes_give_the_same_bytes(tmp_path: Path, source: str) -> None:
    folder = DEMO if source == "demo" else write_forecaster(tmp_path / "artifact")
    np.save(tmp_path / "x.npy", windows(20, 8 if source == "demo" else 4))
    answers = set()
    for name in ("a.npy", "b.npy", "c.npy"):
        words = ["predict", folder, "x.npy", "--output", name, "--provider", "cuda"]
        subprocess.run([sys.executable, ROOT / "axonnx.py", *words], cwd=tmp_path, check=True)
        answers.add((tmp_path / name).read_bytes())
    assert len(answers) == 1


def test_a_memory_limit_is_kept_and_changes_no_byte(demo: artifact.Model) -> None:
    limited = artifact.load(DEMO, provider="cuda", gpu_memory=1 * GIB)
    inputs = repeated(demo.golden_inputs, 20)
    got, want = limited.predict(inputs), demo.predict(inputs)
    assert all(got[name].tobytes() == want[name].tobytes() for name in want)
    with pytest.raises(ArtifactError):
        artifact.load(DEMO, provider="cuda", gpu_memory=1)
    with pytest.raises(ProviderError, match=r"gpu_memory is .*; GPU 0 has"):
        artifact.load(DEMO, provider="cuda", gpu_memory=1 << 50)


def test_the_device_is_the_one_asked_for() -> None:
    with pytest.raises(ProviderError, match="device_id is 99; the driver shows"):
        artifact.load(DEMO, provider="cuda", device_id=99)
    assert artifact.load(DEMO, provider="auto", device_id=99).providers == [providers.CPU]
    if providers.choose("auto", device_id=1).provider == "cpu":
        pytest.skip("one GPU here: no second one to run on")
    model = artifact.load(DEMO, provider="cuda", device_id=1)
    assert model.providers[0] == providers.CUDA
    data = (DEMO / "model.onnx").read_bytes()
    session = providers.create_session(data, "cuda", device_id=1)
    assert session.get_provider_options()[providers.CUDA]["device_id"] == "1"


def test_throughput_against_the_cpu(
    demo: artifact.Model, record_property: Callable[[str, object], None]
) -> None:
    inputs = repeated(demo.golden_inputs, 512)
    rates = {}
    for name, model in (("cuda", demo), ("cpu", artifact.load(DEMO))):
        model.predict(inputs)
        start = time.perf_counter()
        for _ in range(3):
            model.predict(inputs)
        rates[name] = 3 * 512 / (time.perf_counter() - start)
        record_property(f"{name}_rows_per_s", round(rates[name]))
    print(f"\n{providers.choose('cuda').reason}")
    print(f"demo, 512 rows: {rates['cuda']:.0f} rows/s on CUDA, {rates['cpu']:.0f} on one CPU core")
    assert rates["cuda"] > 0

"""The image of the trainer, built and run for real: a run of its own, without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import numpy as np
import pytest

import artifact

pytestmark = pytest.mark.docker
ROOT = Path(__file__).resolve().parents[2]
OWNER = 12345
CONFIG = """\
data: {name: synthetic, channels: 2, samples: 400}
model: {name: patchformer, width: 8}
training: {epochs: 1, device: cpu}
"""


def docker(*words: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def image() -> str:
    if shutil.which("docker") is None or docker("info").returncode:
        pytest.fail("no Docker engine answers; start one, or leave out the marker `docker`")
    words = ["build", "--network", "host", "-f", "docker/trainer.Dockerfile"]
    done = docker(*words, "-t", "axonnx-trainer", ".", timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return "axonnx-trainer"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a config, which belongs to a user that the image does not know."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(CONFIG)
    if os.geteuid() == 0:
        os.chown(folder, OWNER, OWNER)
    return folder


def check_run(folder: Path) -> None:
    """The artifact answers here, and everything belongs to the folder's owner."""
    model = artifact.load(folder / "runs" / "tiny" / "artifact")
    rows = np.ones((3, 20, 2, 9), np.float32)
    assert model.predict({"neural": rows})["forecast"].shape == (3, 20, 2)
    owners = {(p.stat().st_uid, p.stat().st_gid) for p in (folder / "runs").rglob("*")}
    assert owners == {(folder.stat().st_uid, folder.stat().st_gid)}


def test_compose_trains_as_the_owner_of_the_checkout(
    image: str, checkout: Path, tmp_path: Path
) -> None:
    offline = tmp_path / "offline.yaml"
    offline.write_text(f"services:\n  trainer:\n    image: {image}\n    network_mode: none\n")
    compose = ["compose", "-p", f"axonnx-{uuid.uuid4().hex[:8]}", "--project-directory", checkout]
    compose += ["-f", ROOT / "compose.yaml", "-f", offline]
    words = ["train", "tiny.yaml", "--training.max_steps", "3"]
    done = docker(*compose, "run", "--rm", "-T", "trainer", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    check_run(checkout)


def test_another_user_stays_who_they_are(image: str, checkout: Path) -> None:
    code = "import os; print(os.getuid(), os.getgid(), os.getgroups())"
    run = ["run", "--rm", "--network", "none", "-v", f"{checkout}:/work"]
    done = docker(
        *run, "--user", "777:778", "--entrypoint", "as-owner", image, "python", "-c", code
    )
    assert done.stdout.split()[:2] == ["777", "778"], done.stderr
    done = docker("run", "--rm", "--entrypoint", "as-owner", image, "python", "-c", code)
    assert done.stdout.split() == ["10001", "10001", "[]"], done.stderr

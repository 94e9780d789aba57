"""What enters the build context of the images, and what compose mounts."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def copied(name: str) -> set[str]:
    """Files and folders of the checkout that a Dockerfile copies."""
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text()
    return {path.rstrip("/") for path in re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE)}


def test_the_context_is_what_the_images_copy() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    wanted = copied("serve") | copied("trainer")
    unused = {a for a in allowed if not any(fnmatch(w, a) or fnmatch(a, f"{w}/*") for w in wanted)}
    assert unused == set()
    missing = {w for w in wanted if not any(fnmatch(w, a) or fnmatch(a, f"{w}/*") for a in allowed)}
    assert missing == set()


def test_compose_makes_no_folder_where_a_file_is_missing() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        for volume in service["volumes"]:
            if volume.get("source") != ".":
                assert volume["bind"]["create_host_path"] is False, (name, volume)


def test_the_serve_image_installs_no_file_watcher_and_no_websockets() -> None:
    text = (ROOT / "docker" / "requirements" / "serve-cpu.txt").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    assert {"uvicorn", "httptools", "uvloop", "onnxruntime"} <= names
    assert not names & {"watchfiles", "websockets", "pyyaml", "torch"}

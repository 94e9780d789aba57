"""The ONNX Runtime that travels in a zip: had once, checked at every build, trimmed.

`wheels.json` holds, for each Python and version, the sha256 of the published wheel and of the
trimmed tree. The first guards the download, the second what is read from the cache or from this
interpreter's own installation: nothing enters a zip whose hash is not committed. A new row is
printed by
`python -m submission.wheels --python 3.12 --onnxruntime 1.31.1`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from submission.errors import ConfigError, WheelError

PLATFORM = "x86_64-manylinux_2_28"
KEPT = re.compile(r"onnxruntime/(__init__\.py|LICENSE|ThirdPartyNotices\.txt|capi/.+)")
# libonnxruntime.so.* serves C programs; the Python module holds its own copy of the library.
DROPPED = re.compile(r"onnxruntime/capi/libonnxruntime\.so.*|.*/__pycache__/.*|.*\.pyc")


@dataclass(frozen=True)
class Wheel:
    """One row of the table; `default` marks the version taken when none is named."""

    python: str
    onnxruntime: str
    wheel_sha256: str
    tree_sha256: str
    default: bool = False

    @property
    def abi(self) -> str:
        """The interpreter tag, `cp310` for Python 3.10; also the folder below `vendor/`."""
        return "cp" + self.python.replace(".", "")


def table() -> tuple[Wheel, ...]:
    """The committed rows, in the file's order."""
    text = resources.files("submission").joinpath("wheels.json").read_text("utf-8")
    return tuple(Wheel(**row) for row in json.loads(text))


def choose(python: str, onnxruntime: str | None, rows: Iterable[Wheel] | None = None) -> Wheel:
    """The row for a Python such as "3.10"; raises ConfigError listing what the table holds."""
    known = tuple(table() if rows is None else rows)
    for row in known:
        if row.python == python and (
            row.default if onnxruntime is None else row.onnxruntime == onnxruntime
        ):
            return row
    listing = ", ".join(f"{row.python} with {row.onnxruntime}" for row in known)
    wanted = f"Python {python}" + (f" with onnxruntime {onnxruntime}" if onnxruntime else "")
    raise ConfigError(f"no onnxruntime to vendor for {wanted}; the table has Python {listing}")


def cache_folder() -> Path:
    """Where downloads and check environments are kept: `axonnx` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "axonnx"


def uv_command() -> str:
    """Path of the uv executable; raises ConfigError naming the extra that brings it."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise ConfigError("uv is missing: install it with `pip install 'axonnx[submission]'`")
    return found


def tree_digest(files: Mapping[str, bytes]) -> str:
    """sha256 in hex over the names and contents of `files`."""
    lines = (f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def trim(folder: Path) -> dict[str, bytes]:
    """Files of an unpacked wheel that inference needs, name below `folder` to bytes."""
    inside = (folder / "onnxruntime").rglob("*")
    names = (p.relative_to(folder).as_posix() for p in inside if p.is_file())
    kept = [name for name in names if KEPT.fullmatch(name) and not DROPPED.fullmatch(name)]
    return {name: (folder / name).read_bytes() for name in sorted(kept)}


def runtime(wheel: Wheel, notify: Callable[[str], None] = lambda text: None) -> dict[str, bytes]:
    """The trimmed runtime of one row: from the cache, else from this Python, else fetched.

    What is installed here is taken where it is the very tree of the table. Raises WheelError when
    the runtime cannot be had or any hash is not the table's.
    """
    label = f"onnxruntime {wheel.onnxruntime} for Python {wheel.python}"
    place = cached(wheel)
    if not place.is_dir():
        here = _installed(wheel)
        if here is not None:
            return here
        notify(f"fetching {label}")
        _fetch(wheel, place)
    files = trim(place)
    digest = tree_digest(files)
    if digest != wheel.tree_sha256:
        raise WheelError(
            f"{label}: the files in {place} have sha256 {digest}, wheels.json says "
            f"{wheel.tree_sha256}; delete that folder and build again to fetch them anew"
        )
    return files


def cached(wheel: Wheel) -> Path:
    """The folder of one row in the cache, whether it is there or not."""
    name = f"{wheel.abi}-{wheel.onnxruntime}-{PLATFORM}-{wheel.wheel_sha256[:16]}"
    return cache_folder() / "wheels" / name


def _installed(wheel: Wheel) -> dict[str, bytes] | None:
    """The runtime that is installed for this interpreter, where it is the row's to the byte."""
    try:
        found = distribution("onnxruntime")
    except PackageNotFoundError:  # onnxruntime-gpu is another distribution
        return None
    python = ".".join(map(str, sys.version_info[:2]))
    if (wheel.python, wheel.onnxruntime) != (python, found.version):
        return None
    files = trim(Path(str(found.locate_file(""))))
    return files if tree_digest(files) == wheel.tree_sha256 else None


def _fetch(wheel: Wheel, place: Path) -> None:
    """Install the one wheel into `place`, trimmed; the folder appears whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=place.parent) as work:
        unpacked = Path(work) / "unpacked"
        done = _install(wheel.python, wheel.onnxruntime, wheel.wheel_sha256, unpacked)
        if done.returncode:
            label, said = f"onnxruntime {wheel.onnxruntime} for Python {wheel.python}", done.stderr
            if "Computed:" in said:
                raise WheelError(f"{label} was refused; uv says:\n{said.strip()}")
            last = said.strip().rpartition("\n")[2].strip()
            raise WheelError(
                f"{label} was not found ({last}); the runtime is fetched once, then kept: build "
                "once with a network"
            )
        trimmed = Path(work) / "trimmed"
        for name, data in trim(unpacked).items():
            target = trimmed / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        try:
            trimmed.rename(place)
        except OSError:
            if not place.is_dir():  # else another build was faster; its files are checked alike
                raise


def _install(
    python: str, onnxruntime: str, sha256: str, target: Path
) -> subprocess.CompletedProcess[str]:
    target.mkdir(parents=True)
    requirements = target.parent / "requirements.txt"
    requirements.write_text(f"onnxruntime=={onnxruntime} --hash=sha256:{sha256}\n", "utf-8")
    command = [uv_command(), "pip", "install", "--target", str(target), "--require-hashes"]
    command += ["--python", sys.executable, "--python-version", python]
    command += ["--python-platform", PLATFORM, "--only-binary", ":all:", "--no-deps"]
    command += ["--no-python-downloads", "--link-mode", "copy", "-r", str(requirements)]
    # Run beside the target: a pyproject.toml of the caller's folder must have no say here.
    return subprocess.run(command, cwd=target.parent, capture_output=True, text=True)


def measure(python: str, onnxruntime: str) -> Wheel:
    """A new row for the table, hashes as the registry hands the wheel out now (network)."""
    with tempfile.TemporaryDirectory() as work:
        refused = _install(python, onnxruntime, "0" * 64, Path(work) / "probe")
        found = re.search(r"Computed:\s+sha256:([0-9a-f]{64})", refused.stderr)
        if found is None:
            raise WheelError(f"no wheel found; uv says:\n{refused.stderr.strip()}")
        done = _install(python, onnxruntime, found[1], Path(work) / "unpacked")
        if done.returncode:
            raise WheelError(f"uv says:\n{done.stderr.strip()}")
        digest = tree_digest(trim(Path(work) / "unpacked"))
    return Wheel(python, onnxruntime, found[1], digest)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="print one row for wheels.json")
    parser.add_argument("--python", required=True)
    parser.add_argument("--onnxruntime", required=True)
    arguments = parser.parse_args()
    print(json.dumps(asdict(measure(arguments.python, arguments.onnxruntime)), indent=2))

"""Programs in Docker containers, with the settings of CodaBench's compute worker."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import stat
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from submission.errors import ConfigError, RunError
from submission.worker.running import End, Watch

if TYPE_CHECKING:
    from submission.worker.engines import Mount

# compute_worker.py, the container's settings; these are all that Docker grants by default.
CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
VARIABLES = {"PYTHONUNBUFFERED": "1", "http_proxy": "", "https_proxy": ""}
ANSWER_SECONDS = 60
# cgroup version 1, then version 2 under systemd and under cgroupfs
CGROUPS = (
    "/sys/fs/cgroup/memory/docker/{0}/memory.stat",
    "/sys/fs/cgroup/system.slice/docker-{0}.scope/memory.stat",
    "/sys/fs/cgroup/docker/{0}/memory.stat",
)
HELD = frozenset({"total_rss", "total_mapped_file", "anon", "file_mapped"})


@dataclass(frozen=True)
class DockerEngine:
    """Runs programs in containers of `image`, which must be on this machine.

    `memory` (bytes) is the container's cap, swap included; CodaBench's own workers set none.
    `network` gives the containers Docker's bridge.
    """

    image: str
    memory: int | None = None
    network: bool = False

    @property
    def name(self) -> str:
        """ "docker"."""
        return "docker"

    def describe(self) -> str:
        """One line: what is and what is not isolated here."""
        cap = f"memory up to {self.memory} bytes" if self.memory else "no memory cap"
        return (
            f"docker engine, image {self.image}: container settings of CodaBench's worker "
            f"({len(CAPABILITIES)} capabilities dropped, no new privileges, the image's user), "
            f"{'network ON' if self.network else 'no network'}, {cap}, no GPU"
        )

    def start(
        self, words: Sequence[str], mounts: Sequence[Mount], stdout: Path, stderr: Path
    ) -> Watch:
        """Start a command in a container, which is removed when it ends or when this process dies.

        Raises ConfigError when Docker, its daemon or the image is not there.
        """
        _ready(self.image)
        _let_in(mounts)
        name = f"axonnx-{uuid.uuid4().hex}"
        guard = _Guard(name)
        try:
            created = _docker("create", "--name", name, *self._settings(mounts), *words)
            if created.returncode:
                raise ConfigError(f"docker creates no container: {created.stderr.strip()}")
            command = _Container(name, created.stdout.split()[-1], guard, self.image, tuple(mounts))
            return Watch(
                command,
                ["docker", "start", "--attach", name],
                folder=stdout.parent,
                environment=os.environ,
                stdout=stdout,
                stderr=stderr,
            )
        except BaseException:
            guard.remove()
            raise

    def _settings(self, mounts: Sequence[Mount]) -> list[str]:
        settings = [
            *("--workdir", "/app/program", "--userns=host", "--log-driver=none"),
            *("--security-opt=no-new-privileges", "--pull=never"),
            f"--network={'bridge' if self.network else 'none'}",
            *(f"--cap-drop={name}" for name in CAPABILITIES),
            *(f"--env={name}={value}" for name, value in VARIABLES.items()),
        ]
        if self.memory is not None:
            settings += [f"--memory={self.memory}", f"--memory-swap={self.memory}"]
        for mount in mounts:
            if not mount.host.is_dir():
                raise ConfigError(f"{mount.host}: is no folder to mount at {mount.container}")
            settings.append(f"--mount={_mount_text(mount)}")
        return [*settings, self.image]


def _mount_text(mount: Mount) -> str:
    fields = ["type=bind", f"source={mount.host.resolve()}", f"target={mount.container}"]
    if not mount.writable:
        fields.append("readonly")
    row = io.StringIO()  # the option is one row of CSV: a path may hold a comma
    csv.writer(row, lineterminator="").writerow(fields)
    return row.getvalue()


class _Guard:
    """A shell that removes the container once its standard input closes.

    The kernel closes it whichever way this process ends, so no container outlives it.
    """

    def __init__(self, container: str) -> None:
        script = 'cat >/dev/null; exec docker rm --force --volumes "$0"'
        self._shell = subprocess.Popen(
            ["sh", "-c", script, container],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def remove(self) -> None:
        """Remove the container now; harmless when that was done."""
        assert self._shell.stdin is not None
        with contextlib.suppress(OSError):
            self._shell.stdin.close()
        self._shell.wait()


@dataclass(frozen=True)
class _Container:
    name: str
    identity: str
    guard: _Guard
    image: str
    mounts: tuple[Mount, ...]

    def memory(self, pid: int) -> int | None:
        """What its processes hold, read from its control group; the cache of files is left out."""
        for pattern in CGROUPS:
            with contextlib.suppress(OSError, ValueError):
                rows = Path(pattern.format(self.identity)).read_text().split("\n")
                pairs = [row.split() for row in rows if row]
                return sum(int(value) for name, value in pairs if name in HELD)
        return None

    def stop(self, pid: int) -> None:
        _docker("rm", "--force", "--volumes", self.name)

    def sweep(self, pid: int) -> None:
        """Nothing outlives the first process of a container."""

    def ended(self, status: int, peak: int | None) -> tuple[End, int | None]:
        form = "{{.State.ExitCode}} {{.State.OOMKilled}}"
        state = _docker("container", "inspect", "--format", form, self.name)
        self.guard.remove()
        if os.geteuid() != 0:
            self._give_back()
        if state.returncode:  # removed by `stop`
            return End(137, False), peak
        code, out_of_memory = state.stdout.split()
        return End(int(code), out_of_memory == "true"), peak

    def _give_back(self) -> None:
        """What the container's root wrote becomes this user's, who could not remove it else."""
        foreign = [mount.host.resolve() for mount in self.mounts if mount.writable]
        foreign = [folder for folder in foreign if _has_foreign(folder)]
        if foreign:
            inside = [f"/give/{number}" for number in range(len(foreign))]
            pairs = zip(foreign, inside, strict=True)
            mounts = [f"--volume={folder}:{place}" for folder, place in pairs]
            who = f"{os.geteuid()}:{os.getegid()}"
            run = ("run", "--rm", "--pull=never", "--network=none", "--user=0")
            _docker(*run, "--entrypoint=chown", *mounts, self.image, "-Rh", who, *inside)
            _let_in(self.mounts)  # another container of the job may still be at work


def _let_in(mounts: Sequence[Mount]) -> None:
    """Open the folders of an ordinary user to the container's root.

    Without capabilities root is anybody where it does not own the files; the platform's worker,
    being root, owns them.
    """
    if os.geteuid() == 0:
        return
    for mount in mounts:
        rights = 0o777 if mount.writable else 0o555
        for root, _, files in os.walk(mount.host):
            for path in (root, *(os.path.join(root, name) for name in files)):
                mode = os.lstat(path).st_mode
                if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                    wanted = rights if stat.S_ISDIR(mode) else rights & 0o666
                    with contextlib.suppress(PermissionError):  # another container's
                        os.chmod(path, stat.S_IMODE(mode) | wanted)


def _has_foreign(folder: Path) -> bool:
    me = os.geteuid()
    return any(
        os.lstat(os.path.join(root, name)).st_uid != me
        for root, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )


def _docker(*words: str) -> subprocess.CompletedProcess[str]:
    """One short command; raises ConfigError when there is no docker, RunError when it hangs."""
    try:
        return subprocess.run(
            ["docker", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ConfigError(
            "docker is not installed: install it, or use the process engine"
        ) from None
    except subprocess.TimeoutExpired:
        raise RunError(f"docker {words[0]}: no answer within {ANSWER_SECONDS} seconds") from None


@cache
def _ready(image: str) -> None:
    """Raise ConfigError unless the daemon answers and holds the image."""
    if image.startswith("-") or not image:
        raise ConfigError(f"{image!r} is no name of an image")
    version = _docker("version", "--format", "{{.Server.Version}}")
    if version.returncode:
        raise ConfigError(
            f"the Docker daemon does not answer ({version.stderr.strip()}): start it, let this "
            "user reach its socket, or use the process engine"
        )
    if _docker("image", "inspect", "--format", "{{.Id}}", image).returncode:
        raise ConfigError(
            f"image {image}: is not on this machine; get it with `docker pull {image}`, or build "
            f"it with `docker build -t {image} -f docker/codabench.Dockerfile .`"
        )

"""Programs as processes of this machine, shut away as far as its kernel allows.

Best: a mount, process and network namespace of their own (as root, or in a user namespace), whose
root holds the system's folders and the interpreter read-only, a fresh `/tmp`, the `/app` tree and
nothing else. Where the kernel refuses that: a plain process, and `describe` says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from submission.errors import ConfigError
from submission.worker import sandbox
from submission.worker.memory import resident, session, tree
from submission.worker.running import End, Watch
from submission.worker.transfer import remove

if TYPE_CHECKING:
    from submission.worker.engines import Mount

SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt", "nix", "gnu")
DEVICES = ("null", "zero", "full", "random", "urandom")
# What of /proc a process of user 0 may write without any capability.
PROC_SHUT = ("sys", "irq", "bus", "fs", "sysrq-trigger")
TOOLS = ("unshare", "setpriv", "mount", "umount", "pivot_root")
TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAM = "/app/program"
NEVER = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
# What `unshare` has to say when its child is killed is not the program's: its streams wait as 3.
QUIET = 'exec 3>&2 2>/dev/null; exec "$0" "$@"'
NOT_ISOLATED = "NOT ISOLATED"
VARIABLES = {"PYTHONUNBUFFERED": "1", "http_proxy": "", "https_proxy": "", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class ProcessEngine:
    """Runs programs with an interpreter of this machine.

    `python` and `python3` in a command are `interpreter`. `memory` (bytes) caps the sum of the
    resident sets of a program's processes, looked at every 20 ms. It shows no GPU.
    """

    interpreter: sandbox.Interpreter
    memory: int | None = None

    @property
    def name(self) -> str:
        """ "process"."""
        return "process"

    def describe(self) -> str:
        """One line: what is and what is not isolated here."""
        text = "process engine: "
        prefix, reason = _namespaces(self.interpreter)
        if prefix is None:
            text += (
                f"{NOT_ISOLATED} ({reason}): the network is ON, the program sees and can write all "
                "your files, paths under /app are rewritten in its command only, and a process "
                "that leaves its session may stay; use the docker engine"
            )
        else:
            user = ", user" if "--user" in prefix else ""
            text += (
                f"own mount, process, network{user} and IPC namespaces, no network, no "
                "capabilities, no new privileges, system folders read-only, fresh /tmp, no GPU"
            )
        return text + (f"; memory up to {self.memory} bytes" if self.memory else "; no memory cap")

    def start(
        self, words: Sequence[str], mounts: Sequence[Mount], stdout: Path, stderr: Path
    ) -> Watch:
        """Start a command; a folder for its `/tmp` lies beside `stdout` until it has ended.

        Raises ConfigError where a folder to mount is missing, RunError where nothing starts.
        """
        for mount in mounts:
            if not mount.host.is_dir():
                raise ConfigError(f"{mount.host}: is no folder to mount at {mount.container}")
        scratch = Path(tempfile.mkdtemp(prefix=f"{stdout.stem}.", dir=stdout.resolve().parent))
        (scratch / "tmp" / "home").mkdir(parents=True)
        (scratch / "tmp").chmod(0o1777)
        prefix, _ = _namespaces(self.interpreter)
        if prefix is None:
            command = _Plain(scratch)
            words = plain_words(words, mounts)
            folder = next((m.host for m in mounts if m.container == PROGRAM), scratch)
            variables = _variables(self.interpreter, str(scratch / "tmp"))
        else:
            command = _Isolated(scratch)
            words = _isolated_words(prefix, self.interpreter, words, mounts, scratch)
            words = ["sh", "-c", QUIET, *words]
            folder, variables = scratch, {"PATH": TOOL_PATH}
        try:
            return Watch(
                command,
                words,
                folder=folder,
                environment=variables,
                stdout=stdout,
                stderr=stderr,
                cap=self.memory,
            )
        except BaseException:
            command.clear()
            raise


def _variables(interpreter: sandbox.Interpreter, tmp: str) -> dict[str, str]:
    path = f"{interpreter.path.parent}:/usr/local/bin:/usr/bin:/bin"
    return {**VARIABLES, "PATH": path, "HOME": f"{tmp}/home", "TMPDIR": tmp}


def plain_words(words: Sequence[str], mounts: Sequence[Mount]) -> list[str]:
    """The command with paths below a mount's replaced by those of this machine."""
    hosts = {mount.container: str(mount.host) for mount in mounts}
    if not hosts:
        return list(words)
    longest_first = sorted(hosts, key=len, reverse=True)
    names = re.compile("(" + "|".join(map(re.escape, longest_first)) + r")(?![\w.-])")
    return [names.sub(lambda match: hosts[match[1]], word) for word in words]


@dataclass(frozen=True)
class _Plain:
    scratch: Path

    def memory(self, pid: int) -> int | None:
        return resident(tree(pid))

    def stop(self, pid: int) -> None:
        for one in {*tree(pid), *session(pid)} - {pid}:
            _signal(one)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    def sweep(self, pid: int) -> None:
        self.stop(pid)

    def ended(self, status: int, peak: int | None) -> tuple[End, int | None]:
        self.clear()
        return End(status, False), peak

    def clear(self) -> None:
        remove(self.scratch)


@dataclass(frozen=True)
class _Isolated(_Plain):
    """Below `unshare` there is one process, the first of its namespace: its end is that of all."""

    def memory(self, pid: int) -> int | None:
        return resident([one for one in tree(pid) if one != pid])

    def stop(self, pid: int) -> None:
        first = [one for one in tree(pid, depth=1) if one != pid]
        # The parent of the namespace ends by itself, after the kernel has ended all within.
        for one in first or [pid]:
            _signal(one)

    def sweep(self, pid: int) -> None:
        """Nothing outlives the first process of a namespace."""


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


@cache
def _namespaces(interpreter: sandbox.Interpreter) -> tuple[tuple[str, ...] | None, str]:
    """The prefix under which the sandbox holds, or None and why there is none."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=TOOL_PATH) is None]
    if missing:
        return None, f"this system has no {', '.join(missing)}"
    own = ("--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child")
    reason = ""
    for rights in ((), ("--user", "--map-root-user")):
        prefix = ("setpriv", "--pdeathsig", "KILL", "unshare", *rights, *own, "--")
        with tempfile.TemporaryDirectory(prefix="axonnx-") as folder:
            scratch = Path(folder)
            (scratch / "tmp").mkdir()
            words = _isolated_words(prefix, interpreter, ["python3", "-c", ""], (), scratch)
            done = subprocess.run(
                words, env={"PATH": TOOL_PATH}, cwd=scratch, capture_output=True, text=True
            )
        if done.returncode == 0:
            return prefix, ""
        reason = done.stderr.strip().replace("\n", "; ") or f"status {done.returncode}"
    return None, reason


@cache
def _places(interpreter: sandbox.Interpreter) -> tuple[str, ...]:
    """The folders that an interpreter is made of, as it names them and as they really are."""
    code = "import os, sys; print(*{sys.prefix, sys.base_prefix, sys.base_exec_prefix}, sep='\\0')"
    words = [str(interpreter.path), "-I", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise ConfigError(f"{interpreter.path}: is no interpreter that starts: {done.stderr}")
    named = done.stdout.removesuffix("\n").split("\0")
    real = [os.path.realpath(name) for name in named]
    binary = Path(os.path.realpath(interpreter.path)).parent
    if binary.name == "bin":
        real.append(str(binary.parent))
    seen = [name for name in sorted({*named, *real}) if name != "/" and os.path.isdir(name)]
    top = [name for name in seen if Path(name).parts[1] not in SYSTEM]
    return tuple(name for name in top if not any(name.startswith(other + "/") for other in top))


def _isolated_words(
    prefix: Sequence[str],
    interpreter: sandbox.Interpreter,
    words: Sequence[str],
    mounts: Sequence[Mount],
    scratch: Path,
) -> list[str]:
    """The whole command: namespaces, a shell that makes the root, then the program alone."""
    (scratch / "root").mkdir()
    variables = [f"{name}={value}" for name, value in _variables(interpreter, "/tmp").items()]
    program = ["setpriv", *NEVER, "env", "-i", *variables, *words]
    script = "\n".join(_script(_places(interpreter), mounts, scratch))
    return [*prefix, "sh", "-c", f"{script}\nexec {shlex.join(program)}"]


def _script(places: Sequence[str], mounts: Sequence[Mount], scratch: Path) -> list[str]:
    """Shell lines that build the new root in `scratch/root` and enter it."""
    lines = [
        "if (: >&3) 2>/dev/null; then exec 2>&3 3>&-; fi",
        "set -e",
        "ulimit -c 0",
        "trap 'echo \"the sandbox could not be made\" >&2' EXIT",
        "mount --make-rprivate /",
        f"root={shlex.quote(str(scratch / 'root'))}",
        'mount -t tmpfs -o mode=755,size=256m none "$root"',
        'cd "$root"',
        "mkdir tmp run var dev proc app",
        "ln -s /tmp var/tmp",
        f"mount --bind {shlex.quote(str(scratch / 'tmp'))} tmp",
    ]
    for name in SYSTEM:
        if os.path.islink(f"/{name}"):
            lines.append(f"ln -s {shlex.quote(os.readlink('/' + name))} {name}")
        elif os.path.isdir(f"/{name}"):
            lines.append(f"mkdir {name}; mount --rbind /{name} {name}")
    # Libraries that ask for the processors read them here.
    for place in (*places, "/sys/devices/system"):
        inside = shlex.quote("." + place)
        lines.append(f"mkdir -p {inside}; mount --rbind {shlex.quote(place)} {inside}")
    return [*lines, *_READ_ONLY, *_devices(), *_app(mounts), *_ENTER]


# Bind mounts take over what was mounted below them, each with its own rights.
_READ_ONLY = (
    "mounted=$(cat /proc/self/mountinfo)",
    "while read -r _ _ _ _ point _; do",
    '  point=$(printf %b "$point")',
    '  case $point in "$root/tmp") ;;',
    '  "$root"/*) mount -o remount,bind,ro "$point" || mount -t tmpfs -o ro none "$point" ;; esac',
    "done <<END_OF_MOUNTS",
    "$mounted",
    "END_OF_MOUNTS",
)
_ENTER = (
    "ip link set lo up 2>/dev/null || true",
    "pivot_root . .",
    "umount -l .",
    f"cd {PROGRAM} 2>/dev/null || cd /tmp",
    "trap - EXIT",
)


def _devices() -> list[str]:
    shut = " ".join(PROC_SHUT)
    return [
        "mount -t proc none proc",
        f"for name in {shut}; do if [ -e proc/$name ]; then mount --bind proc/$name proc/$name; "
        "mount -o remount,bind,ro proc/$name; fi; done",
        f"for name in {' '.join(DEVICES)}; do : > dev/$name; mount --bind /dev/$name dev/$name; "
        "done",
        "ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; "
        "ln -s fd/2 dev/stderr",
        "mkdir dev/shm; mount -t tmpfs -o mode=1777,size=64m none dev/shm",
    ]


def _app(mounts: Sequence[Mount]) -> list[str]:
    lines = []
    for mount in sorted(mounts, key=lambda mount: mount.container):
        host, inside = shlex.quote(str(mount.host.resolve())), shlex.quote("." + mount.container)
        lines.append(f"mkdir -p {inside}; mount --bind {host} {inside}")
        if not mount.writable:
            lines.append(f"mount -o remount,bind,ro {inside}")
    return lines

"""Programs shut away: what they see, what stops them, what stays behind."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submission.errors import ConfigError
from submission.worker import process as engine_process
from submission.worker import sandbox
from submission.worker.docker import _mount_text
from submission.worker.engines import DockerEngine, Engine, Mount, ProcessEngine, Running
from submission.worker.running import MAX_STREAM_BYTES
from submission.worker.sandbox import Interpreter

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "python:3.11-slim-bookworm"
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Done:
    status: int | None
    out: str
    err: str
    output: Path
    running: Running


def start(engine: Engine, folder: Path, code: str, *arguments: str) -> Running:
    """`code` as /app/program/main.py, with a writable /app/output and a read-only /app/data."""
    for name in ("program", "output", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "program" / "main.py").write_text(textwrap.dedent(code))
    mounts = [
        Mount(folder / "program", "/app/program", True),
        Mount(folder / "output", "/app/output", True),
        Mount(folder / "data", "/app/data", False),
    ]
    words = ["python3", "/app/program/main.py", *arguments]
    return engine.start(words, mounts, folder / "stdout.txt", folder / "stderr.txt")


def run(engine: Engine, folder: Path, code: str, *arguments: str) -> Done:
    running = start(engine, folder, code, *arguments)
    try:
        status = running.wait(120)
    finally:
        running.kill()
    assert sorted(path.name for path in folder.iterdir()) == [
        *("data", "output", "program", "stderr.txt", "stdout.txt")
    ]
    if engine.name == "docker":
        words = ["docker", "container", "inspect", running._command.name]
        assert subprocess.run(words, capture_output=True).returncode == 1
    texts = [(folder / name).read_text() for name in ("stdout.txt", "stderr.txt")]
    return Done(status, *texts, folder / "output", running)


def with_token(token: str) -> list[int]:
    """Processes that have the token among their words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def until(condition, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def interpreter() -> Interpreter:
    found = sandbox.find_python("3.11")
    assert found is not None
    return sandbox.environment(found)


@pytest.fixture
def process(interpreter: Interpreter) -> ProcessEngine:
    engine = ProcessEngine(interpreter, memory=None)
    if "NOT ISOLATED" in engine.describe():
        pytest.skip(engine.describe())
    return engine


@pytest.fixture
def plain(interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch) -> ProcessEngine:
    monkeypatch.setattr(engine_process, "_namespaces", lambda interpreter: (None, "as a test"))
    return ProcessEngine(interpreter, memory=None)


@pytest.fixture(
    params=["process", "plain", pytest.param("docker", marks=pytest.mark.docker)],
)
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "docker":
        return DockerEngine(IMAGE)
    return request.getfixturevalue(request.param)


# What needs no program.


def test_paths_of_mounts_are_rewritten_and_nothing_else():
    mounts = [
        Mount(Path("/w/in"), "/app/input", True),
        Mount(Path("/w/data"), "/app/input_data", True),
    ]
    words = ["python3", "/app/input_data/x", "--to=/app/input/", "/app/inputs", "/app/other"]
    assert engine_process.plain_words(words, mounts) == [
        *("python3", "/w/data/x", "--to=/w/in/", "/app/inputs", "/app/other")
    ]


@given(st.lists(st.text(st.characters(exclude_characters="/"))))
def test_words_without_a_path_stay(words: list[str]):
    mounts = [Mount(Path("/w/o"), "/app/output", True), Mount(Path("/w/p"), "/app/program", True)]
    assert engine_process.plain_words(words, mounts) == words


def test_a_comma_in_a_path_is_no_new_option():
    text = _mount_text(Mount(Path("/a,b"), "/app/data", False))
    assert text == 'type=bind,"source=/a,b",target=/app/data,readonly'


def test_engines_say_what_they_shut_off(interpreter: Interpreter, plain: ProcessEngine):
    assert "NOT ISOLATED (as a test): the network is ON" in plain.describe()
    assert "no network, memory up to 5 bytes" in DockerEngine("x", memory=5).describe()
    assert "network ON, no memory cap" in DockerEngine("x", network=True).describe()


def test_packages_must_be_pinned(interpreter: Interpreter):
    for wrong in ("torch", "torch>=2", "--index-url=x==1", "torch==2 --pre", "a==1;b"):
        with pytest.raises(ConfigError, match="must be pinned"):
            sandbox.environment(interpreter.path, (wrong,))
    with pytest.raises(ConfigError, match="keep one"):
        sandbox.environment(interpreter.path, ("a_b==1", "A-b==2"))


def test_no_docker_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="docker is not installed"):
        start(DockerEngine("axonnx-no-such-image"), tmp_path / "job", "")


# What every engine holds to.


@pytest.mark.slow
def test_a_program_gets_its_folders_and_the_platforms_variables(engine: Engine, tmp_path: Path):
    code = """
    import os, sys
    print(os.path.samefile(".", os.path.dirname(__file__)), sys.version_info[:2])
    print(*(repr(os.environ[name]) for name in ("PYTHONUNBUFFERED", "http_proxy", "https_proxy")))
    print(sys.argv[1:], sys.stdin.read() == "")
    print("an error", file=sys.stderr)
    open(sys.argv[1], "w").write("made")
    sys.exit(7)
    """
    words = "it's $HOME; #"
    done = run(engine, tmp_path / "a job, with a comma", code, "/app/output/made", words)
    made = done.output / "made"
    seen = made if "NOT ISOLATED" in engine.describe() else "/app/output/made"
    assert done.status == 7
    assert done.out.splitlines() == [
        "True (3, 11)",
        "'1' '' ''",
        f"{[str(seen), words]} True",
    ]
    assert done.err == "an error\n"
    assert made.read_text() == "made"


@pytest.mark.slow
def test_a_command_that_is_not_there_ends_with_127(process: ProcessEngine, tmp_path: Path):
    (tmp_path / "program").mkdir()
    mounts = [Mount(tmp_path / "program", "/app/program", True)]
    streams = (tmp_path / "stdout.txt", tmp_path / "stderr.txt")
    running = process.start(["no-such-command"], mounts, *streams)
    assert running.wait(60) == 127
    with pytest.raises(ConfigError, match="is no folder to mount"):
        process.start(["true"], [Mount(tmp_path / "absent", "/app/data", False)], *streams)


@pytest.mark.slow
def test_memory_hog_is_stopped(engine: Engine, interpreter: Interpreter, tmp_path: Path):
    cap = 200 * MEGABYTE
    hog = DockerEngine(IMAGE, cap) if engine.name == "docker" else ProcessEngine(interpreter, cap)
    code = """
    import time
    kept = []
    for _ in range(400):
        kept.append(b"1" * (5 << 20))
        time.sleep(0.005)
    """
    done = run(hog, tmp_path / "hog", code)
    assert (done.status, done.running.out_of_memory) == (137, True)
    modest = run(hog, tmp_path / "modest", "x = b'1' * (100 << 20); import time; time.sleep(0.3)")
    assert (modest.status, modest.running.out_of_memory) == (0, False)
    assert modest.running.peak_bytes is None or modest.running.peak_bytes >= 100 * MEGABYTE


@pytest.mark.slow
def test_memory_of_children_counts(interpreter: Interpreter, process: Engine, tmp_path: Path):
    code = """
    import subprocess, sys
    hold = "x = b'1' * (90 << 20); import time; time.sleep(60)"
    children = [subprocess.Popen([sys.executable, "-c", hold]) for _ in range(3)]
    [child.wait() for child in children]
    """
    done = run(ProcessEngine(interpreter, 200 * MEGABYTE), tmp_path / "job", code)
    assert (done.status, done.running.out_of_memory) == (137, True)


@pytest.mark.slow
def test_endless_loop_leaves_no_process(engine: Engine, tmp_path: Path):
    token = uuid.uuid4().hex
    running = start(engine, tmp_path / "job", "while True: pass", token)
    assert running.wait(1.0) is None
    assert with_token(token)
    running.kill()
    running.kill()
    assert running.wait(0) == 137
    assert not running.out_of_memory
    assert with_token(token) == []


FAMILY = """
import subprocess, sys
for number in range(6):
    code = "import os, time; os.setsid() if {0} % 2 else None; os.fork(); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code.format(number), sys.argv[1]])
print("ready", flush=True)
if sys.argv[2] == "stay":
    import time
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["stay", "leave"])
@pytest.mark.parametrize("name", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_children_that_sleep_end_with_the_program(
    name: str, ending: str, tmp_path: Path, request: pytest.FixtureRequest
):
    engine = DockerEngine(IMAGE) if name == "docker" else request.getfixturevalue("process")
    token = uuid.uuid4().hex
    running = start(engine, tmp_path / "job", FAMILY, token, ending)
    assert until(lambda: "ready" in read(tmp_path / "job" / "stdout.txt"))
    if ending == "stay":
        assert until(lambda: len(with_token(token)) >= 13)
        running.kill()
    assert running.wait(60) == (137 if ending == "stay" else 0)
    assert with_token(token) == []


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
def test_a_plain_process_takes_its_children_with_it(plain: ProcessEngine, tmp_path: Path):
    code = """
    import subprocess, sys
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]])
    """
    token = uuid.uuid4().hex
    assert run(plain, tmp_path / "job", code, token).status == 0
    assert until(lambda: with_token(token) == [])


@pytest.mark.slow
def test_a_flood_of_text_does_no_harm(engine: Engine, tmp_path: Path):
    code = """
    import sys
    for _ in range(200):
        sys.stdout.write("x" * (1 << 20))
    sys.stdout.flush()
    print("done", file=sys.stderr)
    """
    done = run(engine, tmp_path / "job", code)
    assert (done.status, done.err) == (0, "done\n")
    assert done.out.endswith(f"\n[{200 * MEGABYTE - MAX_STREAM_BYTES} bytes more were dropped]\n")
    assert MAX_STREAM_BYTES < len(done.out) < MAX_STREAM_BYTES + 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_nothing_outside_is_reached(name: str, tmp_path: Path, request: pytest.FixtureRequest):
    engine = DockerEngine(IMAGE) if name == "docker" else request.getfixturevalue("process")
    code = """
    import os, socket, sys

    def attempt(what, *arguments):
        try:
            what(*arguments)
        except OSError as error:
            return error.strerror
        return "done"

    def write(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write("x")

    def connect(family, address):
        with socket.socket(family) as one:
            one.settimeout(5)
            one.connect(address)

    marker = sys.argv[1]
    for path in ("/app/data/x", "/proc/sys/kernel/panic"):
        print(path, attempt(write, path))
    for folder in ("/usr", "/etc", "/opt", "/var/tmp", "/tmp", "/root", "/", "/dev/shm", "/home"):
        attempt(write, f"{folder}/{marker}")
    print("network", attempt(connect, socket.AF_INET, ("1.1.1.1", 53)))
    print("docker", attempt(connect, socket.AF_UNIX, "/var/run/docker.sock"))
    print("host", os.path.exists(sys.argv[2]))
    print("chown", attempt(os.chown, "/app/output", 1, 1) if os.getuid() == 0 else "-")
    rows = open("/proc/self/status").read().splitlines()
    print(*(row.split()[1] for row in rows if row.startswith(("CapEff", "CapBnd", "NoNewPrivs"))))
    with open("/dev/null", "w") as null:
        null.write("x")
    assert os.urandom(4) and os.getpid() == 1
    """
    marker = f"axonnx-{uuid.uuid4().hex}"
    (tmp_path / "beside").write_text("of the host")
    done = run(engine, tmp_path / "job", code, marker, str(tmp_path / "beside"))
    assert done.err == ""
    none = "0" * 16
    assert done.out.splitlines() == [
        "/app/data/x Read-only file system",
        "/proc/sys/kernel/panic Read-only file system",
        "network Network is unreachable",
        "docker No such file or directory",
        "host False",
        "chown Operation not permitted",
        f"{none} {none} 1",
    ]
    tops = ("/usr", "/etc", "/opt", "/var/tmp", "/tmp", "/root", "/", "/dev/shm", "/home")
    assert not [top for top in tops if os.path.exists(f"{top}/{marker}")]
    assert list(done.output.iterdir()) == []


@pytest.mark.slow
def test_the_engines_interpreter_and_its_packages_are_the_programs(
    process: ProcessEngine, interpreter: Interpreter, tmp_path: Path
):
    code = "import numpy, shutil, sys; print(sys.prefix, shutil.which('python'), numpy.sum([1, 2]))"
    done = run(process, tmp_path / "job", code)
    place = interpreter.path.parent
    assert done.out.split() == [str(place.parent), str(place / "python"), "3"]


@pytest.mark.slow
def test_more_packages_get_an_environment_of_their_own(interpreter: Interpreter, tmp_path: Path):
    found = sandbox.find_python("3.11")
    assert found is not None
    other = sandbox.environment(found, ("packaging==25.0",))
    assert other.path != interpreter.path
    assert other == sandbox.environment(found, ("packaging==25.0",))
    code = "import numpy, packaging; print(packaging.__version__)"
    done = run(ProcessEngine(other), tmp_path / "job", code)
    assert done.out == "25.0\n"


PARENT = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_submission_engines import DockerEngine, Interpreter, ProcessEngine, start
engine = {engine}
start(engine, Path({folder!r}), "print(1, flush=True)\\nwhile True: pass", {token!r})
while not (Path({folder!r}) / "stdout.txt").exists() or not (
    Path({folder!r}) / "stdout.txt"
).read_text():
    time.sleep(0.05)
{end}
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(0)"])
@pytest.mark.parametrize("name", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_nothing_outlives_this_process(
    name: str, end: str, tmp_path: Path, interpreter: Interpreter, request: pytest.FixtureRequest
):
    text = f"DockerEngine({IMAGE!r})"
    if name == "process":
        request.getfixturevalue("process")
        path, version = str(interpreter.path), interpreter.version
        text = f"ProcessEngine(Interpreter(Path({path!r}), {version!r}), None)"
    token, folder = uuid.uuid4().hex, str(tmp_path / "job")
    here = str(Path(__file__).parent)
    script = PARENT.format(tests=here, engine=text, folder=folder, token=token, end=end)
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=variables, timeout=120)
    assert done.returncode == (-signal.SIGKILL if "kill" in end else 0)
    assert until(lambda: with_token(token) == [])


@pytest.fixture(scope="module")
def nobody() -> list[str]:
    """The prefix for a process of an ordinary user, who can read this repository and a Python."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("becoming another user needs root and setpriv; as an ordinary user, the other "
                    "tests show what this one does")  # fmt: skip
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    code = f"import sys; assert sys.version_info >= (3, 11); open({str(ROOT / 'axonnx.py')!r})"
    test = subprocess.run([*become, "/usr/bin/python3", "-c", code], capture_output=True)
    if test.returncode:
        pytest.skip("an ordinary user can read no Python of at least 3.11, or not this repository")
    return become


AS_NOBODY = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, {root!r})
from submission.worker.engines import DockerEngine, Mount, ProcessEngine
from submission.worker.sandbox import Interpreter
version = "%d.%d" % sys.version_info[:2]
engine = {engine}
print(engine.describe())
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    for inside in ("program", "output"):
        (folder / inside).mkdir()
    (folder / "program" / "main.py").write_text({code!r})
    mounts = [Mount(folder / inside, "/app/" + inside, True) for inside in ("program", "output")]
    streams = folder / "stdout.txt", folder / "stderr.txt"
    running = engine.start(["python3", "/app/program/main.py"], mounts, *streams)
    print(running.wait(100), *sorted(path.name for path in (folder / "output").rglob("*")))
    print((folder / "stdout.txt").read_text(), (folder / "stderr.txt").read_text())
"""


@pytest.mark.slow
def test_an_ordinary_user_is_shut_away_too(nobody: list[str]):
    code = textwrap.dedent("""
    import os, socket
    os.makedirs("/app/output/deep/er")
    os.chmod("/app/output/deep", 0o000)
    open("/tmp/x", "w").write("x")
    try:
        socket.create_connection(("1.1.1.1", 53), 5)
    except OSError as error:
        print(error.strerror)
    try:
        open("/etc/x", "w")
    except OSError as error:
        print(error.strerror)
    os.chmod("/app/output/deep", 0o700)
    print(os.getpid(), os.path.exists("/home"))
    """)
    engine = "ProcessEngine(Interpreter(Path(sys.executable), version), None)"
    script = AS_NOBODY.format(root=str(ROOT), engine=engine, code=code)
    words = [*nobody, "/usr/bin/python3", "-B", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    if "NOT ISOLATED" in lines[0]:
        pytest.skip(f"the kernel allows an ordinary user no namespaces: {lines[0]}")
    assert "process, network, user and IPC namespaces" in lines[0]
    assert lines[1] == "0 deep er"
    assert lines[2:5] == ["Network is unreachable", "Read-only file system", "1 False"]


@pytest.mark.slow
@pytest.mark.docker
def test_an_ordinary_user_gets_the_containers_files(nobody: list[str]):
    socket = Path("/var/run/docker.sock")
    if not socket.exists() or not stat.S_IMODE(socket.stat().st_mode) & 0o060:
        pytest.skip("no Docker socket that a group may use")
    become = [*nobody[:-1], f"--groups={socket.stat().st_gid}"]
    code = (
        "import os; os.umask(0o77); os.mkdir('/app/output/deep'); open('/app/output/deep/x', 'w')"
    )
    script = AS_NOBODY.format(root=str(ROOT), engine=f"DockerEngine({IMAGE!r})", code=code)
    variables = {**os.environ, "HOME": "/nonexistent", "DOCKER_CONFIG": "/nonexistent"}
    done = subprocess.run(
        [*become, "/usr/bin/python3", "-B", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
        env=variables,
    )
    assert done.returncode == 0, done.stderr  # the folder could be removed
    assert "0 deep x" in done.stdout


@pytest.mark.slow
@pytest.mark.docker
def test_docker_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="docker pull axonnx-no-such-image"):
        start(DockerEngine("axonnx-no-such-image"), tmp_path / "absent", "")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(ConfigError, match="daemon does not answer"):
        start(DockerEngine("axonnx-other-image"), tmp_path / "silent", "")

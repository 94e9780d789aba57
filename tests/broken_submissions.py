"""Deliberately broken submissions, and the table of what each gets.

`python tests/broken_submissions.py` writes docs/broken_submissions.md from real runs.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from broken_zips import (
    bomb,
    damaged,
    encrypted,
    entry,
    library,
    onnx_with_external_data,
    pack,
    truncated,
    twice,
    weights,
)
from submission_helpers import CHANNELS, bend, members

from artifact.arrays import encode_npz
from submission import challenges, cli
from submission.challenges import ARRAY_KEY, Definition
from submission.checking import trial
from submission.programs import write_task
from submission.worker.engines import Engine
from submission.worker.run import Task, run_task

DOCUMENT = Path(__file__).parents[1] / "docs" / "broken_submissions.md"
COMMAND = "uv run python tests/broken_submissions.py"
SETTINGS = {
    "forecast": {
        "name": "neural_forecasting",
        "channels": CHANNELS,
        "data": {
            "affi": {"file": "affi_masked.npz", "subject": "affi", "rows": 12},
            "affi_private": {"file": "affi_private_masked.npz", "subject": "affi", "rows": 14},
            "beignet": {"file": "beignet_masked.npz", "subject": "beignet", "rows": 11},
        },
    },
    "result": {
        "name": "generic",
        "kind": "result",
        "call": "array",
        "data": {"test": {"subject": "main", "output": "test.npz", "rows": 4}},
    },
}
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?(?= and |$)")  # drawn anew in every run
Kind = Literal["forecast", "result", "built"]
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Case:
    """One broken submission.

    `files` are written by `write`; of kind "built" they are changes of a zip that `build` wrote.
    `platform` stands in for a run where this machine does not do what CodaBench does. `still`: it
    is refused before it runs. `seconds` and `memory` limit each job. `normalized`: built from an
    artifact in other units. `says` is in the line that counts, where that is not the first.
    """

    name: str
    wrong: str
    files: Mapping[str, bytes | None]
    write: Callable[[Files, Path], Path] = pack
    kind: Kind = "forecast"
    platform: str | None = None
    still: bool = False
    seconds: float = 60.0
    memory: int | None = None
    zip_name: str = "submission.zip"
    normalized: bool = False
    says: str = ""


GOOD = entry()
NPZ = encode_npz({ARRAY_KEY: np.zeros((4, 3), np.float32)})
LOAD = "self.scale = np.load({})['scale']"
BY_FILE = LOAD.format("os.path.join(HERE, 'weights.npz')")
WEIGHTS = {"weights.npz": weights()}
FIRST = "X[..., 0]"
ONE_SET = f"if len(X) == 14:\n    raise ValueError('no such day')\nreturn {FIRST}"
REFUSED = "Failed: Child task failed or non-zero return code"
NOT_ALLOWED = "Failed; its log ends with `{} is not an allowed package`"
KEPT = "Finished: extraction drops {}, so the file lands elsewhere"
KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
HOG = "held = [np.ones(1 << 22) for _ in range(64)]"
TORCH = "import torch\n\nclass Net(torch.nn.Module):\n    pass"


def still(name: str, wrong: str, files: Mapping[str, bytes | None], **options: object) -> Case:
    """A case that is refused before it runs."""
    return Case(name, wrong, files, still=True, **options)  # type: ignore[arg-type]


ARCHIVES = (
    still("nested", "everything lies in a folder of the zip", {"sub/model.py": GOOD["model.py"]}),
    still("metadata", "a stray file `metadata`", {**GOOD, "metadata": b""}),
    still(
        "metadata-command",
        "`metadata.yaml` with a command",
        {**GOOD, "metadata.yaml": b"command: python3 model.py\n"},
    ),
    still(
        "result-metadata",
        "a result submission with a stray file `metadata`",
        {"test.npz": NPZ, "metadata": b"made on Monday\n"},
        kind="result",
    ),
    still(
        "result-nested",
        "a result submission in a folder of the zip",
        {"res/test.npz": NPZ},
        kind="result",
    ),
    still("result-name", "another name of the predictions", {"Test.npz": NPZ}, kind="result"),
    still("entry-name", "another name of the entry", {"Model.py": GOOD["model.py"]}),
    still("no-entry", "weights without the entry", {"weights.npz": weights()}),
    still("empty", "nothing in the zip", {}),
    still("damaged", "one flipped byte", GOOD, write=damaged),
    still("truncated", "half of the zip", GOOD, write=truncated),
    still(
        "encrypted",
        "a zip with a password",
        GOOD,
        write=encrypted,
        platform="Failed, or no end: its worker cannot unpack it",
    ),
    still(
        "no-zip", "a `.tar.gz` called `.zip`", {"x": b"\x1f\x8b\x08"}, write=lambda f, p: raw(f, p)
    ),
    still(
        "absolute",
        "an absolute path",
        {**GOOD, "/app/weights.npz": weights()},
        platform=KEPT.format("the first /"),
    ),
    still(
        "way-up",
        "a path with `..`",
        {**GOOD, "../weights.npz": weights()},
        platform=KEPT.format("the .."),
    ),
    still(
        "link",
        "a symbolic link to the weights",
        {**entry(load=BY_FILE), "weights.npz": b"runs/weights.npz"},
        write=lambda files, path: pack(files, path, links=("weights.npz",)),
        platform=REFUSED,
    ),
    still("twice", "a file that is there twice", GOOD, write=twice),
    still("mac", "what macOS adds", {**GOOD, "__MACOSX/._model.py": b"", ".DS_Store": b""}),
    still("pycache", "compiled Python", {**GOOD, "__pycache__/model.cpython-311.pyc": b""}),
    still(
        "long-name",
        "a name of 65 characters",
        GOOD,
        zip_name=f"{61 * 'a'}.zip",
        platform="nothing: its form refuses the file",
    ),
    Case(
        "bomb",
        "a megabyte that unpacks to 1.1 GB",
        GOOD,
        write=bomb,
        platform="Finished, as long as its disk is large enough",
    ),
    still("secret", "a file of passwords", {**GOOD, ".env": b"CODABENCH_PASSWORD=x\n"}),
    still("key", "a private key", {**GOOD, "deploy.pem": KEY}),
    still("numpy", "numpy in the zip", {**GOOD, "numpy/__init__.py": b"raise ImportError\n"}),
)
CONTENTS = (
    still("class", "another name of the class", entry(name="Forecaster")),
    still(
        "method",
        "no method `load`",
        {"model.py": GOOD["model.py"].replace(b"def load", b"def start")},
    ),
    still("python", "syntax of Python 3.12", entry(top="type Rows = list[int]\n")),
    *(
        still(
            f"requirements-{name}",
            f"requirements.txt {what}",
            {**GOOD, "requirements.txt": text},
            platform=NOT_ALLOWED.format(package),
        )
        for name, what, text, package in (
            (
                "package",
                "with a package that is not on the list",
                b"onnxruntime==1.23.2\n",
                "onnxruntime",
            ),
            ("blank", "with a blank line", b"numpy\n\nscipy\n", ""),
            ("bound", "with `>=`", b"numpy>=1.26\n", "numpy>=1.26"),
            ("comment", "with a comment", b"# numerics\nnumpy\n", "# numerics"),
            ("case", "with another spelling", b"pillow\n", "pillow"),
        )
    ),
    still(
        "abi",
        "an extension module for another Python",
        {**entry(top="import fast"), "fast.cpython-312-x86_64-linux-gnu.so": library()},
    ),
    still(
        "arm",
        "a library for another processor",
        {**entry(top="import fast"), "fast.so": library(machine=183)},
    ),
    still(
        "glibc",
        "a library for a newer system",
        {**entry(top="import fast"), "fast.so": library(glibc=b"GLIBC_2.38")},
    ),
    still(
        "external-data",
        "an ONNX file whose weights lie in a second file",
        {
            **entry(load="open(os.path.join(HERE, 'model.onnx.data'))"),
            "model.onnx": onnx_with_external_data(),
        },
    ),
)
BUILT = (
    still(
        "artifact-missing",
        "no weights in the artifact",
        {"artifacts/affi/model.onnx": None},
        kind="built",
    ),
    still(
        "artifact-damaged",
        "one flipped bit of the weights",
        {"artifacts/affi/model.onnx": b"flip"},
        kind="built",
    ),
    still("runtime-missing", "no ONNX Runtime for the image", {"vendor/": None}, kind="built"),
    still(
        "normalized",
        "answers in normalized units",
        {},
        kind="built",
        normalized=True,
        says="NORMALIZED",
        platform="Finished, with a score as bad as mean(mean²+std²)",
    ),
)
LOADING = (
    Case("import", "a crash of the import", entry(top="raise RuntimeError('no luck')")),
    Case("module", "a module that the image lacks", entry(top="import scipy")),
    Case("torch", "torch, which this image lacks", entry(top=TORCH)),
    Case(
        "own-module",
        "a module of its own, in a folder",
        {**entry(top="import layers"), "src/layers.py": b""},
    ),
    Case("load", "a crash of load()", entry(load="raise KeyError('encoder.weight')")),
    Case(
        "signature",
        "load() wants an argument",
        {"model.py": GOOD["model.py"].replace(b"load(self)", b"load(self, path)")},
    ),
    Case("no-weights", "no weights in the zip", entry(load=BY_FILE)),
    Case("relative", "a relative path", {**entry(load=LOAD.format("'weights.npz'")), **WEIGHTS}),
    Case(
        "fixed",
        "a path of the author's machine",
        {**entry(load=LOAD.format("'/home/me/run/weights.npz'")), **WEIGHTS},
    ),
    Case(
        "scoring-path",
        "a path of the scoring job",
        {**entry(load=LOAD.format("'/app/input/res/weights.npz'")), **WEIGHTS},
    ),
    Case(
        "fixed-app",
        "one fixed path under /app",
        {**entry(load=LOAD.format("'/app/ingested_program/weights.npz'")), **WEIGHTS},
    ),
    Case(
        "weights-damaged",
        "half of the weights",
        {**entry(load=BY_FILE), "weights.npz": weights(cut=True)},
    ),
    Case(
        "network",
        "weights from the network",
        entry(load="import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=3)"),
        platform="Finished on its default worker, Failed where the network is off",
    ),
    Case("exit", "sys.exit(0)", entry(load="raise SystemExit(0)")),
    Case("hard-exit", "os._exit(0)", entry(load="os._exit(0)")),
    Case(
        "segfault",
        "a library that crashes",
        entry(load="import ctypes; ctypes.string_at(0)"),
    ),
    Case("endless", "an endless loop", entry("while True:\n    pass"), seconds=3.0),
    Case(
        "memory",
        "more memory than there is (`--memory 500M`)",
        entry(load=HOG),
        memory=500 << 20,
        platform="Failed, or stuck: no cap of its own, the machine ends what does not fit",
    ),
    Case(
        "background",
        "a process left behind",
        entry(load="import subprocess; subprocess.Popen(['sleep', '600'])"),
    ),
)
PREDICTING = (
    Case("one-set", "a crash of predict() for one set", entry(ONE_SET)),
    Case("shape", "another shape: all of X", entry("return X")),
    Case("shape-steps", "ten steps of twenty", entry("return X[:, 10:, :, 0]")),
    Case(
        "nan",
        "one NaN",
        entry(f"answer = {FIRST}.copy()\nanswer[2, 15, 1] = np.nan\nreturn answer"),
    ),
    Case("float64", "float64", entry(f"return {FIRST}.astype(np.float64)")),
    Case("list", "a list", entry(f"return {FIRST}.tolist()")),
    Case(
        "random",
        "random answers",
        entry(f"noise = np.random.rand(*X.shape[:3])\nreturn {FIRST} + noise.astype(np.float32)"),
    ),
    Case("batch", "statistics of the whole set", entry(f"return {FIRST} - {FIRST}.mean(axis=0)")),
    Case(
        "write-metadata",
        "a file `metadata` in the output",
        entry(load="open('/app/output/metadata', 'w').close()"),
    ),
    Case("noise", "a million lines of output", entry(f"print('x\\n' * 1_000_000)\nreturn {FIRST}")),
    Case("trivial", "nothing: the organisers' trivial submission", GOOD),
)
CASES = (*ARCHIVES, *CONTENTS, *BUILT, *LOADING, *PREDICTING)


def raw(files: Files, path: Path) -> Path:
    """The bytes of the first file, as they are."""
    path.write_bytes(next(iter(files.values())))
    return path


def definition(case: Case) -> Definition:
    """The small challenge that a case is for."""
    name, settings = split(case)
    challenge = challenges.get(name)
    return challenge.definition(challenge.settings.model_validate(settings), ())


def split(case: Case) -> tuple[str, dict[str, object]]:
    """Name and settings of its challenge."""
    if case.kind == "built":
        return "neural_forecasting", {"channels": CHANNELS}
    settings: dict[str, object] = {**SETTINGS[case.kind]}
    return str(settings.pop("name")), settings


def write(case: Case, folder: Path, built: Path, normalized: Path) -> Path:
    """The broken zip; `built` is a sound one, `normalized` one that answers in other units."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / case.zip_name
    if case.kind != "built":
        return case.write({n: d for n, d in case.files.items() if d is not None}, path)
    if case.normalized:
        return normalized
    changes: dict[str, object] = dict(case.files)
    if "vendor/" in changes:
        changes = {name: None for name in members(built) if name.startswith("vendor/")}
    changes = {name: flip if data == b"flip" else data for name, data in changes.items()}
    return bend(built, path, changes)  # type: ignore[arg-type]


def flip(data: bytes) -> bytes:
    """The bytes with the last bit flipped."""
    return data[:-1] + bytes([data[-1] ^ 1])


def words(case: Case, path: Path, folder: Path) -> list[str]:
    """The command that checks it."""
    found = [
        "submission",
        "check",
        str(path),
        "--python",
        "3.11",
        "--time-limit",
        str(case.seconds),
    ]
    if case.memory:
        found += ["--memory", str(case.memory)]
    if case.kind == "built":
        return found
    config = folder / "challenge.yaml"
    config.write_text(json.dumps({"challenge": SETTINGS[case.kind]}))
    return [*found, "--config", str(config)]


def said(case: Case, path: Path, folder: Path) -> list[str]:
    """The lines that `axonnx submission check` prints."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        cli.main(words(case, path, folder))
    return stream.getvalue().splitlines()


def first(case: Case, lines: list[str]) -> str:
    """The first line about a failure, else about an oddity of the zip, else the last one."""
    for mark in ("✗ ", "! "):
        for line in lines:
            if line.startswith(mark) and case.says in line:
                return NUMBER.sub("…", line)
    return lines[-1]


def task(case: Case, folder: Path) -> Task:
    """The organiser's side of its challenge, with made-up data."""
    found = definition(case)
    generator = np.random.default_rng(0)
    inputs, references = {}, {}
    for one in found.sets:
        contract = found.contract(one.subject, None)
        if contract is None:
            references[one.name] = {ARRAY_KEY: generator.normal(size=(one.rows or 4, 3))}
            continue
        shape = (one.rows or 4, *(size or 1 for size in contract.inputs[ARRAY_KEY].shape))
        rows = generator.normal(size=shape).astype(np.float32)
        inputs[one.name], references[one.name] = {ARRAY_KEY: rows}, {ARRAY_KEY: rows}
    return write_task(found, found.sets, inputs, references, folder, case.seconds)


def engine(case: Case) -> Engine:
    """Where its programs run."""
    places, _ = trial.places(
        definition(case), None, "process", pythons=["3.11"], memory=case.memory
    )
    return places[0].engine


def shown(case: Case, path: Path, folder: Path) -> str:
    """What CodaBench shows, as far as the local worker tells."""
    outcome = run_task(task(case, folder / "task"), path, engine(case), folder / "jobs")
    if not outcome.details:
        return outcome.status
    return f"{outcome.status}: {outcome.details.splitlines()[0]}"


def row(case: Case, platform: str, line: str) -> str:
    """The case's line of the table."""
    cells = (case.wrong, case.platform or platform, line)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


HEADER = f"""# Broken submissions

What CodaBench shows says little of what is wrong: its worker ignores a crash of the model, and the
scoring program then fails for want of predictions. `axonnx submission check` runs both jobs here
and names the cause. Each line below is a real run, with the first line that the command
prints (✗ fails, ! warns); after it come the participant's own lines of the traceback, the log in
which CodaBench hides the cause, and what to do.

The challenge is HDR Neural Forecasting with few channels and rows (results: a generic one), its
programs are this project's, the engine is `process`, Python 3.11. Where CodaBench does what no
local run does, its column says what is known of it; … stands for numbers that change.
`{COMMAND}` writes this page; a test compares it with what is printed.

| what is wrong | what CodaBench shows | what `axonnx submission check` says |
|---|---|---|
"""


def main() -> None:
    """Write the document."""
    from small_artifacts import write_forecaster

    from submission.build import build
    from submission.config import SubmissionConfig

    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        affi = write_forecaster(work / "affi", channels=CHANNELS["affi"])
        zips = []
        for unit in ("raw", "normalized"):
            beignet = write_forecaster(work / unit, channels=CHANNELS["beignet"], unit=unit)
            values = {
                "challenge": "neural_forecasting",
                "settings": {"channels": CHANNELS},
                "models": {"affi": affi, "beignet": beignet},
                "python": ("3.11",),
                "output": work / f"{unit}.zip",
            }
            zips.append(build(SubmissionConfig.model_validate(values)).path)
        for case in CASES:
            folder = work / "cases" / case.name
            path = write(case, folder, *zips)
            platform = case.platform or shown(case, path, folder)
            rows.append(row(case, platform, first(case, said(case, path, folder))))
            print(f"{case.name}: {rows[-1]}", file=sys.stderr)
    DOCUMENT.write_text(HEADER + "\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    main()

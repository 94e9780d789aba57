"""What to do about an error of a submission's code."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from submission.challenges import Definition
from submission.checking.crash import Crash

BUILD = "`axonnx submission build`"
BY_FILE = (
    "find files by __file__: os.path.join(os.path.dirname(os.path.abspath(__file__)), {name!r})"
)

# The first pattern that is found in what Python said; {…} are filled in by `_filled`.
RULES: tuple[tuple[str, str], ...] = (
    (
        r"^SystemExit",
        "take out the call of exit(): it ends the challenge's ingestion program, whatever status "
        "it gives, and the rest is never predicted",
    ),
    (
        r"urlopen error|URLError|gaierror|Network is unreachable|Temporary failure in name|"
        r"Name or service not known|ConnectionError|ConnectTimeout|Max retries exceeded|"
        r"LocalEntryNotFoundError",
        "there is no network here. CodaBench's default worker has one, its operators may switch "
        "it off: put what is downloaded into the zip",
    ),
    (
        r"Storage device not recognized|Attempting to deserialize object on",
        "the weights were saved on another device: load them with map_location='cpu', or rebuild "
        f"with {BUILD}",
    ),
    (
        r"no NVIDIA driver|CUDA error|not compiled with CUDA|libcud\w+\.so|CUDA_ERROR",
        "there is no GPU here, nor on CodaBench unless the worker's operator switched it on: run "
        "on the CPU where there is none",
    ),
    (
        r"[Ww]eights.only|UnpicklingError",
        "pickled weights load in the version of torch that wrote them, if at all: save a "
        f"state_dict with plain tensors, or rebuild from an artifact with {BUILD}",
    ),
    (
        r"GLIBC(XX)?_[\d.]+. not found|wrong ELF class|invalid ELF header|undefined symbol|"
        r"Exec format error",
        "a library in the zip is for another system: take the wheel for linux x86_64 (manylinux) "
        "and the image's Python{python}",
    ),
    (
        r"failed to map segment from shared object",
        "this machine's folder of temporary files allows no libraries (noexec), unlike CodaBench: "
        "set TMPDIR to another one",
    ),
    (
        r"onnxruntime_pybind11_state",
        "the zip's ONNX Runtime is for another Python: rebuild with "
        "`axonnx submission build CONFIG --python VERSION`",
    ),
    (
        r"cannot open shared object file",
        "the image lacks that library: the zip must carry it, or do without",
    ),
    (
        r"compiled using NumPy|numpy\.core\.multiarray failed|_ARRAY_API|numpy\.dtype size changed",
        "a library in the zip was compiled for another numpy than the image's: take a version of "
        "it for numpy 2, and ship no numpy",
    ),
    (
        r"[Uu]nsupported model IR version|guarantees\* support for models stamped|"
        r"opset \d+ is under development",
        "the ONNX file is newer than this ONNX Runtime: export it with opset 20 and IR 10, or "
        f"rebuild with {BUILD}",
    ),
    (
        r"[Ee]xternal data|model_path must not be empty|\.onnx[._]data",
        "the ONNX file keeps its weights in a second file: export it with the weights inside, or "
        f"rebuild with {BUILD}",
    ),
    (
        r"^(numpy\S*)?MemoryError|Unable to allocate|bad_alloc|_ArrayMemoryError",
        "it asks for more memory than there is: predict in smaller batches",
    ),
    (
        r"Read-only file system|Permission denied",
        "write below /app/output or /tmp alone",
    ),
    (
        r"No space left on device",
        "it writes more than fits: write below /app/output or /tmp, and clear up",
    ),
    (
        r"^TypeError: (predict|forward)\(\) gave",
        "return an array of the challenge's shape, such as np.asarray(answer, dtype=np.float32)",
    ),
    (
        r"has no attribute '({methods})'|cannot import name '{name}'|"
        r"^TypeError: .*(positional argument|keyword argument|takes no arguments)",
        "{interface}",
    ),
    (
        r"BadZipFile|EOFError|invalid load key|Failed to interpret file|INVALID_PROTOBUF|"
        r"HashMismatchError|unexpected EOF|pickled=|allow_pickle=False",
        "a file of weights is damaged, or is not what its name says: copy it again, or rebuild "
        f"with {BUILD}",
    ),
    (
        r"^(SyntaxError|IndentationError|TabError)",
        "write it for the image's Python{python}",
    ),
    (
        r"broadcast|reshape|mismatch in its core dimension|not aligned|dimension|[Ss]hape",
        "{shapes}",
    ),
)
SIGNALS = {
    4: "an illegal instruction: a library in the zip needs a newer processor",
    6: "abort(): a library in the zip gave up; see its last words",
    7: "a bus error: it ran out of shared memory, or a file that it maps was cut short",
    9: "being killed: where no time limit ended it, the machine's memory was full",
    11: "a segmentation fault: a library in the zip does not fit the image's Python or numpy",
    15: "being asked to end",
}


def advice(crash: Crash, program: Path, definition: Definition) -> list[str]:
    """What to do about a crash of the submission unpacked in `program`; may be empty."""
    if match := re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", crash.said):
        return [_module(match[1].split(".")[0], program, definition)]
    if match := re.search(r"FileNotFoundError: .*?'([^']+)'", crash.said):
        return [_file(match[1], program)]
    for pattern, text in RULES:
        filled = _pattern(pattern, definition)
        if re.search(filled, crash.error, re.M) or re.search(filled, crash.said, re.M):
            return [_filled(text, definition)]
    return []


def _pattern(pattern: str, definition: Definition) -> str:
    name, methods = definition.interface
    return pattern.replace("{methods}", "|".join(methods)).replace("{name}", name)


def _filled(text: str, definition: Definition) -> str:
    name, methods = definition.interface
    version = definition.image.python
    calls = ", ".join(f"{method}()" for method in methods)
    return (
        text.replace("{python}", f", {version}" if version else "")
        .replace("{interface}", f"the challenge imports {name} from {definition.entry}, calls it "
                                f"and then {calls}: see its starting kit for their arguments")
        .replace("{shapes}", shapes(definition))
    )  # fmt: skip


def shapes(definition: Definition) -> str:
    """What a submission is given, in one line."""
    found = []
    for subject in definition.subjects:
        contract = definition.contract(subject, None)
        for tensor in contract.inputs.values() if contract else ():
            sizes = ", ".join("any" if size is None else str(size) for size in tensor.shape)
            found.append(f"{tensor.dtype} (N, {sizes}) for {subject}")
    given = f"it is given {'; '.join(found)}: " if found else ""
    return f"{given}N is another for each set, and may be 1"


def _module(name: str, program: Path, definition: Definition) -> str:
    inside = [path for path in _paths(program) if path.name in (name, f"{name}.py")]
    if inside:
        return (
            f"{inside[0]} is in the zip, but its folder is not on sys.path: insert the folder "
            "of __file__ at the front"
        )
    image, have = definition.image.name, ", ".join(definition.image.packages) or "numpy alone"
    listed = ""
    if definition.whitelist is not None and name in definition.whitelist:
        listed = f" {name} may stand in requirements.txt, but is installed over the network then."
    elsewhere = ""
    if image:
        elsewhere = f" The image {image} may have it: check with `--engine docker --image {image}`."
    return (
        f"this interpreter has {have}.{elsewhere}{listed} What the image lacks, the zip must "
        f"carry; what {BUILD} writes needs numpy alone"
    )


def _file(name: str, program: Path) -> str:
    base = PurePosixPath(name.replace("\\", "/")).name
    inside = [str(path) for path in _paths(program) if path.name == base]
    if not inside:
        return f"the zip holds no {base}: rebuild with it"
    how = BY_FILE.format(name=inside[0])
    if name.startswith("/app/input/"):
        return f"{inside[0]} is in the zip, but /app/input is there in the scoring job alone: {how}"
    if name.startswith("/"):
        return f"{inside[0]} is in the zip, but never at that fixed path: {how}"
    return f"{inside[0]} is in the zip, but the working folder is not the submission's: {how}"


def _paths(program: Path) -> list[PurePosixPath]:
    found = [PurePosixPath(path.relative_to(program).as_posix()) for path in program.rglob("*")]
    return sorted(found, key=lambda path: (len(path.parts), path))

"""What can be said of an unpacked submission without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import artifact
from artifact import Bundle, graph
from artifact.errors import ArtifactError
from submission.build import normalized, package_files
from submission.challenges import Definition
from submission.checking import binaries
from submission.checking.crash import CARRIED
from submission.checking.findings import Report, Status
from submission.contents import Contents
from submission.wheels import table, tree_digest

ABI = re.compile(r"\.cpython-(\d)(\d+)-")
LIBRARY = re.compile(r"\.so(\.\d+)*$|\.pyd$|\.dylib$")
# What the images' systems have: Ubuntu 22.04, Debian 10.
GLIBC = {"ytchou97/hdr-image": (2, 35), "codalab/codalab-legacy:py37": (2, 28)}
FIXED = re.compile(
    r"(/app/(ingested_program|input|output|program)|/home|/Users|/content|/root)/|[A-Z]:[\\/]\w"
)
MAX_FIXED = 5
BY_FILE = "find files by __file__"
NORMALIZED = (
    "ANSWERS IN NORMALIZED UNITS. CodaBench scores raw units; expect mean(mean²+std²). Train or "
    "import it with output_units: raw"
)


def inspect_entry(report: Report, program: Path, definition: Definition) -> None:
    """The entry module parses under the image's Python and has the challenge's interface."""
    name, methods = definition.interface
    tree = _parsed(report, program, definition.entry, definition)
    if tree is None:
        return
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    }
    node = classes.get(name)
    if node is None:
        # Assigned names, and those of a module that is not looked at, show when it runs.
        if not imported & {name, "*"} and not _assigned(tree, name):
            have = f"; it has {', '.join(classes)}: rename it" if classes else ""
            report.add(
                "failed", f"{definition.entry}: has no class {name}, which CodaBench calls{have}"
            )
        return
    defined = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    missing = [method for method in methods if method not in defined]
    if missing and not node.bases:
        report.add(
            "failed",
            f"{definition.entry}: class {name} has no {', '.join(missing)}, which CodaBench calls",
        )
    else:
        report.add("ok", f"{definition.entry}: class {name} with {', '.join(methods)}")


def _parsed(
    report: Report, program: Path, name: str, definition: Definition, status: Status = "failed"
) -> ast.Module | None:
    """A module's syntax tree; what the image's Python would not parse is reported."""
    python = definition.image.python or "3.10"
    major, minor = map(int, python.split("."))
    try:
        return ast.parse((program / name).read_bytes(), feature_version=(major, minor))
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        report.add(status, f"{name}: does not parse under Python {python}{where}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        report.add(status, f"{name}: does not parse under Python {python}: {error}")
    return None


def _assigned(tree: ast.Module, name: str) -> bool:
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def inspect_modules(report: Report, program: Path, definition: Definition) -> None:
    """The participant's modules beside the entry parse, and name no fixed path."""
    names = [path.relative_to(program).as_posix() for path in sorted(program.rglob("*.py"))]
    for name in names:
        if name.startswith(CARRIED):
            continue
        quiet = name == definition.entry  # `inspect_entry` has reported on its syntax
        tree = _parsed(Report() if quiet else report, program, name, definition, "warning")
        if tree is None:
            continue
        fixed = [
            (node.value, node.lineno)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if FIXED.match(node.value)
        ]
        for text, line in fixed[:MAX_FIXED]:
            report.add("warning", f"{name}:{line}: {text[:60]!r} {_why(text)}: {BY_FILE}")


def _why(path: str) -> str:
    if path.startswith("/app/input/"):
        return "is there in the scoring job alone"
    if path.startswith("/app/"):
        return "is there in some challenges and jobs alone"
    return "is a folder of your machine"


def inspect_requirements(report: Report, program: Path, definition: Definition) -> None:
    """A requirements.txt names packages of the challenge's list only, in the form it reads."""
    path = program / "requirements.txt"
    if not path.is_file():
        return
    if definition.whitelist is None:
        report.add("warning", "requirements.txt: this challenge installs nothing from it")
        return
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        package = line.split("==")[0]
        if package not in definition.whitelist:
            report.add(
                "failed",
                f"requirements.txt:{number}: {line[:80]!r}{_refused(line, definition.whitelist)}: "
                "the challenge ends the run with "
                f"`{package[:40]} is not an allowed package`; leave the file out (a submission of "
                "ours needs numpy alone), or write `name` or `name==version` of one it allows",
            )
            return
    report.add(
        "warning", "requirements.txt: it is installed over the network, which may not be there"
    )


def _refused(line: str, whitelist: Sequence[str]) -> str:
    """What about the form of a line is not as the challenge reads it."""
    if not line.strip():
        return " is blank"
    if line.lstrip().startswith("#"):
        return " is a comment"
    name = re.split(r"[\s<>=!~;\[#]", line.strip(), maxsplit=1)[0]
    same = {entry.lower(): entry for entry in whitelist}.get(name.lower())
    if same is None:
        return " is not on the challenge's list"
    return f" is not written as `{same}` or `{same}==version`"


def inspect_binaries(
    report: Report, program: Path, definition: Definition, verified: Collection[str] = ()
) -> None:
    """Libraries fit the image's Python, processor and glibc; ONNX files hold their weights.

    `verified` are folders whose files are known to be as published.
    """
    skipped = tuple(f"{folder}/" for folder in verified)
    for path in sorted(program.rglob("*")):
        name = path.relative_to(program).as_posix()
        if name.startswith(skipped) or not path.is_file():
            continue
        if LIBRARY.search(name):
            for text in _library_problems(path, definition):
                report.add("failed", f"{name}: {text}")
        if name.endswith(".onnx"):
            for text in _weights_problems(path):
                report.add("failed", f"{name}: {text}")


def _library_problems(path: Path, definition: Definition) -> Iterator[str]:
    image = definition.image
    tag = ABI.search(path.name)
    version = f"{tag[1]}.{tag[2]}" if tag else None
    if version and image.python and version != image.python:
        yield f"is for Python {version}; the image has {image.python}: take its wheel for that"
    try:
        library = binaries.read(path.read_bytes())
    except ValueError as error:
        yield f"{error}; copy it again"
        return
    if library.target != "x86-64":
        yield (
            f"is for {library.target}; CodaBench's workers are linux x86-64: take the "
            "manylinux x86_64 wheel"
        )
    have = GLIBC.get(image.name or "")
    if have and library.glibc > have:
        needed, there = (".".join(map(str, pair)) for pair in (library.glibc, have))
        yield (
            f"needs glibc {needed}; the image {image.name} has {there}: take a wheel for "
            f"manylinux_{have[0]}_{have[1]} or older"
        )


def _weights_problems(path: Path) -> Iterator[str]:
    try:
        outside = graph.summarize(path.read_bytes()).external_data
    except ArtifactError as error:
        yield f"is no ONNX file that can be read ({error}); export it again"
        return
    if outside:
        yield (
            f"keeps weights ({', '.join(outside[:3])}) in a second file: export it with the "
            "weights inside"
        )


def inspect_graph(report: Report, program: Path, definition: Definition) -> None:
    """The zip holds one ONNX file, and it is what the challenge runs."""
    found = sorted(program.rglob("*.onnx"))
    if len(found) != 1:
        names = ", ".join(path.relative_to(program).as_posix() for path in found[:5])
        held = f"{len(found)} .onnx files ({names})" if found else "no .onnx file"
        report.add("failed", f"archive: holds {held}; the submission is a zip with one")
        return
    where = found[0].relative_to(program).as_posix()
    wrong, odd = definition.graph_problems(found[0].read_bytes())
    for text in wrong:
        report.add("failed", f"{where}: {text}")
    for text in odd:
        report.add("warning", f"{where}: {text}")
    if not wrong:
        report.add("ok", f"{where}: starts here, and takes what the challenge gives it")


def inspect_artifacts(
    report: Report, program: Path, contents: Contents, definition: Definition
) -> dict[str, Bundle]:
    """The verified artifacts by subject; what is wrong with the others is reported."""
    bundles = {}
    for name, entry in contents.artifacts.items():
        where = f"artifacts/{entry.folder}"
        try:
            bundle = artifact.read(program / "artifacts" / entry.folder)
        except ArtifactError as error:
            text = str(error).removeprefix(f"{program / 'artifacts' / entry.folder}: ")
            report.add("failed", f"{where}: {text}; build the zip again from the artifact")
            continue
        found = definition.problems(name, bundle.manifest)
        if bundle.id != entry.id:
            found.append(f"is not the artifact that the zip was built from ({entry.id[:12]}…)")
        for text in found:
            report.add("failed", f"{where}: {text}")
        if normalized(bundle):
            report.add("warning", f"{where}: {NORMALIZED}")
        if not found:
            label = where if entry.folder == name else f"{where} for {name}"
            report.add("ok", f"{label}: {bundle.manifest.model}, id {bundle.id[:12]}…, verified")
            bundles[name] = bundle
    return bundles


def inspect_package(report: Report, program: Path) -> None:
    """The carried `artifact` package is that of this installation."""
    carried = files_of(program / "artifact")
    installed = {n.removeprefix("artifact/"): d for n, d in package_files().items()}
    differing = sorted(
        name for name in {*carried, *installed} if carried.get(name) != installed.get(name)
    )
    if differing:
        report.add(
            "failed",
            f"artifact/: {', '.join(differing)} is not what this installation has; "
            "build the zip again",
        )
    else:
        report.add("ok", "artifact/: the package of this installation, verbatim")


def inspect_runtimes(
    report: Report, program: Path, contents: Contents, definition: Definition
) -> None:
    """Every carried runtime is the published one, and there is one for the image's Python."""
    trusted = {(wheel.abi, wheel.onnxruntime): wheel.tree_sha256 for wheel in table()}
    for abi, facts in contents.runtimes.items():
        where = f"vendor/{abi}: onnxruntime {facts.onnxruntime} for Python {facts.python}"
        files = files_of(program / "vendor" / abi)
        if not files:
            report.add("failed", f"{where} is missing; build the zip again")
        elif tree_digest(files) != trusted.get((abi, facts.onnxruntime)):
            report.add("failed", f"{where} is not the published one; build the zip again")
        else:
            report.add("ok", f"{where}, as published")
    python = definition.image.python
    if python and python not in {facts.python for facts in contents.runtimes.values()}:
        report.add(
            "warning",
            f"vendor/: the image of {contents.challenge.name} has Python {python}, and the zip has "
            f"no runtime for it; build with --python {python}",
        )


def files_of(folder: Path) -> Mapping[str, bytes]:
    """Every file below `folder` by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

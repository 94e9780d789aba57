"""What can be said of an unpacked submission without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import artifact
from artifact import Bundle
from artifact.errors import ArtifactError
from submission.build import normalized, package_files
from submission.challenges import Definition
from submission.contents import Contents
from submission.findings import Report
from submission.wheels import table, tree_digest

ABI = re.compile(r"\.cpython-(\d)(\d+)-")
NORMALIZED = (
    "ANSWERS IN NORMALIZED UNITS. CodaBench scores raw units; expect mean(mean²+std²). Train or "
    "import it with output_units: raw"
)


def inspect_entry(report: Report, program: Path, definition: Definition) -> None:
    """The entry module parses under the image's Python and has the challenge's interface."""
    path = program / definition.entry
    python = definition.image.python or "3.10"
    major, minor = map(int, python.split("."))
    try:
        tree = ast.parse(path.read_bytes(), feature_version=(major, minor))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        report.add("failed", f"{definition.entry}: does not parse under Python {python}: {error}")
        return
    name, methods = definition.interface
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    }
    if name not in classes:
        if not imported & {name, "*"}:
            report.add("failed", f"{definition.entry}: has no class {name}, which CodaBench calls")
        return
    node = classes[name]
    defined = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    missing = [method for method in methods if method not in defined]
    if missing and not node.bases:
        report.add(
            "failed",
            f"{definition.entry}: class {name} has no {', '.join(missing)}, which CodaBench calls",
        )
    else:
        report.add("ok", f"{definition.entry}: class {name} with {', '.join(methods)}")


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
                f"requirements.txt:{number}: {line[:80]!r}: the challenge ends the run with "
                f"`{package[:40]} is not an allowed package`; leave the file out (a submission of "
                "ours needs numpy alone), or write `name` or `name==version` of one it allows",
            )
            return
    report.add(
        "warning", "requirements.txt: it is installed over the network, which may not be there"
    )


def inspect_binaries(report: Report, program: Path, definition: Definition) -> None:
    """Extension modules outside `vendor/` fit the image's Python."""
    python = definition.image.python
    for path in sorted(program.rglob("*.so")):
        name = path.relative_to(program).as_posix()
        tag = ABI.search(name)
        if tag is None or python is None or name.startswith("vendor/"):
            continue
        version = f"{tag[1]}.{tag[2]}"
        if version != python:
            report.add("failed", f"{name}: is for Python {version}; the image has {python}")


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

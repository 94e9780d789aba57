"""The model card: an artifact's README.md, written from its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from artifact.manifest import Manifest, TensorSpec


def model_card(manifest: Manifest) -> bytes:
    """The card in Markdown. It cannot hold the artifact's id, which is the hash of the manifest."""
    sections = (
        _title(manifest),
        _tensors("Inputs", manifest.inputs),
        _tensors("Outputs", manifest.outputs) + _names(manifest),
        *_members(manifest.provenance.get("members", [])),
        *_simulation(manifest),
        _metrics(manifest.metrics),
        _usage(manifest),
        _determinism(manifest.determinism),
        _provenance(manifest.provenance),
    )
    return ("\n\n".join(sections) + "\n").encode()


def _title(manifest: Manifest) -> str:
    data = manifest.provenance["data"]
    lines = [
        f"# {manifest.name}, version {manifest.version}",
        "",
        f"A `{manifest.model}` model for the task `{manifest.task}`. {data['description']}",
    ]
    if data["synthetic"]:
        lines += ["", "**Trained on synthetic data: its scores say nothing about a brain.**"]
    for spec in manifest.outputs:
        if manifest.task == "forecast" and spec.unit == "normalized":
            lines += [
                "",
                f"**Output `{spec.name}` is in normalized units, as published, not in those of the "
                "recording.** `model.output_units: raw` gives those.",
            ]
    return "\n".join(lines)


def _tensors(heading: str, specs: tuple[TensorSpec, ...]) -> str:
    rows = [
        f"| `{spec.name}` | {spec.dtype} | {spec.layout} | {spec.unit} | {spec.meaning} |"
        for spec in specs
    ]
    head = ["| name | dtype | axes | unit | meaning |", "|---|---|---|---|---|"]
    return "\n".join([f"## {heading}", "", *head, *rows])


def _names(manifest: Manifest) -> str:
    """The classes or variables of the answer, in their order, where they have names."""
    data = manifest.provenance["data"]
    if not data.get("outputs") or manifest.task == "forecast":
        return ""
    what = "Classes" if manifest.task == "classify" else "Variables"
    units = data["plan"]["output_units"] if data.get("plan") else [""] * len(data["outputs"])
    named = [
        f"`{name}` ({unit})" if unit and manifest.task == "decode" else f"`{name}`"
        for name, unit in zip(data["outputs"], units, strict=True)
    ]
    return f"\n\n{what}, in this order: {', '.join(named)}."


def _members(members: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The runs that an ensemble is made of, and how much each counts; nothing of other models."""
    if not members:
        return
    lines = [
        "## Members",
        "",
        "Answers are the weighted mean of these models, all in one graph; one whose weight is 0 is "
        "not in it.",
        "",
        "| run | model | seed | weight | checkpoint |",
        "|---|---|---|---|---|",
    ]
    for member in members:
        weights = ", ".join(f"{weight:.3g}" for weight in member["weights"])
        lines.append(
            f"| `{member['name']}` | `{member['model']}` | {member['seed']} | {weights} | "
            f"`{member['checkpoint'][:12]}…` |"
        )
    if len(members[0]["weights"]) > 1:
        lines += ["", "Several weights are those of the forecast steps, the nearest first."]
    yield "\n".join(lines)


def _simulation(manifest: Manifest) -> Iterator[str]:
    """Steps, noise and nodes of a network; nothing of other models."""
    facts = manifest.provenance.get("simulation")
    if not facts:
        return
    steps = ", ".join(f"`{name}` {step:g} ms" for name, step in facts["step_ms"].items())
    lines = [
        "## Simulation",
        "",
        f"- Steps of {facts['dt_ms']:g} ms by the scheme {facts['scheme']}, as many as the "
        f"stimulus has; from one value to the next: {steps}.",
    ]
    for name, value in facts["held"].items():
        shown = f"{value:g}" if isinstance(value, float | int) else "a constant for each node"
        lines.append(f"- Input {name} is held at {shown}, beside its stimulus if it has one.")
    if manifest.noise is not None:
        lines.append(
            f"- Noise is drawn from `{manifest.noise.seed}` and `{manifest.noise.member}` by "
            "numpy's Philox generator: the same two numbers give the same run."
        )
    labels = facts["labels"]
    more = f", … {len(labels)} in all" if len(labels) > 12 else ""
    lines.append(f"- Nodes, in this order: {', '.join(labels[:12])}{more}.")
    defaults = [spec for spec in manifest.inputs if spec.default is not None]
    lines += [f"- `{spec.name}` is {spec.default:g} where it is left out." for spec in defaults]
    yield "\n".join(lines)


def _metrics(metrics: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {_value(value)} |" for name, value in _flat(metrics)]
    body = ["| metric | value |", "|---|---|", *rows] if rows else ["None were computed."]
    return "\n".join(["## Held-out metrics", "", *body])


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in sorted(table):
        if isinstance(table[name], Mapping):
            yield from _flat(table[name], f"{prefix}{name} ")
        else:
            yield prefix + name, table[name]


def _usage(manifest: Manifest) -> str:
    feed = ", ".join(f'"{spec.name}": {spec.name}' for spec in manifest.inputs)
    return "\n".join(
        [
            "## Use",
            "",
            "```python",
            "import artifact",
            "",
            'model = artifact.load("this/folder")  # verifies hashes, replays the golden rows',
            f"answers = model.predict({{{feed}}})",
            "```",
            "",
            "`axonnx verify`, `axonnx serve` and `axonnx submission build` take the same folder.",
        ]
    )


def _determinism(facts: Mapping[str, Any]) -> str:
    golden = facts["golden"]
    origin = {
        "real": "windows of the recording, which travel with every copy of this artifact",
        "synthetic": "drawn from the statistics of the train part",
        "simulated": "a pulse of stimulus, a seed, parameters around their own values",
    }[golden["kind"]]
    lines = [
        "## Determinism",
        "",
        f"- ONNX opset {facts['opset']}, IR {facts['ir_version']}; made and certified with "
        f"ONNX Runtime {facts['onnxruntime']} on {facts['processor']}.",
        f"- Golden rows: {golden['rows']}, {golden['kind']} ({origin}).",
    ]
    for entry in facts["certificate"]:
        row = ", ".join(f"{name} {tuple(sizes)}" for name, sizes in sorted(entry["row"].items()))
        sizes = ", ".join(map(str, entry["batch_sizes"]))
        lines.append(f"- Rows of {row} keep their bytes in batches of {sizes}.")
    for name in sorted(facts["parity"]):
        gap, bound = facts["parity"][name], facts["golden_bound"][name]
        lines.append(
            f"- `{name}`: torch and ONNX Runtime differ by at most {gap:.3g}; where golden rows "
            f"come out more than {bound:.3g} apart, nothing is answered."
        )
    return "\n".join(lines)


def _provenance(facts: Mapping[str, Any]) -> str:
    data, versions, sources = facts["data"], facts["libraries"], facts["sources"]
    lines = [
        "## Provenance",
        "",
        f"- Data: `{data['name']}`, fingerprint `{facts['data_fingerprint']}`.",
        f"- Configuration: `config.yaml`, seed {facts['seed']}; sha256 of its canonical JSON: "
        f"`{facts['config_sha256']}`.",
        f"- Libraries: {', '.join(f'{name} {versions[name]}' for name in sorted(versions))}.",
        *(f"- Sources of `{name}`: `{sources[name]}`." for name in sorted(sources)),
    ]
    return "\n".join(lines)


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

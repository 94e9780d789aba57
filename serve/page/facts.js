// What a model says of itself: facts in words, the tables of its inputs and outputs, its card.

import { short } from "./arrays.js";
import { renderCard } from "./card.js";
import { count, el, table } from "./dom.js";
import { readCard } from "./service.js";

/** Name, kind and origin of a model, and what was verified of it. */
export function showFacts(model) {
  const { manifest } = model;
  const data = manifest.provenance?.data ?? {};
  return el(
    "header",
    { class: "facts" },
    el("h1", {}, model.name ?? manifest.name),
    el(
      "ul",
      { class: "tags", "aria-label": "Kind" },
      ...tagsOf(model).map((text) => el("li", {}, text)),
    ),
    data.description ? el("p", { class: "muted" }, `Data: ${data.description}`) : null,
    data.synthetic === true
      ? el("p", { class: "caution" }, "Trained on synthetic data: its scores say nothing about a brain.")
      : null,
    el(
      "dl",
      { class: "tiles" },
      tile("Held-out metrics", metricsOf(manifest)),
      tile("Verified at start", goldenWords(model)),
      tile("Independent of batching", batchWords(model)),
      tile("Artifact", artifactWords(model)),
    ),
  );
}

/** The tables of what a model takes and gives. */
export function showTensors(manifest) {
  return el(
    "section",
    { class: "box", "aria-labelledby": "takes" },
    el("h2", { id: "takes" }, "Inputs"),
    tensorTable(manifest.inputs, "Inputs", "inputs"),
    el("h2", {}, "Outputs"),
    tensorTable(manifest.outputs, "Outputs", "outputs"),
  );
}

/** The model card, fetched when it is opened. */
export function showCard(name) {
  const body = el("div", {}, el("p", { class: "muted" }, "Reading the card …"));
  const box = el("details", { class: "box", id: "card" }, el("summary", {}, "Model card"), body);
  box.addEventListener("toggle", async () => {
    if (!box.open || body.dataset.read) return;
    body.dataset.read = "yes";
    try {
      body.replaceChildren(renderCard(await readCard(name)));
    } catch (error) {
      delete body.dataset.read;
      body.replaceChildren(el("p", { class: "bad" }, error.message));
    }
  });
  return box;
}

/** The axes as people write them: (batch, time=20, channel). */
export function layoutOf(spec) {
  const parts = spec.axes.map(({ name, size }) => (size === null ? name : `${name}=${size}`));
  return `(${parts.join(", ")})`;
}

function tensorTable(specs, label, id) {
  return table(
    ["name", "dtype", "axes", "unit", "meaning"],
    specs.map((spec) => [
      el("code", {}, spec.name),
      el("code", {}, spec.dtype),
      el("code", {}, layoutOf(spec)),
      spec.unit || "–",
      spec.default === undefined ? spec.meaning : `${spec.meaning}; ${short(spec.default)} where it is left out`,
    ]),
    { "aria-label": label, id, class: "tensors" },
  );
}

function tagsOf(model) {
  const { manifest } = model;
  const provider = (model.providers?.[0] ?? "").replace("ExecutionProvider", "");
  return [manifest.task, manifest.model, `version ${manifest.version}`, provider].filter(Boolean);
}

function tile(term, words) {
  return el("div", {}, el("dt", {}, term), el("dd", {}, ...words));
}

function metricsOf(manifest) {
  const numbers = Object.entries(manifest.metrics).filter(([, value]) => typeof value === "number");
  const test = numbers.filter(([name]) => name.startsWith("test"));
  const shown = (test.length ? test : numbers).slice(0, 4);
  if (!shown.length) return ["None in the artifact."];
  return shown.map(([name, value]) =>
    el("span", { class: "metric" }, el("b", {}, short(value)), ` ${name.replaceAll("_", " ")}`),
  );
}

function goldenWords(model) {
  const { golden } = model;
  if (golden.identical) return ["Golden rows came out byte for byte as stored."];
  const gaps = Object.entries(golden.gap).map(
    ([name, gap]) => `${name} differs by ${short(gap)} (at most ${short(golden.bound[name])} allowed)`,
  );
  return [`Golden rows came out within the bound: ${gaps.join("; ")}.`];
}

function batchWords(model) {
  const policies = (model.batching ?? []).map(({ row, policy }) => {
    const sized = Object.entries(row).filter(([, sizes]) => sizes.length);
    const shapes = sized.map(([name, sizes]) => `${name} ${sizes.join("×")}`);
    return `${shapes.join(", ")}: ${policy}.`;
  });
  if (!policies.length) return ["Rows run one by one."];
  return policies.slice(0, 3).map((text) => el("span", { class: "line" }, text));
}

function artifactWords(model) {
  const files = model.manifest.files ?? [];
  return [
    el("code", { class: "line", title: model.artifact }, model.artifact.slice(0, 16)),
    el("span", { class: "line" }, `${count(files.length, "file")} with their sha256; ONNX Runtime ${model.onnxruntime}`),
  ];
}

/** Lines of Python that write a file which this model takes. */
export function howTo(manifest) {
  const [first] = manifest.inputs;
  const lines = ["import numpy as np", ""];
  for (const spec of manifest.inputs) {
    lines.push(`# ${spec.name}: ${spec.dtype}, axes ${layoutOf(spec)}`);
  }
  const names = manifest.inputs.map(({ name }) => name);
  lines.push(
    names.length === 1
      ? `np.save("windows.npy", ${first.name})`
      : `np.savez("windows.npz", ${names.map((name) => `${name}=${name}`).join(", ")})`,
  );
  return lines.join("\n");
}

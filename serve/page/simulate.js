// Simulating a network: fields for duration, noise, stimulus and parameters, made into its inputs.

import { parseSpans } from "./answer.js";
import { short } from "./arrays.js";
import { count, el } from "./dom.js";
import { FormatError } from "./npy.js";
import { writeNpz } from "./npz_writer.js";
import { simulationOf } from "./simulation.js";

const MAX_VALUES = 2 ** 24;
const FIRST_STEPS = 1000;
const FIRST_VALUES = 4;

/**
 * The fields of a network and the button that simulates it, by `run(words, read)`; null where it
 * takes something that no field gives, such as the noise itself.
 */
export function simulationBox({ manifest }, run) {
  const facts = simulationOf(manifest);
  if (!facts) return null;
  const named = new Set([...Object.keys(facts.stimulus), manifest.noise?.seed, manifest.noise?.member]);
  const parameters = manifest.inputs.filter(({ name, default: own }) => !named.has(name) && own !== undefined);
  if (manifest.inputs.some((spec) => !named.has(spec.name) && spec.default === undefined)) return null;
  const every = Math.max(facts.dt_ms, ...Object.values(facts.step_ms));
  const first = Math.max(FIRST_STEPS * facts.dt_ms, FIRST_VALUES * every);
  const seeded = Boolean(manifest.noise);
  const fields = {
    duration: field("duration", "duration (ms)", first, { min: facts.dt_ms }),
    rows: field("rows", seeded ? "runs" : "rows", 1, { min: 1, max: 64, step: 1 }),
    seed: seeded ? field("seed", "seed", 0, { min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 }) : null,
    ...Object.fromEntries(
      Object.entries(facts.stimulus).map(([name, input]) => [
        name,
        field(`amplitude-${name}`, `stimulus of ${input}`, facts.amplitude),
      ]),
    ),
    from: field("from", "from (ms)", first / 5, { min: 0 }),
    until: field("until", "until (ms)", (2 * first) / 5, { min: 0 }),
    nodes: textField("nodes", "at nodes", "all"),
    ...Object.fromEntries(parameters.map((spec) => [spec.name, field(`own-${spec.name}`, spec.name, spec.default)])),
  };
  const read = async () => writeNpz(arraysOf(manifest, facts, fields));
  const form = el(
    "form",
    {
      id: "simulate",
      onsubmit: (event) => {
        event.preventDefault();
        const many = Number(fields.rows.input.value);
        run(`${count(many, "run")} of ${short(Number(fields.duration.input.value))} ms`, read);
      },
    },
    el("div", { class: "fields" }, ...Object.values(fields).map((each) => each?.node)),
    el("div", { class: "row" }, el("button", { type: "submit" }, "Simulate")),
  );
  return form;
}

/** The arrays that the fields stand for, a Map by name. */
function arraysOf(manifest, facts, fields) {
  const numberOf = (name) => Number(fields[name].input.value);
  const [steps, rows, nodes] = [Math.round(numberOf("duration") / facts.dt_ms), numberOf("rows"), facts.labels.length];
  if (!(steps >= 1)) throw new FormatError(`a duration of ${numberOf("duration")} ms is no step of ${facts.dt_ms} ms`);
  if (rows * steps * nodes > MAX_VALUES) {
    const most = Math.floor(MAX_VALUES / rows / nodes) * facts.dt_ms;
    throw new FormatError(`${short(steps * facts.dt_ms)} ms are too long to send from here; ${short(most)} ms would do`);
  }
  const pulse = [numberOf("from"), numberOf("until")].map((time) => Math.round(time / facts.dt_ms));
  if (pulse[1] < pulse[0]) {
    throw new FormatError(`until: ${short(numberOf("until"))} ms is before ${short(numberOf("from"))} ms, where the stimulus begins`);
  }
  const places = placesOf(fields.nodes.input.value, nodes);
  const arrays = new Map();
  for (const { name, default: own } of manifest.inputs) {
    if (name in facts.stimulus) {
      const data = stimulus(numberOf(name), pulse, places, [rows, steps, nodes]);
      arrays.set(name, { dtype: "float32", shape: [rows, steps, nodes], data });
    } else if (name === manifest.noise?.seed) {
      arrays.set(name, whole(Array.from({ length: rows }, () => numberOf("seed"))));
    } else if (name === manifest.noise?.member) {
      arrays.set(name, whole(Array.from({ length: rows }, (_, row) => row)));
    } else {
      const value = fields[name].input.value === "" ? own : numberOf(name);
      arrays.set(name, { dtype: "float32", shape: [rows, 1], data: new Float32Array(rows).fill(value) });
    }
  }
  return arrays;
}

function placesOf(text, nodes) {
  if (text.trim() === "" || text.trim() === "all") return Array.from({ length: nodes }, (_, node) => node);
  const places = parseSpans(text, nodes);
  if (!places.length) throw new FormatError(`at nodes: ${text} names none of 0 to ${nodes - 1}`);
  return places;
}

/** A pulse of an amplitude in every row, at some nodes, from one step to another. */
function stimulus(amplitude, [from, until], places, [rows, steps, nodes]) {
  const data = new Float32Array(rows * steps * nodes);
  for (let row = 0; row < rows; row += 1) {
    for (let step = from; step < Math.min(until, steps); step += 1) {
      for (const node of places) data[(row * steps + step) * nodes + node] = amplitude;
    }
  }
  return data;
}

function whole(values) {
  return { dtype: "int64", shape: [values.length], data: BigInt64Array.from(values, BigInt) };
}

function field(id, label, value, limits = {}) {
  const input = el("input", { type: "number", id: `simulate-${id}`, value, step: "any", required: true, ...limits });
  return { input, node: labelled(label, input) };
}

function textField(id, label, value) {
  const input = el("input", { type: "text", id: `simulate-${id}`, value });
  return { input, node: labelled(label, input) };
}

function labelled(label, input) {
  return el("label", { class: "field" }, el("span", {}, label), input);
}

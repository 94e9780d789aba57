// A recording: whether a file is one, what a model asks of it, and the answer to it.

import { CONFIG, fileName, origin, picker, redrawOnChange } from "./answer.js";
import { count, download, el, size, table } from "./dom.js";
import { axesOf, kindOf, readNpz } from "./npy.js";
import { cellOf, drawTable, readCsv, viewOf } from "./table.js";
import { colours, loadPlotly } from "./theme.js";

export const SUFFIXES = [".edf", ".bdf", ".csv", ".tsv", ".npz", ".npy", ".mat", ".ts", ".parquet", ".nwb", ".fif", ".h5", ".set"];
const FIRST_PICKED = 4;
const MAX_TABLE = { rows: 100, columns: 24 };
const MAX_NAMED = 8;

/** How a recording becomes the model's inputs, null where it takes windows alone. */
export function planOf(manifest) {
  return manifest.provenance?.data?.plan ?? null;
}

/** Whether bytes hold arrays that were cut into windows: the inputs by name, each with all its axes. */
export async function holdsWindows(bytes, inputs) {
  const kind = kindOf(bytes);
  if (kind === "npy") return axesOf(bytes) === inputs[0].axes.length;
  if (kind !== "npz") return false;
  let arrays;
  try {
    arrays = await readNpz(bytes);
  } catch {
    return false; // texts, or damaged: the service says what is wrong with it
  }
  const named = (spec) => arrays.get(spec.name) ?? (inputs.length === 1 ? arrays.get("arr_0") : undefined);
  return arrays.size === inputs.length && inputs.every((spec) => named(spec)?.shape.length === spec.axes.length);
}

/** A file's name as the service takes it; its suffix tells formats apart. */
export function plainName(name) {
  const plain = name.replace(/[^\p{L}\p{N}_ .()+,=@-]+/gu, "_").slice(-60);
  return plain.replace(/^[^\p{L}\p{N}_]+/u, "") || "recording";
}

/** What a recording must have, in words. */
export function wantedWords(plan) {
  const names = plan.channels.map(({ name, unit }) => (unit ? `${name} (${unit})` : name));
  const more = names.length > MAX_NAMED ? ` … ${names.length} in all` : "";
  const after = plan.steps.length > plan.graph_steps ? ", after its preparation" : "";
  return `or a recording: ${Number(plan.rate.toPrecision(6))} Hz, ${names.slice(0, MAX_NAMED).join(", ")}${more}${after}`;
}

/** Two fields of seconds, and what they hold as {start, stop}. */
export function stretchBox() {
  const field = (id) => el("input", { type: "number", id, step: "any", class: "seconds" });
  const [start, stop] = [field("start"), field("stop")];
  const node = el(
    "div",
    { class: "stepper", role: "group", "aria-label": "stretch of a recording" },
    el("label", { for: "start" }, "From"),
    start,
    el("label", { for: "stop" }, "to"),
    stop,
    el("span", { class: "muted" }, "s"),
  );
  const read = () =>
    Object.fromEntries([["start", start.value], ["stop", stop.value]].filter(([, value]) => value !== ""));
  return { node, read };
}

/** The section of an answer to a recording; `answer` holds bytes of CSV and who gave them. */
export function showTable(model, answer) {
  const found = readCsv(answer.bytes);
  const view = viewOf(found);
  const state = { picked: view.names.map((_, i) => i).slice(0, view.classes ? 16 : FIRST_PICKED) };
  const plot = el("div", { class: "plot", "data-kind": "recording", role: "group" });
  const details = el("details", {}, el("summary", {}, "Numbers"), numbers(found));
  const draw = async () => {
    plot.setAttribute("aria-label", `predictions of ${answer.source} over time`);
    try {
      const plotly = await loadPlotly();
      if (!plot.clientWidth) return;
      const { data, layout } = drawTable(view, state, colours(), plot.clientWidth);
      await plotly.react(plot, data, layout, CONFIG);
    } catch (error) {
      plot.replaceChildren(el("p", { class: "bad" }, `Not drawn: ${error.message}.`));
      details.open = true;
    }
  };
  redrawOnChange(plot, draw);
  const name = `${fileName(answer.source.replace(/\.[^.]*$/, ""))}.predictions.csv`;
  const what = view.classes ? "column" : model.manifest.task === "decode" ? "variable" : "channel";
  const node = el(
    "section",
    { class: "box answer", id: "answer", "aria-labelledby": "answer-title", tabindex: "-1" },
    el(
      "div",
      { class: "bar" },
      el("h2", { id: "answer-title" }, `Answer to ${answer.source}`),
      el(
        "button",
        { type: "button", id: "save", onclick: () => download(answer.bytes, "text/csv", name) },
        `Download CSV (${size(answer.bytes.length)})`,
      ),
    ),
    origin(model, answer, found.rows.length),
    el(
      "section",
      { class: "output", "data-output": "predictions", "aria-label": "Predictions" },
      el("h3", {}, view.classes ? "Probability of each class" : `Predictions over time, ${count(view.names.length, what)}`),
      view.names.length > 1 ? el("div", { class: "controls" }, picker(what, view.names.length, state, draw)) : null,
      plot,
      details,
    ),
  );
  return { node, start: draw };
}

function numbers({ head, rows }) {
  const shown = rows.slice(0, MAX_TABLE.rows).map((row) => row.slice(0, MAX_TABLE.columns).map(cellOf));
  const node = table(head.slice(0, MAX_TABLE.columns), shown, { "aria-label": "numbers of the predictions", class: "numbers" });
  if (rows.length <= MAX_TABLE.rows && head.length <= MAX_TABLE.columns) return node;
  const text = `Only ${count(MAX_TABLE.rows, "line")} and ${count(MAX_TABLE.columns, "column")} are shown; the CSV has all.`;
  return el("div", {}, node, el("p", { class: "muted" }, text));
}

// An answer: who gave it, what it holds, drawn and in numbers, and as files.

import { exact, lane, plane, short, toCsv } from "./arrays.js";
import { count, download, duration, el, size, table } from "./dom.js";
import { layoutOf } from "./facts.js";
import { chooseView } from "./figures.js";
import { colours, loadPlotly } from "./theme.js";

const MAX_PICKED = 16;
const FIRST_PICKED = 8;
const MAX_TABLE = { rows: 200, columns: 64 };
// plotly's own choice of buttons has one that sends the data to a server of its makers.
export const CONFIG = {
  displaylogo: false,
  plotlyServerURL: "",
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
};

/**
 * The section of an answer. `answer` holds bytes, artifact, requestId, seconds, source and the
 * arrays `outputs`; `inputs` the arrays that were sent, or null where they could not be read here.
 */
export function showAnswer(model, answer, inputs) {
  const specs = model.manifest.outputs.filter(({ name }) => answer.outputs.has(name));
  const rows = answer.outputs.get(specs[0].name).shape[0];
  const blocks = specs.map((spec) =>
    outputBlock(chooseView(spec, answer.outputs.get(spec.name), inputs, model.manifest), model, answer),
  );
  const show = (row) => blocks.forEach((block) => block.show(row));
  const section = el(
    "section",
    { class: "box answer", id: "answer", "aria-labelledby": "answer-title", tabindex: "-1" },
    el(
      "div",
      { class: "bar" },
      el("h2", { id: "answer-title" }, `Answer to ${answer.source}`),
      el(
        "button",
        { type: "button", id: "save", onclick: () => save(model, answer) },
        `Download .npz (${size(answer.bytes.length)})`,
      ),
    ),
    origin(model, answer, rows),
    rows > 1 ? stepper("row", rows, show) : null,
    ...blocks.map(({ node }) => node),
  );
  return { node: section, start: () => show(0) };
}

function save(model, answer) {
  const suffix = answer.requestId ? `-${answer.requestId.slice(0, 8)}` : "";
  download(answer.bytes, "application/x-npz", `${fileName(model.manifest.name)}${suffix}.npz`);
}

/** Who answered, and how long it took. */
export function origin(model, answer, rows) {
  const facts = [
    ["rows", String(rows)],
    ["round trip", duration(answer.seconds)],
    ["artifact", answer.artifact?.slice(0, 16), answer.artifact],
    ["request", answer.requestId?.slice(0, 16), answer.requestId],
  ].filter(([, value]) => value);
  const list = el(
    "dl",
    { class: "origin" },
    ...facts.map(([term, value, whole]) =>
      el("div", {}, el("dt", {}, term), el("dd", { title: whole, "data-fact": term }, value)),
    ),
  );
  if (answer.artifact === model.artifact) return list;
  const text = "Another artifact answered than the one shown above: it was exchanged meanwhile. Reload the page to see its facts.";
  return el("div", {}, list, el("p", { class: "caution" }, text));
}

/** One output: what it is, what of it is seen, the figure, the numbers. */
function outputBlock(view, model, answer) {
  const { spec, output, names } = view;
  const picks = view.panelAxis === null ? 0 : output.shape[view.panelAxis];
  const state = {
    index: output.shape.map(() => 0),
    picked: Array.from({ length: Math.min(picks, FIRST_PICKED) }, (_, i) => i),
    overlay: false,
  };
  const caution = el("p", { class: "caution" });
  const plot = el("div", { class: "plot", "data-kind": view.kind, role: "group" });
  const numbers = el("div", {});
  const details = el("details", {}, el("summary", {}, "Numbers"), numbers);
  const draw = async () => {
    if (details.open) numbers.replaceChildren(numberTable(view, state));
    caution.textContent = view.caution?.(state.index[0]) ?? "";
    caution.hidden = !caution.textContent;
    plot.setAttribute("aria-label", `${view.kind} of ${spec.name}, row ${state.index[0]}`);
    try {
      const plotly = await loadPlotly();
      if (!plot.clientWidth) return;
      const { data, layout } = view.draw(view, state, colours(), plot.clientWidth);
      await plotly.react(plot, data, layout, CONFIG);
    } catch (error) {
      plot.replaceChildren(el("p", { class: "bad" }, `Not drawn: ${error.message}.`));
      details.open = true;
    }
  };
  details.addEventListener("toggle", () => details.open && draw());
  redrawOnChange(plot, draw);
  const controls = [
    ...view.others.map((axis) =>
      stepper(names[axis], output.shape[axis], (place) => {
        state.index[axis] = place;
        draw();
      }),
    ),
    picks > 1 ? picker(names[view.panelAxis], picks, state, draw) : null,
    view.kind === "forecast" && picks > 1 ? overlayBox(state, draw) : null,
  ].filter(Boolean);
  const csv = () =>
    download(toCsv(spec.name, names, output), "text/csv", `${fileName(model.manifest.name)}-${fileName(spec.name)}.csv`);
  const node = el(
    "section",
    { class: "output", "data-output": spec.name, "aria-label": `Output ${spec.name}` },
    el(
      "div",
      { class: "bar" },
      el("h3", {}, spec.name, " ", el("code", {}, `${layoutOf(spec)} ${spec.unit}`.trim())),
      el("button", { type: "button", class: "plain", onclick: csv }, "CSV"),
    ),
    el("p", { class: "muted" }, spec.meaning),
    controls.length ? el("div", { class: "controls" }, ...controls) : null,
    caution,
    plot,
    details,
  );
  const show = (row) => {
    state.index[0] = row;
    return draw();
  };
  return { node, show };
}

/** Draw again where the box gets another width, or the page other colours. */
export function redrawOnChange(plot, draw) {
  let width = 0;
  let timer = 0;
  const observer = new ResizeObserver(() => {
    if (!plot.isConnected) observer.disconnect();
    const known = width;
    width = plot.clientWidth;
    if (known === 0 || known === width) return; // it was just put there, or is as wide as before
    clearTimeout(timer);
    timer = setTimeout(draw, 120);
  });
  observer.observe(plot);
  plot.addEventListener("recolour", draw);
}

/** A choice of one place along an axis, by slider, number or step. */
function stepper(name, length, onchange) {
  const last = length - 1;
  const number = el("input", { type: "number", min: 0, max: last, value: 0, "aria-label": `${name}, 0 to ${last}` });
  const slider = el("input", { type: "range", min: 0, max: last, value: 0, "aria-label": `${name} slider` });
  const set = (value) => {
    const place = Math.min(last, Math.max(0, Math.round(Number(value)) || 0));
    number.value = slider.value = String(place);
    onchange(place);
  };
  number.addEventListener("change", () => set(number.value));
  slider.addEventListener("input", () => set(slider.value));
  const step = (by) => () => set(Number(number.value) + by);
  return el(
    "div",
    { class: "stepper", role: "group", "aria-label": name },
    el("span", {}, name),
    el("button", { type: "button", class: "plain", "aria-label": `previous ${name}`, onclick: step(-1) }, "‹"),
    number,
    el("button", { type: "button", class: "plain", "aria-label": `next ${name}`, onclick: step(1) }, "›"),
    slider,
    el("span", { class: "muted" }, `0 to ${last}`),
  );
}

/** Which places along an axis are seen: "0-7, 12". */
export function picker(name, length, state, onchange) {
  const field = el("input", { type: "text", size: 12, value: spans(state.picked), "aria-label": `${name}s to see` });
  const set = (places) => {
    if (places.length) state.picked = places.slice(0, MAX_PICKED);
    field.value = spans(state.picked);
    onchange();
  };
  field.addEventListener("change", () => set(parseSpans(field.value, length)));
  const page = (by) => () => {
    const many = state.picked.length;
    const first = by > 0 ? state.picked.at(-1) + 1 : state.picked[0] - many;
    const start = Math.max(0, Math.min(first, length - many));
    set(Array.from({ length: many }, (_, i) => start + i));
  };
  return el(
    "div",
    { class: "stepper", role: "group", "aria-label": `${name}s` },
    el("span", {}, `${name}s`),
    el("button", { type: "button", class: "plain", "aria-label": `previous ${name}s`, onclick: page(-1) }, "‹"),
    field,
    el("button", { type: "button", class: "plain", "aria-label": `next ${name}s`, onclick: page(1) }, "›"),
    el("span", { class: "muted" }, `of 0 to ${length - 1}`),
  );
}

function overlayBox(state, onchange) {
  const box = el("input", { type: "checkbox" });
  box.addEventListener("change", () => {
    state.overlay = box.checked;
    onchange();
  });
  return el("label", { class: "check" }, box, "all in one panel");
}

/** Whole numbers below `length` in a text such as "0-3, 7". */
export function parseSpans(text, length) {
  const places = new Set();
  for (const part of text.split(/[\s,;]+/)) {
    const match = /^(\d+)(?:[-–](\d+))?$/.exec(part);
    if (!match) continue;
    const last = Math.min(Number(match[2] ?? match[1]), length - 1);
    for (let i = Number(match[1]); i <= last; i += 1) places.add(i);
  }
  return [...places].sort((a, b) => a - b);
}

function spans(places) {
  const parts = [];
  for (let i = 0; i < places.length; i += 1) {
    const first = places[i];
    while (places[i + 1] === places[i] + 1) i += 1;
    parts.push(places[i] === first ? `${first}` : `${first}-${places[i]}`);
  }
  return parts.join(", ");
}

/** The numbers that are seen, as a table; what does not fit is in the CSV. */
function numberTable({ spec, output, names }, state) {
  const rank = output.shape.length;
  const label = { "aria-label": `numbers of ${spec.name}`, class: "numbers" };
  if (rank <= 2) {
    const values = lane(output, state.index, rank - 1);
    const rows = values.slice(0, MAX_TABLE.rows).map((value, i) => [`${i}`, exact(value, output.dtype)]);
    return withNote(table([names[rank - 1], spec.name], rows, label), values.length > MAX_TABLE.rows);
  }
  const [down, across] = [rank - 2, rank - 1];
  const matrix = plane(output, state.index, down, across);
  const head = Array.from({ length: Math.min(output.shape[across], MAX_TABLE.columns) }, (_, i) => `${names[across]} ${i}`);
  const text = (value) => (output.dtype.startsWith("float") ? short(value) : exact(value, output.dtype));
  const rows = matrix
    .slice(0, MAX_TABLE.rows)
    .map((values, i) => [`${i}`, ...values.slice(0, head.length).map(text)]);
  const cut = matrix.length > MAX_TABLE.rows || output.shape[across] > head.length;
  return withNote(table([names[down], ...head], rows, label), cut);
}

function withNote(node, cut) {
  if (!cut) return node;
  const text = `Only ${count(MAX_TABLE.rows, "line")} and ${count(MAX_TABLE.columns, "column")} are shown; the CSV has all.`;
  return el("div", {}, node, el("p", { class: "muted" }, text));
}

/** A text as part of a file's name. */
export function fileName(text) {
  return text.replace(/[^A-Za-z0-9._-]+/g, "-");
}

// Running a model: a dropped file or the golden example in, an answer or an error out.

import { showAnswer } from "./answer.js";
import { download, duration, el } from "./dom.js";
import { howTo, layoutOf } from "./facts.js";
import { FormatError, kindOf, readNpy, readNpz } from "./npy.js";
import { holdsWindows, plainName, planOf, showTable, stretchBox, SUFFIXES, wantedWords } from "./recording.js";
import { simulationBox } from "./simulate.js";
import { predict, predictRecording, readGolden, ServiceError } from "./service.js";
import { loadPlotly } from "./theme.js";

let dropped = null; // takes what is dropped anywhere on the page; that of the model that is shown

/** The box in which a model is tried; the answer goes into `place`. `locked(retry)` asks for a key. */
export function runBox(model, place, locked) {
  const { inputs } = model.manifest;
  const plan = planOf(model.manifest);
  const stretch = stretchBox();
  const status = el("div", { id: "status", role: "status", class: "status" });
  const failure = el("div", { id: "failure", role: "alert" });
  const chooser = el("input", { type: "file", id: "file", accept: plan ? SUFFIXES.join() : ".npy,.npz" });
  let running = null;

  async function run(source, read) {
    running?.abort();
    const control = (running = new AbortController());
    failure.replaceChildren();
    place.replaceChildren();
    const stop = showProgress(status, source, () => control.abort());
    loadPlotly().catch(() => {}); // meanwhile; whoever draws tells of its failure
    try {
      const bytes = await read();
      const start = performance.now();
      const ask = plan && bytes.length && !(await holdsWindows(bytes, inputs)) ? askTable : askArrays;
      const shown = await ask(bytes, source, start, control.signal);
      if (control.signal.aborted) return;
      place.replaceChildren(shown.node);
      await shown.start();
      stop(`Answered in ${duration(shown.seconds)}.`);
      shown.node.focus({ preventScroll: true });
      shown.node.scrollIntoView({ block: "start" });
    } catch (error) {
      if (control !== running && error.name === "AbortError") return;
      stop(error.name === "AbortError" ? "Cancelled." : "");
      if (error.name === "AbortError") return;
      if (error.status === 401) locked(() => run(source, read));
      const again = error.status === 0 || error.status >= 500 ? () => run(source, read) : null;
      failure.replaceChildren(showFailure(error, inputs, plan, again));
      failure.scrollIntoView({ block: "nearest" });
    }
  }

  async function askArrays(bytes, source, start, signal) {
    const kind = checkKind(bytes, source, inputs);
    const answer = await predict(model.name, bytes, kind, signal);
    const seconds = (performance.now() - start) / 1000;
    const outputs = await readNpz(answer.bytes);
    const sent = await readSent(bytes, kind, inputs);
    return { ...showAnswer(model, { ...answer, outputs, seconds, source }, sent), seconds };
  }

  async function askTable(bytes, source, start, signal) {
    const answer = await predictRecording(model.name, bytes, plainName(source), stretch.read(), signal);
    const seconds = (performance.now() - start) / 1000;
    return { ...showTable(model, { ...answer, seconds, source }), seconds };
  }

  const runFile = (file) => run(file.name, async () => new Uint8Array(await file.arrayBuffer()));
  const runFiles = (files) => {
    if (files.length === 1) return runFile(files[0]);
    const error = new FormatError(`${files.length} files; one is wanted, with all inputs in it`);
    return failure.replaceChildren(showFailure(error, inputs, plan, null));
  };
  chooser.addEventListener("change", () => {
    if (chooser.files.length) runFiles([...chooser.files]);
    chooser.value = ""; // so that the same file can be chosen again
  });
  dropped = runFiles;
  const keep = async () => {
    try {
      download(await readGolden(model.name), "application/x-npz", "golden.npz");
    } catch (error) {
      failure.replaceChildren(showFailure(error, inputs, plan, null));
    }
  };
  const golden = () => run("the golden example", () => readGolden(model.name));
  return el(
    "section",
    { class: "box", "aria-labelledby": "try" },
    el("h2", { id: "try" }, "Try it"),
    simulationBox(model, run),
    el(
      "label",
      { class: "drop", id: "drop" },
      chooser,
      el("b", {}, plan ? "Drop a recording" : `Drop ${inputs.length === 1 ? "an .npy or .npz" : "an .npz"} file`),
      el("span", {}, plan ? "or an .npy or .npz of windows; or choose one" : "or choose one"),
    ),
    plan ? stretch.node : null,
    el(
      "div",
      { class: "row" },
      el("button", { type: "button", id: "golden", onclick: golden }, "Run golden example"),
      el("button", { type: "button", id: "keep", class: "plain", onclick: keep }, "Save it"),
    ),
    status,
    failure,
    el("details", {}, el("summary", {}, "How to make the file"), el("pre", { tabindex: "0" }, el("code", {}, howTo(model.manifest)))),
  );
}

/** Let files be dropped anywhere; without this a near miss would replace the page by the file. */
export function listenForDrops() {
  let depth = 0;
  const light = (on) => document.getElementById("drop")?.classList.toggle("over", on);
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (carriesFiles(event)) light((depth += 1) > 0);
  });
  document.addEventListener("dragleave", (event) => {
    if (carriesFiles(event)) light((depth = Math.max(0, depth - 1)) > 0);
  });
  document.addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    light((depth = 0) > 0);
    const files = [...event.dataTransfer.files];
    if (files.length) dropped?.(files);
  });
}

/** Take no drops: no model is shown. */
export function ignoreDrops() {
  dropped = null;
}

function checkKind(bytes, source, inputs) {
  const kind = kindOf(bytes);
  if (kind === null) {
    const what = bytes.length ? "neither .npy nor .npz" : "empty";
    throw new FormatError(`${source} is ${what}; nothing was sent`);
  }
  if (kind === "npy" && inputs.length > 1) {
    const names = inputs.map(({ name }) => name).join(", ");
    throw new FormatError(`${source} holds one array, and this model takes ${names}; put them into one .npz with these names`);
  }
  return kind;
}

/** What was sent, by input name; null where it can be sent but not drawn. */
async function readSent(bytes, kind, inputs) {
  try {
    return kind === "npy" ? new Map([[inputs[0].name, readNpy(bytes)]]) : await readNpz(bytes);
  } catch {
    return null;
  }
}

/** Show what is going on and for how long; the function that ends it takes the last words. */
function showProgress(status, source, cancel) {
  const clock = el("span", { class: "clock", "aria-hidden": "true" }, "0.0 s");
  const start = performance.now();
  const timer = setInterval(() => {
    clock.textContent = `${((performance.now() - start) / 1000).toFixed(1)} s`;
  }, 100);
  status.replaceChildren(
    el("progress", { "aria-label": "running" }),
    el("span", {}, `Running ${source} `),
    clock,
    el("button", { type: "button", class: "plain", onclick: cancel }, "Cancel"),
  );
  return (words) => {
    clearInterval(timer);
    if (status.contains(clock)) status.replaceChildren(words);
  };
}

function headingOf(error) {
  if (!(error instanceof ServiceError)) return "This cannot be run";
  if (error.status === 0) return "No answer";
  return error.status < 500 ? "The service refused this" : "The service could not answer";
}

/** An error in the service's words, with what would be right. */
function showFailure(error, inputs, plan, again) {
  const known = error instanceof ServiceError || error instanceof FormatError;
  const facts = [
    ["status", error.status || null],
    ["type", error.type],
    ["field", error.field],
    ["request", error.requestId],
  ].filter(([, value]) => value);
  return el(
    "div",
    { class: "failure" },
    el("strong", {}, headingOf(error)),
    el("p", {}, known ? error.message : `The page failed: ${error.message}`),
    facts.length
      ? el("dl", { class: "origin" }, ...facts.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, String(value)))))
      : null,
    el("p", { class: "muted" }, "This model takes:"),
    el("ul", {}, ...inputs.map((spec) => el("li", {}, el("code", {}, `${spec.name}: ${spec.dtype} ${layoutOf(spec)}`))), plan ? el("li", {}, wantedWords(plan)) : null),
    again ? el("button", { type: "button", onclick: again }, "Try again") : null,
  );
}

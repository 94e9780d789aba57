// The page: the models of the service, and the one that is shown.

import { el } from "./dom.js";
import { showCard, showFacts, showTensors } from "./facts.js";
import { ignoreDrops, listenForDrops, runBox } from "./run.js";
import { describe, listModels, setKey } from "./service.js";
import { watchColours } from "./theme.js";

const POLL_MS = 2000;
const [list, main, notice, access] = ["models", "model", "notice", "access"].map((id) =>
  document.getElementById(id),
);
let listing = { models: {}, failures: [] };
let shown = null;
let timer = 0;

/** Ask for the models again, and once more a little later while there are none or more to come. */
async function refresh() {
  clearTimeout(timer);
  try {
    listing = await listModels();
  } catch (error) {
    tell(error.message);
    if (error.status === 401) askForKey(refresh);
    else timer = setTimeout(refresh, POLL_MS);
    return;
  }
  drawList();
  const names = Object.keys(listing.models);
  if (!names.length || listing.started === false) timer = setTimeout(refresh, POLL_MS);
  const name = names.includes(wanted()) ? wanted() : names[0];
  if (!name) tell("No model is ready yet.");
  else if (name !== shown) await show(name);
  else tell("");
}

/** The model that the address names, if any. */
function wanted() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // no proper address
  }
}

/** The models, and what does not load. */
function drawList() {
  const ready = Object.keys(listing.models).map((name) =>
    el(
      "li",
      {},
      el(
        "a",
        { href: `#${encodeURIComponent(name)}`, "aria-current": name === shown ? "true" : null },
        el("span", { class: "name" }, name),
        el("span", { class: "state good" }, "ready"),
      ),
    ),
  );
  const failed = listing.failures.map(({ name, version, reason, source }) =>
    el(
      "li",
      { class: "failed" },
      el("span", { class: "name" }, version ? `${name} version ${version}` : name),
      el("span", { class: "state bad" }, "not ready"),
      el("span", { class: "reason" }, `${source}: ${reason}`),
    ),
  );
  list.replaceChildren(...ready, ...failed);
}

async function show(name) {
  shown = name;
  drawList();
  ignoreDrops();
  main.replaceChildren();
  tell(`Reading ${name} …`);
  let model;
  try {
    model = await describe(name);
  } catch (error) {
    shown = null;
    if (error.status === 401) askForKey(() => show(name));
    tell(error.message);
    return;
  }
  if (shown !== name) return; // another was chosen meanwhile
  tell("");
  document.title = `${name} · axonnx`;
  const answer = el("div", {});
  main.replaceChildren(
    showFacts(model),
    el("div", { class: "bench" }, runBox({ ...model, name }, answer, askForKey), showTensors(model.manifest)),
    answer,
    showCard(name),
  );
}

function tell(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

/** Ask for an API key, and go on with `retry` once there is one. */
function askForKey(retry) {
  const field = el("input", { type: "password", id: "key", autocomplete: "off", required: true });
  const form = el(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        setKey(field.value);
        access.hidden = true;
        access.replaceChildren();
        retry();
      },
    },
    el("h2", { id: "access-title" }, "This service asks for an API key"),
    el("label", { for: "key" }, "API key"),
    el("div", { class: "row" }, field, el("button", { type: "submit" }, "Use it")),
    el("p", { class: "muted" }, "It is kept until this page is closed, and sent to this service only."),
  );
  access.replaceChildren(form);
  access.hidden = false;
  field.focus();
}

addEventListener("hashchange", () => {
  if (Object.hasOwn(listing.models, wanted()) && wanted() !== shown) show(wanted());
});
addEventListener("focus", refresh);
listenForDrops();
watchColours();
refresh();

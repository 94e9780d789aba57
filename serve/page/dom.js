// Elements, made of text only: nothing that comes from the service is ever read as markup.

/** An element. `on…` attributes are listeners; null, undefined and false attributes are left out. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A table in a box that scrolls by itself; `head` and `rows` hold texts or nodes. */
export function table(head, rows, attributes = {}) {
  const cells = (row) =>
    row.map((value, i) => el("td", { "data-label": textOf(head[i]) }, wrap(value)));
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": attributes["aria-label"] },
    el(
      "table",
      attributes,
      el("thead", {}, el("tr", {}, ...head.map((value) => el("th", { scope: "col" }, value)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells(row)))),
    ),
  );
}

/** Hand `bytes` to the browser as a file to keep. */
export function download(bytes, type, name) {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const UNITS = ["bytes", "KiB", "MiB", "GiB"];

/** A number of bytes as people say it. */
export function size(bytes) {
  let power = 0;
  while (bytes >= 1024 && power < UNITS.length - 1) {
    bytes /= 1024;
    power += 1;
  }
  return `${power && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${UNITS[power]}`;
}

/** A time as people say it. */
export function duration(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  return `${(seconds * 1000).toFixed(seconds < 0.1 ? 1 : 0)} ms`;
}

/** "1 row", "2 rows". */
export function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

function wrap(value) {
  return value === null || value === undefined ? "" : value;
}

function textOf(value) {
  return typeof value === "string" ? value : (value?.textContent ?? "");
}

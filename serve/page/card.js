// A model card in Markdown as elements: headings, paragraphs, lists, tables, code. Markup stays text.

import { el, table } from "./dom.js";

const INLINE = /(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\(https?:\/\/[^\s)]+\))/;

/** The card's text as one element. */
export function renderCard(markdown) {
  const lines = markdown.replaceAll("\r\n", "\n").split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    const [block, next] = readBlock(lines, at);
    if (block) blocks.push(block);
    at = next;
  }
  return el("div", { class: "card" }, ...blocks);
}

/** The block that begins at a line, and the line after it. */
function readBlock(lines, at) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  if (line.startsWith("```")) return readCode(lines, at + 1);
  const heading = /^(#{1,6}) +(.*)$/.exec(line);
  if (heading) {
    const level = Math.min(6, heading[1].length + 2); // below the page's own headings
    return [el(`h${level}`, {}, ...inline(heading[2])), at + 1];
  }
  if (line.startsWith("|")) return readTable(lines, at);
  if (isItem(line)) return readList(lines, at);
  const end = until(lines, at + 1, (text) => text.trim() && !/^(#{1,6} |```|\|)/.test(text));
  return [el("p", {}, ...inline(lines.slice(at, end).join(" "))), end];
}

function readCode(lines, at) {
  const end = until(lines, at, (text) => !text.startsWith("```"));
  return [el("pre", { tabindex: "0" }, el("code", {}, lines.slice(at, end).join("\n"))), end + 1];
}

function readTable(lines, at) {
  const end = until(lines, at, (text) => text.startsWith("|"));
  const rows = lines.slice(at, end).map(cellsOf);
  const ruled = rows.length > 1 && rows[1].every((cell) => /^:?-+:?$/.test(cell));
  const body = rows.slice(ruled ? 2 : 1);
  const head = rows[0].map((cell) => el("span", {}, ...inline(cell)));
  const cells = body.map((row) => row.map((cell) => el("span", {}, ...inline(cell))));
  return [table(head, cells, { "aria-label": "table of the card" }), end];
}

function readList(lines, at) {
  const ordered = /^ *\d/.test(lines[at]);
  const end = until(lines, at, (text) => isItem(text) || /^ {2,}\S/.test(text));
  const items = [];
  for (const line of lines.slice(at, end)) {
    if (isItem(line)) items.push(line.replace(/^ *([-*+]|\d+\.) +/, ""));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  const nodes = items.map((item) => el("li", {}, ...inline(item)));
  return [el(ordered ? "ol" : "ul", {}, ...nodes), end];
}

function isItem(line) {
  return /^ *([-*+]|\d+\.) +/.test(line);
}

function cellsOf(line) {
  return line
    .trim()
    .replace(/^\||\|$/g, "")
    .split("|")
    .map((cell) => cell.trim());
}

function until(lines, at, goesOn) {
  let end = at;
  while (end < lines.length && goesOn(lines[end])) end += 1;
  return end;
}

/** Code, bold text and links of a line; the rest as it is. */
function inline(text) {
  return text.split(INLINE).map((part) => {
    if (/^`[^`]+`$/.test(part)) return el("code", {}, part.slice(1, -1));
    if (/^\*\*[^*]+\*\*$/.test(part)) return el("strong", {}, part.slice(2, -2));
    const link = /^\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)$/.exec(part);
    if (!link) return part;
    return el("a", { href: link[2], target: "_blank", rel: "noopener noreferrer" }, link[1]);
  });
}

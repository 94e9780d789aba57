// A table of predictions, as CSV: its columns, what they are, and their figure.

import { exact } from "./arrays.js";
import { axis, axisName, baseLayout, panels } from "./theme.js";

const FIXED = ["window_start_s", "window_stop_s", "time_s", "trial", "predicted"];
const MAX_MARKS = 400;
const UTF8 = new TextDecoder();

/** {head, rows}: the names of the columns and the rows of texts of CSV bytes. */
export function readCsv(bytes) {
  const rows = [];
  let row = [];
  // A cell in quotes holds commas, line ends and doubled quotes.
  for (const [, quoted, plain, end] of UTF8.decode(bytes).matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n|$)/g)) {
    if (quoted === undefined && plain === "" && end === "" && !row.length) break;
    row.push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end === ",") continue;
    rows.push(row);
    row = [];
  }
  return { head: rows[0] ?? [], rows: rows.slice(1) };
}

/** How a table is drawn: `names` of the answers, `times`, `starts` of the windows, `values(i)`. */
export function viewOf({ head, rows }) {
  const answers = head.map((_, i) => i).filter((i) => !FIXED.includes(head[i]));
  const column = (name) => rows.map((row) => Number(row[head.indexOf(name)]));
  const starts = column("window_start_s");
  return {
    names: answers.map((i) => head[i]),
    classes: head.includes("predicted"),
    starts,
    times: head.includes("time_s") ? column("time_s") : starts,
    values: (answer) => rows.map((row) => (row[answers[answer]] === "nan" ? NaN : Number(row[answers[answer]]))),
  };
}

/** The figure: a panel for each picked answer over time, or all probabilities in one. */
export function drawTable(view, state, theme, width) {
  const { names, classes } = view;
  const grid = panels(classes ? 1 : state.picked.length, width, { columns: 1, height: classes ? 300 : 120 });
  const layout = { ...baseLayout(theme, width, grid.height), hovermode: "x unified", showlegend: classes };
  grid.places.forEach((place, i) => {
    const number = i ? i + 1 : "";
    layout[`xaxis${number}`] = axis(theme, place.last ? (classes ? "start of the window (s)" : "time (s)") : "", {
      domain: place.x,
      anchor: axisName("y", i),
      ...(i ? { matches: "x" } : {}),
      showticklabels: place.last,
      zeroline: false,
    });
    layout[`yaxis${number}`] = axis(theme, classes ? "probability" : "", {
      domain: place.y,
      anchor: axisName("x", i),
      zeroline: false,
      ...(classes ? { range: [-0.02, 1.02] } : {}),
    });
    if (!classes) layout.annotations.push(titleOf(names[state.picked[i]], i));
  });
  const data = state.picked.map((answer, i) => traceOf(view, answer, classes ? 0 : i, colourOf(theme, i, classes)));
  return { data, layout };
}

function traceOf(view, answer, panel, colour) {
  const { x, y } = broken(view, view.values(answer));
  return {
    type: "scatter",
    mode: x.length <= MAX_MARKS ? "lines+markers" : "lines",
    name: view.names[answer].replace(/^p_/, ""),
    x,
    y,
    connectgaps: false,
    line: { color: colour, width: 1.6 },
    marker: { color: colour, size: 4 },
    xaxis: axisName("x", panel),
    yaxis: axisName("y", panel),
    hovertemplate: "%{y:.5~g}",
    meta: { role: view.names[answer] },
  };
}

/** Values over time, broken where they do not go on: at a gap, and between forecasts. */
function broken({ times, starts }, values) {
  const several = starts.some((start, i) => i && start === starts[i - 1]);
  const steps = times.slice(1).map((time, i) => time - times[i]);
  const usual = [...steps].filter((step) => step > 0).sort((a, b) => a - b)[steps.length >> 1] ?? 0;
  const [x, y] = [[], []];
  values.forEach((value, i) => {
    const another = several && i && starts[i] !== starts[i - 1];
    if (another || (i && usual && (steps[i - 1] > 1.5 * usual || steps[i - 1] <= 0))) {
      x.push(times[i - 1]);
      y.push(null);
    }
    x.push(times[i]);
    y.push(value);
  });
  return { x, y };
}

function colourOf(theme, i, several) {
  return several ? theme.cycle[i % theme.cycle.length] : theme.forecast;
}

function titleOf(text, i) {
  return {
    text: text.replaceAll("<", "&lt;"), // plotly reads some markup
    showarrow: false,
    xref: `${axisName("x", i)} domain`,
    yref: `${axisName("y", i)} domain`,
    x: 0,
    y: 1,
    xanchor: "left",
    yanchor: "bottom",
    font: { size: 12 },
  };
}

/** A cell as people read it. */
export function cellOf(text) {
  const value = Number(text);
  return text === "" || Number.isNaN(value) ? text : exact(Number(value.toPrecision(7)), "float64");
}

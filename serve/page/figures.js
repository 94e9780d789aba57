// Which view an output gets, by its axes, and the figures of most of them.

import { lane, plane, short } from "./arrays.js";
import { drawForecast } from "./forecast.js";
import { simulationOf, simulationView } from "./simulation.js";
import { axis, axisName, baseLayout, panels } from "./theme.js";

const SAMPLE_AXES = ["sample", "draw", "posterior"];
const MAX_LANES = 12;

/**
 * How an output is drawn: its `kind`; `panelAxis`, along which places are picked to be seen;
 * `others`, the axes beside the batch of which one place is seen; `draw(view, state, theme, width)`.
 */
export function chooseView(spec, output, inputs, manifest) {
  const names = spec.axes.map(({ name }) => name);
  const view = { spec, output, names, panelAxis: null, others: [], timeTitle: timeTitle(manifest) };
  const input = names.join() === "batch,time,channel" ? findSeries(output, inputs, manifest) : null;
  if (input) return { ...view, kind: "forecast", input, panelAxis: 2, draw: drawForecast };
  const simulated = simulationView(view, simulationOf(manifest), inputs);
  if (simulated) return simulated;
  if (names.join() === "batch,class") {
    return { ...view, kind: "classes", labels: classNames(manifest, output.shape[1]), draw: drawClasses };
  }
  const rest = names.map((_, i) => i).slice(1);
  const sample = names.findIndex((name) => SAMPLE_AXES.includes(name));
  if (sample > 0) {
    const free = rest.filter((i) => i !== sample);
    const panelAxis = free.at(-1) ?? null;
    const others = free.slice(0, -1);
    return { ...view, kind: "samples", sample, panelAxis, others, draw: drawSamples };
  }
  const time = names.indexOf("time");
  const lineAxis = time > 0 ? time : rest.at(-1);
  const free = rest.filter((i) => i !== lineAxis);
  const panelAxis = free.at(-1) ?? null;
  const others = free.slice(0, -1);
  const many = panelAxis !== null && (time < 0 || output.shape[panelAxis] > MAX_LANES);
  if (many) {
    return { ...view, kind: "map", lineAxis, mapAxis: panelAxis, others, draw: drawMap };
  }
  return { ...view, kind: "lines", lineAxis, panelAxis, others, draw: drawLines };
}

/** What the data set calls the classes, else their numbers. */
function classNames(manifest, count) {
  const given = manifest.provenance?.data?.outputs;
  if (Array.isArray(given) && given.length === count) return given.map(String);
  return Array.from({ length: count }, (_, i) => `class ${i}`);
}

/** The sent array with the time and channel axes of a forecast, or null. */
function findSeries(output, inputs, manifest) {
  for (const spec of manifest.inputs) {
    const array = inputs?.get(spec.name);
    const names = spec.axes.map(({ name }) => name).join();
    if (!array || !/^batch,time,channel(,feature)?$/.test(names)) continue;
    if (array.shape.length !== spec.axes.length) continue;
    if (output.shape.every((size, i) => size === array.shape[i])) return array;
  }
  return null;
}

function timeTitle(manifest) {
  const rate = manifest.provenance?.data?.rate_hz;
  if (typeof rate !== "number" || !(rate > 0)) return "time (step)";
  return `time (step of ${Number((1000 / rate).toPrecision(4))} ms)`;
}

function unitOf(spec, otherwise = "value") {
  return spec.unit || otherwise;
}

/** Bars of the row's classes, and a map of all rows where there are several. */
function drawClasses({ spec, output, labels }, state, theme, width) {
  const [rows, classes] = output.shape;
  const row = state.index[0];
  const values = lane(output, [row, 0], 1);
  const best = values.indexOf(Math.max(...values));
  const several = rows > 1;
  const columns = several && width >= 700 ? 2 : 1;
  const height = Math.min(520, Math.max(180, 26 * classes));
  const grid = panels(several ? 2 : 1, width, { columns, height, gapX: 110, gapY: 70 });
  const layout = { ...baseLayout(theme, width, grid.height), showlegend: false };
  const share = output.data.every((value) => value >= 0 && value <= 1);
  const title = share ? "probability" : unitOf(spec);
  const whole = share ? { range: [0, 1.12], tickvals: [0, 0.25, 0.5, 0.75, 1] } : {};
  layout.xaxis = axis(theme, title, { domain: grid.places[0].x, anchor: "y", ...whole });
  layout.yaxis = axis(theme, "", { domain: grid.places[0].y, autorange: "reversed", type: "category" });
  const bars = {
    type: "bar",
    orientation: "h",
    x: values,
    y: labels,
    marker: { color: values.map((_, i) => (i === best ? theme.accent : theme.muted)) },
    text: values.map((value) => short(value, 3)),
    textposition: "outside",
    cliponaxis: false,
    hovertemplate: "%{y}: %{x}<extra></extra>",
    meta: { role: spec.name },
  };
  if (!several) return { data: [bars], layout };
  layout.xaxis2 = axis(theme, "row", { domain: grid.places[1].x, anchor: "y2", tickformat: "d" });
  layout.yaxis2 = axis(theme, "", {
    domain: grid.places[1].y,
    anchor: "x2",
    autorange: "reversed",
    type: "category",
  });
  layout.shapes.push({
    type: "rect",
    xref: "x2",
    yref: "y2 domain",
    x0: row - 0.5,
    x1: row + 0.5,
    y0: 0,
    y1: 1,
    line: { color: theme.ink, width: 2 },
  });
  const all = heat(plane(output, [0, 0], 1, 0), theme, title, {
    xaxis: "x2",
    yaxis: "y2",
    y: labels,
    ...(share ? { zmin: 0, zmax: 1 } : {}),
  });
  return { data: [bars, all], layout };
}

/** A density histogram for each picked parameter: samples, their mean, their central 90 %. */
function drawSamples(view, state, theme, width) {
  const { spec, output, names, sample, panelAxis } = view;
  const picked = panelAxis === null ? [0] : state.picked;
  const columns = Math.min(picked.length, width >= 760 ? 3 : width >= 480 ? 2 : 1);
  const grid = panels(picked.length, width, { columns, height: 170, gapY: 76 });
  const layout = { ...baseLayout(theme, width, grid.height), showlegend: false, bargap: 0.03 };
  const data = picked.map((place, i) => {
    const index = [...state.index];
    if (panelAxis !== null) index[panelAxis] = place;
    const values = lane(output, index, sample);
    const label = panelAxis === null ? spec.name : `${names[panelAxis]} ${place}`;
    const [x, y] = [axisName("x", i), axisName("y", i)];
    const number = i ? i + 1 : "";
    layout[`xaxis${number}`] = axis(theme, spec.unit ? `${label} (${spec.unit})` : label, {
      domain: grid.places[i].x,
      anchor: y,
    });
    layout[`yaxis${number}`] = axis(theme, i % columns ? "" : "density", {
      domain: grid.places[i].y,
      anchor: x,
    });
    markSummary(layout, theme, values, x, y);
    return {
      type: "histogram",
      x: values,
      nbinsx: Math.min(60, Math.max(10, Math.round(Math.sqrt(values.length)))),
      histnorm: "probability density",
      marker: { color: theme.accent },
      xaxis: x,
      yaxis: y,
      hovertemplate: "%{x}: %{y:.4~g}<extra></extra>",
      meta: { role: spec.name, place },
    };
  });
  return { data, layout };
}

function markSummary(layout, theme, values, x, y) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (!sorted.length) return;
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  const box = { xref: x, yref: `${y} domain`, y0: 0, y1: 1 };
  layout.shapes.push(
    { ...box, type: "rect", x0: at(0.05), x1: at(0.95), line: { width: 0 }, fillcolor: theme.shade, layer: "below" },
    { ...box, type: "line", x0: mean, x1: mean, line: { color: theme.ink, width: 1.5, dash: "dash" } },
  );
  layout.annotations.push({
    text: `mean ${short(mean, 4)}, 90 % in ${short(at(0.05), 3)} … ${short(at(0.95), 3)}`,
    showarrow: false,
    xref: `${x} domain`,
    yref: `${y} domain`,
    x: 0,
    y: 1,
    xanchor: "left",
    yanchor: "bottom",
    font: { size: 11, color: theme.muted },
  });
}

/** Values along one axis, a line for each picked place of another; bars where there is no axis. */
function drawLines(view, state, theme, width) {
  const { spec, output, names, lineAxis, panelAxis } = view;
  const layout = { ...baseLayout(theme, width, 380), hovermode: "x unified" };
  const along = lineAxis ?? 0; // an output with a batch axis alone: one value for each row
  const title = names[along] === "time" ? view.timeTitle : names[along] === "batch" ? "row" : names[along];
  const whole = output.shape[along] <= 20 ? { dtick: 1 } : {};
  layout.xaxis = axis(theme, title, { zeroline: false, tickformat: "d", ...whole });
  layout.yaxis = axis(theme, spec.unit ? `${spec.name} (${spec.unit})` : spec.name, { zeroline: false });
  const lone = panelAxis === null;
  layout.showlegend = !lone;
  const bars = along === 0 || output.shape[along] <= MAX_LANES;
  const data = (lone ? [null] : state.picked).map((place, i) => {
    const index = [...state.index];
    if (!lone) index[panelAxis] = place;
    const values = lane(output, index, along);
    return {
      type: bars && lone ? "bar" : "scatter",
      ...(bars && lone ? {} : { mode: "lines" }),
      name: lone ? spec.name : `${names[panelAxis]} ${place}`,
      x: values.map((_, step) => step),
      y: values,
      marker: { color: theme.cycle[i % theme.cycle.length] },
      line: { color: theme.cycle[i % theme.cycle.length], width: 1.8 },
      hovertemplate: "%{y:.5~g}",
      meta: { role: spec.name, place },
    };
  });
  return { data, layout };
}

/** A heat map of two axes. */
function drawMap({ spec, output, names, lineAxis, mapAxis, timeTitle }, state, theme, width) {
  const height = Math.min(620, Math.max(280, 12 * output.shape[mapAxis] + 90));
  const layout = { ...baseLayout(theme, width, height), showlegend: false };
  layout.xaxis = axis(theme, names[lineAxis] === "time" ? timeTitle : names[lineAxis]);
  layout.yaxis = axis(theme, names[mapAxis], { autorange: "reversed" });
  return { data: [heat(plane(output, state.index, mapAxis, lineAxis), theme, unitOf(spec), {})], layout };
}

function heat(z, theme, title, more) {
  return {
    type: "heatmap",
    z,
    colorscale: "Viridis",
    colorbar: { title: { text: title, side: "right" }, thickness: 12, outlinewidth: 0, tickfont: { color: theme.muted } },
    hovertemplate: "%{y}, %{x}: %{z:.5~g}<extra></extra>",
    ...more,
  };
}

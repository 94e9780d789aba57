// Activity of a network over time: traces of some nodes, and a map of all of them.

import { lane, plane, short } from "./arrays.js";
import { axis, baseLayout } from "./theme.js";

const TRACES = 250;
const GAP = 58;
const MAX_COLUMNS = 1500;
const SECONDS_FROM = 10_000;

/** What a network says of its time, nodes and stimulus; null for other models. */
export function simulationOf(manifest) {
  return manifest.task === "simulate" ? (manifest.provenance?.simulation ?? null) : null;
}

/** How an output of a network is drawn, see `chooseView`; null where it has other axes. */
export function simulationView(view, facts, inputs) {
  if (!facts || view.names.join() !== "batch,time,node") return null;
  const step = facts.step_ms[view.spec.name];
  if (!step) return null;
  return {
    ...view,
    kind: "simulation",
    panelAxis: 2,
    step,
    labels: facts.labels,
    pulse: pulseOf(facts, inputs),
    caution: (row) => explosionOf(view, facts, step, row),
    draw: drawSimulation,
  };
}

/** From when to when a stimulus is on in a row, [from, until] in ms; null where none is. */
function pulseOf(facts, inputs) {
  const sent = Object.keys(facts.stimulus).map((name) => inputs?.get(name)).filter(Boolean);
  return (row) => {
    let [first, last] = [Infinity, -1];
    for (const { shape, data } of sent) {
      const size = shape[1] * shape[2];
      for (let i = 0; i < size; i += 1) {
        if (data[row * size + i] === 0) continue;
        first = Math.min(first, Math.floor(i / shape[2]));
        last = Math.max(last, Math.floor(i / shape[2]));
      }
    }
    return last < 0 ? null : [first * facts.dt_ms, (last + 1) * facts.dt_ms];
  };
}

/** What is to be said where a row leaves the finite numbers; null where it does not. */
function explosionOf({ spec, output }, facts, step, row) {
  const [, samples, nodes] = output.shape;
  const at = output.data.subarray(row * samples * nodes, (row + 1) * samples * nodes).findIndex((value) => !Number.isFinite(value));
  if (at < 0) return null;
  const time = (Math.floor(at / nodes) + 1) * step;
  return `The simulation explodes: ${spec.name} of ${facts.labels[at % nodes]} is no finite number at ${short(time)} ms. A weaker stimulus or other parameters keep it finite.`;
}

function drawSimulation(view, state, theme, width) {
  const { spec, output, step, labels } = view;
  const [, samples, nodes] = output.shape;
  const row = state.index[0];
  const slow = samples * step > SECONDS_FROM;
  const scale = slow ? 1000 : 1;
  const times = Array.from({ length: samples }, (_, k) => ((k + 1) * step) / scale);
  const map = nodes > 1 ? Math.min(360, Math.max(110, 7 * nodes)) : 0;
  const inner = TRACES + (map ? GAP + map : 0);
  const layout = baseLayout(theme, width, inner + 86);
  const title = `time (${slow ? "s" : "ms"})`;
  const unit = spec.unit && spec.unit !== "1" ? ` (${spec.unit})` : "";
  const edge = map ? (map + GAP) / inner : 0;
  layout.hovermode = "closest";
  layout.xaxis = axis(theme, map ? "" : title, { anchor: "y", zeroline: false });
  layout.yaxis = axis(theme, `${spec.name}${unit}`, { domain: [edge, 1], anchor: "x", zeroline: false });
  const pulse = view.pulse(row);
  if (pulse) markPulse(layout, theme, pulse.map((time) => time / scale));
  const data = state.picked.map((node, i) => ({
    type: "scatter",
    mode: "lines",
    name: labels[node],
    x: times,
    y: lane(output, [row, 0, node], 1),
    line: { color: theme.cycle[i % theme.cycle.length], width: 1.4 },
    hovertemplate: `${title} %{x:.5~g}: %{y:.5~g}<extra>%{fullData.name}</extra>`,
    meta: { role: spec.name, place: node },
  }));
  // plotly cannot make the colours of a map without a number
  const drawable = plane(output, [row, 0, 0], 2, 1).some((values) => values.some(Number.isFinite));
  if (!map || !drawable) return { data, layout };
  layout.xaxis2 = axis(theme, title, { anchor: "y2", matches: "x", zeroline: false });
  layout.yaxis2 = axis(theme, "node", { domain: [0, map / inner], anchor: "x2", autorange: "reversed" });
  data.push(allNodes(view, row, times, theme, map / inner));
  return { data, layout };
}

/** A map of all nodes; of long runs only as many columns as a screen shows. */
function allNodes({ spec, output, labels }, row, times, theme, height) {
  const every = Math.max(1, Math.ceil(times.length / MAX_COLUMNS));
  const thin = (values) => values.filter((_, k) => k % every === 0);
  return {
    type: "heatmap",
    x: thin(times),
    z: plane(output, [row, 0, 0], 2, 1).map(thin),
    text: labels.map((label) => thin(times).map(() => label)),
    colorscale: "Viridis",
    colorbar: {
      len: height,
      y: height / 2,
      thickness: 12,
      outlinewidth: 0,
      tickfont: { color: theme.muted },
    },
    xaxis: "x2",
    yaxis: "y2",
    hovertemplate: "%{text}, %{x:.5~g}: %{z:.5~g}<extra></extra>",
    meta: { role: `all of ${spec.name}` },
  };
}

function markPulse(layout, theme, [from, until]) {
  const box = { xref: "x", yref: "y domain", x0: from, x1: until, y0: 0, y1: 1 };
  layout.shapes.push({ ...box, type: "rect", line: { width: 0 }, fillcolor: theme.shade, layer: "below" });
  layout.annotations.push({
    text: "stimulus",
    showarrow: false,
    xref: "x",
    yref: "y domain",
    x: from,
    y: 1,
    xanchor: "left",
    yanchor: "top",
    font: { size: 11, color: theme.muted },
  });
}

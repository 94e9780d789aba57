// Observed and forecast traces, a panel for each channel or all in one.

import { lane } from "./arrays.js";
import { axis, axisName, baseLayout, panels } from "./theme.js";

/**
 * How many steps of a row are observed, {steps, masked}; `steps` is null where the row does not tell.
 *
 * Masked rows repeat the last observed step in all channels to their end; where nothing is masked,
 * a forecast that hands on the observed steps as they are tells it.
 */
export function observedSteps(input, forecast, row) {
  const [, steps, channels] = forecast.shape;
  const all = Array.from({ length: channels }, (_, channel) => ({
    sent: sent(input, row, channel),
    answered: lane(forecast, [row, 0, channel], 1),
  }));
  let held = steps;
  while (held > 1 && all.every(({ sent }) => sent[held - 1] === sent[held - 2])) held -= 1;
  if (held < steps) return { steps: held > 1 ? held : null, masked: true };
  let same = 0;
  while (same < steps && all.every(({ sent, answered }) => sent[same] === answered[same])) same += 1;
  return { steps: same > 0 && same < steps ? same : null, masked: false };
}

/** The figure of one row: `view` holds input and output, `state` what is chosen to be seen. */
export function drawForecast(view, state, theme, width) {
  const { output, input, spec } = view;
  const { steps: observed, masked } = observedSteps(input, output, state.index[0]);
  const single = state.overlay || state.picked.length === 1;
  const columns = !single && width >= 760 ? 2 : 1;
  const count = single ? 1 : state.picked.length;
  const height = single ? 320 : columns === 2 ? 150 : 132;
  const grid = panels(count, width, { columns, height });
  const layout = { ...baseLayout(theme, width, grid.height), hovermode: "x unified" };
  const unit = spec.unit ? ` (${spec.unit})` : "";
  grid.places.forEach((place, i) => {
    layout[`xaxis${i ? i + 1 : ""}`] = axis(theme, place.last ? view.timeTitle : "", {
      domain: place.x,
      anchor: axisName("y", i),
      ...(i ? { matches: "x" } : {}),
      showticklabels: place.last,
      zeroline: false,
      range: [-0.5, output.shape[1] - 0.5],
    });
    layout[`yaxis${i ? i + 1 : ""}`] = axis(theme, single ? `${spec.name}${unit}` : spec.unit, {
      domain: place.y,
      anchor: axisName("x", i),
      zeroline: false,
    });
    if (!single) layout.annotations.push(panelTitle(`channel ${state.picked[i]}`, i));
    if (observed !== null) markHorizon(layout, theme, i, observed, output.shape[1]);
    if (observed !== null && i < columns) nameHorizon(layout, theme, i, observed);
  });
  const data = state.picked.flatMap((channel, i) =>
    traces(view, state, theme, { channel, order: i, panel: single ? 0 : i, observed, masked }),
  );
  return { data, layout };
}

function traces(view, state, theme, { channel, order, panel, observed, masked }) {
  const row = state.index[0];
  const given = sent(view.input, row, channel);
  const overlay = state.overlay && state.picked.length > 1;
  const strong = overlay ? theme.cycle[order % theme.cycle.length] : theme.forecast;
  const seen = overlay ? strong : theme.ink;
  const known = observed ?? given.length;
  const line = (role, from, to, values, style, colour) => ({
    type: "scatter",
    mode: "lines",
    name: overlay ? `${role}, channel ${channel}` : role,
    legendgroup: overlay ? `${channel}` : role,
    showlegend: overlay ? role === view.spec.name : order === 0,
    x: Array.from({ length: to - from }, (_, i) => from + i),
    y: values.slice(from, to),
    line: { color: colour, ...style },
    opacity: overlay && role !== view.spec.name ? 0.55 : 1,
    xaxis: axisName("x", panel),
    yaxis: axisName("y", panel),
    hovertemplate: "%{y:.5~g}",
    meta: { role, channel },
  });
  const answered = lane(view.output, [row, 0, channel], 1);
  const found = [
    line(view.spec.name, 0, answered.length, answered, { width: 2 }, strong),
    line("observed", 0, known, given, { width: 2.2 }, seen),
  ];
  if (observed !== null && !overlay) {
    const role = masked ? "last observed, held" : "sent beyond";
    const rest = { width: 1.4, dash: "dot" };
    found.push(line(role, observed - 1, given.length, given, rest, theme.muted));
  }
  return found;
}

function panelTitle(text, i) {
  return {
    text,
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

function markHorizon(layout, theme, i, observed, steps) {
  const [xref, yref] = [axisName("x", i), `${axisName("y", i)} domain`];
  const box = { xref, yref, x0: observed - 0.5, y0: 0, y1: 1, layer: "below" };
  layout.shapes.push({
    ...box,
    type: "rect",
    x1: steps - 0.5,
    line: { width: 0 },
    fillcolor: theme.shade,
  });
  layout.shapes.push({
    ...box,
    type: "line",
    x1: observed - 0.5,
    line: { color: theme.muted, width: 1, dash: "dash" },
  });
}

function nameHorizon(layout, theme, i, observed) {
  layout.annotations.push({
    text: "horizon",
    showarrow: false,
    xref: axisName("x", i),
    yref: `${axisName("y", i)} domain`,
    x: observed - 0.5,
    y: 1,
    xanchor: "left",
    yanchor: "bottom",
    font: { size: 11, color: theme.muted },
  });
}

/** Feature 0 of a channel as it was sent, all steps. */
function sent(input, row, channel) {
  return lane(input, input.shape.length === 4 ? [row, 0, channel, 0] : [row, 0, channel], 1);
}

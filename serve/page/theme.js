// plotly, loaded when something is to be drawn, and the page's colours for it.

const TOP = 40; // pixels above the panels: legend and buttons
let loading = null;

/** The plotly library. */
export function loadPlotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "page/plotly.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      script.remove();
      reject(new Error("the drawing library did not load"));
    };
    document.head.append(script);
  });
  return loading;
}

/** The page's colours as they are now, light or dark. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: read("ink"),
    muted: read("muted"),
    line: read("line"),
    surface: read("surface"),
    accent: read("accent"),
    forecast: read("orange"),
    shade: read("shade"),
    cycle: ["accent", "orange", "green", "pink", "violet", "teal", "sand", "muted"].map(read),
    font: style.fontFamily,
  };
}

/** Tell the figures of the page when the colours change, by an event `recolour`. */
export function watchColours() {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of document.querySelectorAll(".plot")) plot.dispatchEvent(new Event("recolour"));
  });
}

/** What all figures have in common. */
export function baseLayout(theme, width, height) {
  return {
    width,
    height,
    margin: { l: 62, r: 16, t: TOP, b: 46 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: theme.font, size: 12, color: theme.ink },
    hoverlabel: { bgcolor: theme.surface, bordercolor: theme.line, font: { color: theme.ink } },
    legend: { orientation: "h", x: 0, y: 1, yanchor: "top", yref: "container", font: { size: 12 } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: theme.muted, activecolor: theme.accent },
    showlegend: true,
    shapes: [],
    annotations: [],
  };
}

/** An axis in the page's colours. */
export function axis(theme, title, more = {}) {
  return {
    title: { text: title, font: { size: 12, color: theme.muted }, standoff: 8 },
    gridcolor: theme.line,
    linecolor: theme.line,
    zerolinecolor: theme.line,
    tickfont: { color: theme.muted },
    automargin: true,
    ...more,
  };
}

/** Places of `count` panels: columns, height in pixels, and x and y domains of each. */
export function panels(count, width, { columns, height, gapX = 64, gapY = 34 }) {
  const rows = Math.ceil(count / columns);
  const inner = { width: width - 78, height: rows * height + (rows - 1) * gapY };
  const places = [];
  for (let i = 0; i < count; i += 1) {
    const [row, column] = [Math.floor(i / columns), i % columns];
    const wide = (inner.width - (columns - 1) * gapX) / columns;
    const left = column * (wide + gapX);
    const top = row * (height + gapY);
    places.push({
      x: [left / inner.width, Math.min(1, (left + wide) / inner.width)],
      y: [Math.max(0, 1 - (top + height) / inner.height), 1 - top / inner.height],
      last: i + columns >= count,
    });
  }
  return { places, height: inner.height + TOP + 46 };
}

/** "x", "x2", "x3", …: how plotly names the axes of panel `i`. */
export function axisName(letter, i) {
  return i ? `${letter}${i + 1}` : letter;
}

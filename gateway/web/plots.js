/** Small plots as SVG, each with a sentence for who does not see it. */

import { h } from "./dom.js";
import { sheet } from "./sheet.js";

/** Who draws at once waits for it. */
export const styled = sheet("plots.css");
const WIDTH = 400;

/** Bars with their values above; `parts` are stacked lower to upper. `[{ label, parts: [58.2, 3.1], text }]`. */
export function bars(columns, { label, height = 150, base = 0 }) {
  const top = Math.max(...columns.map(({ parts }) => sum(parts)), base + 1);
  const step = WIDTH / columns.length;
  const y = (value) => 18 + (height - 38) * (1 - (value - base) / (top - base));
  const width = Math.min(56, step * 0.6);
  return h("svg.plot", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label },
    h("line.axis", { x1: 0, x2: WIDTH, y1: y(base), y2: y(base) }),
    columns.map(({ label: name, parts, text }, place) => {
      const x = step * (place + 0.5);
      let below = 0;
      return [
        parts.map((part, layer) => {
          const [from, to] = [Math.max(base, below), Math.max(base, (below += part))];
          return h(layer ? "rect.bar2" : "rect.bar", { x: x - width / 2, y: y(to), width, height: Math.max(0, y(from) - y(to)), rx: 3 });
        }),
        text && h("text.value", { x, y: y(sum(parts)) - 5, "text-anchor": "middle" }, text),
        h("text", { x, y: height - 4, "text-anchor": "middle" }, name),
      ];
    }));
}

/** Steps of two series over time, the space between them filled. `[{ x, low, high }]`, high may be null. */
export function closing(series, { label, height = 170, unit = "s" }) {
  const [last] = series.slice(-1);
  const values = series.flatMap(({ low, high }) => [low, high ?? low]);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const room = Math.max(most - least, 0.1) * 0.12;
  const y = (value) => 8 + (height - 34) * (1 - (value - least + room) / (most - least + 2 * room));
  const x = (value) => 46 + (WIDTH - 60) * (value / Math.max(last.x, 0.1));
  const steps = (points) => points.map(([px, value], place) => `${place ? `H${x(px).toFixed(1)}V` : `M${x(px).toFixed(1)} `}${y(value).toFixed(1)}`).join("");
  const bound = series.filter(({ high }) => high !== null && high !== undefined).map((one) => [one.x, one.high]);
  const end = (line) => (line.length ? [...line, [last.x, line.at(-1)[1]]] : line);
  return h("svg.plot", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label },
    [least, most].map((value) => [
      h("line.axis", { x1: 46, x2: WIDTH, y1: y(value), y2: y(value) }),
      h("text", { x: 40, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(1)),
    ]),
    bound.length > 0 && h("path.bound", { d: steps(end(bound)) }),
    h("path.line", { d: steps(end(series.map((one) => [one.x, one.low]))) }),
    h("text", { x: 46, y: height - 6 }, `0 ${unit}`),
    h("text", { x: WIDTH - 14, y: height - 6, "text-anchor": "end" }, `${last.x.toFixed(1)} ${unit}`));
}

/** A value over the last looks, newest at the right, gaps where there was none; `also` is a second one below it. */
export function trace(values, { also = [], label, text, height = 110, room = 150 }) {
  const top = Math.max(...values, ...also, 1);
  const x = (place, count) => WIDTH - ((count - 1 - place) * WIDTH) / (room - 1);
  const y = (value) => 18 + (height - 24) * (1 - value / top);
  const line = (series) => series.map((value, place) => (value === null ? "" : `${place && series[place - 1] !== null ? "L" : "M"}${x(place, series.length).toFixed(1)} ${y(value).toFixed(1)}`)).join("");
  const [last] = values.slice(-1);
  return h("svg.plot", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label },
    h("line.axis", { x1: 0, x2: WIDTH, y1: y(0), y2: y(0) }), h("line.axis", { x1: 0, x2: WIDTH, y1: y(top), y2: y(top) }),
    h("text", { x: 0, y: 12 }, text(top)),
    also.length > 0 && h("path.line.faint", { d: line(also) }), h("path.line", { d: line(values) }),
    last !== null && h("circle.bar", { cx: WIDTH - 3, cy: y(last), r: 3 }));
}

/** How often values fall into each of some ranges. */
export function histogram(values, { label, text, count = 16, height = 90 }) {
  const most = Math.max(...values, 1);
  const bins = Array.from({ length: count }, () => 0);
  for (const value of values) bins[Math.min(count - 1, Math.floor((value / most) * count))] += 1;
  const top = Math.max(...bins, 1);
  const step = WIDTH / count;
  return h("svg.plot", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label },
    h("line.axis", { x1: 0, x2: WIDTH, y1: height - 18, y2: height - 18 }),
    bins.map((many, place) => {
      const tall = ((height - 24) * many) / top;
      return h("rect.bar", { x: place * step + 2, width: step - 4, y: height - 18 - tall, height: tall, rx: 2 });
    }),
    h("text", { x: 0, y: height - 4 }, "0"), h("text", { x: WIDTH, y: height - 4, "text-anchor": "end" }, text(most)));
}

/** The value that a share of all values does not exceed, null of none. */
export function quantile(values, share) {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] : null;
}

const sum = (parts) => parts.reduce((total, part) => total + part, 0);

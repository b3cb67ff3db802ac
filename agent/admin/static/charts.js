// Small charts as SVG. Sizes are attributes, colours are classes: the page allows no inline style.

import { svg, el } from "./elements.js";
import { clock, moment, percent } from "./words.js";

const num = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const round = (value) => Math.round(100 * value) / 100;

// Reference behind, the current window in front, one pair for each bin.
export function bars(bins, label) {
  const width = 300, height = 84, floor = height - 1;
  const most = Math.max(0.0001, ...bins.map((bin) => Math.max(bin.reference, bin.current ?? 0)));
  const step = width / Math.max(1, bins.length);
  const tall = (share) => (share > 0 ? Math.max(1, ((height - 6) * share) / most) : 0);
  const drawn = svg("svg", {
    class: "bars", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
    "aria-label": label,
  });
  bins.forEach((bin, place) => {
    const left = place * step;
    const words = `${bin.label}: reference ${percent(bin.reference)}, now ${percent(bin.current)}`;
    const column = (share, kind, inset) =>
      svg("rect", {
        class: kind, x: round(left + step * inset), width: round(step * (1 - 2 * inset)),
        y: round(floor - tall(share)), height: round(tall(share)),
      });
    drawn.append(
      svg("g", {},
        svg("title", {}, words),
        svg("rect", { class: "hit", x: round(left), y: 0, width: round(step), height }),
        column(bin.reference, "reference", 0.06),
        column(bin.current ?? 0, "current", 0.26),
      ),
    );
  });
  drawn.append(svg("line", { class: "floor", x1: 0, x2: width, y1: floor, y2: floor }));
  return drawn;
}

function path(points, x, y) {
  let drawn = "";
  let open = false;
  for (const [at, value] of points) {
    if (value === null) {
      open = false;
      continue;
    }
    drawn += `${open ? "L" : "M"}${round(x(at))} ${round(y(value))}`;
    open = true;
  }
  return drawn;
}

function scale(series, options) {
  const values = series.flatMap((one) => one.points.map(([, value]) => value)).filter((v) => v !== null);
  let low = options.low ?? Math.min(...values);
  let high = Math.max(options.high ?? -Infinity, ...values);
  if (!(high > low)) high = low + (Math.abs(low) || 1) * 0.1;
  const margin = options.low === undefined ? 0.12 * (high - low) : 0;
  return { low: low - margin, high: high + 0.08 * (high - low), empty: values.length === 0 };
}

const NOTHING = { width: 420, height: 96 };

// One panel over time. `series`: [{name, points: [[at, value]], kind}], the first is filled.
export function timeline(title, series, options = {}) {
  const { width, height } = { ...NOTHING, ...options.size };
  const { low, high, empty } = scale(series, options);
  const times = series.flatMap((one) => one.points.map(([at]) => at));
  const first = Math.min(...times), last = Math.max(...times);
  const x = (at) => (last > first ? ((at - first) / (last - first)) * width : width);
  const y = (value) => height - 2 - (Math.max(0, value - low) / (high - low)) * (height - 6);
  const format = options.format ?? String;
  const newest = series.map((one) => one.points.at(-1)?.[1] ?? null);
  const readout = el("span", { class: "readout" });
  const tell = (values, at) => {
    readout.replaceChildren(
      ...series.map((one, i) =>
        el("span", { class: `line-${one.kind}` }, one.name ? `${one.name} ` : "", el("b", {}, format(values[i]))),
      ),
      ...(at ? [el("span", { class: "quiet" }, clock(at))] : []),
    );
  };
  tell(newest, null);
  const chart = svg("svg", {
    viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${title}: ${series.map((s, i) => `${s.name ?? ""} now ${format(newest[i])}`).join(", ")}`,
  });
  if (!empty) {
    if (options.limit !== undefined && options.limit <= high) {
      chart.append(svg("line", { class: "limit", x1: 0, x2: width, y1: round(y(options.limit)), y2: round(y(options.limit)) }));
    }
    const filled = series[0].points.filter(([, value]) => value !== null);
    if (series.length === 1) {
      const [from, to] = [round(x(filled[0][0])), round(x(filled.at(-1)[0]))];
      const area = `${path(filled, x, y)}L${to} ${height}L${from} ${height}Z`;
      chart.append(svg("path", { class: `area area-${series[0].kind}`, d: area }));
    }
    for (const one of series) chart.append(svg("path", { class: `stroke line-${one.kind}`, d: path(one.points, x, y) }));
    pointer(chart, { series, x, width, height, tell, newest });
  }
  const plot = el("div", { class: "plot" }, chart);
  if (!empty) {
    plot.append(el("span", { class: "high" }, format(high)), el("span", { class: "low" }, format(Math.max(low, options.low ?? low))));
  }
  const made = el("figure", { class: "chart" }, el("figcaption", {}, el("span", {}, title), readout), plot);
  if (empty) made.append(el("p", { class: "quiet" }, options.none ?? "nothing yet"));
  return made;
}

// The values under the pointer, in the caption.
function pointer(chart, { series, x, width, height, tell, newest }) {
  const rule = svg("line", { class: "rule", y1: 0, y2: height, x1: -9, x2: -9 });
  chart.append(rule);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * width;
    const points = series[0].points;
    let best = 0;
    points.forEach(([at], i) => {
      if (Math.abs(x(at) - wanted) < Math.abs(x(points[best][0]) - wanted)) best = i;
    });
    const place = round(x(points[best][0]));
    rule.setAttribute("x1", place);
    rule.setAttribute("x2", place);
    tell(series.map((one) => one.points[best]?.[1] ?? null), points[best][0]);
  });
  chart.addEventListener("pointerleave", () => {
    rule.setAttribute("x1", -9);
    rule.setAttribute("x2", -9);
    tell(newest, null);
  });
}

// A line without axes, to stand beside a figure.
export function spark(points, label, limit) {
  const width = 300, height = 30;
  const values = points.map(([, value]) => value).filter((value) => value !== null);
  const drawn = svg("svg", {
    class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label,
  });
  if (values.length < 2) return drawn;
  const high = Math.max(limit * 1.25, ...values);
  const first = points[0][0], last = points.at(-1)[0];
  const x = (at) => ((at - first) / Math.max(1e-9, last - first)) * width;
  const y = (value) => height - 1.5 - (Math.max(0, value) / high) * (height - 4);
  const line = path(points, x, y);
  drawn.append(
    svg("line", { class: "limit", x1: 0, x2: width, y1: round(y(limit)), y2: round(y(limit)) }),
    svg("path", { class: "area area-now", d: `${line}L${width} ${height}L0 ${height}Z` }),
    svg("path", { class: "stroke line-now", d: line }),
  );
  return drawn;
}

// A share of one, as a bar with its words.
export function meter(value, label) {
  const filled = round(1000 * Math.min(1, Math.max(0, num(value) ?? 0)));
  return svg("svg", { class: "meter", viewBox: "0 0 1000 10", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("rect", { class: "whole", width: 1000, height: 10 }),
    svg("rect", { class: "part", width: filled, height: 10 }),
  );
}

export const series = (points, key) =>
  points.map((point) => [moment(point.at)?.getTime() / 1000, num(point[key])]).filter(([at]) => !Number.isNaN(at));

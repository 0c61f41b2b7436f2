// One curve over time, as SVG: average of each period, gaps where nothing was measured, a reading under the pointer.

import { clock, make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 34;
const BOTTOM = 20;
const TOP = 8;
const GAP_STEPS = 4;   // a longer silence, in usual distances between two points, breaks the curve

function draw(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent?.append(element);
  return element;
}

/** A round step so that about `count` of them reach `most`. */
function step(most, count) {
  const rough = most / count || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= rough);
}

export const number = (value) => value.toLocaleString([], { maximumFractionDigits: Math.abs(value) < 10 ? 2 : 0 });

export class Chart {
  constructor(box) {
    this.box = box;
    new ResizeObserver(() => this.render()).observe(box);
    box.addEventListener("pointermove", (event) => { this.at = event.offsetX; this.render(); });
    box.addEventListener("pointerleave", () => { this.at = undefined; this.render(); });
  }

  /** `data`: {points, start_ms, end_ms, period_s} of /api/metrics, or undefined. */
  show(data, nothing) {
    this.data = data;
    this.nothing = nothing;
    this.render();
  }

  render() {
    const { width, height } = this.box.getBoundingClientRect();
    const points = (this.data?.points ?? []).filter((point) => point.average !== null);
    this.box.replaceChildren();
    if (!points.length) {
      this.box.append(make("p", { className: "none" }, this.nothing ?? "no data in this time"));
      return;
    }
    const { start_ms, end_ms, period_s } = this.data;
    const tick = step(Math.max(...points.map((p) => p.average), 1) * 1.08, 4);
    const most = Math.ceil((Math.max(...points.map((p) => p.average), 1) * 1.02) / tick) * tick;
    const x = (ms) => LEFT + ((ms - start_ms) / (end_ms - start_ms)) * (width - LEFT - 6);
    const y = (value) => height - BOTTOM - (Math.max(0, value) / most) * (height - BOTTOM - TOP);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "graph" });
    for (let value = 0; value <= most + tick / 2; value += tick) {
      draw("line", { class: "grid", x1: LEFT, x2: width, y1: y(value), y2: y(value) }, svg);
      draw("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, svg).textContent = number(value);
    }
    for (const part of [0, 0.5, 1]) {
      const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
      const label = draw("text", { x: LEFT + part * (width - LEFT - 6), y: height - 3, "text-anchor": anchor }, svg);
      label.textContent = clock(start_ms + part * (end_ms - start_ms)).slice(0, 5);
    }
    for (const piece of pieces(points, usual(points, period_s * 1000) * GAP_STEPS)) {
      const line = piece.map((p) => `${x(p.timestamp_ms).toFixed(1)},${y(p.average).toFixed(1)}`);
      const base = y(0).toFixed(1);
      draw("path", { class: "area", d: `M${x(piece[0].timestamp_ms)},${base}L${line.join("L")}L${x(piece.at(-1).timestamp_ms)},${base}Z` }, svg);
      draw("path", { class: "curve", d: `M${line.join("L")}` }, svg);
    }
    const last = points.at(-1);
    draw("circle", { class: "point", r: 3.5, cx: x(last.timestamp_ms), cy: y(last.average) }, svg);
    if (this.at !== undefined) {
      const near = points.reduce((a, b) => (Math.abs(x(b.timestamp_ms) - this.at) < Math.abs(x(a.timestamp_ms) - this.at) ? b : a));
      const at = x(near.timestamp_ms);
      draw("line", { class: "rule", x1: at, x2: at, y1: TOP, y2: height - BOTTOM }, svg);
      draw("circle", { class: "point", r: 3.5, cx: at, cy: y(near.average) }, svg);
      const anchor = at > width / 2 ? "end" : "start";
      const text = draw("text", { x: at + (anchor === "end" ? -8 : 8), y: TOP + 10, "text-anchor": anchor }, svg);
      text.textContent = `${number(near.average)} (${number(near.minimum)} – ${number(near.maximum)}) at ${clock(near.timestamp_ms)}`;
    }
    this.box.append(svg);
  }
}

/** The distance between two points that is usual here: an application may measure more rarely than the graph could show. */
function usual(points, least_ms) {
  const steps = points.slice(1).map((point, n) => point.timestamp_ms - points[n].timestamp_ms).sort((a, b) => a - b);
  return Math.max(least_ms, steps[Math.floor(steps.length / 2)] ?? 0);
}

function pieces(points, gap_ms) {
  const found = [[points[0]]];
  for (const point of points.slice(1)) {
    const piece = found.at(-1);
    if (point.timestamp_ms - piece.at(-1).timestamp_ms > gap_ms) found.push([point]);
    else piece.push(point);
  }
  return found;
}

// The loss of a run over its steps as inline SVG, read with the pointer or the arrow keys; and the same loss as one brush stroke.
import { el } from "./dom.js";
import { number, t } from "./i18n.js";
import { svg } from "./icons.js";

const WIDTH = 1000;
const HEIGHT = 400;
const MAX_POINTS = 600;
const NAMES = ["train", "val"];

// The figure for {train: [[step, loss], ...], val: [...]}, or null where there is nothing to draw.
export function curvesFigure(curves) {
  const lines = NAMES.map((name) => ({ name, points: thinned(finite(curves[name] ?? [])) })).filter(({ points }) => points.length > 0);
  if (lines.length === 0) return null;
  const scale = scaleOf(lines.flatMap(({ points }) => points));
  const plot = el("div", { class: "plot", tabindex: 0, role: "group", "aria-label": summary(lines), "aria-roledescription": t("chart") }, ...axes(scale));
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const line of lines) drawing.append(svg("path", { class: `line ${line.name}`, d: pathOf(line.points, scale) }));
  plot.append(drawing);
  const legend = new Legend(lines);
  new Reader(plot, lines, scale, legend);
  return el("figure", { class: "chart" }, legend.element, plot, el("p", { class: "axis-name" }, t("stepAxis")));
}

// The outline of a stroke through the loss, wide at the first step and fine at the last; null with fewer than two points.
export function strokePath(curves, { width, height }) {
  const points = thinned(finite(curves?.train ?? []), 80);
  if (points.length < 2) return null;
  const { x0, x1, low, high } = scaleOf(points);
  const place = ([step, loss], index) => {
    const half = 1.5 + 9 * (1 - index / (points.length - 1)) ** 1.6;
    return { x: (width * (step - x0)) / (x1 - x0), y: 12 + (height - 24) * (1 - (loss - low) / (high - low)), half };
  };
  const placed = points.map(place);
  const upper = placed.map(({ x, y, half }) => `${x.toFixed(1)} ${(y - half).toFixed(1)}`);
  const lower = placed.map(({ x, y, half }) => `${x.toFixed(1)} ${(y + half).toFixed(1)}`).reverse();
  return `M${[...upper, ...lower].join("L")}Z`;
}

class Legend {
  constructor(lines) {
    this.lines = lines;
    this.step = el("span", { class: "step" });
    this.values = lines.map(() => el("b"));
    const items = lines.map(({ name }, index) => el("li", {}, el("i", { class: `swatch ${name}` }), el("span", {}, t(`${name}Loss`)), this.values[index]));
    this.element = el("figcaption", {}, el("ul", { class: "legend" }, ...items), this.step);
    this.show(Math.max(...lines.map(({ points }) => points.at(-1)[0])));
  }

  show(step) {
    this.step.textContent = t("atStep", { step: Math.round(step) });
    this.lines.forEach(({ points }, index) => { this.values[index].textContent = loss(nearest(points, step)[1]); });
  }
}

class Reader {
  constructor(plot, lines, scale, legend) {
    Object.assign(this, { plot, lines, scale, legend });
    this.steps = [...new Set(lines.flatMap(({ points }) => points.map(([step]) => step)))].sort((a, b) => a - b);
    this.at = this.steps.length - 1;
    this.cursor = el("i", { class: "cursor" });
    this.dots = lines.map(({ name }) => el("i", { class: `dot ${name}` }));
    plot.append(this.cursor, ...this.dots);
    plot.addEventListener("pointermove", (event) => this.point(event));
    plot.addEventListener("pointerleave", () => this.rest());
    plot.addEventListener("blur", () => this.rest());
    plot.addEventListener("keydown", (event) => this.key(event));
  }

  point({ clientX }) {
    const box = this.plot.getBoundingClientRect();
    const { x0, x1 } = this.scale;
    const wanted = x0 + ((clientX - box.left) / box.width) * (x1 - x0);
    this.read(this.steps.reduce((best, step, index) => (Math.abs(step - wanted) < Math.abs(this.steps[best] - wanted) ? index : best), 0));
  }

  key(event) {
    const stride = Math.max(1, Math.round(this.steps.length / 60));
    const moved = { ArrowLeft: this.at - stride, ArrowRight: this.at + stride, Home: 0, End: this.steps.length - 1 }[event.key];
    if (moved === undefined) return;
    event.preventDefault();
    this.legend.element.setAttribute("aria-live", "polite");
    this.read(Math.max(0, Math.min(this.steps.length - 1, moved)));
  }

  read(index) {
    this.at = index;
    this.plot.classList.add("reading");
    this.cursor.style.left = `${100 * this.scale.x(this.steps[index])}%`;
    this.lines.forEach(({ points }, line) => {
      const [step, value] = nearest(points, this.steps[index]);
      this.dots[line].style.left = `${100 * this.scale.x(step)}%`;
      this.dots[line].style.top = `${100 * this.scale.y(value)}%`;
    });
    this.legend.show(this.steps[index]);
  }

  rest() {
    this.plot.classList.remove("reading");
    this.at = this.steps.length - 1;
    this.legend.show(this.steps[this.at]);
  }
}

function axes({ x0, x1, low, high, x, y }) {
  const rows = ticks(low, high, 5).map((value) => {
    const label = el("span", {}, loss(value));
    const rule = el("i");
    label.style.top = `${100 * y(value)}%`;
    rule.style.top = `${100 * y(value)}%`;
    return [label, rule];
  });
  const columns = ticks(x0, x1, 5).map((value) => {
    const label = el("span", {}, number(value, { notation: "compact" }));
    label.style.left = `${100 * x(value)}%`;
    return label;
  });
  return [el("div", { class: "y-axis", "aria-hidden": "true" }, ...rows.flat()), el("div", { class: "x-axis", "aria-hidden": "true" }, ...columns)];
}

// Round numbers between two ends, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, index) => (first + index) * step);
}

function scaleOf(points) {
  const steps = points.map(([step]) => step);
  const losses = points.map(([, value]) => value);
  const [x0, x1] = spread(Math.min(...steps), Math.max(...steps), 0);
  const [low, high] = spread(Math.min(...losses), Math.max(...losses), 0.04);
  return { x0, x1, low, high, x: (step) => (step - x0) / (x1 - x0), y: (value) => 1 - (value - low) / (high - low) };
}

// An interval that is never empty, with room at both ends.
function spread(low, high, share) {
  const room = low === high ? 0.5 : share * (high - low);
  return [low - room, high + room];
}

function summary(lines) {
  return lines.map(({ name, points }) => t("curveSummary", { name: t(`${name}Loss`), from: loss(points[0][1]), to: loss(points.at(-1)[1]), count: points.at(-1)[0] })).join(" ");
}

const pathOf = (points, { x, y }) => `M${points.map(([step, value]) => `${(WIDTH * x(step)).toFixed(1)} ${(HEIGHT * y(value)).toFixed(1)}`).join("L")}${points.length === 1 ? "h0.1" : ""}`;
const loss = (value) => number(value, { maximumSignificantDigits: 4 });
const finite = (points) => points.filter(([step, value]) => Number.isFinite(step) && Number.isFinite(value));
const nearest = (points, step) => points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));

// A long line as means of neighbours; the first and the last point stay what they are.
function thinned(points, most = MAX_POINTS) {
  if (points.length <= most) return points;
  const size = (points.length - 2) / (most - 2);
  const mean = (index) => {
    const group = points.slice(1 + Math.floor(index * size), 1 + Math.floor((index + 1) * size));
    return [0, 1].map((axis) => group.reduce((sum, point) => sum + point[axis], 0) / group.length);
  };
  return [points[0], ...Array.from({ length: most - 2 }, (_, index) => mean(index)), points.at(-1)];
}

// Line icons on a 24 x 24 grid, and the mark: an inkstone from above, with its slab, its well and the ink in it.
const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h10",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.5l4.5 4.5L19 7.5",
  copy: "M9 9h10v11H9zM5 15V4h10",
  retry: "M19 12a7 7 0 1 1-2-4.9M19 4v4h-4",
  pencil: "M5 19l1-4L16.5 4.5l3 3L9 18zM14 7l3 3",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 12.5h8L17 7M10.5 10.5v5.5M13.5 10.5v5.5",
  left: "M14.5 6l-6 6 6 6",
  right: "M9.5 6l6 6-6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  up: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  fold: "M7 10l5 5 5-5",
  search: "M16 10.5a5.5 5.5 0 1 1-11 0 5.5 5.5 0 0 1 11 0zM15 15l5 5",
  sliders: "M4 8h9M17 8h3M4 16h3M11 16h9M15 6v4M9 14v4",
  export: "M12 4v11M7.5 10.5L12 15l4.5-4.5M5 19.5h14",
  import: "M12 15V4M7.5 8.5L12 4l4.5 4.5M5 19.5h14",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  keyboard: "M3 7h18v10H3zM6.5 10.5h.01M10 10.5h.01M13.5 10.5h.01M17 10.5h.01M8 14h8",
  undo: "M8 5L4 9l4 4M4.5 9H14a5 5 0 0 1 0 10H9",
  alert: "M12 4l9 16H3zM12 10v4.5M12 17.3v.2",
  key: "M14.5 13a4.5 4.5 0 1 0-4.2-3L4 16.5V20h3.5v-2H9.5v-2l1.7-1.5A4.5 4.5 0 0 0 14.5 13zM15.5 8.5h.01",
};
const FILLED = new Set(["stop"]);

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

export function icon(name) {
  const style = FILLED.has(name) ? "glyph filled" : "glyph";
  return svg("svg", { class: style, viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
}

export function mark() {
  return svg(
    "svg", { class: "mark", viewBox: "0 0 32 32", "aria-hidden": "true" },
    svg("rect", { x: 5, y: 2, width: 22, height: 28, rx: 3 }),
    svg("path", { d: "M9 9a3 3 0 0 1 3-3h8a3 3 0 0 1 3 3v2c0 3-14 1-14 5Z" }),
    svg("circle", { cx: 16, cy: 21, r: 5 }),
  );
}

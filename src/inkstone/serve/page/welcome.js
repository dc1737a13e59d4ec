// What stands in an empty conversation: who answers here, how it learned, and three ways to begin.
import { strokePath } from "./curves.js";
import { byId, el } from "./dom.js";
import { number, t } from "./i18n.js";
import { svg } from "./icons.js";
import { curvesOf } from "./model.js";

const SUGGESTIONS = ["suggestion1", "suggestion2", "suggestion3"];
const STROKE = { width: 640, height: 110 };

// `ask(text)` is called with the suggestion that was picked.
export function showWelcome(model, ask) {
  byId("welcome-title").textContent = model?.id ?? "Inkstone";
  byId("welcome-text").textContent = model === null ? t("welcomeNone") : t("welcomeChat");
  const buttons = SUGGESTIONS.map((key) => el("li", {}, el("button", { type: "button", on: { click: () => ask(t(key)) } }, t(key))));
  byId("suggestions").replaceChildren(...(model === null ? [] : buttons));
  byId("base-note").hidden = model?.chat !== false;
  byId("stroke").replaceChildren();
  if (model !== null) drawStroke(model);
}

async function drawStroke(model) {
  let curves = null;
  try {
    curves = await curvesOf(model);
  } catch { /* the stroke is an ornament: without it the page is whole */ }
  const path = curves && strokePath(curves, STROKE);
  if (!path || byId("welcome-title").textContent !== model.id) return;
  const digits = (value) => number(value, { maximumSignificantDigits: 3 });
  const caption = t("strokeCaption", { from: digits(curves.train[0][1]), to: digits(curves.train.at(-1)[1]) });
  const drawing = svg("svg", { viewBox: `0 0 ${STROKE.width} ${STROKE.height}`, "aria-hidden": "true", preserveAspectRatio: "none" }, svg("path", { d: path }));
  byId("stroke").replaceChildren(drawing, el("figcaption", {}, caption));
}

// The model view: what the served model is, how it learned, and the card that came with it.
import { fetchCurves } from "./api.js";
import { curvesFigure } from "./curves.js";
import { byId, el } from "./dom.js";
import { date, number, t } from "./i18n.js";
import { proseElements } from "./prose.js";
import { FIELDS } from "./sampling.js";

const FRONT_MATTER = /^---\r?\n[^]*?\n---\r?\n/; // for registries, not for readers
const known = new Map(); // curves by model id, as promises

// The curves of a model, asked for once; null where there are none.
export function curvesOf(model) {
  if (!known.has(model.id)) {
    const asked = fetchCurves(model.id);
    known.set(model.id, asked);
    asked.catch(() => known.delete(model.id));
  }
  return known.get(model.id);
}

export async function showModel(model) {
  const slot = byId("curves");
  byId("model-title").textContent = model.id;
  byId("model-kind").textContent = t(model.chat === false ? "kindBase" : "kindChat");
  byId("model-facts").replaceChildren(...facts(model));
  const card = (model.card ?? "").replace(FRONT_MATTER, "").trim();
  byId("card").replaceChildren(...(card ? proseElements(card) : [el("p", { class: "empty" }, t("noCard"))]));
  slot.replaceChildren();
  let content;
  try {
    const curves = await curvesOf(model);
    content = (curves && curvesFigure(curves)) ?? el("p", { class: "empty" }, t("noCurves"));
  } catch {
    content = el("p", { class: "empty" }, t("curvesFailed"));
  }
  if (byId("model-title").textContent === model.id) slot.replaceChildren(content);
}

function facts(model) {
  const rows = [[t("contextLength"), t("tokens", { count: model.context })]];
  if (Number.isFinite(model.created) && model.created > 0) rows.push([t("createdOn"), date(1000 * model.created, { year: "numeric" })]);
  for (const { name } of FIELDS) {
    const value = model.sampling?.[name];
    if (typeof value === "number") rows.push([t(name), number(value)]);
  }
  return rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
}

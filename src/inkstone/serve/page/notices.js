// Notices about the page as a whole, above everything else: at most one of a kind, each with what can be done about it.
import { byId, el, iconButton } from "./dom.js";
import { t } from "./i18n.js";
import { icon } from "./icons.js";

export function notice(kind, text, action = null) {
  const button = action && el("button", { type: "button", on: { click: action.run } }, action.label);
  const dismiss = iconButton("close", t("dismiss"), () => clearNotice(kind));
  const element = el("div", { class: "banner", role: "alert", "data-kind": kind }, icon("alert"), el("p", {}, text), el("p", { class: "buttons" }, button, dismiss));
  const shown = byId("notices").querySelector(`[data-kind="${kind}"]`);
  if (shown?.querySelector("p").textContent === text) return; // it is being read already
  if (shown) shown.replaceWith(element);
  else byId("notices").append(element);
}

export function clearNotice(kind) {
  byId("notices").querySelector(`[data-kind="${kind}"]`)?.remove();
}

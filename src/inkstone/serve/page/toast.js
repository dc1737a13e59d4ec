// A short message at the foot of the page, with at most one thing to do about it.
import { byId, el } from "./dom.js";

const SECONDS = 10;
let timer = 0;

export function toast(text, action = null) {
  clearTimeout(timer);
  const hide = () => byId("toast").replaceChildren();
  const button = action && el("button", { type: "button", on: { click: () => { hide(); action.run(); } } }, action.label);
  byId("toast").replaceChildren(el("p", {}, text), ...(button ? [button] : []));
  timer = setTimeout(hide, 1000 * SECONDS);
}

// Elements from plain values. Text only ever becomes text nodes: nothing on this page reads markup, so nothing can inject it.
import { icon } from "./icons.js";

// el("button", { class: "quiet", type: "button", on: { click } }, "Stop"): null and false attributes are left out, true is a bare one.
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function iconButton(name, label, click, attributes = {}) {
  const { class: more = "", ...rest } = attributes;
  const button = el("button", { type: "button", class: `icon ${more}`.trim(), on: { click }, ...rest }, icon(name));
  return relabel(button, label);
}

// Name a button for screen readers and for the pointer alike.
export function relabel(button, label) {
  button.setAttribute("aria-label", label);
  button.title = label;
  return button;
}

export const byId = (id) => document.getElementById(id);

// Let a textarea be as high as its text, where the browser does not do so by itself; the style sheet bounds it.
export function fitHeight(area) {
  if (CSS.supports("field-sizing", "content") || area.offsetParent === null) return;
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}

// The clipboard API exists on https and localhost only; elsewhere the old command still works.
export async function copyText(text) {
  if (navigator.clipboard?.writeText) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { /* not allowed here: try the other way */ }
  }
  const before = document.activeElement;
  const area = el("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus?.();
  return copied;
}

// A button that says for a moment that it has copied.
export function copyButton(textOf, t) {
  const button = iconButton("copy", t("copy"), async () => {
    const copied = await copyText(textOf());
    button.replaceChildren(icon(copied ? "check" : "close"));
    relabel(button, t(copied ? "copied" : "notCopied"));
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      relabel(button, t("copy"));
    }, 1500);
  });
  return button;
}

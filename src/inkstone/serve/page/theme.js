// Light or dark: as the system says, until the reader says otherwise.
import { forget, keep, kept } from "./preferences.js";

const root = document.documentElement;

export function startTheme() {
  if (["light", "dark"].includes(kept("theme"))) root.dataset.theme = kept("theme");
}

// To the other one. Where that is what the system has, the page follows the system again.
export function switchTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const next = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
  if (next === system) {
    delete root.dataset.theme;
    forget("theme");
  } else {
    root.dataset.theme = next;
    keep("theme", next);
  }
}

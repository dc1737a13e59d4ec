// Keyboard shortcuts and the dialog that lists them. All hold Ctrl (or Command) or Alt, so that none is hit by writing.
import { byId, el } from "./dom.js";
import { t } from "./i18n.js";

const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
const CONTROL = isMac ? "⌘" : "Ctrl";
const ALT = isMac ? "⌥" : "Alt";

// Keys as they are shown, and what they do; the first ones belong to the fields that they work in.
const LISTED = [
  [["Enter"], "key_send"], [["Shift", "Enter"], "key_newline"], [["Esc"], "key_stop"], [["↑"], "key_edit"],
  [[CONTROL, "Shift", "O"], "key_new"], [[CONTROL, "K"], "key_search"], [[ALT, "1 2 3"], "key_views"], [[ALT, "R"], "key_regenerate"],
  [[ALT, "C"], "key_copy"], [[CONTROL, ","], "key_settings"], [[CONTROL, "Enter"], "key_write"], [["←", "→"], "key_tokens"],
  [["↓"], "key_card"], [[CONTROL, "/"], "key_help"],
];

// `actions` by chord: "ctrl+shift+KeyO", "alt+Digit1", "Escape". An action that returns false leaves the key to the browser.
export function startShortcuts(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    const action = actions[chord(event)];
    if (action && action() !== false) event.preventDefault();
  });
}

export function showShortcuts() {
  byId("shortcut-list").replaceChildren(...LISTED.map(([keys, name]) => {
    const shown = keys.flatMap((key, index) => [index > 0 && !/[←→]/.test(key) ? "+" : " ", el("kbd", {}, key)]).slice(1);
    return el("div", {}, el("dt", {}, ...shown), el("dd", {}, t(name)));
  }));
  byId("shortcuts-dialog").showModal();
}

function chord({ ctrlKey, metaKey, altKey, shiftKey, code }) {
  const parts = [[ctrlKey || metaKey, "ctrl"], [altKey, "alt"], [shiftKey, "shift"]].filter(([held]) => held).map(([, name]) => name);
  return [...parts, code].join("+");
}

// The API key: for this tab by default, in the browser's storage only if its owner says so. It is sent to this origin only.
import { forget, keep, kept } from "./preferences.js";

const NAME = "inkstone-key";
let current = null;

export function readKey() {
  if (current !== null) return current;
  try {
    current = sessionStorage.getItem(NAME);
  } catch { /* storage is forbidden: the key lives as long as the page */ }
  current ??= kept("key") ?? "";
  return current;
}

export function writeKey(key, { remember }) {
  current = key;
  forget("key");
  if (remember) keep("key", key);
  try {
    sessionStorage.setItem(NAME, key);
  } catch { /* see above */ }
}

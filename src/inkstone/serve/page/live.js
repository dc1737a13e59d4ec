// What a screen reader hears: short sentences, one at a time, and a finished answer as a whole instead of token by token.
import { byId } from "./dom.js";

const MAX_CHARACTERS = 1000;

export function announce(text) {
  const region = byId("live");
  region.textContent = "";
  // An unchanged text would not be read again; a new node in the next task is.
  setTimeout(() => { region.textContent = text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS)} …` : text; }, 50);
}

// Asks for the API key. One question at a time: whoever asks while it is open gets the same answer.
import { byId } from "./dom.js";
import { writeKey } from "./keyring.js";

let asked = null;

// Whether a key was entered.
export function askKey() {
  asked ??= ask().finally(() => { asked = null; });
  return asked;
}

function ask() {
  const dialog = byId("key-dialog");
  const field = byId("key");
  field.value = "";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    const submit = (event) => {
      event.preventDefault();
      if (field.value.trim() === "") return;
      writeKey(field.value.trim(), { remember: byId("remember").checked });
      dialog.close("entered");
    };
    byId("key-form").addEventListener("submit", submit);
    dialog.addEventListener("close", () => {
      byId("key-form").removeEventListener("submit", submit);
      field.value = "";
      resolve(dialog.returnValue === "entered");
      dialog.returnValue = "";
    }, { once: true });
  });
}

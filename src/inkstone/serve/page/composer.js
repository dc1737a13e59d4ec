// The field at the foot of the chat: writes, sends and stops.
import { byId, fitHeight, relabel } from "./dom.js";
import { number, t } from "./i18n.js";
import { icon } from "./icons.js";
import { keep, kept } from "./preferences.js";

export class Composer {
  #field = byId("message");
  #button = byId("send");
  #isRunning = false;

  // `actions`: ask(text), stop(), editLast().
  constructor(actions) {
    this.#field.value = kept("draft") ?? "";
    this.#field.addEventListener("input", () => this.#noteInput());
    this.#field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#send(actions);
      } else if (event.key === "ArrowUp" && this.#field.value === "") {
        event.preventDefault();
        actions.editLast();
      }
    });
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#isRunning) actions.stop();
      else this.#send(actions);
    });
    this.refresh({ isRunning: false });
    requestAnimationFrame(() => fitHeight(this.#field));
  }

  refresh({ isRunning }) {
    this.#isRunning = isRunning;
    this.#button.replaceChildren(icon(isRunning ? "stop" : "up"));
    this.#button.classList.toggle("stop", isRunning);
    relabel(this.#button, t(isRunning ? "stop" : "send"));
    this.#button.disabled = !isRunning && this.#field.value.trim() === "";
  }

  // How much of the model's context the conversation takes, once the server has counted it.
  showContext(used, context) {
    const meter = byId("context");
    meter.hidden = !used;
    if (!used) return;
    const share = Math.min(1, used / context);
    meter.querySelector("i").style.setProperty("--share", share.toFixed(3));
    meter.classList.toggle("full", share > 0.85);
    meter.querySelector("span").textContent = t("contextUsed", { used, context: number(context) });
  }

  fill(text) {
    this.#field.value = text;
    this.#noteInput();
    this.focus();
  }

  focus() {
    this.#field.focus();
  }

  #send(actions) {
    const text = this.#field.value;
    if (this.#isRunning || text.trim() === "") return;
    if (actions.ask(text) === false) return;
    this.#field.value = "";
    this.#noteInput();
  }

  #noteInput() {
    keep("draft", this.#field.value);
    fitHeight(this.#field);
    this.refresh({ isRunning: this.#isRunning });
  }
}

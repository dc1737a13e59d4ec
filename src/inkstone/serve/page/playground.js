// The playground: a text that the model goes on writing, token by token, with what else it might have written.
import { Alignment, chunkTokens } from "./alignment.js";
import { ServerError, streamCompletion } from "./api.js";
import { byId, copyButton, el, fitHeight } from "./dom.js";
import { factParts, problemText } from "./facts.js";
import { measureSpeed, readFacts } from "./generation.js";
import { t } from "./i18n.js";
import { icon } from "./icons.js";
import { announce } from "./live.js";
import { keep, kept } from "./preferences.js";
import { drawSeed } from "./sampling.js";
import { TokenText } from "./tokens.js";

const NUM_ALTERNATIVES = 5; // what the API gives for completions
const MAX_UNDO = 50;
const EXAMPLES = ["example1", "example2", "example3"];

// `app`: model(), sampling(), askKey() -> Promise<bool>.
export class Playground {
  #app;
  #prompt = byId("prompt");
  #tokens = new TokenText(byId("written"), byId("token-card"), (index, other) => this.#branch(index, other));
  #past = []; // {prompt, pieces, facts} of the texts before, for undo
  #facts = {};
  #abort = null;

  constructor(app) {
    this.#app = app;
    this.#prompt.value = kept("prompt") ?? "";
    this.#prompt.addEventListener("input", () => this.#notePrompt());
    byId("sheet").addEventListener("submit", (event) => { event.preventDefault(); this.write(); });
    byId("stop-writing").addEventListener("click", () => this.stop());
    byId("go-on").addEventListener("click", () => this.#goOn());
    byId("undo").addEventListener("click", () => this.#undo());
    byId("colours").checked = kept("colours") !== "no";
    byId("colours").addEventListener("change", () => this.#showColours());
    byId("copy-text").append(copyButton(() => this.text, t));
    this.#showColours();
    this.redraw();
  }

  get isRunning() {
    return this.#abort !== null;
  }

  // The prompt and what was written behind it.
  get text() {
    return this.#prompt.value + this.#written();
  }

  // Draw what depends on the language or the model.
  redraw() {
    byId("base-hint").hidden = this.#app.model()?.chat !== false;
    byId("examples").replaceChildren(...EXAMPLES.map((key) => el("li", {}, el("button", { type: "button", on: { click: () => this.#begin(t(key)) } }, t(key)))));
    this.#refresh();
    requestAnimationFrame(() => fitHeight(this.#prompt));
  }

  focus() {
    this.#prompt.focus();
  }

  stop() {
    this.#abort?.abort();
  }

  // Write what follows the prompt; what was written before is replaced, and can be had back.
  async write() {
    if (this.isRunning || this.#app.model() === null) return;
    this.#remember();
    this.#tokens.clear();
    this.#abort = new AbortController();
    const sampling = this.#app.sampling();
    this.#facts = { state: "writing", model: this.#app.model().id, seed: sampling.seed ?? drawSeed() };
    this.#refresh();
    try {
      await this.#stream({ model: this.#facts.model, prompt: this.#prompt.value, seed: this.#facts.seed, logprobs: NUM_ALTERNATIVES, ...sampling.requestFields() });
      this.#facts.state = "done";
    } catch (error) {
      this.#noteFailure(error);
    }
    this.#abort = null;
    this.#refresh();
    announce(this.#written());
  }

  async #stream(body) {
    const alignment = new Alignment();
    const show = () => this.#tokens.append(alignment.pieces.splice(0));
    const begin = performance.now();
    try {
      for await (const chunk of streamCompletion(body, this.#abort.signal)) {
        const [choice] = chunk.choices ?? [];
        const tokens = chunkTokens(choice?.logprobs);
        if (choice?.text || tokens.length > 0) this.#facts.firstTokenSeconds ??= (performance.now() - begin) / 1000;
        alignment.add(choice?.text ?? "", tokens);
        readFacts(this.#facts, chunk, choice);
        show();
      }
    } finally {
      alignment.finish();
      show();
      measureSpeed(this.#facts, begin);
    }
  }

  #noteFailure(error) {
    if (error.name === "AbortError") {
      this.#facts.state = "stopped";
      return;
    }
    const known = error instanceof ServerError;
    if (!known) console.error(error);
    Object.assign(this.#facts, { state: "failed", problem: known ? error.kind : "page", problemText: error.message });
  }

  #written() {
    return this.#tokens.pieces.map(({ text }) => text).join("");
  }

  // Another token at this place: the text up to there and that token become the prompt, and the model goes on from it.
  #branch(index, { token }) {
    const before = this.#tokens.pieces.slice(0, index).map(({ text }) => text).join("");
    this.stop();
    this.#continueFrom(this.#prompt.value + before + token);
  }

  #goOn() {
    this.#continueFrom(this.text);
  }

  async #continueFrom(prompt) {
    while (this.isRunning) await new Promise((resolve) => setTimeout(resolve, 10));
    this.#remember();
    this.#tokens.clear();
    this.#setPrompt(prompt);
    byId("write").focus();
    await this.write();
  }

  #begin(text) {
    this.#setPrompt(text);
    this.#prompt.focus();
    this.#prompt.setSelectionRange(text.length, text.length);
  }

  #setPrompt(text) {
    this.#prompt.value = text;
    this.#notePrompt();
  }

  #notePrompt() {
    keep("prompt", this.#prompt.value);
    fitHeight(this.#prompt);
    this.#refresh();
  }

  #remember() {
    if (this.#tokens.pieces.length === 0) return;
    this.#past.push({ prompt: this.#prompt.value, pieces: [...this.#tokens.pieces], facts: this.#facts });
    if (this.#past.length > MAX_UNDO) this.#past.shift();
  }

  #undo() {
    const { prompt, pieces, facts } = this.#past.pop();
    this.#tokens.clear();
    this.#tokens.append(pieces);
    this.#facts = facts;
    this.#setPrompt(prompt);
    if (byId("undo").disabled) byId("write").focus();
  }

  #showColours() {
    keep("colours", byId("colours").checked ? "yes" : "no");
    byId("written").classList.toggle("coloured", byId("colours").checked);
    byId("scale").hidden = !byId("colours").checked;
  }

  #refresh() {
    const hasText = this.#tokens.pieces.length > 0;
    byId("playground").classList.toggle("blank", !hasText && !this.isRunning && this.#prompt.value === "");
    byId("written").classList.toggle("writing", this.isRunning);
    byId("write").hidden = this.isRunning;
    byId("stop-writing").hidden = !this.isRunning;
    byId("write").textContent = t(hasText ? "writeAgain" : "write");
    byId("go-on").hidden = !hasText || this.isRunning;
    byId("undo").disabled = this.#past.length === 0 || this.isRunning;
    byId("written-facts").textContent = this.isRunning ? t("writing") : factParts(this.#facts).join(" · ");
    byId("written-note").replaceChildren(...(this.#facts.state === "failed" ? [this.#problem(hasText)] : []));
  }

  #problem(hasText) {
    const isKey = this.#facts.problem === "key";
    const again = async () => { if (!isKey || await this.#app.askKey()) this.write(); };
    const button = el("button", { type: "button", class: "retry", on: { click: again } }, icon(isKey ? "key" : "retry"), t(isKey ? "enterKey" : "retry"));
    const sentence = problemText(this.#facts.problem, this.#facts.problemText, hasText);
    return el("div", { class: "banner", role: "alert" }, icon("alert"), el("p", {}, sentence), el("p", { class: "buttons" }, button));
  }
}

// One message of a conversation on the page: its text, what can be done with it, and what is known about it.
import { copyButton, el, fitHeight, iconButton, relabel } from "./dom.js";
import { factParts, problemText } from "./facts.js";
import { t } from "./i18n.js";
import { icon, mark } from "./icons.js";
import { Prose } from "./prose.js";

// `actions`: edit(node, text), regenerate(node), choose(id), retry(node), enterKey(node), giveUp(node), grown().
export class MessageView {
  #node;
  #actions;
  #prose = null;
  #body;
  #foot = el("footer");
  #note = el("div", { class: "note-slot" });

  constructor(node, actions) {
    this.#node = node;
    this.#actions = actions;
    const isUser = node.role === "user";
    this.#body = el("div", { class: isUser ? "said" : "prose", dir: "auto" });
    const who = el("h3", { class: "who" }, isUser ? null : mark(), el("span", { class: "visually-hidden" }, t(isUser ? "you" : "model")));
    this.element = el("li", { class: `turn ${node.role}`, "data-id": node.id }, who, this.#body, this.#note, this.#foot);
    if (isUser) this.#body.textContent = node.text;
    else this.#startProse();
  }

  append(text) {
    this.element.classList.remove("waiting");
    this.#prose.append(text);
  }

  // Draw everything around the text again. `place` is {ids, index} among the versions; `waitSeconds` counts down to another try.
  refresh({ place, isLast, isRunning, waitSeconds = null }) {
    const { facts = {}, text, role } = this.#node;
    const isWriting = role === "assistant" && isRunning;
    if (role === "assistant" && !isWriting) this.#prose.finish();
    this.element.classList.toggle("writing", isWriting);
    this.element.classList.toggle("waiting", isWriting && text === "");
    this.element.classList.toggle("last", isLast);
    this.#note.replaceChildren(...(isWriting ? [] : this.#notes(facts, text, waitSeconds)));
    const parts = [this.#versions(place)];
    if (!isWriting && text !== "") parts.push(this.#buttons());
    if (!isWriting && text !== "" && role === "assistant") parts.push(el("p", { class: "facts" }, factParts(facts).join(" · ")));
    this.#foot.replaceChildren(...parts.filter(Boolean));
  }

  // Say how long it is to the next try, without telling a screen reader each second of it.
  countDown(waitSeconds) {
    const label = this.#note.querySelector(".retry span");
    if (label) label.textContent = t("retryIn", { count: waitSeconds });
  }

  // Let the reader rewrite the question; the answer to the old wording stays as another version.
  startEdit() {
    const area = el("textarea", { "aria-label": t("editQuestion"), rows: 1 });
    area.value = this.#node.text;
    const finish = (text) => {
      form.replaceWith(this.#body);
      this.element.classList.remove("editing");
      if (text !== null && text.trim() !== "") this.#actions.edit(this.#node, text);
      else this.element.querySelector(".edit")?.focus();
    };
    const form = el(
      "form", { class: "edit-form", on: { submit: (event) => { event.preventDefault(); finish(area.value); } } },
      area,
      el("p", { class: "buttons" },
        el("button", { type: "button", on: { click: () => finish(null) } }, t("cancel")),
        el("button", { type: "submit", class: "primary" }, t("askAgain"))),
    );
    area.addEventListener("input", () => fitHeight(area));
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") finish(null);
      else if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      else form.requestSubmit();
      event.preventDefault();
      event.stopPropagation();
    });
    this.element.classList.add("editing");
    this.#body.replaceWith(form);
    fitHeight(area);
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  focusVersions() {
    (this.element.querySelector(".versions button:not([disabled])") ?? this.element.querySelector("button"))?.focus();
  }

  #startProse() {
    this.#prose = new Prose(this.#body, () => this.#actions.grown());
    this.#prose.append(this.#node.text);
  }

  #versions({ ids, index }) {
    if (ids.length < 2) return null;
    const turn = (name, label, to) => {
      const go = iconButton(name, t(label), () => this.#actions.choose(ids[to]));
      go.disabled = to < 0 || to >= ids.length;
      return go;
    };
    const text = t("versionOf", { index: index + 1, count: ids.length });
    const shown = el("span", { class: "numbers" }, el("span", { "aria-hidden": "true" }, `${index + 1}/${ids.length}`), el("span", { class: "visually-hidden" }, text));
    return el("div", { class: "versions", role: "group", "aria-label": t("versions") }, turn("left", "versionBefore", index - 1), shown, turn("right", "versionAfter", index + 1));
  }

  #buttons() {
    const isUser = this.#node.role === "user";
    const buttons = [copyButton(() => this.#node.text, t)];
    if (isUser) buttons.push(iconButton("pencil", t("edit"), () => this.startEdit(), { class: "edit" }));
    else buttons.push(iconButton("retry", t("regenerate"), () => this.#actions.regenerate(this.#node), { class: "regenerate" }));
    return el("div", { class: "actions" }, ...buttons);
  }

  #notes(facts, text, waitSeconds) {
    const notes = [];
    if (facts.omitted > 0) notes.push(el("p", { class: "aside" }, t("omitted", { count: facts.omitted })));
    if (facts.state === "failed") notes.push(this.#problem(facts, text, waitSeconds));
    if (facts.state === "writing") notes.push(this.#banner(t("interrupted"), this.#retryButton(null)));
    return notes;
  }

  #problem(facts, text, waitSeconds) {
    const sentence = problemText(facts.problem, facts.problemText, text !== "");
    const key = facts.problem === "key" ? el("button", { type: "button", on: { click: () => this.#actions.enterKey(this.#node) } }, icon("key"), t("enterKey")) : null;
    const stop = waitSeconds === null ? null : el("button", { type: "button", on: { click: () => this.#actions.giveUp(this.#node) } }, t("giveUp"));
    return this.#banner(sentence, key ?? this.#retryButton(waitSeconds), stop);
  }

  #banner(sentence, ...buttons) {
    return el("div", { class: "banner", role: "alert" }, icon("alert"), el("p", {}, sentence), el("p", { class: "buttons" }, ...buttons));
  }

  #retryButton(waitSeconds) {
    const button = el("button", { type: "button", class: "retry", on: { click: () => this.#actions.retry(this.#node) } }, icon("retry"));
    const label = waitSeconds === null ? t("retry") : t("retryIn", { count: waitSeconds });
    button.append(el("span", {}, label));
    return waitSeconds === null ? button : relabel(button, t("retry"));
  }
}

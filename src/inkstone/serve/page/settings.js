// The settings panel: the system prompt of the conversation, and how its model draws a text.
import { byId, el, fitHeight, iconButton } from "./dom.js";
import { number, t } from "./i18n.js";
import { FIELDS, highest, MAX_STOPS } from "./sampling.js";

export class SettingsPanel {
  #sampling = null;
  #system = byId("system");
  #fields = byId("sampling");

  // `saveSystem(text)` is called as the system prompt is edited.
  constructor({ saveSystem }) {
    this.#system.addEventListener("input", () => {
      fitHeight(this.#system);
      saveSystem(this.#system.value);
    });
    byId("reset").addEventListener("click", () => {
      this.#sampling.reset();
      this.show(this.#sampling);
      byId("settings-title").focus();
    });
  }

  showSystem(text) {
    if (document.activeElement !== this.#system) this.#system.value = text;
    fitHeight(this.#system);
  }

  // Build the rows for a model's sampling; called again for another model or language.
  show(sampling) {
    this.#sampling = sampling;
    const isOpen = this.#fields.querySelector("details")?.open ?? false;
    const row = (field) => this.#row(field);
    const rare = el("details", {}, el("summary", {}, t("more")), ...FIELDS.filter(({ isRare }) => isRare).map(row), this.#stops());
    rare.open = isOpen;
    this.#fields.replaceChildren(...FIELDS.filter(({ isRare }) => !isRare).map(row), this.#seed(), rare);
    this.#refreshReset();
  }

  #row(field) {
    const id = `field-${field.name}`;
    const range = { min: field.min, step: field.step, max: field.max };
    const box = el("input", { type: "number", id, ...range, max: highest(field), "aria-describedby": `${id}-hint` });
    const slider = el("input", { type: "range", ...range, "aria-label": t(field.name), tabindex: 0 });
    const back = iconButton("undo", t("backTo", { name: t(field.name), value: number(this.#sampling.recommended(field)) }), () => {
      this.#choose(field, null);
      draw();
      box.focus();
    }, { class: "back" });
    const row = el("div", { class: "field", "data-field": field.name },
      el("label", { for: id }, t(field.name)), back, box, slider, el("p", { class: "hint", id: `${id}-hint` }, t(`${field.name}_hint`)));
    const draw = () => {
      const value = this.#sampling.value(field);
      box.value = value;
      slider.value = value;
      slider.style.setProperty("--share", String((Math.min(value, field.max) - field.min) / (field.max - field.min)));
      row.classList.toggle("changed", this.#sampling.isChanged(field));
    };
    slider.addEventListener("input", () => { this.#choose(field, Number(slider.value)); draw(); });
    box.addEventListener("change", () => {
      const value = Number(box.value);
      if (box.value !== "" && Number.isFinite(value)) this.#choose(field, Math.min(highest(field), Math.max(field.min, value)));
      draw();
    });
    draw();
    return row;
  }

  #seed() {
    const box = el("input", { type: "number", id: "field-seed", min: 0, step: 1, placeholder: t("seedRandom"), "aria-describedby": "field-seed-hint" });
    box.value = this.#sampling.seed ?? "";
    box.addEventListener("change", () => {
      this.#sampling.choose("seed", box.value === "" ? null : Math.max(0, Math.floor(Number(box.value))));
      box.value = this.#sampling.seed ?? "";
      this.#refreshReset();
    });
    return el("div", { class: "field plain" }, el("label", { for: "field-seed" }, t("seed")), box, el("p", { class: "hint", id: "field-seed-hint" }, t("seed_hint")));
  }

  // One stop string a line; \n stands for a line break.
  #stops() {
    const area = el("textarea", { id: "field-stop", rows: 2, spellcheck: "false", "aria-describedby": "field-stop-hint" });
    area.value = this.#sampling.stops.map((stop) => stop.replaceAll("\n", "\\n")).join("\n");
    area.addEventListener("change", () => {
      const stops = area.value.split("\n").filter((line) => line !== "").map((line) => line.replaceAll("\\n", "\n"));
      this.#sampling.choose("stop", stops.length > 0 ? stops.slice(0, MAX_STOPS) : null);
      this.#refreshReset();
    });
    return el("div", { class: "field tall" }, el("label", { for: "field-stop" }, t("stopStrings")), area, el("p", { class: "hint", id: "field-stop-hint" }, t("stop_hint")));
  }

  #choose({ name }, value) {
    this.#sampling.choose(name, value);
    this.#refreshReset();
  }

  #refreshReset() {
    byId("reset").disabled = this.#sampling.isAsRecommended;
  }
}

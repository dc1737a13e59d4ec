// A side panel: beside the page where there is room, over it where there is not. Over it, it keeps the focus until it is closed.
import { byId } from "./dom.js";

const drawers = [];

export class Drawer {
  #panel;
  #opener;
  #narrow;

  // `narrow` is the media query under which the panel lies over the page.
  constructor(panel, opener, narrow) {
    this.#panel = panel;
    this.#opener = opener;
    this.#narrow = matchMedia(narrow);
    drawers.push(this);
    opener.addEventListener("click", () => this.toggle());
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.isOver) return;
      event.stopPropagation();
      this.close();
    });
    byId("veil").addEventListener("click", () => this.isOver && this.close());
    this.#narrow.addEventListener("change", () => this.#refresh());
    this.#refresh();
  }

  get isOpen() {
    return this.#panel.classList.contains("open");
  }

  // Whether it lies over the page just now.
  get isOver() {
    return this.isOpen && this.#narrow.matches;
  }

  toggle() {
    if (this.isOpen) this.close();
    else this.open();
  }

  open() {
    this.set(true);
    if (this.isOver) (this.#panel.querySelector("[autofocus], button, input") ?? this.#panel).focus();
  }

  close() {
    const wasOver = this.isOver;
    this.set(false);
    if (wasOver) this.#opener.focus();
  }

  set(isOpen) {
    this.#panel.classList.toggle("open", isOpen);
    this.#refresh();
  }

  #refresh() {
    this.#opener.setAttribute("aria-expanded", String(this.isOpen));
    const over = drawers.find(({ isOver }) => isOver);
    byId("veil").hidden = over === undefined;
    for (const part of byId("app").children) part.inert = over !== undefined && part !== over.#panel && part.id !== "veil";
  }
}

// A written text as tokens: coloured by how likely each was, with a card of what else could have stood there.
import { el } from "./dom.js";
import { number, percent, t } from "./i18n.js";
import { isPart } from "./alignment.js";

const LEVELS = [0.9, 0.5, 0.2, 0.05]; // at least so likely: level 0, 1, 2, 3; below: 4
export const NUM_LEVELS = LEVELS.length + 1;
const HIDE_SECONDS = 0.15; // time for the pointer to cross from the token to its card

export class TokenText {
  #element;
  #card;
  #choose;
  #pieces = [];
  #shown = null; // index of the piece whose card is open
  #timer = 0;

  // `choose(index, token)` is called when the reader picks another token for piece `index`.
  constructor(element, card, choose) {
    this.#element = element;
    this.#card = card;
    this.#choose = choose;
    element.addEventListener("pointerover", (event) => this.#onToken(event, (index) => this.#show(index)));
    element.addEventListener("pointerout", () => this.#hideSoon());
    element.addEventListener("focusin", (event) => this.#onToken(event, (index) => this.#show(index)));
    element.addEventListener("keydown", (event) => this.#onToken(event, (index) => this.#onKey(event, index)));
    element.addEventListener("click", (event) => this.#onToken(event, (index) => this.#enter(index)));
    card.addEventListener("pointerenter", () => clearTimeout(this.#timer));
    card.addEventListener("pointerleave", () => this.#hideSoon());
    card.addEventListener("keydown", (event) => this.#onCardKey(event));
    for (const part of [element, card]) part.addEventListener("focusout", (event) => this.#onBlur(event));
  }

  get pieces() {
    return this.#pieces;
  }

  clear() {
    this.hide();
    this.#pieces = [];
    this.#element.replaceChildren();
  }

  append(pieces) {
    const first = this.#pieces.length;
    this.#pieces.push(...pieces);
    this.#element.append(...pieces.map((piece, offset) => this.#span(piece, first + offset)));
  }

  hide() {
    clearTimeout(this.#timer);
    this.#card.hidden = true;
    this.#element.querySelector(".open")?.classList.remove("open");
    this.#shown = null;
  }

  // One stop for the tab key in the whole text; arrows move on from there.
  #span(piece, index) {
    const share = likelihood(piece);
    const isKnown = Number.isFinite(share);
    const level = isKnown ? LEVELS.findIndex((least) => share >= least) : -1;
    const style = isKnown ? `token level-${level < 0 ? NUM_LEVELS - 1 : level}` : "token";
    const label = isKnown ? t("tokenIs", { token: spoken(piece.text), share: percent(share) }) : spoken(piece.text);
    const text = piece.text === "" ? "∎" : piece.text;
    return el("span", { class: piece.text === "" ? `${style} end` : style, role: "button", tabindex: index === 0 ? 0 : -1, "data-index": index, "aria-label": label }, text);
  }

  #onToken(event, then) {
    const token = event.target.closest?.(".token");
    if (token) then(Number(token.dataset.index));
  }

  #show(index) {
    clearTimeout(this.#timer);
    if (this.#shown === index) return;
    this.hide();
    const token = this.#element.children[index];
    token.classList.add("open");
    this.#card.replaceChildren(...cardContent(this.#pieces[index], (other) => this.#choose(index, other)));
    this.#card.hidden = false;
    this.#shown = index;
    this.#place(token);
  }

  // Under the token, or above it where there is no room; never over the edge of the sheet.
  #place(token) {
    const [box] = token.getClientRects();
    const frame = this.#card.offsetParent.getBoundingClientRect();
    const left = Math.max(0, Math.min(box.left - frame.left, frame.width - this.#card.offsetWidth));
    const hasRoom = box.bottom + this.#card.offsetHeight + 12 < window.innerHeight;
    const top = hasRoom ? box.bottom - frame.top + 6 : box.top - frame.top - this.#card.offsetHeight - 6;
    this.#card.style.left = `${left}px`;
    this.#card.style.top = `${top}px`;
  }

  #onKey(event, index) {
    const last = this.#pieces.length - 1;
    const moved = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: last }[event.key];
    if (moved !== undefined) this.#focus(Math.max(0, Math.min(last, moved)));
    else if (["Enter", " ", "ArrowDown"].includes(event.key)) this.#enter(index);
    else if (event.key === "Escape" && this.#shown !== null) this.hide();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #focus(index) {
    this.#element.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    this.#element.children[index].setAttribute("tabindex", "0");
    this.#element.children[index].focus();
  }

  #enter(index) {
    this.#show(index);
    this.#card.querySelector("button:not([disabled])")?.focus();
  }

  #onCardKey(event) {
    const buttons = [...this.#card.querySelectorAll("button:not([disabled])")];
    const at = buttons.indexOf(document.activeElement);
    if (event.key === "ArrowDown") buttons[Math.min(buttons.length - 1, at + 1)]?.focus();
    else if (event.key === "ArrowUp" && at > 0) buttons[at - 1].focus();
    else if (event.key === "Escape" || event.key === "ArrowUp") this.#focus(this.#shown);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #onBlur({ relatedTarget }) {
    if (relatedTarget === null || !(this.#element.contains(relatedTarget) || this.#card.contains(relatedTarget))) this.#hideSoon();
  }

  #hideSoon() {
    clearTimeout(this.#timer);
    const isHeld = () => this.#card.contains(document.activeElement) || document.activeElement?.classList.contains("open");
    this.#timer = setTimeout(() => isHeld() || this.hide(), 1000 * HIDE_SECONDS);
  }
}

// How likely a piece was: the product over its tokens.
const likelihood = ({ tokens }) => (tokens.length === 0 ? NaN : Math.exp(tokens.reduce((sum, { logprob }) => sum + logprob, 0)));

// A token as one can see and say it.
const seen = (text) => isPart(text) ? text.replace("bytes:", "").replaceAll("\\x", " ").trim() : text.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/^ | $/g, "␣") || "∎";
const spoken = (text) => (text.trim() === "" ? t(text === "" ? "endOfText" : text.includes("\n") ? "lineBreak" : "space") : text.trim());

function cardContent(piece, choose) {
  return piece.tokens.flatMap((token) => {
    const share = Math.exp(token.logprob);
    const nats = t("surprise", { value: number(Math.max(0, -token.logprob / Math.LN2), { maximumFractionDigits: 2 }) });
    const head = el("p", { class: "chosen" }, el("b", { class: isPart(token.token) ? "part" : null }, seen(token.token)), el("span", {}, percent(share)), el("small", {}, nats));
    const list = el("ul", { "aria-label": t("alternatives") }, ...token.top.map((other) => el("li", {}, alternative(other, token, choose))));
    return token.top.length > 0 ? [head, list] : [head];
  }).concat(piece.tokens.length === 1 ? [el("p", { class: "hint" }, t("chooseAnother"))] : []);
}

// Another token; parts of characters cannot be written into a text, so they are shown and not offered.
function alternative(other, token, choose) {
  const share = Math.exp(other.logprob);
  const isSame = other.token === token.token;
  const bar = el("i", { "aria-hidden": "true" });
  bar.style.setProperty("--share", share.toFixed(4));
  const attributes = { type: "button", class: isSame ? "same" : null, disabled: isSame || isPart(other.token) || isSpecial(other.token) };
  return el("button", { ...attributes, on: { click: () => choose(other) } }, el("span", { class: isPart(other.token) ? "name part" : "name" }, seen(other.token)), el("span", { class: "share" }, percent(share)), bar);
}

const isSpecial = (token) => /^<\|.*\|>$/.test(token);

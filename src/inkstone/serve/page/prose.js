// Blocks of Markdown as elements, and a text that grows drawn once a frame: only its last, unsettled block is drawn again.
import { copyButton, el } from "./dom.js";
import { highlight } from "./highlight.js";
import { t } from "./i18n.js";
import { parseInline } from "./inline.js";
import { numSettled, parseBlocks } from "./markdown.js";

const HEADING_OFFSET = 2; // the page itself has the headings of level 1 and 2
const MAX_BUSY_SHARE = 0.25; // of the time that drawing may take; the rest belongs to scrolling, typing and clicks

export class Prose {
  #element;
  #text = "";
  #start = 0; // where the first unsettled block begins
  #numSettled = 0; // children of the element that stay as they are
  #code = null; // {start, node}: the code block at the end, which only ever gets longer
  #isPlanned = false;
  #earliest = 0;
  #afterDraw;

  constructor(element, afterDraw = () => {}) {
    this.#element = element;
    this.#afterDraw = afterDraw;
  }

  get text() {
    return this.#text;
  }

  append(text) {
    this.#text += text;
    this.#plan();
  }

  // Draw what is still to be drawn, now: the text has ended.
  finish() {
    this.#draw(true);
  }

  // A page in the background gets no frames: its text is drawn when it is looked at again.
  #plan() {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    const draw = (now) => (now < this.#earliest ? requestAnimationFrame(draw) : this.#draw(false));
    requestAnimationFrame(draw);
  }

  #draw(isLast) {
    this.#isPlanned = false;
    const begin = performance.now();
    const rest = this.#text.slice(this.#start);
    const blocks = parseBlocks(rest);
    const settled = isLast ? blocks.length : numSettled(blocks, rest);
    if (!this.#extendCode(blocks, isLast)) this.#redraw(blocks, isLast);
    if (settled > 0) this.#numSettled += settled;
    if (settled > 0) this.#start += settled < blocks.length ? blocks[settled].start : rest.length;
    const end = performance.now();
    this.#earliest = end + (end - begin) * (1 / MAX_BUSY_SHARE - 1);
    this.#afterDraw();
  }

  #redraw(blocks, isLast) {
    while (this.#element.childNodes.length > this.#numSettled) this.#element.lastChild.remove();
    this.#element.append(...blocks.map((block) => blockElement(block, isLast || !block.isOpen)));
    const last = blocks.at(-1);
    const isGrowing = last?.type === "code" && last.isOpen && !isLast;
    this.#code = isGrowing ? { start: this.#start + last.start, node: this.#element.lastChild.querySelector("code").firstChild } : null;
  }

  // A long listing would be drawn again with every line of it; its text node is made longer instead.
  #extendCode(blocks, isLast) {
    const [block] = blocks;
    const isSame = blocks.length === 1 && block.isOpen && !isLast && this.#code?.start === this.#start + block.start;
    if (isSame) this.#code.node.appendData(block.text.slice(this.#code.node.length));
    return isSame;
  }
}

// The elements of a text that is complete.
export function proseElements(text) {
  return parseBlocks(text).map((block) => blockElement(block, true));
}

function blockElement(block, isComplete) {
  return BLOCKS[block.type](block, isComplete);
}

const children = (blocks) => blocks.map((block) => blockElement(block, true));
const inline = (text) => parseInline(text).map(inlineElement);

const BLOCKS = {
  heading: ({ level, text }) => el(`h${Math.min(6, level + HEADING_OFFSET)}`, { class: `level-${level}` }, ...inline(text)),
  paragraph: ({ text, isCut }) => el("p", { class: isCut ? "cut" : null }, ...inline(text)),
  rule: () => el("hr"),
  quote: (block) => el("blockquote", {}, ...children(block.children)),
  list: ({ isOrdered, isLoose, first, items }) => {
    const attributes = { class: isLoose ? "loose" : null, start: isOrdered && first !== 1 ? first : null };
    return el(isOrdered ? "ol" : "ul", attributes, ...items.map(itemElement));
  },
  code: codeElement,
  table: tableElement,
};

function itemElement(item) {
  if (item.isDone === null) return el("li", {}, ...children(item.children));
  const box = el("span", { class: "box", role: "img", "aria-label": t(item.isDone ? "taskDone" : "taskOpen") }, item.isDone ? "☑" : "☐");
  return el("li", { class: "task" }, box, ...children(item.children));
}

function codeElement({ language, text }, isComplete) {
  const code = el("code", {}, ...(isComplete ? highlight(text, language) : [document.createTextNode(text)]));
  const label = language ? t("codeIn", { language }) : t("code");
  const head = el("figcaption", {}, el("span", {}, language || t("code")), copyButton(() => code.textContent, t));
  return el("figure", { class: "code" }, head, el("pre", { tabindex: 0, role: "group", "aria-label": label }, code));
}

function tableElement({ columns, head, rows }) {
  const cell = (tag) => (text, index) => el(tag, { class: columns[index], scope: tag === "th" ? "col" : null }, ...inline(text));
  const body = rows.map((row) => el("tr", {}, ...row.map(cell("td"))));
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...head.map(cell("th")))), el("tbody", {}, ...body));
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": t("table") }, table);
}

function inlineElement(node) {
  const inner = () => node.children.map(inlineElement);
  switch (node.type) {
    case "text": return document.createTextNode(node.text);
    case "break": return el("br");
    case "code": return el("code", {}, node.text);
    case "image": return linkElement(node.address, [t("image"), " ", ...inner()]); // nothing is loaded: an image tells its host who reads
    case "link": return linkElement(node.address, inner());
    default: return el(node.type, {}, ...inner());
  }
}

function linkElement(address, inner) {
  return el("a", { href: address, title: address, target: "_blank", rel: "noopener noreferrer nofollow" }, ...inner);
}

// Markdown inside a line: code, emphasis, links. Gives a tree of plain objects; HTML is text like any other.
// Linear in the length of the text: each character is looked at a bounded number of times, whatever a model writes.

const SPECIAL = /[\\`*_~[\]!<\n]|https?:\/\//g;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const BARE_ADDRESS = /https?:\/\/[^\s<>"'`，。；：！？、（）「」『』【】《》]+/y;
const ANGLED_ADDRESS = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/y;
const TARGET = /\(\s{0,9}(?:<([^<>\n]{0,2000})>|((?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.){0,200}\)){0,2000}))(?:\s{1,9}(?:"[^"\n]{0,500}"|'[^'\n]{0,500}'))?\s{0,9}\)/y;
const SCHEMES = ["http:", "https:", "mailto:"];
const MAX_OPENERS = 64; // of that many marks that wait for their partner, the oldest are given up
const KINDS = { 1: "em", 2: "strong" };

// parseInline("a *b*") is [{type: "text", text: "a "}, {type: "em", children: [{type: "text", text: "b"}]}]
export function parseInline(text) {
  const nodes = [];
  const brackets = [];
  const codeEnds = backtickRuns(text);
  let at = 0;
  const plain = (end) => {
    if (end > at) nodes.push({ type: "text", text: text.slice(at, end) });
    at = end;
  };
  SPECIAL.lastIndex = 0;
  for (let found = SPECIAL.exec(text); found !== null; found = SPECIAL.exec(text)) {
    plain(found.index);
    at = READERS[found[0]]?.({ text, at, nodes, brackets, codeEnds }) ?? readAddress({ text, at, nodes });
    SPECIAL.lastIndex = at;
  }
  plain(text.length);
  return pairEmphasis(nodes);
}

// The address when a page may link to it, else null.
export function safeAddress(text) {
  try {
    const address = new URL(text);
    return SCHEMES.includes(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

// Each reader puts nodes for what stands at `at` and returns where reading goes on.
const READERS = {
  "\\": ({ text, at, nodes }) => {
    const next = text[at + 1] ?? "";
    if (next === "\n") nodes.push({ type: "break" });
    else nodes.push({ type: "text", text: ESCAPABLE.test(next) ? next : `\\${next}` });
    return at + 1 + next.length;
  },
  "\n": ({ at, nodes }) => nodes.push({ type: "break" }) && at + 1,
  "`": readCode,
  "*": readMarks,
  _: readMarks,
  "~": readMarks,
  "<": ({ text, at, nodes }) => {
    ANGLED_ADDRESS.lastIndex = at;
    const found = ANGLED_ADDRESS.exec(text);
    const address = found && safeAddress(found[1]);
    nodes.push(address ? link(address, found[1].replace(/^mailto:/, "")) : { type: "text", text: "<" });
    return address ? ANGLED_ADDRESS.lastIndex : at + 1;
  },
  "!": ({ text, at, nodes, brackets }) => {
    if (text[at + 1] !== "[") return nodes.push({ type: "text", text: "!" }) && at + 1;
    brackets.push(nodes.push({ type: "text", text: "![" }) - 1);
    return at + 2;
  },
  "[": ({ at, nodes, brackets }) => {
    brackets.push(nodes.push({ type: "text", text: "[" }) - 1);
    return at + 1;
  },
  "]": closeBracket,
};

function readCode({ text, at, nodes, codeEnds }) {
  const length = runLength(text, at);
  const end = codeEnds.get(length)?.find((position) => position >= at + length);
  if (end === undefined) {
    nodes.push({ type: "text", text: text.slice(at, at + length) });
    return at + length;
  }
  const code = text.slice(at + length, end).replace(/\n/g, " ");
  const padded = code.length > 2 && code.startsWith(" ") && code.endsWith(" ") && code.trim() !== "";
  nodes.push({ type: "code", text: padded ? code.slice(1, -1) : code });
  return end + length;
}

// Where runs of backticks stand, by their length. A position is dropped once it has been passed, so that looking stays cheap.
function backtickRuns(text) {
  const runs = new Map();
  for (const { index, 0: run } of text.matchAll(/`+/g)) {
    if (!runs.has(run.length)) runs.set(run.length, new Positions());
    runs.get(run.length).list.push(index);
  }
  return runs;
}

class Positions {
  list = [];
  #first = 0;

  find(holds) {
    while (this.#first < this.list.length && !holds(this.list[this.#first])) this.#first += 1;
    return this.list[this.#first];
  }
}

function readMarks({ text, at, nodes }) {
  const char = text[at];
  const count = runLength(text, at);
  const before = text[at - 1] ?? " ";
  const after = text[at + count] ?? " ";
  const word = char === "_" ? /[\p{L}\p{N}]/u : /(?!)/;
  const canOpen = !/\s/.test(after) && !word.test(before);
  const canClose = !/\s/.test(before) && !word.test(after);
  nodes.push({ type: "marks", char, count, canOpen, canClose });
  return at + count;
}

function closeBracket({ text, at, nodes, brackets }) {
  const opener = brackets.pop();
  TARGET.lastIndex = at + 1;
  const found = opener === undefined ? null : TARGET.exec(text);
  const address = found && safeAddress((found[1] ?? found[2]).replace(/\\([!-/:-@[-`{-~])/g, "$1"));
  if (!address) {
    nodes.push({ type: "text", text: "]" });
    return at + 1;
  }
  const [mark, ...inside] = nodes.splice(opener);
  const children = pairEmphasis(inside).flatMap((node) => (node.type === "link" ? node.children : [node]));
  nodes.push({ type: mark.text === "![" ? "image" : "link", address, children });
  if (mark.text === "[") brackets.length = 0; // a link holds no link, so no bracket before it can become one
  return TARGET.lastIndex;
}

function readAddress({ text, at, nodes }) {
  BARE_ADDRESS.lastIndex = at;
  const found = BARE_ADDRESS.exec(text)?.[0].replace(/[.,;:!?*_~\]]+$/, "") ?? "";
  const trimmed = found.endsWith(")") && !found.includes("(") ? found.slice(0, -1) : found;
  const address = safeAddress(trimmed);
  nodes.push(address ? link(address, trimmed) : { type: "text", text: text[at] });
  return at + (address ? trimmed.length : 1);
}

const link = (address, text) => ({ type: "link", address, children: [{ type: "text", text }] });

function runLength(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

// Turn pairs of marks into emphasis; what finds no partner is text again.
function pairEmphasis(nodes) {
  const done = [];
  let openers = []; // positions in `done`
  for (const node of nodes) {
    if (node.type !== "marks") {
      done.push(node);
      continue;
    }
    if (node.canClose) openers = closeMarks(node, done, openers);
    if (node.count === 0) continue;
    done.push(node);
    if (node.canOpen) openers = [...openers.slice(1 - MAX_OPENERS), done.length - 1];
  }
  return done.map((node) => (node.type === "marks" ? { type: "text", text: node.char.repeat(node.count) } : node));
}

function closeMarks(closer, done, openers) {
  let open = openers;
  while (closer.count > 0) {
    const index = open.findLastIndex((position) => matches(done[position], closer));
    if (index < 0) return open;
    const opener = done[open[index]];
    const used = Math.min(2, opener.count, closer.count);
    const children = done.splice(open[index] + 1).map((node) => (node.type === "marks" ? { type: "text", text: node.char.repeat(node.count) } : node));
    opener.count -= used;
    closer.count -= used;
    open = open.slice(0, opener.count > 0 ? index + 1 : index);
    if (opener.count === 0) done.pop();
    done.push({ type: closer.char === "~" ? "del" : KINDS[used], children });
  }
  return open;
}

// One tilde is a sign for "about"; two strike out.
const matches = (opener, closer) => opener.char === closer.char && (closer.char !== "~" || (opener.count === 2 && closer.count === 2));

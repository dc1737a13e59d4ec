// Markdown as a list of blocks, plain objects with the `start` of each in the text. Never HTML: a tag is text.
// A block depends only on the text from its start on, so a text that grows can be read again from the start of its last block.

const MAX_DEPTH = 8; // lists in quotes in lists: deeper ones are text
const MAX_PARAGRAPH = 8000; // characters; a longer one goes on in the next block, so that no single block is slow to lay out
const FENCE = /^( {0,3})(`{3,}|~{3,}) *([^\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( +)(.*)|)$/;
const TASK = /^\[([ xX])\] +/;
const DIVIDER = /^ {0,3}\|?(?: *:?-+:? *\|)+(?: *:?-+:? *)?$/;

export function parseBlocks(text, depth = 0) {
  const blocks = [];
  let at = 0;
  while (at < text.length) {
    const { line, end } = lineAt(text, at);
    if (line.trim() === "") {
      at = end;
      continue;
    }
    const { end: next, ...block } = readBlock(text, at, line, end, depth);
    blocks.push({ ...block, start: at });
    at = next;
  }
  return blocks;
}

// How many of the blocks stay as they are, whatever is added to the text. The last one may grow; the one before it is settled only
// when the line that ended it is complete, and the line behind that, too: "***" may become "***bold***", "a | b" a table.
export function numSettled(blocks, text) {
  const lastLine = text.lastIndexOf("\n");
  const isSettled = (block, next) => block.isCut || (text.indexOf("\n", next.start) < lastLine && next.start < lastLine);
  let count = 0;
  while (count < blocks.length - 1 && isSettled(blocks[count], blocks[count + 1])) count += 1;
  return count;
}

function readBlock(text, at, line, end, depth) {
  const fence = openFence(line);
  if (fence) return readFence(text, end, fence);
  const heading = HEADING.exec(line);
  if (heading) return { type: "heading", level: heading[1].length, text: heading[2].replace(/[ \t]+#*[ \t]*$/, "").trim(), end };
  if (RULE.test(line)) return { type: "rule", end };
  if (depth < MAX_DEPTH && QUOTE.test(line)) return readQuote(text, at, depth);
  if (depth < MAX_DEPTH && ITEM.test(line)) return readList(text, at, depth);
  if (startsTable(text, line, end)) return readTable(text, at);
  return readParagraph(text, at, depth);
}

// The line at `at` without its end, and where the next one begins.
function lineAt(text, at) {
  const newline = text.indexOf("\n", at);
  const end = newline < 0 ? text.length : newline + 1;
  return { line: text.slice(at, newline < 0 ? end : newline).replace(/\r$/, ""), end };
}

function openFence(line) {
  const found = FENCE.exec(line);
  if (!found || (found[2][0] === "`" && found[3].includes("`"))) return null;
  return { indent: found[1].length, mark: found[2], language: found[3].trim().split(/\s/)[0].slice(0, 40) };
}

// Code up to its closing fence; without one, up to the end: it is still being written.
function readFence(text, from, { indent, mark, language }) {
  const closing = new RegExp(`^ {0,3}${mark[0]}{${mark.length},} *$`);
  const lines = [];
  let at = from;
  while (at < text.length) {
    const { line, end } = lineAt(text, at);
    at = end;
    if (closing.test(line)) return { type: "code", language, text: lines.join("\n"), isOpen: false, end };
    lines.push(indent > 0 ? line.replace(new RegExp(`^ {0,${indent}}`), "") : line);
  }
  return { type: "code", language, text: lines.join("\n"), isOpen: true, end: at };
}

function readQuote(text, from, depth) {
  const lines = [];
  let at = from;
  while (at < text.length) {
    const { line, end } = lineAt(text, at);
    if (!QUOTE.test(line)) break;
    lines.push(line.replace(QUOTE, ""));
    at = end;
  }
  return { type: "quote", children: parseBlocks(lines.join("\n"), depth + 1), end: at };
}

function readList(text, from, depth) {
  const first = ITEM.exec(lineAt(text, from).line);
  const isOrdered = /\d/.test(first[2]);
  const items = [];
  let isLoose = false;
  let at = from;
  while (at < text.length) {
    const { line } = lineAt(text, at);
    const found = ITEM.exec(line);
    if (!found || RULE.test(line) || /\d/.test(found[2]) !== isOrdered) break;
    const item = readItem(text, at, found, depth);
    items.push(item);
    at = item.next;
    isLoose ||= item.isLoose || (item.blankAfter && ITEM.test(lineAt(text, at).line));
  }
  return { type: "list", isOrdered, isLoose, first: isOrdered ? parseInt(first[2], 10) : 1, items, end: at };
}

// One item: its first line, then all lines that are indented as its text is, or blank, or go on a paragraph without a mark of their own.
function readItem(text, from, found, depth) {
  const width = found[1].length + found[2].length + (found[3] && found[3].length < 5 ? found[3].length : 1);
  const indented = new RegExp(`^ {${Math.min(width, 2 + found[1].length)},}`);
  const task = TASK.exec(found[4] ?? "");
  const lines = [task ? found[4].slice(task[0].length) : found[4] ?? ""];
  let at = lineAt(text, from).end;
  let blank = 0;
  let isLoose = false;
  while (at < text.length) {
    const { line, end } = lineAt(text, at);
    if (line.trim() === "") {
      blank += 1;
    } else if (indented.test(line)) {
      isLoose ||= blank > 0 && !ITEM.test(line.trimStart());
      lines.push(...Array(blank).fill(""), line.slice(Math.min(width, line.search(/\S/))));
      blank = 0;
    } else if (blank > 0 || ITEM.test(line) || interrupts(text, line, end, depth)) {
      break;
    } else {
      lines.push(line.trim());
    }
    at = end;
  }
  const children = parseBlocks(lines.join("\n"), depth + 1);
  return { children, isDone: task ? task[1] !== " " : null, next: at, blankAfter: blank > 0, isLoose };
}

function startsTable(text, line, end) {
  if (line.length > MAX_PARAGRAPH || !line.includes("|")) return false;
  const divider = lineAt(text, end).line;
  return DIVIDER.test(divider) && cells(divider).length === cells(line).length;
}

function readTable(text, from) {
  const head = lineAt(text, from);
  const divider = lineAt(text, head.end);
  const columns = cells(divider.line).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left"));
  const rows = [];
  let at = divider.end;
  while (at < text.length) {
    const { line, end } = lineAt(text, at);
    if (line.trim() === "" || !line.includes("|")) break;
    const row = cells(line);
    rows.push(columns.map((_, index) => row[index] ?? ""));
    at = end;
  }
  return { type: "table", columns, head: cells(head.line), rows, end: at };
}

// "| a | b \| c |" has the cells "a" and "b | c".
function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function readParagraph(text, from, depth) {
  let at = lineAt(text, from).end;
  while (at < text.length && at - from < MAX_PARAGRAPH) {
    const { line, end } = lineAt(text, at);
    if (line.trim() === "" || interrupts(text, line, end, depth)) break;
    at = end;
  }
  const isCut = at - from > MAX_PARAGRAPH;
  const end = isCut ? cutPoint(text, from) : at;
  const lines = text.slice(from, end).split("\n");
  return { type: "paragraph", text: lines.map((line) => line.trim()).join("\n").trim(), isCut, end };
}

// Where a paragraph that is too long goes on in the next block: behind a space or the end of a sentence, never inside a character.
function cutPoint(text, from) {
  const end = from + MAX_PARAGRAPH;
  for (let at = end; at > end - 200; at -= 1) if (/[\s。！？；，]/.test(text[at - 1])) return at;
  return /[\ud800-\udbff]/.test(text[end - 1]) ? end - 1 : end;
}

function interrupts(text, line, end, depth) {
  if (openFence(line) || HEADING.test(line) || RULE.test(line)) return true;
  if (depth < MAX_DEPTH && (QUOTE.test(line) || startsItem(line))) return true;
  return startsTable(text, line, end);
}

// Inside a paragraph "1986." at the start of a line is a number, not a list; only the first item of one may interrupt.
function startsItem(line) {
  const found = ITEM.exec(line);
  return found !== null && (found[4] ?? "") !== "" && (!/\d/.test(found[2]) || parseInt(found[2], 10) === 1);
}

// Colours for code, the same for all languages: comments, texts, numbers and the words that most languages keep for themselves.
import { el } from "./dom.js";

const MAX_CHARACTERS = 50_000; // a longer listing stays plain
const WORDS = new Set(
  `abstract and as assert async await begin bool boolean break byte case catch char class const constexpr continue def default defer del do
  double elif else elseif end enum except export extends extern false False final finally float fn for foreach from func function global go
  goto if impl implements import in include instanceof int interface is lambda let local long loop match mod module move mut namespace new
  nil None nonlocal not null nullptr or override package pass private protected pub public raise ref repeat require return select self short
  signed sizeof static str string struct super switch template then this throw throws trait true True try type typedef typeof undefined union
  unless unsafe unsigned until use using var virtual void volatile when where while with yield
  SELECT FROM WHERE INSERT INTO UPDATE DELETE CREATE TABLE JOIN LEFT ON GROUP ORDER BY LIMIT AND OR NOT NULL AS SET VALUES`.split(/\s+/),
);
const PLAIN = new Set(["text", "txt", "plain", "plaintext", "output", "console", "markdown", "md"]);
const HASH_COMMENTS = new Set(["python", "py", "sh", "bash", "shell", "zsh", "yaml", "yml", "toml", "ini", "ruby", "rb", "r", "perl", "make"]);
const HASH = String.raw`"""[^]*?(?:"""|$(?![^]))|(?<![\w$])#[^\n]*`;
const SLASHES = String.raw`\/\/[^\n]*|\/\*[^]*?(?:\*\/|$(?![^]))|<!--[^]*?(?:-->|$(?![^]))|^ *--[^\n]*`;
const COMMON = String.raw`"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\`(?:\\.|[^\`\\])*\`|\b\d[\w.]*|[A-Za-z_]\w*`;

// The pieces of a listing: text nodes and coloured spans that together have exactly its text.
export function highlight(text, language) {
  if (text.length > MAX_CHARACTERS || PLAIN.has(language.toLowerCase())) return [document.createTextNode(text)];
  const comments = HASH_COMMENTS.has(language.toLowerCase()) ? HASH : SLASHES;
  const pattern = new RegExp(`(${comments})|${COMMON}`, "gm");
  const pieces = [];
  let at = 0;
  for (const found of text.matchAll(pattern)) {
    const kind = kindOf(found);
    if (kind === null) continue;
    pieces.push(text.slice(at, found.index), el("span", { class: kind }, found[0]));
    at = found.index + found[0].length;
  }
  pieces.push(text.slice(at));
  return pieces.filter((piece) => piece !== "").map((piece) => (typeof piece === "string" ? document.createTextNode(piece) : piece));
}

function kindOf([text, comment]) {
  if (comment !== undefined) return "c";
  if (/["'`]/.test(text[0])) return "s";
  if (/\d/.test(text[0])) return "n";
  return WORDS.has(text) ? "k" : null;
}

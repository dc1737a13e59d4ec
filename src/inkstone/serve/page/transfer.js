// Conversations as one JSON file, out and in.
import { el } from "./dom.js";
import { checkedConversation } from "./tree.js";

const FORMAT = "inkstone-conversations";
export const MAX_FILE_BYTES = 100_000_000;

export function exportText(conversations) {
  return `${JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1)}\n`;
}

// {conversations, rejected}: what the file holds, checked, and how many of its entries are no conversations. Throws for another file.
export function importText(text) {
  const value = JSON.parse(text);
  if (value?.format !== FORMAT || value.version !== 1 || !Array.isArray(value.conversations)) throw new Error(`not a file of ${FORMAT}`);
  const conversations = [];
  for (const entry of value.conversations) {
    try {
      conversations.push(checkedConversation(entry));
    } catch { /* counted by its absence */ }
  }
  return { conversations, rejected: value.conversations.length - conversations.length };
}

export function saveFile(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const link = el("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

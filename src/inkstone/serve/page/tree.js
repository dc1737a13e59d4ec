// A conversation as a tree of messages: an edited question or a second answer is a sibling, and each message knows its chosen child.
// Pure: no page, no storage, no clock.

export const ROOT = "root";
const ROLES = ["user", "assistant"];
const LAST_TIME = 8.64e15; // milliseconds; beyond it there are no dates

// Ids are drawn, not counted and not timed: two tabs or a wrong clock never make the same one.
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation({ now, model, system }) {
  const nodes = { [ROOT]: { id: ROOT, parent: null, role: ROOT, text: "", children: [], chosen: null } };
  return { id: newId(), title: "", created: now, updated: now, model, system, nodes };
}

// Put a message under `parent`, choose it, and return it.
export function addMessage(conversation, parent, role, text) {
  const node = { id: newId(), parent, role, text, children: [], chosen: null };
  conversation.nodes[node.id] = node;
  conversation.nodes[parent].children.push(node.id);
  conversation.nodes[parent].chosen = node.id;
  return node;
}

// The messages that are shown: from the first one down the chosen children.
export function shownMessages(conversation) {
  const messages = [];
  let id = conversation.nodes[ROOT].chosen;
  while (id !== null) {
    const node = conversation.nodes[id];
    messages.push(node);
    id = node.chosen;
  }
  return messages;
}

// The messages before `id`, first one first.
export function messagesBefore(conversation, id) {
  const messages = [];
  for (let node = conversation.nodes[conversation.nodes[id].parent]; node.id !== ROOT; node = conversation.nodes[node.parent]) {
    messages.unshift(node);
  }
  return messages;
}

// Where a message stands among the versions of it: {ids, index}.
export function versions(conversation, id) {
  const ids = conversation.nodes[conversation.nodes[id].parent].children;
  return { ids, index: ids.indexOf(id) };
}

export function choose(conversation, id) {
  conversation.nodes[conversation.nodes[id].parent].chosen = id;
}

// The title that a conversation has without having been named: the beginning of its first question.
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const [first] = shownMessages(conversation);
  return (first?.text ?? "").replace(/\s+/g, " ").trim().slice(0, 80);
}

export function mentions(conversation, words) {
  const wanted = words.toLowerCase();
  const has = (text) => text.toLowerCase().includes(wanted);
  return has(titleOf(conversation)) || Object.values(conversation.nodes).some((node) => has(node.text));
}

// A copy of a conversation that came from outside, with nothing but what we know; throws where it is not one.
export function checkedConversation(value) {
  need(value !== null && typeof value === "object", "a conversation is an object");
  const { id, title = "", created, updated, model = "", system = "" } = value;
  for (const [name, text] of Object.entries({ id, title, model, system })) need(typeof text === "string", `${name} is a string`);
  for (const [name, time] of Object.entries({ created, updated })) need(time >= 0 && time <= LAST_TIME, `${name} is a time`);
  need(id !== "" && value.nodes !== null && typeof value.nodes === "object", "id and nodes are there");
  const nodes = {};
  for (const [key, node] of Object.entries(value.nodes)) nodes[key] = checkedNode(key, node, value.nodes);
  need(nodes[ROOT]?.role === ROOT, "there is a root");
  need(reachable(nodes) === Object.keys(nodes).length, "every message hangs on the root");
  return { id, title, created, updated, model, system, nodes };
}

function checkedNode(key, node, all) {
  need(node !== null && typeof node === "object" && node.id === key, "messages are named by their ids");
  need(typeof node.text === "string" && Array.isArray(node.children), "a message has text and children");
  need(key === ROOT ? node.parent === null : ROLES.includes(node.role), "a message has a role");
  for (const child of node.children) need(Object.hasOwn(all, child) && all[child]?.parent === key, "children know their parent");
  need(node.children.length === 0 ? node.chosen === null : node.children.includes(node.chosen), "the chosen message is a child");
  const { id, parent, role, text, children, chosen } = node;
  const copy = { id, parent, role, text, children: [...children], chosen };
  if (node.facts !== null && typeof node.facts === "object") copy.facts = checkedFacts(node.facts);
  return copy;
}

function checkedFacts(facts) {
  const plain = (value) => ["string", "number", "boolean"].includes(typeof value);
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => plain(value)));
}

function reachable(nodes) {
  let count = 0;
  const open = [ROOT];
  while (open.length > 0 && count <= Object.keys(nodes).length) {
    count += 1;
    open.push(...nodes[open.pop()].children);
  }
  return count;
}

function need(holds, rule) {
  if (!holds) throw new Error(rule);
}

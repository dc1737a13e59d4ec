// Conversations in this browser's IndexedDB. Where there is none (a private window, a policy), they live as long as the page.
import { checkedConversation } from "./tree.js";

const NAME = "inkstone";
const CONVERSATIONS = "conversations";
const OPEN_SECONDS = 3; // a database that another tab holds open for an upgrade never answers

export class Store {
  #database;
  #channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(NAME);

  constructor(database) {
    this.#database = database;
  }

  static async open() {
    try {
      return new Store(await openDatabase());
    } catch {
      return new Store(null);
    }
  }

  get isLasting() {
    return this.#database !== null;
  }

  // {conversations, damaged}: what could be read, and how many records could not.
  async all() {
    if (!this.isLasting) return { conversations: [], damaged: 0 };
    const records = await this.#run("readonly", (table) => table.getAll());
    const conversations = [];
    for (const record of records) {
      try {
        conversations.push(checkedConversation(record));
      } catch { /* counted below; the record stays where it is */ }
    }
    return { conversations, damaged: records.length - conversations.length };
  }

  // Another tab's newest version of a conversation, or null.
  async one(id) {
    if (!this.isLasting) return null;
    const record = await this.#run("readonly", (table) => table.get(id));
    return record === undefined ? null : checkedConversation(record);
  }

  // Raises QuotaExceededError when the browser's storage is full.
  async put(conversation) {
    if (!this.isLasting) return;
    await this.#run("readwrite", (table) => table.put(conversation));
    this.#channel?.postMessage(conversation.id);
  }

  async remove(id) {
    if (!this.isLasting) return;
    await this.#run("readwrite", (table) => table.delete(id));
    this.#channel?.postMessage(id);
  }

  // Call back with the id of each conversation that another tab changed.
  onOtherTab(listener) {
    if (this.#channel) this.#channel.onmessage = ({ data }) => listener(data);
  }

  #run(mode, action) {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(CONVERSATIONS, mode);
      const request = action(transaction.objectStore(CONVERSATIONS));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error ?? request.error);
    });
  }
}

function openDatabase() {
  return new Promise((resolve, reject) => {
    setTimeout(reject, 1000 * OPEN_SECONDS, new Error("the browser's database does not answer"));
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(CONVERSATIONS, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

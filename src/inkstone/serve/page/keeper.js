// Keeps conversations: at once, soon, and when the page goes away; and tells when the browser cannot.
import { t } from "./i18n.js";
import { clearNotice, notice } from "./notices.js";
import { forget, keepObject, keptObject } from "./preferences.js";
import { checkedConversation } from "./tree.js";

export class Keeper {
  #store;
  #exportAll;
  #soon = new Map(); // by conversation id: {conversation, timer}

  constructor(store, { exportAll }) {
    this.#store = store;
    this.#exportAll = exportAll;
    window.addEventListener("pagehide", () => this.#rescue());
  }

  // All kept conversations; what cannot be read is left where it is and told about.
  async load() {
    if (!this.#store.isLasting) this.#warn("storageNone");
    try {
      const { conversations, damaged } = await this.#store.all();
      if (damaged > 0) this.#warn("storageDamaged", { count: damaged });
      const rescued = this.#rescued();
      return [...conversations.filter(({ id }) => !rescued.some((one) => one.id === id)), ...rescued];
    } catch {
      this.#warn("storageNone");
      return [];
    }
  }

  async save(conversation) {
    clearTimeout(this.#soon.get(conversation.id)?.timer);
    this.#soon.delete(conversation.id);
    try {
      await this.#store.put(conversation);
      clearNotice("storageFull");
    } catch {
      this.#warn("storageFull");
    }
  }

  // Save within so many seconds, however often this is called until then.
  saveSoon(conversation, waitSeconds) {
    if (this.#soon.has(conversation.id)) return;
    const timer = setTimeout(() => this.save(conversation), 1000 * waitSeconds);
    this.#soon.set(conversation.id, { conversation, timer });
  }

  async remove(id) {
    clearTimeout(this.#soon.get(id)?.timer);
    this.#soon.delete(id);
    try {
      await this.#store.remove(id);
    } catch {
      this.#warn("storageFull");
    }
  }

  // A page that goes away is not waited for by its database; what is not kept yet is put where writing is immediate.
  #rescue() {
    const conversations = [...this.#soon.values()].map(({ conversation }) => conversation);
    if (conversations.length > 0) keepObject("rescued", { conversations });
  }

  // What the page before put aside on its way out, now kept as usual.
  #rescued() {
    const rescued = [];
    try {
      for (const entry of keptObject("rescued").conversations ?? []) rescued.push(checkedConversation(entry));
    } catch { /* damaged: the database has what was kept before */ }
    forget("rescued");
    for (const conversation of rescued) this.save(conversation);
    return rescued;
  }

  #warn(kind, values = {}) {
    notice(kind, t(kind, values), { label: t("export"), run: this.#exportAll });
  }
}

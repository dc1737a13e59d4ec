// Keeps conversations: at once, soon, and when the page goes away; and says so once when the browser cannot.
import { t } from "./i18n.js";
import { clearNotice, notice } from "./notices.js";

export class Keeper {
  #store;
  #exportAll;
  #soon = new Map(); // by conversation id: {conversation, timer}

  constructor(store, { exportAll }) {
    this.#store = store;
    this.#exportAll = exportAll;
    document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && this.#saveAllSoon());
    window.addEventListener("pagehide", () => this.#saveAllSoon());
  }

  // All kept conversations; what cannot be read is left where it is and told about.
  async load() {
    if (!this.#store.isLasting) this.#warn("storageNone");
    try {
      const { conversations, damaged } = await this.#store.all();
      if (damaged > 0) this.#warn("storageDamaged", { count: damaged });
      return conversations;
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

  #saveAllSoon() {
    for (const { conversation } of [...this.#soon.values()]) this.save(conversation);
  }

  #warn(kind, values = {}) {
    notice(kind, t(kind, values), { label: t("export"), run: this.#exportAll });
  }
}

// The list of conversations: search, open, rename, delete with undo, export and import.
import { byId, el, iconButton } from "./dom.js";
import { date, t } from "./i18n.js";
import { toast } from "./toast.js";
import { exportText, importText, MAX_FILE_BYTES, saveFile } from "./transfer.js";
import { mentions, newId, titleOf } from "./tree.js";

export class Library {
  #app;
  #conversations = new Map();
  #list = byId("conversations");
  #search = byId("search");

  // `app`: current(), isWriting(id), open(id), save(conversation), remove(id), closed(id).
  constructor(app) {
    this.#app = app;
    this.#search.addEventListener("input", () => this.render());
    this.#list.addEventListener("keydown", (event) => this.#moveFocus(event));
    byId("export").addEventListener("click", () => this.export());
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", () => this.#import());
  }

  get(id) {
    return this.#conversations.get(id) ?? null;
  }

  put(conversation) {
    this.#conversations.set(conversation.id, conversation);
    this.render();
  }

  drop(id) {
    this.#conversations.delete(id);
    this.render();
  }

  // Newest first.
  get all() {
    return [...this.#conversations.values()].sort((a, b) => b.updated - a.updated);
  }

  render() {
    const words = this.#search.value.trim();
    const found = this.all.filter((conversation) => words === "" || mentions(conversation, words));
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.id : null;
    this.#list.replaceChildren(...found.map((conversation) => this.#row(conversation)));
    if (focused) this.#list.querySelector(`[data-id="${focused}"] .open`)?.focus();
    byId("list-note").textContent = found.length > 0 ? "" : t(words === "" ? "noConversations" : "nothingFound");
    byId("export").disabled = this.#conversations.size === 0;
  }

  export() {
    const day = new Date().toISOString().slice(0, 10);
    saveFile(`inkstone-conversations-${day}.json`, exportText(this.all));
  }

  focusSearch() {
    this.#search.focus();
    this.#search.select();
  }

  #row(conversation) {
    const { id } = conversation;
    const title = titleOf(conversation) || t("untitled");
    const open = el("button", { type: "button", class: "open", "aria-current": this.#app.current() === id ? "true" : null, on: { click: () => this.#app.open(id) } },
      el("span", { class: "title", dir: "auto" }, title),
      el("span", { class: "day" }, this.#app.isWriting(id) ? t("writing") : date(conversation.updated)));
    const actions = el("div", { class: "actions" },
      iconButton("pencil", t("renameOf", { title }), () => this.#rename(conversation, row), { class: "rename" }),
      iconButton("trash", t("deleteOf", { title }), () => this.#delete(conversation), { class: "delete" }));
    const row = el("li", { "data-id": id, class: this.#app.isWriting(id) ? "writing" : null }, open, actions);
    return row;
  }

  #rename(conversation, row) {
    const field = el("input", { type: "text", maxlength: 200, "aria-label": t("newName") });
    field.value = titleOf(conversation);
    let isOpen = true;
    const finish = (name) => {
      if (!isOpen) return;
      isOpen = false;
      if (name !== null) this.#app.save(Object.assign(conversation, { title: name.trim() }));
      this.render();
      this.#list.querySelector(`[data-id="${conversation.id}"] .rename`)?.focus();
    };
    field.addEventListener("blur", () => finish(field.value));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) finish(field.value);
      else if (event.key === "Escape") finish(null);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    row.replaceChildren(field);
    field.select();
  }

  #delete(conversation) {
    const rows = [...this.#list.children];
    const index = rows.findIndex((row) => row.dataset.id === conversation.id);
    const wasOpen = this.#app.current() === conversation.id;
    this.drop(conversation.id);
    this.#app.remove(conversation.id);
    (this.#list.children[Math.min(index, this.#list.children.length - 1)]?.querySelector(".open") ?? this.#search).focus();
    const undo = () => {
      this.put(conversation);
      this.#app.save(conversation);
      if (wasOpen) this.#app.open(conversation.id);
      this.#list.querySelector(`[data-id="${conversation.id}"] .open`)?.focus();
    };
    toast(t("deleted", { title: titleOf(conversation) || t("untitled") }), { label: t("undo"), run: undo });
  }

  async #import() {
    const [file] = byId("import-file").files;
    byId("import-file").value = "";
    if (!file) return;
    try {
      if (file.size > MAX_FILE_BYTES) throw new Error("too large");
      const { conversations, rejected } = importText(await file.text());
      const added = conversations.filter((conversation) => this.#add(conversation)).length;
      toast(t("imported", { count: added }) + (rejected > 0 ? ` ${t("importRejected", { count: rejected })}` : ""));
    } catch {
      toast(t("importFailed", { name: file.name }));
    }
  }

  // Whether a conversation from a file is new here; one that differs from ours under the same id is put beside it.
  #add(conversation) {
    const ours = this.get(conversation.id);
    if (ours && JSON.stringify(ours.nodes) === JSON.stringify(conversation.nodes)) return false;
    if (ours) conversation.id = newId();
    this.put(conversation);
    this.#app.save(conversation);
    return true;
  }

  #moveFocus(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.classList.contains("open")) return;
    const buttons = [...this.#list.querySelectorAll(".open")];
    buttons[buttons.indexOf(event.target) + step]?.focus();
    event.preventDefault();
  }
}

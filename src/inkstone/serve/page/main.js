// The page put together: the models, the open conversation, the views and the panels beside them. Wiring only.
import { fetchModels } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { byId, copyText, el } from "./dom.js";
import { Drawer } from "./drawer.js";
import { onLanguage, startLanguage, switchLanguage, t } from "./i18n.js";
import { icon, mark } from "./icons.js";
import { askKey } from "./keydialog.js";
import { Keeper } from "./keeper.js";
import { Library } from "./library.js";
import { announce } from "./live.js";
import { showModel } from "./model.js";
import { clearNotice, notice } from "./notices.js";
import { Playground } from "./playground.js";
import { keep, kept } from "./preferences.js";
import { Sampling } from "./sampling.js";
import { SettingsPanel } from "./settings.js";
import { showShortcuts, startShortcuts } from "./shortcuts.js";
import { Store } from "./store.js";
import { startTheme, switchTheme } from "./theme.js";
import { toast } from "./toast.js";
import { newConversation, shownMessages } from "./tree.js";
import { showWelcome } from "./welcome.js";

const VIEWS = ["chat", "playground", "model"];
const NARROW = "(max-width: 899px)";
const NARROW_SETTINGS = "(max-width: 1199px)";
const FIRST_LOOK_SECONDS = 2; // for a server that does not answer; twice as long each time, up to the last
const LAST_LOOK_SECONDS = 30;

class Page {
  #models = [];
  #model = null;
  #view = "chat";
  #lookTimer = 0;

  async start() {
    startTheme();
    hydrateIcons();
    startLanguage();
    const store = await Store.open();
    this.keeper = new Keeper(store, { exportAll: () => this.library.export() });
    this.library = new Library({
      current: () => this.chat?.conversation?.id, isWriting: (id) => this.chat?.isWriting(id) ?? false,
      open: (id) => this.#open(id), save: (conversation) => this.keeper.save(conversation), remove: (id) => this.#remove(id),
    });
    this.settings = new SettingsPanel({ saveSystem: (text) => this.#saveSystem(text) });
    this.composer = new Composer({ ask: (text) => this.#ask(text), stop: () => this.chat.stop(), editLast: () => this.chat.editLast() });
    this.chat = new Chat({
      save: (conversation) => this.#save(conversation), saveSoon: (conversation, wait) => this.keeper.saveSoon(conversation, wait),
      changed: () => this.#refreshChat(), model: () => this.#model, sampling: () => new Sampling(this.#model), askKey: () => this.#askKey(),
      reached: () => this.#refreshChat(),
    });
    this.playground = new Playground({ model: () => this.#model, sampling: () => new Sampling(this.#model), askKey: () => this.#askKey() });
    this.#startPanels();
    this.#startControls();
    await this.#loadConversations(store);
    this.chat.show(this.#blank());
    this.#route();
    await this.#loadModels(FIRST_LOOK_SECONDS);
  }

  // Conversations

  async #loadConversations(store) {
    for (const conversation of await this.keeper.load()) this.library.put(conversation);
    this.library.render();
    store.onOtherTab(async (id) => {
      const theirs = await store.one(id);
      if (this.chat.isWriting(id)) return;
      if (theirs === null) this.library.drop(id);
      else if (!Object.values(theirs.nodes).some(({ facts }) => facts?.state === "writing")) {
        this.library.put(theirs);
        if (this.chat.conversation?.id === id) this.chat.show(theirs);
      }
    });
  }

  #blank() {
    return newConversation({ now: Date.now(), model: this.#model?.id ?? "", system: kept("system") ?? "" });
  }

  #startNew({ focus = true } = {}) {
    this.chat.show(this.#blank());
    this.#setAddress("chat");
    this.#showView("chat");
    this.settings.showSystem(this.chat.conversation.system);
    if (focus) this.composer.focus();
  }

  #open(id) {
    const conversation = this.library.get(id);
    if (conversation === null) return this.#startNew();
    const model = this.#models.find((one) => one.id === conversation.model);
    if (model) this.#useModel(model);
    this.chat.show(conversation);
    this.#setAddress(`chat/${id}`);
    this.#showView("chat");
    this.settings.showSystem(conversation.system);
    this.libraryDrawer.close();
    return this.library.render();
  }

  #remove(id) {
    if (this.chat.conversation?.id === id) {
      this.chat.stop();
      this.#startNew({ focus: false });
    }
    this.keeper.remove(id);
  }

  #ask(text) {
    if (this.#model === null) {
      this.#loadModels(FIRST_LOOK_SECONDS);
      return false;
    }
    this.chat.ask(text);
    return true;
  }

  // A conversation is kept from its first message on.
  #save(conversation) {
    if (shownMessages(conversation).length === 0) return;
    conversation.model = this.#model?.id ?? conversation.model;
    if (this.chat.conversation === conversation) this.#setAddress(`chat/${conversation.id}`);
    this.library.put(conversation);
    this.keeper.save(conversation);
  }

  #saveSystem(text) {
    keep("system", text);
    this.chat.conversation.system = text;
    if (shownMessages(this.chat.conversation).length > 0) this.keeper.saveSoon(this.chat.conversation, 1);
  }

  #refreshChat() {
    const { conversation } = this.chat;
    const messages = shownMessages(conversation);
    byId("welcome").hidden = messages.length > 0;
    byId("chat").classList.toggle("blank", messages.length === 0);
    this.composer.refresh({ isRunning: this.chat.isRunning });
    const counted = messages.findLast(({ facts }) => facts?.completionTokens)?.facts;
    this.composer.showContext(counted && this.#model ? counted.promptTokens + counted.completionTokens : 0, this.#model?.context ?? 1);
    this.library.render();
  }

  // Models

  async #loadModels(lookAgainSeconds) {
    clearTimeout(this.#lookTimer);
    try {
      this.#models = await fetchModels();
    } catch (error) {
      return this.#noteNoModels(error, lookAgainSeconds);
    }
    clearNotice("server");
    if (this.#models.length === 0) notice("server", t("noticeNoModel"));
    byId("pick").replaceChildren(...this.#models.map(({ id }) => el("option", { value: id }, id)));
    byId("pick").hidden = this.#models.length === 0;
    const wanted = this.chat.conversation.model || kept("model");
    const model = this.#models.find(({ id }) => id === wanted) ?? this.#models[0] ?? null;
    this.#useModel(model);
    if (model?.chat === false && location.hash === "" && this.library.all.length === 0) this.#showView("playground");
    return this.#showEmptyParts();
  }

  #noteNoModels(error, lookAgainSeconds) {
    const again = () => this.#loadModels(FIRST_LOOK_SECONDS);
    if (error.kind === "key") {
      notice("server", t("noticeKey"), { label: t("enterKey"), run: () => this.#askKey() });
      this.#askKey();
      return;
    }
    const isAway = ["offline", "busy"].includes(error.kind);
    const text = error.kind === "offline" ? t("noticeOffline") : `${t("noticeModels")} ${error.message ? t("serverSaid", { text: error.message }) : ""}`;
    notice("server", text, { label: t("retry"), run: again });
    const wait = error.retrySeconds ?? lookAgainSeconds;
    if (isAway) this.#lookTimer = setTimeout(() => this.#loadModels(Math.min(2 * lookAgainSeconds, LAST_LOOK_SECONDS)), 1000 * wait);
  }

  // A new key may also let us see the models.
  async #askKey() {
    const entered = await askKey();
    if (entered && this.#models.length === 0) await this.#loadModels(FIRST_LOOK_SECONDS);
    return entered;
  }

  #useModel(model) {
    this.#model = model;
    if (model === null) return;
    byId("pick").value = model.id;
    this.settings.show(new Sampling(model));
    byId("message").placeholder = t("messagePlaceholder", { model: model.id });
    this.#showEmptyParts();
  }

  #showEmptyParts() {
    showWelcome(this.#model, (text) => this.#ask(text) && this.composer.focus());
    this.playground.redraw();
    if (this.#model && this.#view === "model") showModel(this.#model);
    this.#refreshChat();
  }

  // Views and panels

  #route() {
    const [view, id] = location.hash.slice(1).split("/");
    if (view === "chat" && id && this.library.get(id)) this.#open(id);
    else this.#showView(VIEWS.includes(view) ? view : "chat");
  }

  #setAddress(hash) {
    if (location.hash !== `#${hash}`) history.replaceState(null, "", `#${hash}`);
  }

  #showView(view) {
    this.#view = view;
    for (const name of VIEWS) byId(name).hidden = name !== view;
    for (const link of byId("views").children) {
      if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    byId("system-part").hidden = view !== "chat";
    byId("open-settings").hidden = view === "model";
    document.title = `${t(view)} · Inkstone`;
    const isOpen = view !== "model" && (kept(`settings-${view}`) ?? (view === "playground" ? "yes" : "no")) === "yes";
    this.settingsDrawer.set(isOpen && !matchMedia(NARROW_SETTINGS).matches);
    if (view === "model" && this.#model) showModel(this.#model);
    if (view === "playground") this.playground.redraw();
    this.settings.showSystem(this.chat.conversation?.system ?? "");
  }

  #go(view) {
    location.hash = view === "chat" && this.library.get(this.chat.conversation.id) ? `chat/${this.chat.conversation.id}` : view;
    this.#showView(view);
    if (view === "chat") this.composer.focus();
    if (view === "playground") this.playground.focus();
  }

  #startPanels() {
    this.libraryDrawer = new Drawer(byId("library"), byId("open-library"), NARROW);
    this.settingsDrawer = new Drawer(byId("settings"), byId("open-settings"), NARROW_SETTINGS);
    byId("close-library").addEventListener("click", () => this.libraryDrawer.close());
    byId("close-settings").addEventListener("click", () => {
      this.settingsDrawer.close();
      keep(`settings-${this.#view}`, "no");
      byId("open-settings").focus();
    });
    byId("open-settings").addEventListener("click", () => keep(`settings-${this.#view}`, this.settingsDrawer.isOpen ? "yes" : "no"));
  }

  #startControls() {
    byId("new").addEventListener("click", () => { this.libraryDrawer.close(); this.#startNew(); });
    byId("language").addEventListener("click", switchLanguage);
    byId("theme").addEventListener("click", switchTheme);
    byId("help").addEventListener("click", showShortcuts);
    byId("skip").addEventListener("click", (event) => { event.preventDefault(); (this.#view === "playground" ? this.playground : this.composer).focus(); });
    for (const button of document.querySelectorAll("[data-closes]")) button.addEventListener("click", () => button.closest("dialog").close());
    for (const link of byId("views").children) link.addEventListener("click", (event) => { event.preventDefault(); this.#go(link.hash.slice(1)); });
    byId("pick").addEventListener("change", () => this.#pick(byId("pick").value));
    window.addEventListener("hashchange", () => this.#route());
    onLanguage(() => this.#changeLanguage());
    startShortcuts({
      Escape: () => this.#stop(), "ctrl+shift+KeyO": () => this.#startNew(), "ctrl+KeyK": () => { this.libraryDrawer.open(); this.library.focusSearch(); },
      "alt+Digit1": () => this.#go("chat"), "alt+Digit2": () => this.#go("playground"), "alt+Digit3": () => this.#go("model"),
      "alt+KeyR": () => this.chat.regenerateLast(), "alt+KeyC": () => this.#copyLast(), "ctrl+Comma": () => byId("open-settings").click(),
      "ctrl+Slash": showShortcuts, "ctrl+Enter": () => (this.#view === "playground" ? this.playground.write() : false),
    });
  }

  #pick(id) {
    this.#useModel(this.#models.find((model) => model.id === id));
    keep("model", id);
    this.chat.conversation.model = id;
    if (shownMessages(this.chat.conversation).length > 0) this.keeper.save(this.chat.conversation);
  }

  #stop() {
    if (this.#view === "playground" && this.playground.isRunning) return this.playground.stop();
    return this.chat.isRunning ? this.chat.stop() : false;
  }

  async #copyLast() {
    const text = this.chat.lastAnswer();
    if (text && await copyText(text)) toast(t("lastCopied"));
  }

  #changeLanguage() {
    byId("notices").replaceChildren();
    if (this.#model) this.#useModel(this.#model);
    this.chat.redraw();
    this.#showView(this.#view);
    this.library.render();
    announce(t(this.#view));
  }
}

function hydrateIcons() {
  for (const place of document.querySelectorAll("[data-icon]")) place.append(icon(place.dataset.icon));
  byId("mark").append(mark());
}

new Page().start();

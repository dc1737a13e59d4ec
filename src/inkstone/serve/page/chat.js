// The chat view: shows a conversation, asks the model, and keeps what comes, whatever goes wrong on the way.
import { ServerError } from "./api.js";
import { byId } from "./dom.js";
import { Generation } from "./generation.js";
import { t } from "./i18n.js";
import { announce } from "./live.js";
import { MessageView } from "./message.js";
import { addMessage, choose, shownMessages, versions } from "./tree.js";

const SAVE_SECONDS = 1; // while an answer is written: what a crash may cost
const MAX_TRIES = 5;
const NEAR_END_PIXELS = 80;

// `app`: save(conversation), changed(), model(), sampling(), askKey() -> Promise<bool>, and reached(conversation) once an answer ended.
export class Chat {
  #app;
  #conversation = null;
  #views = new Map();
  #runs = new Map(); // by conversation id: an answer goes on being written while its reader looks at another conversation
  #waits = new Map(); // by message id: {timer, tries, left}: seconds to the next try
  #scroller = byId("transcript");
  #isFollowing = true;
  #actions = {
    edit: (node, text) => this.#edit(node, text),
    regenerate: (node) => this.#regenerate(node),
    retry: (node) => this.#retry(node),
    choose: (id) => this.#choose(id),
    giveUp: (node) => this.#giveUp(node),
    enterKey: async (node) => (await this.#app.askKey()) && this.#retry(node),
    grown: () => this.#follow(),
  };

  constructor(app) {
    this.#app = app;
    this.#scroller.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    byId("to-end").addEventListener("click", () => this.#toEnd());
  }

  get conversation() {
    return this.#conversation;
  }

  get isRunning() {
    return this.#conversation !== null && this.#runs.has(this.#conversation.id);
  }

  isWriting(id) {
    return this.#runs.has(id);
  }

  show(conversation) {
    this.#conversation = conversation;
    this.#views.clear();
    byId("turns").replaceChildren();
    this.render();
    this.#toEnd();
  }

  // Bring the list of messages in line with the conversation; messages that are shown already keep their elements.
  render() {
    const shown = this.#conversation === null ? [] : shownMessages(this.#conversation);
    const elements = shown.map((node) => this.#viewOf(node).element);
    const ids = new Set(shown.map(({ id }) => id));
    for (const [id, view] of this.#views) if (!ids.has(id)) { view.element.remove(); this.#views.delete(id); }
    elements.forEach((element, index) => {
      const place = byId("turns").children[index];
      if (place !== element) byId("turns").insertBefore(element, place ?? null);
    });
    shown.forEach((node, index) => this.#refresh(node, index === shown.length - 1));
    this.#app.changed();
  }

  // Draw all again, for another language.
  redraw() {
    if (this.#conversation) this.show(this.#conversation);
  }

  ask(text) {
    const last = shownMessages(this.#conversation).at(-1);
    const question = addMessage(this.#conversation, last?.id ?? "root", "user", text);
    return this.#answer(question);
  }

  stop() {
    this.#runs.get(this.#conversation?.id)?.stop();
    for (const id of this.#waits.keys()) if (this.#conversation?.nodes[id]) this.#giveUp(this.#conversation.nodes[id]);
  }

  regenerateLast() {
    const last = this.#conversation && shownMessages(this.#conversation).at(-1);
    if (last?.role === "assistant" && !this.isRunning) this.#regenerate(last);
  }

  editLast() {
    const question = this.#conversation && shownMessages(this.#conversation).findLast(({ role }) => role === "user");
    if (question && !this.isRunning) this.#views.get(question.id).startEdit();
  }

  lastAnswer() {
    return this.#conversation && shownMessages(this.#conversation).findLast(({ role }) => role === "assistant")?.text;
  }

  #edit(node, text) {
    this.stop();
    return this.#answer(addMessage(this.#conversation, node.parent, "user", text));
  }

  #regenerate(node) {
    this.stop();
    return this.#answer(this.#conversation.nodes[node.parent]);
  }

  // A failed answer without a word is written again in its place; one with text is kept, and the new one is another version.
  #retry(node) {
    const tries = this.#waits.get(node.id)?.tries ?? 0;
    this.#clearWait(node.id);
    if (node.text !== "") return this.#answer(this.#conversation.nodes[node.parent]);
    return this.#write(this.#conversation, node, tries);
  }

  #choose(id) {
    choose(this.#conversation, id);
    this.#app.save(this.#conversation);
    this.render();
    this.#views.get(id).focusVersions();
    announce(t("versionShown", { index: versions(this.#conversation, id).index + 1, count: versions(this.#conversation, id).ids.length }));
  }

  #answer(question) {
    const node = addMessage(this.#conversation, question.id, "assistant", "");
    this.#isFollowing = true;
    return this.#write(this.#conversation, node, 0);
  }

  async #write(conversation, node, tries) {
    this.#runs.get(conversation.id)?.stop();
    const onText = (text) => this.#grow(conversation, node, text);
    const generation = new Generation({ conversation, node, model: this.#app.model(), sampling: this.#app.sampling(), onText });
    this.#runs.set(conversation.id, generation);
    conversation.updated = Date.now();
    this.#app.save(conversation);
    this.render();
    this.#toEnd();
    let failure = null;
    try {
      await generation.run();
    } catch (error) {
      failure = error;
      if (!(error instanceof ServerError)) console.error(error);
    }
    if (this.#runs.get(conversation.id) === generation) this.#runs.delete(conversation.id);
    this.#app.save(conversation);
    if (failure?.kind === "busy") this.#waitFor(conversation, node, failure.retrySeconds ?? 2 ** (tries + 1), tries + 1);
    this.render();
    if (failure === null && this.#conversation === conversation) announce(node.text);
    this.#app.reached(conversation, failure);
  }

  #grow(conversation, node, text) {
    this.#app.saveSoon(conversation, SAVE_SECONDS);
    if (this.#conversation === conversation) this.#views.get(node.id)?.append(text);
  }

  // The server asked us to come back: count down, and try again.
  #waitFor(conversation, node, waitSeconds, tries) {
    if (tries > MAX_TRIES || node.text !== "") return;
    const timer = setInterval(() => this.#tick(conversation, node), 1000);
    this.#waits.set(node.id, { timer, tries, left: Math.ceil(waitSeconds) });
  }

  #tick(conversation, node) {
    const wait = this.#waits.get(node.id);
    wait.left -= 1;
    if (wait.left > 0) return this.#views.get(node.id)?.countDown(wait.left);
    this.#clearWait(node.id);
    return this.#write(conversation, node, wait.tries);
  }

  #giveUp(node) {
    this.#clearWait(node.id);
    this.render();
  }

  #clearWait(id) {
    clearInterval(this.#waits.get(id)?.timer);
    this.#waits.delete(id);
  }

  #viewOf(node) {
    if (!this.#views.has(node.id)) this.#views.set(node.id, new MessageView(node, this.#actions));
    return this.#views.get(node.id);
  }

  #refresh(node, isLast) {
    const isRunning = isLast && this.isRunning;
    const waitSeconds = this.#waits.get(node.id)?.left ?? null;
    this.#views.get(node.id).refresh({ place: versions(this.#conversation, node.id), isLast, isRunning, waitSeconds });
  }

  // Stay at the end while the text grows, unless the reader has scrolled up to read.
  #follow() {
    if (this.#isFollowing) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#showToEnd();
  }

  #toEnd() {
    this.#isFollowing = true;
    this.#follow();
  }

  #noteScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    this.#isFollowing = scrollHeight - scrollTop - clientHeight < NEAR_END_PIXELS;
    this.#showToEnd();
  }

  #showToEnd() {
    byId("to-end").hidden = this.#isFollowing;
  }
}

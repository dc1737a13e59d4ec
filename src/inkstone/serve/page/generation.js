// One answer of a model: what is asked, what comes back piece by piece, and what is known about it afterwards.
import { ServerError, streamChat } from "./api.js";
import { messagesBefore, versions } from "./tree.js";
import { drawSeed } from "./sampling.js";

// `node` is the assistant's message; its text grows while run() goes on, and its facts say how it was made:
// {state: "writing" | "done" | "stopped" | "failed", model, seed, finish, omitted, promptTokens, completionTokens, firstTokenSeconds,
// tokensPerSecond, problem, problemText}. A message that is found "writing" when the page opens was interrupted.
export class Generation {
  #abort = new AbortController();
  #conversation;
  #node;
  #model;
  #sampling;
  #onText;

  constructor({ conversation, node, model, sampling, onText }) {
    this.#conversation = conversation;
    this.#node = node;
    this.#model = model;
    this.#sampling = sampling;
    this.#onText = onText;
    node.facts = { state: "writing", model: model.id, seed: this.#seed() };
  }

  stop() {
    this.#abort.abort();
  }

  get isStopped() {
    return this.#abort.signal.aborted;
  }

  // Write the answer. A conversation that has outgrown the context loses its oldest turns, and the message says how many.
  // Raises ServerError; the text up to there stays in the node.
  async run() {
    const messages = requestMessages(this.#conversation, this.#node);
    const fields = this.#sampling.requestFields();
    for (;;) {
      try {
        await this.#stream(messages, fields);
        return;
      } catch (error) {
        if (error.name === "AbortError") return this.#end("stopped");
        const dropped = error.kind === "context" ? makeRoom(messages, fields) : null;
        if (dropped === null) return this.#fail(error);
        if (dropped > 0) this.#node.facts.omitted = (this.#node.facts.omitted ?? 0) + dropped;
      }
    }
  }

  async #stream(messages, fields) {
    const { facts } = this.#node;
    const body = { model: this.#model.id, messages: [...messages], seed: facts.seed, ...fields };
    const begin = performance.now();
    for await (const chunk of streamChat(body, this.#abort.signal)) {
      const [choice] = chunk.choices ?? [];
      const text = choice?.delta?.content ?? "";
      if (text !== "") {
        facts.firstTokenSeconds ??= (performance.now() - begin) / 1000;
        this.#node.text += text;
        this.#onText(text);
      }
      readFacts(facts, chunk, choice);
    }
    measureSpeed(facts, begin);
    this.#end("done");
  }

  #end(state) {
    this.#node.facts.state = state;
  }

  #fail(error) {
    const known = error instanceof ServerError;
    Object.assign(this.#node.facts, { state: "failed", problem: known ? error.kind : "page", problemText: error.message });
    throw error;
  }

  // With a seed that was set, a second answer to the same question takes the next number: the same one would only say it again.
  #seed() {
    const { seed } = this.#sampling;
    return seed === null ? drawSeed() : seed + versions(this.#conversation, this.#node.id).index;
  }
}

// Note down what a chunk says about the text: why it ended, how long it is, how fast the server made it.
export function readFacts(facts, chunk, choice) {
  if (choice?.finish_reason) facts.finish = choice.finish_reason;
  if (chunk.usage) facts.promptTokens = chunk.usage.prompt_tokens;
  if (chunk.usage) facts.completionTokens = chunk.usage.completion_tokens;
  if (Number.isFinite(chunk.timings?.first_token_seconds)) facts.firstTokenSeconds = chunk.timings.first_token_seconds;
  if (Number.isFinite(chunk.timings?.tokens_per_second)) facts.tokensPerSecond = chunk.timings.tokens_per_second;
}

// Tokens a second as seen from here, where the server does not say.
export function measureSpeed(facts, begin) {
  const seconds = (performance.now() - begin) / 1000 - (facts.firstTokenSeconds ?? 0);
  if (facts.completionTokens > 1 && seconds > 0) facts.tokensPerSecond ??= (facts.completionTokens - 1) / seconds;
}

// The messages to send: no empty answers, and no two of one role in a row (a failed answer leaves its question behind).
function requestMessages(conversation, node) {
  const system = conversation.system.trim();
  const messages = system === "" ? [] : [{ role: "system", content: system }];
  for (const { role, text } of messagesBefore(conversation, node.id)) {
    if (text === "") continue;
    const last = messages.at(-1);
    if (last?.role === role) last.content += `\n\n${text}`;
    else messages.push({ role, content: text });
  }
  return messages;
}

// Leave out the oldest question and its answer, and return how many messages that were. Once only the last question is left, the
// answer may have whatever room there is: 0; null when that was tried, too.
function makeRoom(messages, fields) {
  const first = messages.findIndex(({ role }) => role === "user");
  const next = messages.findIndex(({ role }, index) => index > first && role === "user");
  if (next > 0) return messages.splice(first, next - first).length;
  if (!("max_tokens" in fields)) return null;
  delete fields.max_tokens;
  return 0;
}

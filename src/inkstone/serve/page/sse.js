// Server-sent events from a stream of bytes that may be cut anywhere: inside a character, a line or an event.

// Collects text and gives back the data of each event that is complete. Comments and fields other than `data` are left out.
export class EventParser {
  #rest = "";
  #data = [];

  push(text) {
    const events = [];
    this.#rest += text;
    let start = 0;
    for (const { index, 0: end } of this.#rest.matchAll(/\r\n|\n|\r/g)) {
      if (end === "\r" && index === this.#rest.length - 1) break; // its \n may still come
      this.#line(this.#rest.slice(start, index), events);
      start = index + end.length;
    }
    this.#rest = this.#rest.slice(start);
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data.length > 0) events.push(this.#data.join("\n"));
      this.#data = [];
    } else if (line === "data" || line.startsWith("data:")) {
      this.#data.push(line.slice(5).replace(/^ /, ""));
    }
  }
}

export class SilenceError extends Error {}

// Yield the data of each event. Throws SilenceError when not even a comment came for so long: the other side is gone.
export async function* readEvents(stream, { silenceSeconds }) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await withinSeconds(reader.read(), silenceSeconds);
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function withinSeconds(promise, limit) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new SilenceError()), 1000 * limit);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

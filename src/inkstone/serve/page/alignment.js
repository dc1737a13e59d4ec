// Which token wrote which characters. A token may hold a part of a character (a Chinese one takes up to four bytes); such tokens share
// one piece of the text. Pure.

const MAX_BYTES_OF_CHARACTER = 4;

export class Alignment {
  #text = "";
  #at = 0; // in the text
  #waiting = []; // tokens that have no piece yet
  pieces = []; // {text, tokens}

  // Add a chunk: its text, and its tokens as {token, logprob, top}. Their text may come with a later chunk. A server that tells no
  // tokens gives pieces without any.
  add(text, tokens) {
    this.#text += text;
    this.#waiting.push(...tokens);
    this.#settle(false);
  }

  // The text has ended. Tokens that wrote nothing, as the one that ends a text does, become an empty piece.
  finish() {
    this.#settle(true);
  }

  #settle(isLast) {
    while (this.#waiting.length > 0) {
      const whole = this.#isNext(this.#waiting[0]);
      if (whole) this.#put(1, this.#at + this.#waiting[0].token.length);
      else if (!this.#settleParts(isLast)) return;
    }
    if (this.#at < this.#text.length) this.#put(0, this.#text.length);
  }

  // Tokens that are parts of characters: their piece ends where the next whole token begins.
  #settleParts(isLast) {
    for (let count = 1; count < this.#waiting.length; count += 1) {
      const { token } = this.#waiting[count];
      const found = isPart(token) ? -1 : this.#text.indexOf(token, this.#at);
      if (found > this.#at && found - this.#at <= MAX_BYTES_OF_CHARACTER * count) return this.#put(count, found);
    }
    return isLast && this.#put(this.#waiting.length, this.#text.length);
  }

  #isNext({ token }) {
    return token !== "" && !isPart(token) && this.#text.startsWith(token, this.#at);
  }

  #put(count, end) {
    this.pieces.push({ text: this.#text.slice(this.#at, end), tokens: this.#waiting.splice(0, count) });
    this.#at = end;
    return true;
  }
}

// Whether a token's name says that it is no whole text: a replacement character, or its bytes spelled out.
export const isPart = (token) => token.includes("\ufffd") || token.startsWith("bytes:");

// The tokens of a completion's chunk, from the lists that the API sends: [{token, logprob, top: [{token, logprob}, ...]}].
export function chunkTokens(logprobs) {
  if (!logprobs?.tokens) return [];
  return logprobs.tokens.map((token, index) => {
    const top = Object.entries(logprobs.top_logprobs?.[index] ?? {}).map(([name, logprob]) => ({ token: name, logprob }));
    return { token, logprob: logprobs.token_logprobs[index], top: top.sort((a, b) => b.logprob - a.logprob) };
  });
}

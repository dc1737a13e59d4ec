// How a text is drawn: the model's own recommendation, and what the reader chose instead. Pure, apart from the choices being kept.
import { keepObject, keptObject } from "./preferences.js";

// One row a field. `neutral` changes nothing; `fallback` stands where a model recommends nothing; `limit` is the highest number that
// may be typed where the slider ends earlier. `isStandard` fields are those of the OpenAI API: they are always sent.
export const FIELDS = [
  { name: "temperature", min: 0, max: 2, step: 0.05, neutral: 1, fallback: 0.8, isStandard: true },
  { name: "top_p", min: 0, max: 1, step: 0.01, neutral: 1, fallback: 0.95, isStandard: true },
  { name: "top_k", min: 0, max: 200, limit: 2 ** 24, step: 1, neutral: 0, fallback: 0 },
  { name: "min_p", min: 0, max: 1, step: 0.01, neutral: 0, fallback: 0 },
  { name: "max_tokens", min: 1, max: 1024, limit: 2 ** 20, step: 1, neutral: null, fallback: 256, isStandard: true },
  { name: "repetition_penalty", min: 0.5, max: 2, limit: 10, step: 0.05, neutral: 1, fallback: 1, isRare: true },
  { name: "presence_penalty", min: -2, max: 2, step: 0.1, neutral: 0, fallback: 0, isStandard: true, isRare: true },
  { name: "frequency_penalty", min: -2, max: 2, step: 0.1, neutral: 0, fallback: 0, isStandard: true, isRare: true },
  { name: "typical_p", min: 0, max: 1, step: 0.01, neutral: 1, fallback: 1, isRare: true },
  { name: "no_repeat_ngram", min: 0, max: 10, limit: 1024, step: 1, neutral: 0, fallback: 0, isRare: true },
];
export const MAX_STOPS = 4;
const MAX_SEED = 2 ** 53 - 1; // the server takes more, a JavaScript number does not

// What was chosen for one model; kept in the browser by the model's name.
export class Sampling {
  #model;
  #chosen;

  constructor(model) {
    this.#model = model;
    const all = keptObject("sampling");
    const chosen = Object.hasOwn(all, model.id) ? all[model.id] : null;
    this.#chosen = chosen !== null && typeof chosen === "object" ? chosen : {};
  }

  recommended(field) {
    const value = this.#model.sampling?.[field.name];
    if (typeof value !== "number") return field.fallback;
    // A reply that may fill the context leaves no room for a question.
    return field.name === "max_tokens" ? Math.min(value, Math.max(1, Math.floor(this.#model.context / 2))) : value;
  }

  value(field) {
    const chosen = this.#chosen[field.name];
    return typeof chosen === "number" && chosen >= field.min && chosen <= highest(field) ? chosen : this.recommended(field);
  }

  isChanged(field) {
    return this.value(field) !== this.recommended(field);
  }

  get stops() {
    const stops = this.#chosen.stop ?? this.#model.sampling?.stop ?? [];
    return Array.isArray(stops) ? stops.filter((stop) => typeof stop === "string" && stop !== "").slice(0, MAX_STOPS) : [];
  }

  // The seed that was set, or null: a new one each time.
  get seed() {
    const seed = this.#chosen.seed ?? null;
    return Number.isInteger(seed) && seed >= 0 && seed <= MAX_SEED ? seed : null;
  }

  get isAsRecommended() {
    return Object.keys(this.#chosen).length === 0;
  }

  // Choose a value; null goes back to the model's.
  choose(name, value) {
    if (value === null) delete this.#chosen[name];
    else this.#chosen[name] = value;
    this.#keep();
  }

  reset() {
    this.#chosen = {};
    this.#keep();
  }

  // The fields of a request. A rule that is off here and in the model's recommendation is left out: another server may not know it.
  requestFields() {
    const body = {};
    for (const field of FIELDS) {
      const value = this.value(field);
      if (field.isStandard || value !== field.neutral || this.recommended(field) !== field.neutral) body[field.name] = value;
    }
    if (this.stops.length > 0) body.stop = this.stops;
    return body;
  }

  #keep() {
    keepObject("sampling", { ...keptObject("sampling"), [this.#model.id]: this.#chosen });
  }
}

export const highest = (field) => field.limit ?? field.max;

// A seed for a text whose reader set none: short enough to be written down, and shown with the text, so that it can be had again.
export const drawSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

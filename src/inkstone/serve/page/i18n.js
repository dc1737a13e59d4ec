// The page in the reader's language. Every string is in strings.js; elements of index.html name theirs in data-t attributes.
import { kept, keep } from "./preferences.js";
import { STRINGS } from "./strings.js";

const LOCALES = { en: "en", zh: "zh-CN" };
const ATTRIBUTES = { tLabel: "aria-label", tTitle: "title", tPlaceholder: "placeholder" };
const listeners = new Set();
let language = "en";

// t("tokens", { count: 3 }): a string with its {names} filled in; one with plural forms takes that of `count`.
export function t(key, values = {}) {
  let text = STRINGS[language][key] ?? STRINGS.en[key];
  if (text === undefined) throw new Error(`no string "${key}"`);
  if (typeof text === "object") text = text[new Intl.PluralRules(LOCALES[language]).select(values.count)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : String(value);
  });
}

export function number(value, options = {}) {
  return new Intl.NumberFormat(LOCALES[language], options).format(value);
}

export const percent = (share) => number(share, { style: "percent", maximumSignificantDigits: share < 0.1 ? 2 : 3 });

// 0.0042 s would be read as zero; 12.3456 s says more than was measured.
export function seconds(value) {
  return t("seconds", { value: number(value, { maximumFractionDigits: value < 1 ? 2 : value < 10 ? 1 : 0 }) });
}

// "Nov 24", with the year where it is another one or is asked for.
export function date(milliseconds, { year = null } = {}) {
  const isThisYear = new Date(milliseconds).getFullYear() === new Date().getFullYear();
  const options = { month: "short", day: "numeric", ...(year !== null || !isThisYear ? { year: "numeric" } : {}) };
  return new Intl.DateTimeFormat(LOCALES[language], options).format(milliseconds);
}

export const currentLanguage = () => language;
export const onLanguage = (listener) => listeners.add(listener);

export function startLanguage() {
  const wanted = kept("language") ?? (navigator.languages?.[0] ?? navigator.language ?? "en").slice(0, 2).toLowerCase();
  show(wanted in STRINGS ? wanted : "en");
}

export function switchLanguage() {
  show(language === "en" ? "zh" : "en");
  keep("language", language);
}

// Fill in the strings that the elements under `root` name.
export function translate(root) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const [name, attribute] of Object.entries(ATTRIBUTES)) {
    const selector = `[data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}]`;
    for (const element of root.querySelectorAll(selector)) element.setAttribute(attribute, t(element.dataset[name]));
  }
}

function show(wanted) {
  language = wanted;
  document.documentElement.lang = LOCALES[language];
  translate(document);
  for (const listener of listeners) listener();
}

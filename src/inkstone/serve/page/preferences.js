// Small settings of the reader, kept by the browser where it allows that and in memory where it does not.
const PREFIX = "inkstone-";
const memory = new Map();

// Text that was kept under a name, or null.
export function kept(name) {
  try {
    return localStorage.getItem(PREFIX + name) ?? memory.get(name) ?? null;
  } catch {
    return memory.get(name) ?? null;
  }
}

export function keep(name, text) {
  memory.set(name, text);
  try {
    localStorage.setItem(PREFIX + name, text);
  } catch { /* storage is full or forbidden: memory has it until the page closes */ }
}

export function forget(name) {
  memory.delete(name);
  try {
    localStorage.removeItem(PREFIX + name);
  } catch { /* nothing was kept */ }
}

// A value that was kept as JSON; anything that is not an object (damaged, edited by hand) counts as absent.
export function keptObject(name) {
  try {
    const value = JSON.parse(kept(name) ?? "null");
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

export const keepObject = (name, value) => keep(name, JSON.stringify(value));

// The server's routes. Whatever goes wrong becomes a ServerError whose kind says what its reader can do about it.
import { readKey } from "./keyring.js";
import { readEvents, SilenceError } from "./sse.js";

const SILENCE_SECONDS = 60; // the server sends a comment every 15 s while it has nothing to say
const MAX_RETRY_SECONDS = 120;

// Kinds: offline (no connection), key (401), busy (429, 503), context (too long), refused (the request is at fault),
// failed (the server is), cut (the stream ended early). `retrySeconds` is how long the server asks to wait, or null.
export class ServerError extends Error {
  constructor(kind, message = "", { status = 0, retrySeconds = null } = {}) {
    super(message);
    Object.assign(this, { kind, status, retrySeconds });
  }
}

export async function fetchModels() {
  const { data } = await (await request("v1/models")).json();
  return data;
}

// {train: [[step, loss], ...], val: [...]}, or null where the server knows no curves of this model.
export async function fetchCurves(model) {
  try {
    return await (await request(`v1/models/${encodeURIComponent(model)}/curves`)).json();
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

export const streamChat = (body, signal) => stream("v1/chat/completions", body, signal);
export const streamCompletion = (body, signal) => stream("v1/completions", body, signal);

async function* stream(path, body, signal) {
  const options = { stream: true, stream_options: { include_usage: true } };
  const response = await request(path, { body: JSON.stringify({ ...body, ...options }), signal });
  try {
    for await (const data of readEvents(response.body, { silenceSeconds: SILENCE_SECONDS })) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError("failed", chunk.error.message);
      yield chunk;
    }
  } catch (error) {
    throw error instanceof ServerError || error.name === "AbortError" ? error : new ServerError("cut", reason(error));
  }
  throw new ServerError("cut");
}

const reason = (error) => (error instanceof SilenceError || error instanceof TypeError ? "" : error.message);

async function request(path, { body = null, signal = null } = {}) {
  const headers = {};
  if (body !== null) headers["Content-Type"] = "application/json";
  if (readKey()) headers.Authorization = `Bearer ${readKey()}`;
  let response;
  try {
    response = await fetch(path, { method: body === null ? "GET" : "POST", headers, body, signal, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerError("offline");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const { status } = response;
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch { /* not our server's answer: a proxy's page, say */ }
  const details = { status, retrySeconds: retrySeconds(response.headers.get("Retry-After")) };
  return new ServerError(kindOf(status, error.code), error.message ?? `HTTP ${status}`, details);
}

function kindOf(status, code) {
  if (status === 401) return "key";
  if (status === 429 || status === 503) return "busy";
  if (code === "context_length_exceeded") return "context";
  return status < 500 ? "refused" : "failed";
}

function retrySeconds(header) {
  const value = Number(header ?? NaN);
  return Number.isFinite(value) && value > 0 ? Math.min(value, MAX_RETRY_SECONDS) : null;
}

// Small helpers: elements, requests, words. Text is always set as text, never as HTML.

export const $ = (id) => document.getElementById(id);

/** Makes an element: `make("li", {className: "x"}, "text", child)`. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Shows `text` in an element that is hidden while it is empty. */
export function tell(element, text) {
  element.textContent = text ?? "";
  element.hidden = !text;
}

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const REQUEST_TIMEOUT_MS = 12_000;

/** GET as JSON; raises ApiError with the server's own words. */
export async function get(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  let response;
  try {
    response = await fetch(query ? `${path}?${query}` : path, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
  } catch {
    throw new ApiError(0, "Unreachable", "Belvedere does not answer. Is `belvedere up` running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = body.error ?? {};
    throw new ApiError(response.status, error.code ?? "Error", error.message ?? `HTTP ${response.status}`);
  }
  return body;
}

/** Runs `work` every `interval_ms` while the page is visible, never twice at once; `.now()` runs it at once. */
export function every(interval_ms, work) {
  let timer = 0;
  let running = false;
  let again = false;
  async function run() {
    clearTimeout(timer);
    if (running) { again = true; return; }
    running = true;
    try { await work(); } finally {
      running = false;
      if (again) { again = false; run(); } else if (!document.hidden) { timer = setTimeout(run, interval_ms); }
    }
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); });
  return { now: run };
}

const GOOD = new Set(["ONLINE", "RUNNING", "DEPLOYMENT_SUCCEEDED", "SUCCEEDED"]);
const BAD = new Set(["ERROR", "FAILED", "DEPLOYMENT_ERROR", "DEPLOYMENT_FAILED", "REMOVAL_FAILED", "OFFLINE", "LEASE_EXPIRED"]);
const IDLE = new Set(["NOT_AVAILABLE", "PAUSED", "AWAITING_PROVISIONING"]);

/** "good", "bad", "wait" or "" for a status. */
export function tone(status) {
  if (!status || IDLE.has(status)) return "";
  if (GOOD.has(status)) return "good";
  return BAD.has(status) ? "bad" : "wait";
}

/** "DEPLOYMENT_IN_PROGRESS" → "deployment in progress". */
export const words = (status) => (status ?? "").toLowerCase().replaceAll("_", " ");

export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

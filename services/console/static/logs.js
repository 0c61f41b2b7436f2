// The last lines of one log stream, and what comes since.

import { $, clock, every, get, make, tell } from "./dom.js";

const MAX_LINES = 300;
const INTERVAL_MS = 2_000;
const STREAMS_INTERVAL_MS = 10_000;

const WORD = /\b(error|critical|fatal|exception|traceback)\b/i;
const WARNING = /\bwarn(ing)?\b/i;

/** Our own processes write JSON: its event and fields read better than its braces. */
function readable(message) {
  const text = message.replace(/\n$/, "");
  if (!text.startsWith("{")) return [text, WORD.test(text) ? "bad" : WARNING.test(text) ? "wait" : ""];
  try {
    const { timestamp, level, process, logger, event, exception, ...fields } = JSON.parse(text);
    if (event === undefined) return [text, ""];
    const rest = Object.entries(fields).map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
    const line = [process && `${process}:`, event, ...rest].filter(Boolean).join(" ") + (exception ? `\n${exception}` : "");
    return [line, ["error", "critical"].includes(level) ? "bad" : level === "warning" ? "wait" : ""];
  } catch {
    return [text, ""];
  }
}

export class Logs {
  constructor() {
    this.select = $("stream");
    this.lines = $("lines");
    this.select.addEventListener("change", () => { this.chosen = this.select.value; this.restart(); });
    this.streams = every(STREAMS_INTERVAL_MS, () => this.listStreams());
    this.events = every(INTERVAL_MS, () => this.read());
    this.restart();
  }

  /** Shows the streams of a device, `application`'s own first. */
  show(device_id, application) {
    if (device_id === this.device && application === this.application) return;
    this.device = device_id;
    this.application = application;
    this.chosen = undefined;
    this.select.replaceChildren();
    this.restart();
    this.streams.now();
  }

  restart() {
    this.token = "";
    this.lines.replaceChildren(make("li", { className: "empty" }, this.device ? "no lines yet" : "no device"));
    tell($("log-error"), "");
    this.events.now();
  }

  async listStreams() {
    const device = this.device;
    if (!device) return;
    let streams;
    try {
      ({ streams } = await get("/api/logs/streams", { device }));
    } catch (error) {
      tell($("log-error"), error.message);
      return;
    }
    if (device !== this.device) return;
    const own = (stream) => this.application && stream.group.endsWith(`/applications/${this.application}`);
    streams.sort((a, b) => own(b) - own(a));
    const values = streams.map((stream) => `${stream.group}\n${stream.stream}`);
    if (values.join("\0") !== [...this.select.options].map((option) => option.value).join("\0")) {
      this.select.replaceChildren(...streams.map((stream, n) => {
        const group = stream.group.split("/applications/")[1] ?? "appliance";
        return make("option", { value: values[n] }, `${group} · ${stream.stream}`);
      }));
    }
    if (values.includes(this.chosen)) this.select.value = this.chosen;
    else if (values.length) { this.chosen = this.select.value = values[0]; this.restart(); }
  }

  async read() {
    const chosen = this.chosen;
    if (!chosen) return;
    const [group, stream] = chosen.split("\n");
    try {
      const parameters = { group, stream };
      if (this.token) parameters.token = this.token;
      const { events, token } = await get("/api/logs", parameters);
      if (chosen !== this.chosen) return;
      tell($("log-error"), "");
      this.token = token;
      this.add(events);
    } catch (error) {
      tell($("log-error"), error.message);
    }
  }

  add(events) {
    if (!events.length) return;
    this.lines.querySelector(".empty")?.remove();
    this.lines.append(...events.map((event) => {
      const [text, kind] = readable(event.message);
      return make("li", {}, make("time", { textContent: clock(event.timestamp_ms) }), make("span", { className: kind, textContent: text }));
    }));
    while (this.lines.children.length > MAX_LINES) this.lines.firstChild.remove();
    if ($("follow").checked) this.lines.scrollTop = this.lines.scrollHeight;
  }
}

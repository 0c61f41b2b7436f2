// Plays a device's video: fragmented MP4 over a WebSocket, through Media Source Extensions, close to the live edge.
//
// Protocol: a text message {"mime", "width", "height"}, then a binary init segment, then one binary fragment a picture; text and
// init segment again where the picture's size changes. Each connection's time line starts at 0.

const MAX_LAG_S = 1.0;      // more: jump to the live edge
const AIM_LAG_S = 0.12;     // where a jump lands
const HURRY_LAG_S = 0.4;    // more: play a little faster
const KEEP_S = 4;           // played picture kept in the buffer
const MAX_QUEUE = 150;      // fragments that wait for the decoder; more: start afresh
const SILENCE_MS = 5_000;   // without a fragment the picture counts as standing still
const RETRY_FIRST_MS = 400;
const RETRY_LAST_MS = 8_000;

export class Player {
  /** `address()` gives a promise of the WebSocket's URL, asked before each connection; `report(state, text)` tells how it goes. */
  constructor(video, address, report) {
    this.video = video;
    this.address = address;
    this.report = report;
    this.retry_ms = RETRY_FIRST_MS;
    this.closed = false;
    this.frames = 0;
    this.onVisible = () => { if (!document.hidden) this.toLive(true); };
    document.addEventListener("visibilitychange", this.onVisible);
    this.connect();
  }

  async connect() {
    if (this.closed) return;
    this.report("connecting", "connecting to the video …");
    let url;
    try {
      url = await this.address();
    } catch (error) {
      this.again(error.message);
      return;
    }
    if (this.closed) return;
    if (!url) { this.again("no video yet"); return; }
    const socket = this.socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.heard();
      if (typeof event.data === "string") this.begin(JSON.parse(event.data));
      else this.take(event.data);
    };
    socket.onclose = () => {
      if (socket === this.socket) this.again(`the appliance does not answer at ${new URL(url).host}`);
    };
    this.heard();
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.report("waiting", "no new picture from the appliance"), SILENCE_MS);
  }

  again(why) {
    this.drop();
    if (this.closed) return;
    this.report("retrying", `${why}; trying again`);
    this.timer = setTimeout(() => this.connect(), this.retry_ms * (0.75 + Math.random() / 2));
    this.retry_ms = Math.min(this.retry_ms * 2, RETRY_LAST_MS);
  }

  begin(about) {
    if (!("MediaSource" in window) || !MediaSource.isTypeSupported(about.mime)) {
      this.report("failed", `this browser cannot play ${about.mime}`);
      this.drop();
      this.closed = true;
      return;
    }
    this.size = `${about.width} × ${about.height}`;
    if (this.buffer) {
      this.queue.push({ type: about.mime });
      this.feed();
      return;
    }
    this.queue = [];
    const source = this.source = new MediaSource();
    this.url = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => {
      if (source !== this.source) return;
      this.buffer = source.addSourceBuffer(about.mime);
      this.buffer.addEventListener("updateend", () => { this.toLive(false); this.feed(); });
      this.buffer.addEventListener("error", () => this.socket?.close());
      this.feed();
    }, { once: true });
    this.video.src = this.url;
  }

  take(data) {
    if (!this.queue) return;
    this.queue.push(data);
    this.frames += 1;
    if (this.queue.length > MAX_QUEUE) { this.again("the video came faster than it could be played"); return; }
    this.feed();
  }

  feed() {
    const buffer = this.buffer;
    if (!buffer || buffer.updating || this.source.readyState !== "open") return;
    const ranges = buffer.buffered;
    const now = this.video.currentTime;
    if (ranges.length && now - ranges.start(0) > KEEP_S * 2) {
      buffer.remove(ranges.start(0), now - KEEP_S);
      return;
    }
    const next = this.queue.shift();
    if (next === undefined) return;
    try {
      if (next.type) { buffer.changeType(next.type); this.feed(); }
      else buffer.appendBuffer(next);
    } catch (error) {
      this.again(error.name === "QuotaExceededError" ? "the browser's video buffer is full" : `the video cannot be played: ${error.message}`);
    }
  }

  /** Keeps close to the newest picture. */
  toLive(force) {
    const ranges = this.buffer?.buffered;
    if (!ranges?.length) return;
    const video = this.video;
    const end = ranges.end(ranges.length - 1);
    const lag = end - video.currentTime;
    if (force || lag > MAX_LAG_S || lag < -0.5) video.currentTime = Math.max(ranges.start(ranges.length - 1), end - AIM_LAG_S);
    video.playbackRate = lag > HURRY_LAG_S ? 1.08 : 1;
    if (video.paused) video.play().catch(() => this.report("waiting", "press the picture to play"));
    this.retry_ms = RETRY_FIRST_MS;
    this.report("playing", "");
  }

  /** Seconds between the newest picture that has arrived and the one that is shown. */
  get lag() {
    const ranges = this.buffer?.buffered;
    return ranges?.length ? Math.max(0, ranges.end(ranges.length - 1) - this.video.currentTime) : 0;
  }

  drop() {
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    const socket = this.socket;
    this.socket = this.source = this.buffer = this.queue = undefined;
    socket?.close();
    if (this.url) {
      URL.revokeObjectURL(this.url);
      this.url = undefined;
      this.video.removeAttribute("src");
      this.video.load();
    }
  }

  close() {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.onVisible);
    this.drop();
  }
}

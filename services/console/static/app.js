// The live page: what is chosen, and what is asked for again and again.

import { Chart, number } from "./chart.js";
import { $, every, get, make, tell, tone, words } from "./dom.js";
import { Logs } from "./logs.js";
import { Player } from "./player.js";

const OVERVIEW_MS = 2_000;
const DETAIL_MS = 2_000;
const METRIC_MS = 3_000;
const METRICS_MS = 15_000;

const chart = new Chart($("chart"));
const logs = new Logs();
const state = { overview: null, application: null, device: null, detail: null, player: null, playing: "", metrics: [] };

// --- what is chosen ---------------------------------------------------------------------------------------------------

function choose() {
  const [, kind, id] = location.hash.split("/");
  const { applications, devices } = state.overview;
  let application = applications.find((a) => kind === "applications" && a.id === id);
  let device = devices.find((d) => kind === "devices" && d.id === id);
  if (!application && !device) {
    application = applications.find((a) => a.health === "RUNNING") ?? applications[0];
  }
  device ??= devices.find((d) => d.id === application?.device_id) ?? (application ? undefined : devices[0]);
  const device_id = device?.id ?? application?.device_id ?? null;
  const changed = application?.id !== state.application?.id || device_id !== state.device;
  state.application = application ?? null;
  state.device = device_id;
  if (changed) {
    state.detail = null;
    stopVideo();
    detail.now();
    metrics.now();
  }
  logs.show(device_id, application?.name);
}

addEventListener("hashchange", () => { if (state.overview) { choose(); render(); } });

// --- lists and facts ---------------------------------------------------------------------------------------------------

function item(kind, thing, status, sub, current) {
  const button = make("button", { type: "button", title: sub ?? "" },
    make("span", { className: `dot ${tone(status)}` }), make("span", { className: "name", textContent: thing.name }),
    make("span", { className: "sub", textContent: sub ?? "" }));
  button.setAttribute("aria-current", String(current));
  button.addEventListener("click", () => { location.hash = `#/${kind}/${thing.id}`; });
  return make("li", {}, button);
}

function fill(list, items, error, empty) {
  if (error) items.unshift(make("li", { className: "problem", textContent: error }));
  else if (!items.length) items.push(make("li", { className: "empty", textContent: empty }));
  const focused = [...list.children].findIndex((child) => child.contains(document.activeElement));
  list.replaceChildren(...items);
  list.children[focused]?.firstChild?.focus?.();
}

function badge(element, status) {
  tell(element, words(status));
  element.className = `badge ${tone(status)}`;
}

function render() {
  const { overview, application } = state;
  $("where").textContent = `account ${overview.account} · ${overview.region}`;
  fill($("applications"), overview.applications.map((a) => item("applications", a, worse(a), `${words(a.status)}${a.device_name ? ` · ${a.device_name}` : ""}`, a.id === application?.id)),
    overview.errors.applications, "none deployed yet");
  fill($("devices"), overview.devices.map((d) => item("devices", d, d.status, words(d.status), d.id === state.device)),
    overview.errors.devices, "none provisioned yet");
  const device = overview.devices.find((d) => d.id === state.device);
  $("title").textContent = application?.name ?? device?.name ?? "Nothing to see yet";
  document.title = application ? `${application.name} · Belvedere` : "Belvedere";
  badge($("status"), application ? application.status : device?.status);
  badge($("health"), application?.health);
  const text = application ? application.reason : device ? "" : "Provision an appliance and deploy an application: it appears here by itself.";
  $("reason").textContent = text ?? "";
  $("reason").className = application && tone(worse(application)) === "bad" ? "problem" : "quiet";
}

/** The status that matters more: an application that is deployed and not healthy is not well. */
function worse(application) {
  return application.status === "DEPLOYMENT_SUCCEEDED" && application.health === "ERROR" ? "ERROR" : application.status;
}

function renderDetail() {
  const { application, device } = state.detail ?? {};
  const nodes = application?.nodes ?? [];
  $("nodes").replaceChildren(...(nodes.length ? nodes.map((node) => make("li", {},
    make("span", { className: `dot ${tone(node.status)}` }), make("span", { className: "name", textContent: node.name }),
    make("span", { className: "quiet", textContent: words(node.status) })))
    : [make("li", { className: "quiet", textContent: "–" })]));
  const facts = device ? [
    ["name", device.name], ["status", words(device.status)], ["connection", words(device.connection)], ["software", device.software],
    ["address", device.address], ["serial number", device.serial_number],
  ] : [];
  $("device").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [
    make("dt", { textContent: name }), make("dd", { textContent: value })]));
}

// --- video --------------------------------------------------------------------------------------------------------------

const place = (url) => url.split("?")[0];
const origin = (url) => new URL(url).origin;

/** The page's security policy names the devices that had videos when it was loaded: a new one needs it loaded again, once. */
function allowed(url) {
  const known = document.querySelector("meta[name=video-origins]").content.split(" ");
  if (known.includes(origin(url))) return true;
  const key = `reloaded for ${origin(url)}`;
  if (!sessionStorage.getItem(key)) {
    sessionStorage.setItem(key, "1");
    location.reload();
  }
  return false;
}

function stopVideo() {
  state.player?.close();
  state.player = null;
  state.playing = "";
  $("video-facts").textContent = "";
}

function videoState(text, middle) {
  $("video-state").textContent = text;
  $("video-state").className = `video-state${middle ? " middle" : ""}`;
}

function showVideo(videos, error) {
  const video = videos[0];
  if (!video) {
    stopVideo();
    videoState(error ?? (state.application ? "no video yet: it begins with the application's first picture" : "no video"), true);
    return;
  }
  if (state.playing === place(video.websocket_url)) return;
  if (!allowed(video.websocket_url)) {
    videoState(`the video's address ${origin(video.websocket_url)} is not allowed on this page`, true);
    return;
  }
  stopVideo();
  state.playing = place(video.websocket_url);
  let first = video.websocket_url;
  const address = async () => {
    const url = first ?? (await videos_now()).find((v) => place(v.websocket_url) === state.playing)?.websocket_url;
    first = null;   // its token is for now: a later connection asks for a fresh one
    return url;
  };
  state.player = new Player($("video"), address, (kind, text) => videoState(text, kind !== "playing" && kind !== "waiting"));
}

async function videos_now() {
  const path = state.application ? `/api/applications/${state.application.id}` : `/api/devices/${state.device}`;
  return (await get(path)).videos;
}

$("video").addEventListener("click", () => state.player?.toLive(true));
let shown = 0;
setInterval(() => {
  const player = state.player;
  if (!player?.size) { $("video-facts").textContent = ""; return; }
  $("video-facts").textContent = `${player.size} · ${Math.max(0, player.frames - shown)} pictures a second · ${Math.round(player.lag * 1000)} ms buffered`;
  shown = player.frames;
}, 1_000);

// --- again and again ----------------------------------------------------------------------------------------------------

function trouble(error) {
  if (error.code === "NoSession") { location.reload(); return; }
  tell($("notice"), error.message);
}

const overview = every(OVERVIEW_MS, async () => {
  try {
    state.overview = await get("/api/overview");
    tell($("notice"), "");
    choose();
    render();
  } catch (error) {
    trouble(error);
  }
});

const detail = every(DETAIL_MS, async () => {
  const { application, device } = state;
  if (!device) { if (state.overview) { showVideo([], null); renderDetail(); } return; }
  try {
    const [one, other] = await Promise.all([
      application ? get(`/api/applications/${application.id}`) : null, get(`/api/devices/${device}`)]);
    if (application?.id !== state.application?.id || device !== state.device) return;
    state.detail = { application: one, device: other.device };
    tell($("device-error"), "");
    showVideo((one ?? other).videos, (one ?? other).videos_error);
  } catch (error) {
    tell($("device-error"), error.message);
  }
  renderDetail();
});

const metrics = every(METRICS_MS, async () => {
  try {
    const found = (await get("/api/metrics/list", state.device ? { device: state.device } : {})).metrics;
    const labels = found.map((m) => [`${m.namespace} · ${m.name}`, ...Object.entries(m.dimensions).map(([k, v]) => (k.endsWith("Id") ? "" : `${v}`))].filter(Boolean).join(" · "));
    const before = $("metric").value;
    if (labels.join() !== [...$("metric").options].map((o) => o.textContent).join()) {
      $("metric").replaceChildren(...found.map((m, n) => make("option", { value: JSON.stringify(m), textContent: labels[n] })));
      if (found.some((m) => JSON.stringify(m) === before)) $("metric").value = before;
      points.now();
    }
  } catch (error) {
    tell($("metric-error"), error.message);
  }
});

const points = every(METRIC_MS, async () => {
  const chosen = $("metric").value;
  if (!chosen) { chart.show(undefined, "no metrics yet"); metrics.now(); return; }
  const { namespace, name, dimensions } = JSON.parse(chosen);
  try {
    const data = await get("/api/metrics", { namespace, name, dimensions: JSON.stringify(dimensions), minutes: $("minutes").value });
    if (chosen !== $("metric").value) return;
    tell($("metric-error"), "");
    chart.show(data, "no data in this time");
    const last = data.points.at(-1);
    $("metric-now").textContent = last ? number(last.average) : "–";
    $("metric-unit").textContent = `${name}${last && last.unit !== "None" ? `, ${last.unit.toLowerCase()}` : ""}, average of ${data.period_s} s`;
  } catch (error) {
    tell($("metric-error"), error.message);
  }
});

for (const id of ["metric", "minutes"]) $(id).addEventListener("change", () => points.now());
$("logout").addEventListener("click", async () => { await fetch("/logout", { method: "POST" }); location.reload(); });
videoState("…", true);
overview.now();

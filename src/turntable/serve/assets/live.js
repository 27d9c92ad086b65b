// Keeps the page as the server says it is. What is shown comes as text and is put in as text; nothing here makes markup.
"use strict";

const body = document.body.dataset;
const only = body.only; // the one run that a run's own page shows
const parts = {};
let source = null;
let clock = 0; // the server's, in seconds, when clockAt was the browser's
let clockAt = 0;

const byId = (id) => document.getElementById(id);

function fill(element, item) {
  for (const each of [element, ...element.querySelectorAll("[data-text], [data-href]")]) {
    const { text, href } = each.dataset;
    if (text !== undefined && each.textContent !== item[text]) each.textContent = item[text];
    if (href !== undefined && each.getAttribute("href") !== item[href]) each.setAttribute("href", item[href]);
  }
}

function fromTemplate(name) {
  return byId(name).content.firstElementChild.cloneNode(true);
}

// As many elements as there are items, each filled; those that stay keep the focus.
function list(parent, template, items, show) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(fromTemplate(template));
  items.forEach((item, number) => {
    fill(parent.children[number], item);
    if (show) show(parent.children[number], item);
  });
}

function showRun(element, row) {
  fill(element, row);
  const state = element.querySelector("[data-state]");
  state.className = `state ${row.state}`;
  element.querySelector("progress").value = row.fraction;
  const swatch = element.querySelector("[data-colour]");
  if (swatch) swatch.className = `swatch run-${row.colour}`;
  for (const form of element.querySelectorAll("form[data-wish]")) {
    form.setAttribute("action", `${row.url}/${form.dataset.wish}`);
    const hidden = !row.can.includes(form.dataset.wish);
    if (hidden && form.contains(document.activeElement)) element.querySelector("a").focus();
    form.hidden = hidden;
  }
}

function showRuns() {
  const table = byId("runs");
  const rows = new Map([...table.children].map((row) => [row.dataset.run, row]));
  parts.order.forEach((run, place) => {
    let row = rows.get(run);
    if (!row) {
      row = fromTemplate("run-row");
      row.dataset.run = run;
    }
    rows.delete(run);
    if (table.children[place] !== row) table.insertBefore(row, table.children[place] || null);
    if (parts[`run/${run}`]) showRun(row, parts[`run/${run}`]);
  });
  for (const row of rows.values()) row.remove();
}

function showLanes() {
  const { begin, end, devices } = parts.turns;
  const now = clock + (performance.now() - clockAt) / 1000;
  const length = (end === null ? now : end) - begin || 1;
  list(byId("lanes"), "lane", devices, (element, device) => {
    const lane = element.querySelector(".lane");
    lane.setAttribute("aria-label", body.lane.replace("{device}", device.name));
    while (lane.children.length > device.turns.length) lane.lastElementChild.remove();
    while (lane.children.length < device.turns.length) {
      lane.append(document.createElement("span"));
      lane.lastElementChild.append(document.createElement("span"));
    }
    device.turns.forEach((turn, number) => {
      const drawn = lane.children[number];
      drawn.className = `turn run-${turn.colour}`;
      drawn.style.left = `${(100 * (turn.started - begin)) / length}%`;
      drawn.style.width = `${(100 * ((turn.ended === null ? now : turn.ended) - turn.started)) / length}%`;
      drawn.title = `${turn.run} · ${turn.from}–${turn.to} · ${turn.why}`;
      drawn.firstElementChild.textContent = turn.run;
    });
  });
}

function showTurns() {
  const turns = parts.turns.devices.flatMap((device) =>
    device.turns.map((turn) => ({ ...turn, device: device.name })).reverse());
  list(byId("turns"), "turn-row", turns);
  fill(byId("stretch"), parts.turns);
}

function showCapture(element, capture) {
  element.querySelector("a").hidden = !capture.page;
  element.querySelector(".plain-name").hidden = capture.page;
  const form = element.querySelector("form");
  form.setAttribute("action", `${capture.url}write`);
  form.hidden = capture.writing;
}

function say(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

function show(changed) {
  if (changed.order || Object.keys(changed).some((key) => key.startsWith("run/"))) showRuns();
  if (changed.devices) list(byId("devices"), "device-item", parts.devices);
  if (changed.turns) showTurns();
  if (changed.captures) list(byId("capture-list"), "capture-item", parts.captures, showCapture);
  if ("notice" in changed) say("notice", parts.notice);
  if ("older" in changed) say("older", parts.older);
  showLanes();
}

async function showResult() {
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  byId("result").replaceWith(page.getElementById("result"));
}

function showOnly(before, row) {
  if (!row) return;
  showRun(document.querySelector("[data-run]"), row);
  if (before && (before.score !== row.score || before.state !== row.state)) showResult();
}

function take(event, all) {
  const told = JSON.parse(event.data);
  const changed = told.parts;
  clock = told.now;
  clockAt = performance.now();
  const before = parts[`run/${only}`];
  if (all) for (const key of Object.keys(parts)) delete parts[key];
  for (const [key, part] of Object.entries(changed)) {
    if (part === null) delete parts[key];
    else parts[key] = part;
  }
  if (only) showOnly(before, changed[`run/${only}`]);
  else show(changed);
}

function connection(on) {
  byId("connection").textContent = on ? body.live : body.lost;
  byId("connection").classList.toggle("on", on);
}

function connect() {
  if (source) source.close();
  source = new EventSource("/events");
  source.addEventListener("open", () => connection(true));
  source.addEventListener("all", (event) => take(event, true));
  source.addEventListener("changes", (event) => take(event, false));
  source.addEventListener("error", () => {
    connection(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
  });
}

// Browsers have few connections to one server: a page that nobody sees holds none.
document.addEventListener("visibilitychange", () => {
  if (document.hidden && source) source.close();
  else if (!document.hidden) connect();
});

document.addEventListener("submit", async (event) => {
  const form = event.target;
  event.preventDefault();
  const button = form.querySelector("button");
  const row = form.closest("[data-run]");
  if (button.getAttribute("aria-disabled") === "true") return;
  if (form.dataset.ask && !confirm(form.dataset.ask.replace("{run}", row.dataset.run))) return;
  button.setAttribute("aria-disabled", "true");
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { Accept: "application/json" },
    });
    say("message", (await answer.json()).message);
  } catch {
    say("message", body.failed);
  } finally {
    button.removeAttribute("aria-disabled");
  }
});

if (!only) setInterval(() => { if (parts.turns && !document.hidden) showLanes(); }, 5000);
if (!document.hidden) connect();

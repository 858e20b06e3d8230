// Keyboard, live updates and the help of the console. All pages work without this script.
const editable = "input, textarea, select";
const rows = () => [...document.querySelectorAll("table.queue tr[data-alert]")];
let cursor = null; // the alert under the cursor, so that the cursor stays with its alert when the queue changes

function mark(scroll) {
  const all = rows();
  if (!all.length) return;
  if (!all.some((row) => row.dataset.alert === cursor)) cursor = all[0].dataset.alert;
  for (const row of all) {
    const here = row.dataset.alert === cursor;
    row.classList.toggle("at", here);
    row.setAttribute("aria-selected", String(here));
    if (here && scroll) row.scrollIntoView({ block: "nearest" });
  }
}

function move(step) {
  const all = rows();
  const place = all.findIndex((row) => row.dataset.alert === cursor);
  const next = all[Math.min(Math.max(place + step, 0), all.length - 1)];
  if (next) cursor = next.dataset.alert;
  mark(true);
}

function press(key) {
  const control = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (control) control.click();
  return Boolean(control);
}

function focus(selector) {
  const found = document.querySelector(selector);
  if (found) found.focus();
  return Boolean(found);
}

const keys = {
  j: () => move(1),
  k: () => move(-1),
  Enter: () => document.querySelector("table.queue tr.at a[data-open]")?.click(),
  q: () => location.assign("/"),
  "/": () => focus("[data-search]"),
  "?": () => document.getElementById("help")?.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.repeat && event.key !== "j" && event.key !== "k") return; // a held key acts once
  if (event.target.matches(editable)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "Enter" && event.target.matches("a, button, summary")) return;
  const done = focus(`[data-focus="${CSS.escape(event.key)}"]`) || press(event.key);
  if (!done && keys[event.key]) keys[event.key]();
  else if (!done) return;
  event.preventDefault();
});

document.querySelector("[data-help]")?.addEventListener("click", () => document.getElementById("help").showModal());

// A form is sent once, however often its button is pressed. After a verdict, the next alert comes up in the same place:
// for a moment, it takes no verdict, so that a second press or click of the same kind judges nothing that nobody has seen.
const shownAt = performance.now();
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method === "dialog") return;
  const soon = performance.now() - shownAt < 350 && event.submitter?.name === "finding";
  if (form.dataset.sent || soon) event.preventDefault();
  else form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => delete form.dataset.sent));

// Live updates: the table is fetched again, and the row under the cursor keeps its place on the screen.
const queue = document.getElementById("queue");
const PAUSE = 2000; // between two fetches; with some chance added, so that many pages do not fetch at once
let events = null;
let wanted = false;
let busy = false;
let fetchedAt = 0;

function schedule() {
  wanted = true;
  if (busy || document.hidden) return;
  busy = true;
  setTimeout(refresh, Math.max(0, fetchedAt + PAUSE - performance.now()) + Math.random() * 300);
}

function refresh() {
  wanted = false;
  fetchedAt = performance.now();
  const typing = document.activeElement?.matches(editable) && queue.contains(document.activeElement);
  const fetched = typing ? Promise.resolve() : htmx.ajax("GET", queue.dataset.refresh, { target: "#queue", swap: "innerHTML" });
  fetched.finally(() => {
    busy = false;
    if (wanted || typing) schedule();
  });
}

let before = null; // place and height of the cursor's row just before the table is replaced
document.addEventListener("htmx:beforeSwap", () => {
  const all = rows();
  const place = all.findIndex((row) => row.dataset.alert === cursor);
  before = { place, top: all[place]?.getBoundingClientRect().top };
});
document.addEventListener("htmx:afterSwap", () => {
  const all = rows();
  if (before && all.length && !all.some((row) => row.dataset.alert === cursor)) {
    cursor = all[Math.min(Math.max(before.place, 0), all.length - 1)].dataset.alert;
  }
  mark(false);
  const top = all.find((row) => row.dataset.alert === cursor)?.getBoundingClientRect().top;
  if (window.scrollY > 0 && before?.top !== undefined && top !== undefined) window.scrollBy(0, top - before.top);
});

function listen() {
  if (!queue || (events && events.readyState !== EventSource.CLOSED)) return;
  events = new EventSource("/events");
  events.addEventListener("queue", schedule);
}
if (queue) {
  listen();
  window.addEventListener("pagehide", () => events?.close());
  window.addEventListener("pageshow", listen);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { listen(); schedule(); } });
  setInterval(() => { listen(); schedule(); }, 30000); // snoozes and claims end without an event
}
mark(false);

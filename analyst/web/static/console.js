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
  const button = document.querySelector(`button[data-key="${CSS.escape(key)}"]`);
  if (button) button.click();
  return Boolean(button);
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

// A verdict is sent once, however often a button is pressed.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  else event.target.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => delete form.dataset.sent));

// Live updates: the table is fetched again, and the row under the cursor keeps its place on the screen.
const queue = document.getElementById("queue");
let waiting = false;
function refresh() {
  if (document.querySelector("#queue :focus") && document.activeElement.matches(editable)) return;
  if (waiting) return;
  waiting = true;
  const before = rows();
  const place = before.findIndex((row) => row.dataset.alert === cursor);
  const top = before[place]?.getBoundingClientRect().top;
  htmx.ajax("GET", queue.dataset.refresh, { target: "#queue", swap: "innerHTML" }).finally(() => {
    waiting = false;
    const after = rows();
    if (!after.some((row) => row.dataset.alert === cursor) && after.length) {
      cursor = after[Math.min(Math.max(place, 0), after.length - 1)].dataset.alert;
    }
    mark(false);
    const now = after.find((row) => row.dataset.alert === cursor)?.getBoundingClientRect().top;
    if (window.scrollY > 0 && top !== undefined && now !== undefined) window.scrollBy(0, now - top);
  });
}
if (queue) {
  const events = new EventSource("/events");
  events.addEventListener("queue", refresh);
  window.addEventListener("pagehide", () => events.close());
}
mark(false);

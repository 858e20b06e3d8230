// Keys: j and k move through the queue, Enter opens; on an alert f, l and e give the verdict, q goes back.
let place = 0;
const links = () => [...document.querySelectorAll("table.queue tbody a")];
const mark = () => links().forEach((link, i) => link.closest("tr").classList.toggle("at", i === place));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const rows = links();
  const button = document.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
  if (button) button.click();
  else if (event.key === "q") location.href = "/";
  else if (rows.length && event.key === "j") place = Math.min(place + 1, rows.length - 1);
  else if (rows.length && event.key === "k") place = Math.max(place - 1, 0);
  else if (rows.length && event.key === "Enter" && !event.target.matches("a")) rows[Math.min(place, rows.length - 1)].click();
  mark();
});
document.addEventListener("htmx:afterSwap", mark);

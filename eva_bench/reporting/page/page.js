"use strict";
// Everything from records is shown through textContent: markup in a sample stays text.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};
const show = (value) => (value === null || value === undefined ? "–" : typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 5 }) : String(value));
const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

// Missing values stay last in both directions.
function compare(a, b, direction) {
  const empty = (x) => x === null || x === undefined || x === "" || x === "–";
  if (empty(a) || empty(b)) return empty(a) - empty(b);
  return direction * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
}

function nextDirection(head) {
  const direction = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  return direction;
}

for (const details of document.querySelectorAll("details.table")) {
  const body = details.querySelector("tbody");
  const value = (row, column) => {
    const cell = row.children[column];
    return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
  };
  details.querySelectorAll("thead th").forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const direction = nextDirection(head);
      body.append(...[...body.rows].sort((a, b) => compare(value(a, column), value(b, column), direction)));
    });
  });
  details.querySelector(".filter").addEventListener("input", (event) => {
    const wanted = words(event.target.value);
    for (const row of details.querySelectorAll("tbody tr")) row.hidden = !wanted.every((word) => row.textContent.toLowerCase().includes(word));
  });
}

// The list of runs: all of them in memory, a hundred at a time on the page.
const PAGE = 100;
const { columns, rows } = read("index");
const list = document.getElementById("run-list");
const more = document.getElementById("run-more");
let chosen = rows;
let shown = 0;

function extend() {
  const next = chosen.slice(shown, shown + PAGE).map((run) => {
    const row = make("tr");
    run.forEach((value, column) => {
      if (column === 0) row.appendChild(make("th", null, { scope: "row" })).append(make("a", value, { href: "#run/" + value }));
      else row.append(make("td", columns[column] === "seed" || typeof value === "string" ? value : show(value)));
    });
    return row;
  });
  list.tBodies[0].append(...next);
  shown += next.length;
  more.hidden = shown >= chosen.length;
  document.getElementById("run-count").textContent = `${shown} of ${chosen.length} shown`;
}

function restart() {
  list.tBodies[0].replaceChildren();
  shown = 0;
  extend();
}

const heads = make("tr");
columns.forEach((name, column) => {
  const head = make("th", null, { scope: "col" });
  const button = make("button", name, { type: "button" });
  button.addEventListener("click", () => {
    const direction = nextDirection(head);
    chosen = [...chosen].sort((a, b) => compare(a[column], b[column], direction));
    restart();
  });
  head.append(button);
  heads.append(head);
});
list.tHead.append(heads);
more.addEventListener("click", extend);
const texts = rows.map((run) => run.join(" ").toLowerCase());
document.getElementById("run-filter").addEventListener("input", (event) => {
  const wanted = words(event.target.value);
  chosen = rows.filter((_, i) => wanted.every((word) => texts[i].includes(word)));
  restart();
});
restart();

// One run, opened by its address #run/<name>.
function listing(title, pairs) {
  const known = Object.entries(pairs).filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!known.length) return [];
  const table = make("table");
  for (const [name, value] of known) {
    const row = table.insertRow();
    row.append(make("th", name, { scope: "row" }));
    for (const part of Array.isArray(value) ? value : [value]) row.append(make("td", show(part)));
  }
  const box = make("div", null, { class: "scroll" });
  box.append(table);
  return [make("h3", title), box];
}

function curve(points, index, title) {
  const usable = points.filter((point) => Number.isFinite(point[index]));
  if (usable.length < 2) return [];
  const NAME = "http://www.w3.org/2000/svg";
  const [x0, x1] = [usable[0][0], usable[usable.length - 1][0]];
  const top = Math.max(...usable.map((point) => point[index])) || 1;
  const place = (point) => `${40 + (300 * (point[0] - x0)) / (x1 - x0 || 1)},${130 - (115 * point[index]) / top}`;
  const svg = document.createElementNS(NAME, "svg");
  svg.setAttribute("viewBox", "0 0 350 160");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${title}, step ${x0} to ${x1}, at most ${show(top)}`);
  const line = document.createElementNS(NAME, "polyline");
  line.setAttribute("points", usable.map(place).join(" "));
  for (const [name, value] of [["fill", "none"], ["stroke", "#0b57d0"], ["stroke-width", "1.5"]]) line.setAttribute(name, value);
  const label = (text, x, y, anchor) => {
    const element = document.createElementNS(NAME, "text");
    element.textContent = text;
    for (const [name, value] of [["x", x], ["y", y], ["font-size", 11], ["text-anchor", anchor]]) element.setAttribute(name, value);
    return element;
  };
  svg.append(line, label(show(top), 36, 19, "end"), label("0", 36, 134, "end"), label(show(x0), 40, 148, "start"), label(show(x1), 340, 148, "end"), label(title, 190, 158, "middle"));
  return [svg];
}

function open() {
  const section = document.getElementById("run");
  const id = decodeURIComponent(location.hash).replace(/^#run\//, "");
  section.hidden = !location.hash.startsWith("#run/") || !document.getElementById("data-" + id);
  if (section.hidden) return;
  const run = read("data-" + id);
  const shared = read("shared");
  const curves = make("div", null, { class: "curves" });
  curves.append(...curve(run.curve, 1, "training loss"), ...curve(run.curve, 2, "gradient norm"));
  const costs = Object.fromEntries(Object.entries(run.costs).map(([phase, [seconds, bytes, reused]]) => [phase, `${show(seconds)} s, peak ${show(bytes / 1e9)} GB${reused ? ", from the cache" : ""}`]));
  const samples = run.samples.flatMap((sample, i) => listing(`Sample ${i + 1}`, sample));
  section.replaceChildren(
    make("h2", run.title), make("a", "Back to the list of runs", { href: "#runs" }), make("p", `Status: ${run.status}${run.error ? ". " + run.error : ""}`),
    ...listing("Scores: before, after training", run.metrics), curves, ...listing("Costs", costs), ...listing("Counts", run.counts),
    ...listing("Origin", run.origin), ...(samples.length ? samples : [make("h3", "Samples"), make("p", "Not here: answers stay in the folder runs/ of the machine that ran.")]),
    ...listing("Settings", shared[run.settings]), ...listing("Made with", shared[run.made_with]),
  );
  section.focus();
  section.scrollIntoView();
}
addEventListener("hashchange", open);
open();

// Closed tables would be missing on paper.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => (details.open = true)));

"use strict";
// Which view is shown: the address says it.

async function showFigures(page) {
  const ids = [...document.querySelectorAll("script[id^=figure-]")].map((script) => script.id);
  if (!ids.length) page.append(make("p", "No figures without records."));
  for (const figure of await Promise.all(ids.map(block))) {
    const image = make("img", null, { alt: figure.caption, src: "data:image/svg+xml;charset=utf-8," + encodeURIComponent(figure.svg) });
    page.append(make("figure", null, { id: `picture-${figure.name}` }, [image, make("figcaption", figure.caption)]));
  }
}

function showMissing(page, data) {
  const lines = data.not_run.length ? data.not_run : ["Every cell of every table has records."];
  page.append(make("ul", null, {}, lines.map((line) => make("li", line))));
}

const VIEWS = {
  overview: ["Overview", showOverview], tables: ["Tables", showTables], compare: ["Compare", showCompare], tradeoffs: ["Trade-offs", showTradeoffs],
  rates: ["Rates", showRates], runs: ["Runs", showRuns], claims: ["Claims", showClaims], probes: ["Probes", showProbes], figures: ["Figures", showFigures], missing: ["Not run", showMissing],
};

let drawing = 0;
async function draw() {
  const number = ++drawing;
  const data = await block("data");
  const name = VIEWS[state.get("view")] ? state.get("view") : "overview";
  const [title, showView] = VIEWS[name];
  const page = make("section", null, { id: `view-${name}` }, [make("h2", title)]);
  const old = byId("view");
  const active = document.activeElement?.name;
  const head = document.activeElement?.closest("thead button"); // sorting by keyboard goes on from the same head
  const key = head?.closest("table").dataset.key;
  const opened = [...old.querySelectorAll("details")].map((details) => details.open);
  const same = old.dataset.view === name;
  const holder = make("div", null, { id: "view", "data-view": name });
  old.replaceWith(holder);
  holder.append(page);
  await showView(page, data);
  if (number !== drawing) return;
  if (same) page.querySelectorAll("details").forEach((details, i) => (details.open = opened[i] ?? false));
  if (head) [...page.querySelectorAll(`[data-key="${key}"] thead button`)].find((each) => each.textContent === head.textContent)?.focus();
  if (active) page.querySelector(`[name="${CSS.escape(active)}"]`)?.focus();
  document.querySelectorAll("nav a").forEach((link) => (link.dataset.view === name ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current")));
  document.body.dataset.ready = String(number);
  performance.mark("drawn");
}

const nav = byId("nav");
for (const [name, [title]] of Object.entries(VIEWS)) nav.append(make("a", title, { href: `#view=${name}`, "data-view": name }));
addEventListener("hashchange", draw);
addEventListener("statechange", draw);
isDark.addEventListener("change", draw);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
draw();

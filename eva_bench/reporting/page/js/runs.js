"use strict";
// The list of runs, filtered by field, and one run with everything that its record says.

const PAGE = 100;
const FIELDS = ["scale", "family", "task", "method", "stage", "status"];

async function showRuns(page, data) {
  const { columns, rows, block: size } = data.runs;
  const column = (name) => columns.indexOf(name);
  const wanted = state.get("run");
  if (wanted !== "") return showRun(page, data, Number(wanted), size);
  const filters = FIELDS.map((field) => {
    const values = [...new Set(rows.map((row) => row[column(field)]))].sort();
    return choice(field, field, [["", "all"], ...values]);
  });
  const chosen = rows.map((row, index) => ({ row, index })).filter(({ row }) => FIELDS.every((field) => !state.get(field) || row[column(field)] === state.get(field)));
  const [key, direction] = state.get("run-order", "").split(":");
  if (columns.includes(key)) chosen.sort((a, b) => compareValues(a.row[column(key)], b.row[column(key)], direction === "up" ? 1 : -1));
  const shown = chosen.slice(0, Number(state.get("shown", PAGE)));
  const lines = shown.map(({ row, index }) => ({
    head: { text: row[0], link: state.link({ run: index }) },
    cells: row.slice(1).map((value, i) => ({ text: columns[i + 1] === "seed" ? String(value) : show(value), sort: value })),
  }));
  const count = make("p", `${shown.length} of ${chosen.length} shown`, { role: "status", id: "run-count" });
  page.append(
    make("div", null, { class: "controls" }, [...filters, button("All", () => state.set(Object.fromEntries(FIELDS.map((field) => [field, null]))))]), count,
    make("div", null, { class: "tools" }, [button("CSV", () => save("runs.csv", csv([columns, ...chosen.map(({ row }) => row)]), "text/csv"))]),
    sortableTable("run-order", "Runs", columns, lines),
  );
  if (shown.length < chosen.length) page.append(button("Show more", () => state.set({ shown: shown.length + PAGE })));
}

function listing(title, pairs) {
  const known = Object.entries(pairs).filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!known.length) return [];
  const rows = known.map(([name, value]) => make("tr", null, {}, [make("th", name, { scope: "row" }), ...(Array.isArray(value) ? value : [value]).map((part) => make("td", show(part)))]));
  return [make("h3", title), make("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, [make("table", null, {}, [make("tbody", null, {}, rows)])])];
}

function curveChart(run, index, title) {
  const usable = run.curve.filter((point) => Number.isFinite(point[index]));
  if (usable.length < 2) return [];
  return [chart(title, `${title} by step, from ${show(usable[0][index])} to ${show(usable.at(-1)[index])}`, {
    width: Math.min(440, wide()), height: 220, marginLeft: 50, x: { label: "step" }, y: { label: title, grid: true, zero: true },
    marks: [Plot.line(usable, { x: (point) => point[0], y: (point) => point[index], stroke: "var(--link)", strokeWidth: 2 })],
  })];
}

async function showRun(page, data, index, size) {
  const { columns, rows } = data.runs;
  const row = rows[index];
  if (!row) return page.append(make("p", "No such run."));
  const details = await block(`runs-${Math.floor(index / size)}`);
  const run = details.runs[index % size];
  const line = Object.fromEntries(columns.map((name, i) => [name, row[i]]));
  const costs = Object.fromEntries(Object.entries(run.costs).map(([phase, [seconds, bytes, reused]]) => [phase, `${show(seconds)} s, peak ${show(bytes / 1e9)} GB${reused ? ", from the cache" : ""}`]));
  const samples = run.samples.flatMap((sample, i) => listing(`Sample ${i + 1}`, sample));
  const { "command line": command, ...origin } = run.origin;
  page.append(
    make("a", "Back to the list of runs", { href: state.link({ run: null }) }), make("h2", `${line.method} on ${line.task}, seed ${line.seed}`, { tabindex: "-1", id: "run-title" }),
    make("p", `Status: ${line.status}${run.error ? ". " + run.error : ""}`), make("h3", "Run it again"), copyable(command),
    ...listing("Scores: before, after training", run.metrics), make("div", null, { class: "curves" }, [...curveChart(run, 1, "training loss"), ...curveChart(run, 2, "gradient norm")]),
    ...listing("Costs", costs), ...listing("Counts", run.counts), ...listing("Origin", { run: line.run, ...origin }),
    ...(samples.length ? samples : [make("h3", "Samples"), make("p", "Not here: answers stay in the folder runs/ of the machine that ran.")]),
    ...listing("Settings", details.shared[run.settings]), ...listing("Made with", details.shared[run.made_with]),
  );
  byId("run-title").focus();
}

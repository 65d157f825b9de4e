"use strict";
// The first screen: what is settled, differences to the baseline, groups of ties; trade-offs between any two measures.

const scaleOf = (data) => data.scales.find((scale) => scale.name === state.get("scale")) ?? data.scales[0];
const scaleChoice = (data) => (data.scales.length > 1 ? [choice("Scale", "scale", data.scales.map((scale) => scale.name))] : []);
const familyChoice = (scale, all = true) => choice("Family", "family", [...(all ? [["all", "all, weighed alike"]] : []), ...Object.keys(scale.families)]);
const filled = (verdict) => verdict === "different";

function familyOf(scale, all = true) {
  const families = Object.keys(scale.families);
  const wanted = state.get("family");
  return families.includes(wanted) ? wanted : all ? "all" : families[0];
}

function sentence(scale, family) {
  const against = Object.entries(scale.pairs[family]).filter(([ours]) => ours !== scale.baseline).map(([ours, row]) => [ours, row[scale.baseline]]).filter(([, found]) => found);
  const named = (test) => against.filter(([, found]) => test(found)).map(([ours]) => ours);
  const join = (names) => (names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0]);
  const parts = [
    [named((found) => found[1] > 0), "above"], [named((found) => found[2] !== null && found[2] < 0), "below"],
    [named((found) => found[3] === "equivalent"), "equivalent to"],
  ].filter(([names]) => names.length).map(([names, word]) => `${join(names)} ${names.length > 1 ? "are" : "is"} ${word} ${scale.baseline}`);
  const open = named((found) => found[3].startsWith("undecided"));
  if (open.length) parts.push(`${join(open)} ${open.length > 1 ? "are" : "is"} undecided against it`);
  return parts.length ? parts.join("; ") + "." : "Nothing to compare yet.";
}

// One seed has no interval and ties with nobody.
const tied = (found) => found && found[1] !== null && !filled(found[3]);

// Methods by mean, and for each the others with which it has no significant difference.
function tieGroups(scale, family) {
  const methods = Object.entries(scale.means[family] ?? {}).sort((a, b) => b[1] - a[1]).map(([method]) => method);
  const groups = [];
  for (const [i, first] of methods.entries()) {
    const group = [first];
    for (const other of methods.slice(i + 1)) {
      if (group.every((member) => tied(scale.pairs[family][member]?.[other]))) group.push(other);
    }
    if (group.length > 1 && !groups.some((known) => group.every((member) => known.includes(member)))) groups.push(group);
  }
  return groups;
}

function showOverview(page, data) {
  const scale = scaleOf(data);
  if (!scale && data.tables.length) return showTables(page, data); // one's own runs alone
  if (!scale) return page.append(make("p", "No table has records yet. `python run.py method=eva task=gsm8k` makes the first one."));
  const family = familyOf(scale);
  const methods = Object.keys(scale.methods);
  const rows = methods.filter((method) => scale.pairs[family][method]?.[scale.baseline]).map((method) => {
    const [estimate, low, high, verdict] = scale.pairs[family][method][scale.baseline];
    const hundred = (value) => (value === null ? null : 100 * value);
    return { label: method, estimate: 100 * estimate, low: hundred(low), high: hundred(high), colour: scale.methods[method], filled: filled(verdict), tip: `${method}: ${interval([estimate, low, high])}\n${verdict}` };
  });
  page.append(make("p", `Scale ${scale.name}: ${sentence(scale, family)}`, { class: "verdict" }), make("div", null, { class: "controls" }, [...scaleChoice(data), familyChoice(scale)]));
  if (rows.length) page.append(differencesChart(`differences-${scale.name}-${family}`, `Differences to ${scale.baseline} in points with 95 % intervals: ${rows.map((row) => row.tip).join("; ")}`, rows, `difference to ${scale.baseline}, points`));
  const lines = methods.map((method) => {
    const found = scale.pairs[family][method]?.[scale.baseline];
    const average = scale.means[family]?.[method];
    return {
      head: { text: method, link: state.link({ view: "compare", a: method, b: scale.baseline === method ? null : scale.baseline }) },
      cells: [
        { text: average === undefined ? EMPTY : points(average, false), sort: average ?? null },
        { text: found ? interval(found) : method === scale.baseline ? "baseline" : EMPTY, sort: found?.[0] ?? null, bold: found && filled(found[3]) },
        { text: found ? found[3] : method === scale.baseline ? "baseline" : EMPTY },
        { text: scale.ranks[method] ? scale.ranks[method].toFixed(2) : EMPTY, sort: scale.ranks[method] ?? null },
      ],
    };
  });
  const ties = tieGroups(scale, family).map((group) => make("li", group.join(", ")));
  page.append(
    sortableTable("order", "Methods", ["method", "mean", `difference to ${scale.baseline} [95 %]`, "verdict", "mean rank, all tasks"], lines),
    make("h3", "No significant difference among"), make("ul", null, {}, ties.length ? ties : [make("li", "no group of methods")]),
    make("p", "Points of 100. Filled dots and bold: the 95 % interval of the mixed model excludes 0; shaded: within 2 points, where methods count as equivalent. A method's name compares it task by task.", { class: "note" }),
  );
}

function showTradeoffs(page, data) {
  const scale = scaleOf(data);
  if (!scale) return page.append(make("p", "No run of the benchmark is here."));
  const family = familyOf(scale);
  const axes = ["mean score", ...data.measures.filter((name) => Object.values(scale.measures).some((found) => name in (found[family] ?? {})))];
  const axis = (name, fallback) => (axes.includes(state.get(name)) ? state.get(name) : axes.includes(fallback) ? fallback : axes[0]);
  const [x, y] = [axis("x", "forgetting (log ratio of losses)" in (scale.measures[scale.baseline]?.[family] ?? {}) ? "forgetting (log ratio of losses)" : "trained parameters"), axis("y", "mean score")];
  const value = (method, axis) => (axis === "mean score" ? scale.means[family]?.[method] * 100 : scale.measures[method]?.[family]?.[axis]);
  const rows = Object.keys(scale.methods).map((method) => ({ method, x: value(method, x), y: value(method, y), colour: tone(scale.methods[method]) })).filter((row) => Number.isFinite(row.x) && Number.isFinite(row.y));
  const better = (axis) => (axis === "mean score" ? 1 : -1);
  const beaten = (row) => rows.some((other) => other !== row && better(x) * (other.x - row.x) >= 0 && better(y) * (other.y - row.y) >= 0 && (other.x !== row.x || other.y !== row.y));
  const spread = (axis) => { const values = rows.map((row) => row[axis]); return d3.min(values) > 0 && d3.max(values) / d3.min(values) > 20 ? "log" : "linear"; };
  page.append(make("div", null, { class: "controls" }, [...scaleChoice(data), familyChoice(scale), choice("Across", "x", axes, x), choice("Up", "y", axes, y)]));
  if (!rows.length) return page.append(make("p", "No method has both."));
  page.append(
    chart(`trade-off-${scale.name}-${family}`, `${y} against ${x}: ${rows.map((row) => `${row.method} ${show(row.x)}, ${show(row.y)}`).join("; ")}`, {
      height: 420, marginLeft: 60, marginRight: 130, marginBottom: 40, inset: 14, grid: true,
      x: { label: x, type: spread("x") }, y: { label: y, type: spread("y") },
      marks: [
        Plot.dot(rows, { x: "x", y: "y", stroke: "colour", fill: (row) => (beaten(row) ? "var(--back)" : row.colour), r: 6, strokeWidth: 2 }),
        (index, scales, values, dimensions, context) => labels(rows, scales, dimensions, context),
        Plot.tip(rows, Plot.pointer({ x: "x", y: "y", title: (row) => `${row.method}\n${x}: ${show(row.x)}\n${y}: ${show(row.y)}`, fill: "var(--back)" })),
      ],
    }),
    make("p", "Filled: no other method is at least as good on both axes. Scores are better when high, the rest when low.", { class: "note" }),
  );
}

// Labels beside their dots, pushed apart where they would overlap.
function labels(rows, scales, dimensions, context) {
  const placed = rows.map((row) => ({ row, x: scales.x(row.x), y: scales.y(row.y) })).sort((a, b) => a.y - b.y);
  const group = context.document.createElementNS("http://www.w3.org/2000/svg", "g");
  const taken = [];
  for (const { row, x, y } of placed) {
    const width = 7 * row.method.length;
    let at = y;
    while (taken.some((other) => Math.abs(other.y - at) < 13 && x < other.right && other.left < x + 24 + width)) at += 3;
    taken.push({ y: at, left: x, right: x + 24 + width });
    const draw = (tag, attributes) => {
      const element = context.document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      group.append(element);
      return element;
    };
    if (at !== y) draw("line", { x1: x + 7, y1: y, x2: x + 22, y2: at, stroke: "currentColor", "stroke-opacity": 0.4 });
    draw("text", { x: x + 24, y: at + 4, fill: "currentColor", "text-anchor": "start" }).textContent = row.method;
  }
  return group;
}

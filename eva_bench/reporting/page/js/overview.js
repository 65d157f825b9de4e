"use strict";
// The first screen: what is settled, differences to the baseline, groups of ties; trade-offs; rates; claims.

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
  if (!scale) return page.append(make("p", "Nothing has been run."));
  const family = familyOf(scale);
  const axes = ["mean score", ...data.measures];
  const [x, y] = [state.get("x", "trained parameters"), state.get("y", "mean score")];
  const value = (method, axis) => (axis === "mean score" ? scale.means[family]?.[method] * 100 : scale.measures[method]?.[family]?.[axis]);
  const rows = Object.keys(scale.methods).map((method) => ({ method, x: value(method, x), y: value(method, y), colour: scale.methods[method] })).filter((row) => Number.isFinite(row.x) && Number.isFinite(row.y));
  const better = (axis) => (axis === "mean score" ? 1 : -1);
  const beaten = (row) => rows.some((other) => other !== row && better(x) * (other.x - row.x) >= 0 && better(y) * (other.y - row.y) >= 0 && (other.x !== row.x || other.y !== row.y));
  const spread = (axis) => { const values = rows.map((row) => row[axis]); return d3.min(values) > 0 && d3.max(values) / d3.min(values) > 20 ? "log" : "linear"; };
  page.append(make("div", null, { class: "controls" }, [...scaleChoice(data), familyChoice(scale), choice("Across", "x", axes, x), choice("Up", "y", axes, y)]));
  if (!rows.length) return page.append(make("p", "No method has both."));
  page.append(
    chart(`trade-off-${scale.name}-${family}`, `${y} against ${x}: ${rows.map((row) => `${row.method} ${show(row.x)}, ${show(row.y)}`).join("; ")}`, {
      height: 420, marginLeft: 60, marginRight: 110, grid: true,
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
    while (taken.some((other) => Math.abs(other.y - at) < 13 && x < other.right && other.left < x + 12 + width)) at += 3;
    taken.push({ y: at, left: x, right: x + 12 + width });
    const text = context.document.createElementNS("http://www.w3.org/2000/svg", "text");
    for (const [name, value] of Object.entries({ x: x + 12, y: at + 4, fill: "currentColor", "text-anchor": "start" })) text.setAttribute(name, value);
    text.textContent = row.method;
    group.append(text);
  }
  return group;
}

function showRates(page, data) {
  const scale = scaleOf(data);
  if (!scale) return page.append(make("p", "Nothing has been run."));
  const family = familyOf(scale, false);
  const curves = scale.rates[family];
  const methods = Object.keys(curves);
  const chosen = state.list("methods").filter((method) => methods.includes(method));
  page.append(make("div", null, { class: "controls" }, [...scaleChoice(data), familyChoice(scale, false), boxes("Methods", "methods", methods)]));
  if (!methods.length) return page.append(make("p", "No rates were tried for this family (stage=tune)."));
  const shown = chosen.length ? chosen : methods;
  const flat = shown.flatMap((method) => curves[method].points.map(([rate, score, loss, runs]) => ({ method, rate, score: 100 * score, loss, runs, colour: scale.methods[method] })));
  const used = flat.filter((point) => curves[point.method].chosen.includes(point.rate));
  const edges = shown.filter((method) => { const rates = curves[method].points.map((point) => point[0]); return curves[method].chosen.some((rate) => rate === rates[0] || rate === rates.at(-1)); });
  const at = { fx: (point) => shown.indexOf(point.method) % 3, fy: (point) => Math.floor(shown.indexOf(point.method) / 3) };
  page.append(
    chart(`rates-${scale.name}-${family}`, `Score on validation data by learning rate, ${family}`, {
      height: 60 + 140 * Math.ceil(shown.length / 3), marginLeft: 45, marginTop: 35, x: { type: "log", label: "learning rate", ticks: 4, tickFormat: "~e" }, y: { label: "validation score, %", grid: true },
      fx: { axis: null }, fy: { axis: null, padding: 0.2 },
      marks: [
        Plot.frame({ stroke: "currentColor", strokeOpacity: 0.2 }),
        Plot.line(flat, { ...at, x: "rate", y: "score", stroke: "colour", strokeWidth: 2 }),
        Plot.dot(flat, { ...at, x: "rate", y: "score", fill: "colour", r: 3 }),
        Plot.dot(used, { ...at, x: "rate", y: "score", stroke: "currentColor", r: 7 }),
        Plot.text(shown.map((method) => ({ method })), { ...at, text: "method", frameAnchor: "top", dy: -12, fontWeight: 600 }),
        Plot.tip(flat, Plot.pointer({ ...at, x: "rate", y: "score", fill: "var(--back)", title: (point) => `${point.method}\nrate ${point.rate}: ${point.score.toFixed(1)}, loss ${show(point.loss)}\n${point.runs} runs` })),
      ],
    }),
    make("p", "Ringed: the rate that the benchmark uses." + (edges.length ? ` At the edge of the grid, so that a wider grid may be better: ${edges.join(", ")}.` : ""), { class: edges.length ? "note warning" : "note" }),
    sortableTable("rate-order", "Rates", ["method", "best rate", "score there", "within 2 points", "used"], shown.map((method) => {
      const list = curves[method].points;
      const best = list.reduce((a, b) => (b[1] > a[1] ? b : a));
      const near = list.filter((point) => best[1] - point[1] <= 0.02).map((point) => point[0]);
      return { head: { text: method }, cells: [{ text: String(best[0]), sort: best[0] }, { text: points(best[1], false), sort: best[1] }, { text: near.length > 1 ? `${near[0]} to ${near.at(-1)}` : String(near[0]), sort: near.length }, { text: curves[method].chosen.join(", ") || EMPTY }] };
    })),
  );
}

function showClaims(page, data) {
  for (const claim of data.claims) {
    const verdicts = Object.entries(claim.verdicts).filter(([, [verdict]]) => verdict !== "not run").map(([scale, [verdict]]) => `${verdict}${verdict === "undecided" ? "" : " here"} (scale ${scale})`);
    const texts = Object.entries(claim.verdicts).flatMap(([scale, [, findings]]) => findings.map((text) => make("li", `${scale}: ${text}`)));
    page.append(make("details", null, { class: "claim" }, [
      make("summary", null, {}, [make("b", `${claim.number}. ${claim.claim} `), make("span", verdicts.join("; ") || "not run", { class: "tag" })]),
      make("p", `Published: ${claim.published} Source: ${claim.source}.`), make("ul", null, {}, texts),
    ]));
  }
}

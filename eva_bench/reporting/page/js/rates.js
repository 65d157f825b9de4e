"use strict";
// Learning rates: curves on validation data, the choice, the optimum with its interval, the plateau, edges.

function showRates(page, data) {
  const scale = scaleOf(data);
  const families = Object.keys(scale?.rates ?? {});
  if (!families.length) return page.append(make("p", "No rates were tried (stage=tune)."));
  const most = d3.greatest(families, (name) => Object.keys(scale.rates[name]).length); // methods
  const family = families.includes(state.get("family")) ? state.get("family") : most;
  const curves = scale.rates[family];
  const methods = Object.keys(curves);
  const chosen = state.list("methods").filter((method) => methods.includes(method));
  const shown = chosen.length ? chosen : methods;
  page.append(make("div", null, { class: "controls" }, [...scaleChoice(data), choice("Family", "family", families, family), boxes("Methods", "methods", methods)]));
  const edges = shown.filter((method) => curves[method].edge);
  page.append(
    ratesChart(scale, family, curves, shown),
    make("p", "Ringed: the rate that the selection takes, by validation loss. Shaded: within two points of the best score. Line at the bottom: the rate of least loss with its 95 % interval." + (edges.length ? ` At the edge of the grid, so that a wider grid may be better: ${edges.join(", ")}.` : ""), { class: edges.length ? "note warning" : "note" }),
    sortableTable("rate-order", "Rates", ["method", "chosen", "score there", "at half", "at twice", "best score", "within 2 points", "optimum [95 %]", `times ${scale.baseline}'s`, "choice moves"], shown.map((method) => ({ head: { text: method }, cells: rateCells(curves[method], method === scale.baseline) }))),
    make("p", "Scores: validation, mean over tasks and seeds, which the reported runs do not use. Choice moves: how often it falls more than one step of the grid away when seeds are drawn again.", { class: "note" }),
  );
}

const rateInterval = (found) => (found ? `${show(found[0])}${found[1] === null ? "" : ` [${show(found[1])}, ${show(found[2])}]`}` : EMPTY);

function rateCells(curve, isBaseline) {
  const score = (rate) => curve.points.find((point) => Math.abs(point[0] / rate - 1) < 0.01)?.[1] ?? null;
  const near = (rate) => ({ text: score(rate) === null ? EMPTY : points(score(rate), false), sort: score(rate) });
  const best = d3.max(curve.points, (point) => point[1]);
  const [low, high] = curve.plateau;
  return [
    { text: String(curve.chosen), sort: curve.chosen }, near(curve.chosen), near(curve.chosen / 2), near(2 * curve.chosen), { text: points(best, false), sort: best },
    { text: low === high ? String(low) : `${low} to ${high}`, sort: high / low }, { text: rateInterval(curve.optimum), sort: curve.optimum[0] },
    { text: isBaseline ? "baseline" : rateInterval(curve.times), sort: curve.times?.[0] ?? null }, { text: curve.moves === null ? "one seed" : `${Math.round(100 * curve.moves)} %`, sort: curve.moves ?? -1 },
  ];
}

function ratesChart(scale, family, curves, shown) {
  const across = innerWidth < 600 ? 2 : 3;
  const at = { fx: (each) => shown.indexOf(each.method) % across, fy: (each) => Math.floor(shown.indexOf(each.method) / across) };
  const flat = shown.flatMap((method) => curves[method].points.filter((point) => point[1] !== null).map(([rate, score, loss]) => ({ method, rate, score: 100 * score, loss, colour: tone(curves[method].colour) })));
  const each = shown.map((method) => ({ method, ...curves[method], colour: tone(curves[method].colour), low: curves[method].plateau[0] / 1.2, high: 1.2 * curves[method].plateau[1] }));
  const [first, last] = d3.extent(flat, (point) => point.rate);
  const inside = (rate) => Math.max(first / 1.5, Math.min(1.5 * last, rate));
  const top = d3.max(flat, (point) => point.score) || 1;
  const bottom = -0.08 * top;
  return chart(`rates-${scale.name}-${family}`, `Score on validation data by learning rate, ${family}: ${each.map((one) => `${one.method} chosen ${one.chosen}`).join("; ")}`, {
    height: 60 + 150 * Math.ceil(shown.length / across), marginLeft: 45, marginTop: 35, x: { type: "log", label: "learning rate", domain: [first / 1.5, 1.5 * last], ticks: 4, tickFormat: "~e" }, y: { label: "validation score, %", grid: true, domain: [1.6 * bottom, 1.16 * top] },
    fx: { axis: null }, fy: { axis: null, padding: 0.25 },
    marks: [
      Plot.frame({ stroke: "currentColor", strokeOpacity: 0.2 }),
      Plot.rect(each, { ...at, x1: "low", x2: "high", fill: "currentColor", fillOpacity: 0.08 }),
      Plot.line(flat, { ...at, x: "rate", y: "score", z: "method", stroke: "colour", strokeWidth: 2 }),
      Plot.dot(flat, { ...at, x: "rate", y: "score", fill: "colour", r: 3 }),
      Plot.dot(flat.filter((point) => point.rate === curves[point.method].chosen), { ...at, x: "rate", y: "score", stroke: "currentColor", r: 7 }),
      Plot.link(each.filter((one) => one.optimum[1] !== null), { ...at, x1: (one) => inside(one.optimum[1]), x2: (one) => inside(one.optimum[2]), y1: bottom, y2: bottom, stroke: "colour", strokeWidth: 2 }),
      Plot.dot(each, { ...at, x: (one) => inside(one.optimum[0]), y: bottom, symbol: "times", stroke: "currentColor", r: 3 }),
      Plot.text(each, { ...at, text: (one) => one.method + (one.edge ? " (edge)" : ""), frameAnchor: "top", dy: -12, fontWeight: 600 }),
      Plot.tip(flat, Plot.pointer({ ...at, x: "rate", y: "score", fill: "var(--back)", title: (point) => `${point.method}\nrate ${point.rate}: ${point.score.toFixed(1)}, loss ${show(point.loss)}` })),
    ],
  });
}

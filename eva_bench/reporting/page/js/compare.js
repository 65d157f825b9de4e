"use strict";
// Two methods task by task, and who wins against whom.

function showCompare(page, data) {
  const scale = scaleOf(data);
  if (!scale) return page.append(make("p", "No run of the benchmark is here."));
  const methods = Object.keys(scale.methods);
  const ours = methods.includes(state.get("a")) ? state.get("a") : methods.find((method) => method !== scale.baseline) ?? methods[0];
  const theirs = methods.includes(state.get("b")) ? state.get("b") : methods.includes(scale.baseline) && ours !== scale.baseline ? scale.baseline : methods.find((method) => method !== ours) ?? ours;
  const family = familyOf(scale);
  page.append(make("div", null, { class: "controls" }, [...scaleChoice(data), choice("Method", "a", methods, ours), choice("minus", "b", methods, theirs), familyChoice(scale)]));
  const found = scale.pairs[family][ours]?.[theirs];
  page.append(make("p", ours === theirs ? "Choose two methods." : found ? `${ours} minus ${theirs}, ${family === "all" ? "all families alike" : family}: ${interval(found)} points, ${found[3]}.` : `${ours} and ${theirs} have no common families.`, { class: "verdict" }));
  const columns = (family === "all" ? Object.values(scale.families).flat() : scale.families[family]).filter((column) => scale.scores[ours]?.[column] && scale.scores[theirs]?.[column]);
  const rows = columns.map((column) => taskDifference(scale, column, ours, theirs)).sort((a, b) => (a.label in scale.apart) - (b.label in scale.apart) || b.estimate - a.estimate);
  const [telling, apart] = [rows.filter((row) => !(row.label in scale.apart)), rows.filter((row) => row.label in scale.apart)];
  const picture = (name, found) => differencesChart(`${name}-${scale.name}`, `${ours} minus ${theirs} by task`, found, `${ours} minus ${theirs}, points`);
  if (ours !== theirs && rows.length) {
    page.append(
      ...(telling.length ? [picture(`${ours}-minus-${theirs}`, telling)] : []),
      ...(apart.length ? [make("h3", "Tasks that do not tell methods apart, and enter no conclusion"), picture(`${ours}-minus-${theirs}-apart`, apart)] : []),
      sortableTable("task-order", "Differences by task", ["task", ours, theirs, "difference [95 %]", "in conclusions"], rows.map((row) => ({
        head: { text: row.label },
        cells: [cell(scale, ours, row.label), cell(scale, theirs, row.label), { text: interval([row.estimate / 100, row.low === null ? null : row.low / 100, row.high / 100]), sort: row.estimate, bold: row.filled }, { text: row.label in scale.apart ? `no: ${scale.apart[row.label]}` : "yes" }],
      }))),
      make("p", "A task: t interval from the standard deviation pooled over all methods, for this pair alone; a score opens its runs. The sentence on top is the mixed model's.", { class: "note" }),
    );
  }
  page.append(make("h3", "Use this"), ...useThis(scale, ours, family), make("h3", "Every pair"), pairTable(scale, family, methods));
}

function cell(scale, method, column) {
  const scores = scale.scores[method]?.[column];
  if (!scores) return { text: EMPTY };
  const average = d3.mean(scores, (score) => score[1]);
  const spread = scores.length > 1 ? ` ± ${(100 * d3.deviation(scores, (score) => score[1])).toFixed(1)}` : "";
  return { text: points(average, false) + spread, sort: average, link: state.link({ view: "runs", task: scale.tasks[column], method, stage: "final", scale: scale.name, run: null }) };
}

function taskDifference(scale, column, ours, theirs) {
  const [mine, other] = [scale.scores[ours][column], scale.scores[theirs][column]];
  const estimate = 100 * (d3.mean(mine, (score) => score[1]) - d3.mean(other, (score) => score[1]));
  const noise = scale.noise[column];
  const known = noise && mine.length > 1 && other.length > 1;
  const half = known ? 100 * noise[0] * noise[1] * Math.sqrt(1 / mine.length + 1 / other.length) : null;
  const [low, high] = known ? [estimate - half, estimate + half] : [null, null];
  const decided = known && (low > 0 || high < 0);
  return { label: column, estimate, low, high, filled: decided, colour: estimate > 0 ? scale.methods[ours] : scale.methods[theirs], tip: `${column}: ${interval([estimate / 100, known ? low / 100 : null, known ? high / 100 : null])}` };
}

// Code of the chosen family, or of each.
function useThis(scale, method, family) {
  const code = scale.use[method] ?? {};
  const families = Object.keys(code).filter((name) => family === "all" || name === family);
  if (!families.length) return [make("p", "Not run.")];
  const example = Object.values(scale.scores[method] ?? {})[0]?.[0];
  const link = example ? [" All settings stand with ", make("a", "one of its runs", { href: state.link({ view: "runs", run: example[2] }) }), "."] : [];
  return [
    make("p", null, {}, [`The configuration of the benchmark and its rate in stock PEFT, and the command that runs it here.`, ...link]),
    copyable(`python run.py method=${method} task=${scale.tasks[scale.families[families[0]][0]]}${scale.name === "pocket" ? "" : ` scale=${scale.name}`}`),
    ...families.map((name) => copyable(code[name])),
  ];
}

function pairTable(scale, family, methods) {
  const rows = methods.map((ours) => ({
    head: { text: ours },
    cells: methods.map((theirs) => {
      const found = scale.pairs[family][ours]?.[theirs];
      if (!found) return { text: ours === theirs ? "·" : EMPTY };
      return { text: points(found[0]), sort: found[0], bold: filled(found[3]), link: state.link({ view: "compare", a: ours, b: theirs }) };
    }),
  }));
  return make("div", null, {}, [sortableTable("pair-order", "Row minus column", ["row minus column", ...methods], rows), make("p", "Points; bold: different.", { class: "note" })]);
}

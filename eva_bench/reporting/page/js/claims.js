"use strict";
// Claims of the literature with verdicts, and what training did to the models.

// Claims by verdict, the decided ones first.
const GROUPS = ["confirmed", "contradicted", "undecided", "not run"];

function showClaims(page, data) {
  const verdictsOf = (claim) => Object.entries(claim.verdicts).filter(([, [verdict]]) => verdict !== "not run");
  const groupOf = (claim) => GROUPS.find((name) => verdictsOf(claim).some(([, [verdict]]) => verdict === name)) ?? "not run";
  page.append(make("p", GROUPS.map((name) => `${data.claims.filter((claim) => groupOf(claim) === name).length} ${name}`).join(", ") + ". A verdict holds for the scale at which it was measured.", { class: "verdict" }));
  for (const name of GROUPS) {
    const claims = data.claims.filter((claim) => groupOf(claim) === name);
    if (claims.length) page.append(make("h3", name[0].toUpperCase() + name.slice(1)), ...claims.map((claim) => oneClaim(claim, verdictsOf(claim))));
  }
}

function oneClaim(claim, verdicts) {
  const said = verdicts.map(([scale, [verdict]]) => `${verdict}${verdict === "undecided" ? "" : " here"} (scale ${scale})`);
  const texts = Object.entries(claim.verdicts).flatMap(([scale, [, findings]]) => findings.map((text) => make("li", `${scale}: ${text}`)));
  return make("details", null, { class: "claim" }, [
    make("summary", null, {}, [make("b", `${claim.number}. ${claim.claim} `), make("span", said.join("; ") || "not run", { class: "tag" })]),
    make("p", `Published: ${claim.published} Source: ${claim.source}.`), make("ul", null, {}, texts),
  ]);
}

function showProbes(page, data) {
  if (!data.probes.length) page.append(make("p", "No run has been probed yet (docs/probes.md). Forgetting is measured in every run since protocol 3."));
  data.probes.forEach((table, i) => {
    const rows = table.rows.map(([method, ...cells]) => ({ head: { text: method }, cells: cells.map((value) => ({ text: show(value), sort: value })) }));
    page.append(make("h3", table.title), sortableTable(`probe-${i}`, table.title, table.header, rows));
  });
}

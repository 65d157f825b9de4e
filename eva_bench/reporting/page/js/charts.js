"use strict";
// Charts: Observable Plot with one style, a text for screen readers, and buttons to save them.

const look = { fontSize: "12px", background: "transparent", color: "inherit", fontFamily: "system-ui, sans-serif" };
const wide = () => Math.min(900, Math.max(320, byId("main").clientWidth - 8));

function chart(name, description, options) {
  const picture = Plot.plot({ style: look, width: wide(), marginLeft: 120, ...options });
  const svg = picture.tagName === "svg" ? picture : picture.querySelector("svg:last-of-type");
  svg.querySelectorAll("[aria-label]").forEach((part) => part.removeAttribute("aria-label")); // one text for the whole
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", description);
  const tools = make("div", null, { class: "tools" }, [
    button("SVG", () => save(`${name}.svg`, asText(svg), "image/svg+xml")),
    button("PNG", () => asPicture(svg, name)),
  ]);
  return make("figure", null, {}, [picture, tools]);
}

function asText(svg) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.style.color = "#1c1f23";
  return new XMLSerializer().serializeToString(copy);
}

function asPicture(svg, name) {
  const image = new Image();
  image.addEventListener("load", () => {
    const canvas = make("canvas", null, { width: 2 * svg.clientWidth, height: 2 * svg.clientHeight });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const link = make("a", null, { href: canvas.toDataURL("image/png"), download: `${name}.png` });
    link.click();
  });
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(asText(svg));
}

// Colours of methods are made for white paper; on a dark screen they are lightened.
const isDark = matchMedia("(prefers-color-scheme: dark)");
const tone = (colour) => (isDark.matches ? d3.interpolateRgb(colour, "#ffffff")(0.45) : colour);

// Differences with intervals, a row each: {label, estimate, low, high, colour, filled, tip}, in points.
function differencesChart(name, description, rows, axis) {
  const ends = rows.flatMap((row) => [row.estimate, row.low ?? 0, row.high ?? 0]);
  const limit = Math.max(3, 1.8 * d3.quantile(ends.map(Math.abs), 0.7));
  const [left, right] = [Math.max(-limit, Math.min(-3, d3.min(ends))), Math.min(limit, Math.max(3, d3.max(ends)))];
  const cut = (value) => Math.max(left, Math.min(right, value));
  const shown = rows.map((row) => ({ ...row, colour: tone(row.colour), outside: cut(row.estimate) !== row.estimate }));
  return chart(name, description, {
    height: 26 * rows.length + 70,
    marginBottom: 40,
    marginLeft: 9 * (d3.max(rows, (row) => row.label.length) || 5) + 12,
    x: { label: axis, domain: [left, right], grid: true },
    y: { domain: rows.map((row) => row.label), label: null, type: "band", padding: 0.5 },
    marks: [
      Plot.rect([{}], { x1: -2, x2: 2, fill: "currentColor", fillOpacity: 0.07 }),
      Plot.ruleX([0], { stroke: "currentColor", strokeOpacity: 0.5 }),
      Plot.link(shown.filter((row) => row.low !== null && !row.outside), {
        x1: (row) => cut(row.low), x2: (row) => cut(row.high), y: "label", stroke: "colour", strokeWidth: 3, strokeLinecap: "round",
      }),
      Plot.dot(shown.filter((row) => !row.outside), {
        x: "estimate", y: "label", stroke: "colour", fill: (row) => (row.filled ? row.colour : "var(--back)"), r: 5, strokeWidth: 2,
      }),
      ...[-1, 1].map((side) => Plot.text(shown.filter((row) => row.outside && Math.sign(row.estimate) === side), {
        x: (row) => cut(row.estimate), y: "label", text: (row) => (side < 0 ? `◂ ${row.estimate.toFixed(1)}` : `${row.estimate.toFixed(1)} ▸`),
        textAnchor: side < 0 ? "start" : "end", dx: -4 * side, fill: "currentColor",
      })),
      Plot.tip(shown, Plot.pointerY({ x: (row) => cut(row.estimate), y: "label", title: "tip", fill: "var(--back)" })),
    ],
  });
}

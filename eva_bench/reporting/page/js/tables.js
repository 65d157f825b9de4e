"use strict";
// Tables: sorting that survives filtering, columns to choose, "not run" never like zero, take away as CSV or LaTeX.

const EMPTY = "–";
const isEmpty = (value) => value === null || value === undefined || value === "" || value === EMPTY;

// Missing values stay last in both directions.
function compareValues(a, b, direction) {
  if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b);
  if (typeof a === "number" && typeof b === "number") return direction * (a - b);
  return direction * String(a).localeCompare(String(b), "en", { numeric: true });
}

// header: names; rows: [{head, cells: [{text, sort, bold, link}], kind}]. The order is kept in the address under `key`.
function sortableTable(key, label, header, rows) {
  const [column, direction] = state.get(key, "").split(":");
  const value = (row, index) => (index === 0 ? row.head.text : row.cells[index - 1].sort ?? row.cells[index - 1].text);
  const ours = rows.filter((row) => row.kind !== "published");
  if (header.includes(column)) {
    const index = header.indexOf(column);
    ours.sort((a, b) => compareValues(value(a, index), value(b, index), direction === "up" ? 1 : -1));
  }
  const heads = header.map((name) => {
    const next = name === column && direction === "down" ? "up" : "down";
    const sort = button(name, () => state.set({ [key]: `${name}:${next}` }));
    const attributes = { scope: "col" };
    if (name === column) attributes["aria-sort"] = direction === "up" ? "ascending" : "descending";
    return make("th", null, attributes, [sort]);
  });
  const line = (row) => make("tr", null, row.kind ? { class: row.kind } : {}, [
    make("th", null, { scope: "row" }, [row.head.link ? make("a", row.head.text, { href: row.head.link }) : row.head.text]),
    ...row.cells.map((cell) => {
      const classes = [cell.bold && "best", isEmpty(cell.text) && "missing"].filter(Boolean).join(" ");
      const inside = cell.link ? [make("a", cell.text, { href: cell.link })] : [isEmpty(cell.text) && !row.kind ? "not run" : cell.text];
      return make("td", null, classes ? { class: classes } : {}, inside);
    }),
  ]);
  const bodies = [make("tbody", null, {}, ours.map(line))];
  const published = rows.filter((row) => row.kind === "published");
  if (published.length) bodies.push(make("tbody", null, { class: "published" }, published.map(line)));
  const table = make("table", null, { "data-key": key }, [make("thead", null, {}, [make("tr", null, {}, heads)]), ...bodies]);
  return make("div", null, { class: "scroll", role: "region", tabindex: "0", "aria-label": label }, [table]);
}

function showTables(page, data) {
  if (!data.tables.length) return page.append(make("p", "No table has records yet. `python run.py method=eva task=gsm8k` makes the first one."));
  const names = data.tables.map((table) => [table.file, table.title]);
  const table = data.tables.find((each) => each.file === state.get("table")) ?? data.tables[0];
  const methods = [...new Set(table.lines.filter((line) => line[1] === "ours").map((line) => line[0]))];
  const chosen = new Set(state.list("methods").filter((method) => methods.includes(method)));
  const columns = state.list("columns").filter((name) => table.header.includes(name));
  const shown = columns.length ? table.header.map((name, i) => [name, i]).filter(([name, i]) => i === 0 || columns.includes(name)) : table.header.map((name, i) => [name, i]);
  const complete = state.get("complete") === "yes";
  const rows = table.lines
    .filter(([title, kind]) => kind !== "ours" || !chosen.size || chosen.has(title))
    .map(([title, kind, cells]) => ({
      head: { text: title }, kind: kind === "ours" ? "" : kind,
      cells: shown.slice(1).map(([, i]) => {
        const cell = cells[i - 1];
        return Array.isArray(cell) ? { text: cell[0], sort: cell[1], bold: cell[2] } : { text: cell, sort: null };
      }),
    }))
    .filter((row) => !complete || row.kind || row.cells.every((cell) => !isEmpty(cell.text)));
  const only = make("input", null, { type: "checkbox" });
  only.checked = complete;
  only.addEventListener("change", () => state.set({ complete: only.checked ? "yes" : null }));
  const header = shown.map(([name]) => name);
  const [hidden, direction] = state.get("sort", "").split(":"); // a column may sort while it is not shown
  if (!header.includes(hidden) && table.header.includes(hidden)) {
    const value = (title) => table.lines.find((line) => line[0] === title)[2][table.header.indexOf(hidden) - 1];
    const number = (cell) => (Array.isArray(cell) ? cell[1] : cell);
    rows.sort((a, b) => compareValues(number(value(a.head.text)), number(value(b.head.text)), direction === "up" ? 1 : -1));
  }
  page.append(
    choice("Table", "table", names, table.file),
    make("label", null, {}, [only, " only rows without gaps"]),
    make("details", null, {}, [make("summary", "Rows and columns"), boxes("Methods", "methods", methods), boxes("Columns", "columns", table.header.slice(1))]),
    make("div", null, { class: "tools" }, [
      button("CSV", () => save(`${table.file}.csv`, csv([header, ...rows.map((row) => [row.head.text, ...row.cells.map((cell) => cell.text)])]), "text/csv")),
      button("LaTeX (whole table)", () => save(`${table.file}.tex`, table.latex, "text/x-tex")),
    ]),
    sortableTable("sort", table.title, header, rows),
    ...table.notes.map((note) => make("p", note, { class: "note" })),
  );
}

// Paper is narrow: before printing, wide tables are split into parts of some columns, each with the row heads.
const PRINTED = 7;
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => (details.open = true));
  for (const table of document.querySelectorAll(".scroll table")) {
    const count = table.tHead?.rows[0].cells.length ?? 0;
    if (count <= PRINTED + 1) continue;
    table.classList.add("split");
    for (let start = 1; start < count; start += PRINTED) {
      const part = table.cloneNode(true);
      part.className = "printed";
      for (const row of part.rows) [...row.cells].forEach((cell, i) => (i && (i < start || i >= start + PRINTED)) && cell.remove());
      table.parentNode.append(part);
    }
  }
});
addEventListener("afterprint", () => {
  document.querySelectorAll("table.printed").forEach((part) => part.remove());
  document.querySelectorAll("table.split").forEach((table) => table.classList.remove("split"));
});

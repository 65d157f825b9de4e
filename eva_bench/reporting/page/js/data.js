"use strict";
// Data blocks, the state in the address, and small helpers. Text from records only ever goes through textContent.

const make = (tag, text, attributes = {}, children = []) => {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const byId = (id) => document.getElementById(id);
const points = (value, sign = true) => {
  if (value === null || value === undefined) return "–";
  const text = (100 * value).toFixed(1);
  return sign && value >= 0 ? `+${text}` : text;
};
const interval = ([estimate, low, high]) => points(estimate) + (low === null ? "" : ` [${points(low)}, ${points(high)}]`);
const show = (value) => {
  if (value === null || value === undefined || value === "") return "–";
  return typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 5 }) : String(value);
};

// A block is JSON, deflated, as base64: eva_bench/reporting/page/blocks.py.
async function unpack(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}
const unpacked = new Map();
function block(id) {
  if (!unpacked.has(id)) unpacked.set(id, unpack(id));
  return unpacked.get(id);
}

// The state of the page is its address: every view is a link.
const state = {
  all: () => new URLSearchParams(location.hash.slice(1)),
  get(name, fallback = "") {
    return state.all().get(name) ?? fallback;
  },
  list(name) {
    return state.get(name).split(",").filter(Boolean);
  },
  link(changes) {
    const parameters = state.all();
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === undefined || value === "" || value.length === 0) parameters.delete(name);
      else parameters.set(name, Array.isArray(value) ? value.join(",") : value);
    }
    return "#" + parameters.toString();
  },
  set(changes) {
    history.replaceState(null, "", state.link(changes));
    dispatchEvent(new Event("statechange"));
  },
};

function choice(label, name, options, fallback) {
  const select = make("select", null, { name });
  const current = state.get(name, fallback);
  for (const option of options) {
    const [value, text] = Array.isArray(option) ? option : [option, option];
    const item = make("option", text, { value });
    item.selected = value === current;
    select.append(item);
  }
  select.addEventListener("change", () => state.set({ [name]: select.value }));
  return make("label", label + " ", {}, [select]);
}

// Boxes for some of many: none ticked means all.
function boxes(label, name, options) {
  const chosen = new Set(state.list(name));
  const field = make("fieldset", null, { class: "boxes" }, [make("legend", label)]);
  for (const option of options) {
    const box = make("input", null, { type: "checkbox", value: option });
    box.checked = chosen.has(option);
    box.addEventListener("change", () => {
      box.checked ? chosen.add(option) : chosen.delete(option);
      state.set({ [name]: options.filter((each) => chosen.has(each)) });
    });
    field.append(make("label", null, {}, [box, " " + option]));
  }
  return field;
}

function save(name, content, type) {
  const link = make("a", null, { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function button(text, action) {
  const element = make("button", text, { type: "button" });
  element.addEventListener("click", action);
  return element;
}

function copyable(text) {
  const code = make("pre", null, { tabindex: "0" }, [make("code", text)]);
  const copy = button("Copy", async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = "Copied";
  });
  return make("div", null, { class: "copyable" }, [code, copy]);
}

const csv = (rows) => rows.map((row) => row.map((cell) => `"${String(cell ?? "").replaceAll('"', '""')}"`).join(",")).join("\n") + "\n";

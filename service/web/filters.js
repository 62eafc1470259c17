// Filters of the fields an index declares: facets with counts, ranges, and what is chosen. Choices are links.

import { link } from "./address.js";
import { $, h } from "./dom.js";

const FACETED = new Set(["keyword", "bool"]);
const MOST_FACETS = 8; // that the service counts in one answer
const RANGED = { integer: "number", float: "number", datetime: "date" };
const OPEN_ENDED = /^(.*?)\.\.(.*)$/;

const panel = $("#filters");
const chosen = $("#chosen");
const wide = matchMedia("(min-width: 62rem)");

wide.addEventListener("change", unfold);
unfold();

function unfold() {
  $("details", panel).open = wide.matches;
}

export const facetsOf = (fields) => Object.keys(fields).filter((field) => FACETED.has(fields[field])).slice(0, MOST_FACETS);

// Qdrant's filter grammar for what the address asks, each value in the type of its field.
export function filterOf(filters, fields) {
  const must = filters.map(([field, value]) => condition(field, value, fields[field]));
  return must.length ? { must } : undefined;
}

function condition(key, value, type) {
  const ends = type in RANGED && OPEN_ENDED.exec(value);
  if (ends) return { key, range: range(ends.slice(1), type) };
  if (type === "text") return { key, match: { text: value } };
  if (type === "bool") return { key, match: { value: value === "true" } };
  return { key, match: { value: type === "integer" ? Number(value) : value } };
}

function range([from, to], type) {
  const bounds = type === "datetime" ? { gte: from, lte: to && `${to}T23:59:59Z` } : { gte: number(from), lte: number(to) };
  return Object.fromEntries(Object.entries(bounds).filter(([, bound]) => bound !== "" && bound !== undefined));
}

const number = (text) => (text === "" ? undefined : Number(text));

export function showFilters(view, fields, facets, go) {
  const at = document.activeElement?.dataset.key;
  const groups = Object.keys(fields).map((field) => group(field, { view, type: fields[field], facets, go }));
  const shown = groups.filter(Boolean);
  panel.hidden = !Object.values(fields).some((type) => FACETED.has(type) || type in RANGED);
  $("summary", panel).textContent = view.filters.length ? `Filters (${view.filters.length})` : "Filters";
  $("div", panel).replaceChildren(...shown);
  const like = view.like ? [pill(`like ${view.like}`, { ...view, like: "" })] : [];
  chosen.replaceChildren(...like, ...view.filters.map((filter) => pill(said(filter), without(view, filter))));
  if (at) document.querySelector(`[data-key="${CSS.escape(at)}"]`)?.focus({ preventScroll: true });
}

function group(field, { view, type, facets, go }) {
  const values = (facets[field] ?? []).filter(({ count }) => count);
  const entries = type in RANGED ? rangeForm(field, type, view, go) : valueList(field, values, view);
  return entries && h("section", {}, h("h2", {}, name(field)), entries);
}

function valueList(field, values, view) {
  if (!values.length) return null;
  return h("ul", {}, values.map(({ value, count }) => h("li", {}, choice(field, String(value), count, view))));
}

function choice(field, value, count, view) {
  const taken = view.filters.some((filter) => filter[0] === field && filter[1] === value);
  const next = taken ? without(view, [field, value]) : { ...view, filters: [...view.filters, [field, value]] };
  return h(
    "a",
    { href: link(next), "aria-current": taken && "true", "data-key": `${field}=${value}` },
    h("span", {}, value),
    " ",
    h("small", {}, count.toLocaleString("en")),
  );
}

function rangeForm(field, type, view, go) {
  const now = view.filters.find((filter) => filter[0] === field) ?? [field, ".."];
  const [from, to] = (OPEN_ENDED.exec(now[1]) ?? [null, now[1], now[1]]).slice(1);
  const end = (label, value) =>
    h("input", {
      type: RANGED[type],
      step: type === "float" ? "any" : null,
      "aria-label": `${name(field)} ${label}`,
      "data-key": `${field} ${label}`,
      value,
    });
  const inputs = [end("from", from), end("to", to)];
  const change = () => {
    const value = inputs.map((input) => input.value).join("..");
    const others = view.filters.filter((filter) => filter[0] !== field);
    go({ ...view, filters: value === ".." ? others : [...others, [field, value]] });
  };
  return h("p", { class: "range", onchange: change }, inputs[0], " to ", inputs[1]);
}

function pill(text, rest) {
  return h("a", { href: link(rest), "aria-label": `Remove “${text}”` }, text);
}

const said = ([field, value]) => `${name(field)}: ${value.replace("..", " to ").trim()}`;

function without(view, [field, value]) {
  return { ...view, filters: view.filters.filter((filter) => filter[0] !== field || filter[1] !== value) };
}

const name = (field) => field.replace(/^metadata\./, "").replaceAll("_", " ");

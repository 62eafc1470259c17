// The page: what the address asks goes to the service, what it answers is shown. One request at a time; a newer question
// ends an older one, and its answer is never shown.

import { link, read } from "./address.js";
import { Problem, ask, key } from "./api.js";
import { $, count, h } from "./dom.js";
import { facetsOf, filterOf, showFilters } from "./filters.js";
import "./keyboard.js";
import * as notice from "./notice.js";
import { item } from "./result.js";

const LIMIT = 10;
const DEBOUNCE_MS = 120;
const BURST_MS = 2_000; // a pause in typing after which what was asked before it stays in the history

const MODES = {
  fused: "meaning plus words, one exact sum",
  cls: "what the text is about, in whichever words",
  ot: "which words the text holds or implies",
  rrf: "both lists merged by rank alone, for comparison",
};

// Queries that fit an index the page knows: the demo's, by its name.
const EXAMPLES = {
  demo: ["how do I compress a file", "run a function every five seconds", "remove duplicates but keep the order"],
};

const form = $("#form");
const field = $("#query");
const results = $("#results");
const more = $("#more button");

let view = read();
let asking = null; // the request under way
let indexes = null; // what may be searched, once known
let facets = { of: "", counts: {} }; // the last counts, and of which index and filter they are
const typed = { timer: 0, at: -Infinity };

form.addEventListener("input", ({ target }) => {
  if (target !== field) return;
  clearTimeout(typed.timer);
  typed.timer = setTimeout(() => go(asked(), { replace: inBurst() }), DEBOUNCE_MS);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typed.timer);
  go(asked(), { replace: inBurst() });
  typed.at = -Infinity;
});
document.addEventListener("change", ({ target }) => {
  if (target.name === "mode") go({ ...view, mode: target.value });
  if (target.name === "index") go({ ...view, index: target.value, like: "", filters: [] });
});
document.addEventListener("click", followOwnLinks);
window.addEventListener("popstate", fromAddress);
window.addEventListener("online", () => $("#notice").hasChildNodes() && answer());
$("#forget").addEventListener("click", () => {
  key.forget();
  indexes = null;
  answer();
});
more.addEventListener("click", () => answer({ cursor: more.value }));

fromAddress();

function asked() {
  return { ...view, query: field.value, like: "" };
}

function inBurst() {
  const before = typed.at;
  typed.at = performance.now();
  return typed.at - before < BURST_MS;
}

function go(next, { replace = false } = {}) {
  const address = link(next);
  if (address !== link(view)) history[replace ? "replaceState" : "pushState"](null, "", tidy(address));
  view = next;
  answer();
}

function fromAddress() {
  clearTimeout(typed.timer);
  typed.at = -Infinity;
  view = read();
  field.value = view.query;
  answer();
}

// Links to a view of this page change the view; with a modifier they open elsewhere, as links do.
function followOwnLinks(event) {
  const address = event.target.closest?.("a[href^='?']")?.getAttribute("href");
  if (address === undefined || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", tidy(address));
  fromAddress();
}

const tidy = (address) => (address === "?" ? location.pathname : address);

async function answer({ cursor } = {}) {
  asking?.abort();
  notice.clear();
  const request = (asking = new AbortController());
  const { signal } = request;
  const current = () => request === asking;
  prepare();
  try {
    indexes ??= await known();
    if (!current()) return;
    showIndexes();
    if (!view.query.trim() && !view.like) return showNothing();
    const found = await ask(path(), { body: question({ limit: LIMIT, with: ["parts", "explain"], cursor }), signal });
    if (!current()) return;
    show(found, cursor);
    results.removeAttribute("aria-busy"); // what is there can be read while its facets are counted
    await countFacets(signal);
  } catch (error) {
    if (current() && error.name !== "AbortError") fail(error, cursor);
  } finally {
    if (current()) results.removeAttribute("aria-busy");
  }
}

const path = () => (view.like ? `v1/documents/${encodeURIComponent(view.like)}:similar` : "v1/search");

function question(wanted) {
  const { query, like, mode, index, filters } = view;
  const filter = filterOf(filters, home().fields);
  return { ...(like ? {} : { query }), ...(index ? { index } : {}), mode, filter, ...wanted };
}

// Counts are of the documents under the filter, whatever the question: asked for when the filter changes, and after the
// results, which need not wait for them.
async function countFacets(signal) {
  const { build, fields } = home();
  const of = JSON.stringify([build, view.filters]);
  const counted = facetsOf(fields);
  if (facets.of === of || !counted.length) return;
  try {
    const answer = await ask(path(), { body: question({ limit: 1, with: [], facets: counted }), signal });
    facets = { of, counts: answer.facets };
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    facets = { of: "", counts: {} }; // results without counts are still results; the next question asks again
  }
  showFilters(view, fields, facets.counts, go);
}

async function known() {
  const [{ indexes }, { index }] = await Promise.all([ask("v1/indexes"), ask("readyz")]);
  return indexes.map((each) => ({ ...each, fields: declared(each.fields), standard: each.name === index }));
}

// Places of documents and passages can be filtered on too, but say nothing to a person.
const declared = (fields) => Object.fromEntries(Object.entries(fields).filter(([field]) => field.startsWith("metadata.")));

// The index that answers: the one the address names, or the one that answers who names none.
function home() {
  const found = indexes.find(({ name, standard }) => (view.index ? name === view.index : standard));
  return found ?? { name: view.index, fields: {} };
}

function prepare() {
  const titled = view.like ? `Like ${view.like}` : view.query.trim();
  document.title = titled ? `${titled} · Search` : "Search";
  for (const choice of form.elements.mode) choice.checked = choice.value === view.mode;
  $("#mode").textContent = MODES[view.mode] ?? "";
  $("#forget").hidden = !key.get();
  results.setAttribute("aria-busy", "true");
}

function showIndexes() {
  const { name, documents } = home();
  $("#indexes").hidden = indexes.length < 2;
  $("#indexes select").replaceChildren(...indexes.map((each) => h("option", { selected: each.name === name }, each.name)));
  const size = documents === undefined ? "" : count(documents, "document");
  $("#size").textContent = indexes.length === 1 ? `${name} · ${size}` : size;
}

function showNothing() {
  results.replaceChildren();
  showFilters(view, {}, {}, go);
  showAround(false);
  $("#status").textContent = "";
  const examples = EXAMPLES[home().name] ?? [];
  $("#examples").replaceChildren(
    ...examples.map((query) => h("li", {}, h("a", { href: link({ ...view, query, like: "" }) }, query))),
  );
}

function show({ results: found, next_cursor, meta }, cursor) {
  notice.settled();
  const held = document.activeElement !== document.body;
  showResults(found, cursor);
  more.value = next_cursor ?? "";
  const { fields } = home();
  showFilters(view, fields, facets.counts, go);
  showAround(true);
  $("#more").hidden = !next_cursor;
  $("#status").textContent = sentence(results.children.length, next_cursor, meta);
  $("#made").textContent = origin(meta);
  if (!cursor) window.scrollTo(0, 0);
  if (held && document.activeElement === document.body) results.focus({ preventScroll: true });
}

function showResults(found, cursor) {
  const fields = home().fields;
  const best = cursor ? Number(results.dataset.best) : Math.max(...found.map(({ score }) => score), Number.EPSILON);
  const items = found.map((result) => item(result, { view, fields, best }));
  results.dataset.best = best;
  if (!cursor) return results.replaceChildren(...items);
  results.append(...items);
  $("h2 a", items[0])?.focus();
}

function showAround(answered) {
  $("#intro").hidden = answered;
  $("#more").hidden = true;
  $("#made").hidden = !answered;
}

function sentence(shown, next, meta) {
  const took = Object.values(meta.took_ms).reduce((sum, stage) => sum + stage, 0);
  const cut = meta.query.truncated ? " The question was too long; only its beginning was read." : "";
  if (!shown) return `Nothing found${view.filters.length ? " under these filters" : ". Try other words"}.${cut}`;
  const short = meta.complete || next ? "" : " More documents may match: the best passages belong to these few.";
  return `${next ? "The best " : ""}${count(shown, "result")} in ${took.toFixed(0)} ms.${short}${cut}`;
}

function origin({ took_ms, model, index }) {
  const stages = Object.entries(took_ms).map(([stage, ms]) => `${stage} ${ms.toFixed(1)}`);
  return `${stages.join(" · ")} ms — ${model.name}, build ${index.build}`;
}

function fail(problem, cursor) {
  if (!(problem instanceof Problem)) throw problem;
  $("#status").textContent = "";
  if (!cursor) {
    results.replaceChildren();
    showAround(true);
    $("#made").hidden = true;
  }
  notice.tell(problem, () => answer());
}

// One result: its title, where it stands, the words that matched, and how its score is made up.

import { link } from "./address.js";
import { $, bar, h } from "./dom.js";
import { filterOf } from "./filters.js";
import { receipt } from "./receipt.js";

const WORDS_ADDED = 5;
const WORTH_SHOWING = 0.005; // of the score; less rounds to nothing
const FACTS = 3;
const LONGEST_FACT = 40;

const WEIGHED = new Set(["fused", "ot"]); // modes whose score is made of what the words add

// Merged ranks are no weights: their parts say where each list has the document, not what its text adds.
const PART_NAMES = { rrf: { cls: "rank by meaning", ot: "rank by words" } };

export function item(result, { view, fields, best }) {
  const terms = WEIGHED.has(view.mode) ? result.explain : [];
  const like = h("a", { href: link({ ...view, like: result.id }) }, "More like this");
  const actions = [terms.length ? why(result, view, filterOf(view.filters, fields)) : null, like];
  return h(
    "li",
    {},
    h(
      "article",
      {},
      h("h2", {}, title(result)),
      place(result, view, fields),
      result.highlights.length ? h("p", { class: "snippet" }, result.highlights.map(run)) : null,
      score(result, view.mode, best, actions),
      added(terms, WORTH_SHOWING * result.score),
    ),
  );
}

function title({ title, id, url }) {
  const web = /^https?:/i.test(url);
  return h("a", { class: title ? null : "untitled", ...(web ? { href: url } : { tabindex: -1 }) }, title || id);
}

function place({ url, passage, metadata }, view, fields) {
  const facts = Object.keys(fields)
    .map((field) => [field, metadata[field.replace("metadata.", "")]])
    .filter(([field, value]) => fields[field] === "keyword" && typeof value === "string" && value.length <= LONGEST_FACT)
    .slice(0, FACTS)
    .map(([field, value]) => h("a", { href: link(narrowed(view, field, value)), title: `Only ${value}` }, value));
  const address = /^https?:/i.test(url) ? h("span", { class: "address" }, url.replace(/^https?:\/\/(www\.)?/i, "")) : null;
  const where = passage.of > 1 ? h("span", {}, `passage ${passage.number} of ${passage.of}`) : null;
  const all = [address, where, ...facts].filter(Boolean);
  return all.length ? h("p", { class: "place" }, all) : null;
}

function narrowed(view, field, value) {
  const others = view.filters.filter((filter) => filter[0] !== field || filter[1] !== value);
  return { ...view, filters: [...others, [field, value]] };
}

function run({ text, match }) {
  return match ? h("mark", {}, text) : text;
}

function score({ score, parts }, mode, best, actions) {
  const names = PART_NAMES[mode] ?? { cls: "meaning", ot: "words" };
  const digits = mode === "rrf" ? 4 : 2;
  return h(
    "div",
    { class: "score" },
    bar(parts, best),
    h("span", { class: "unseen" }, "Score "),
    h("strong", {}, score.toFixed(digits)),
    h("span", {}, "= ", h("i", { class: "cls" }), `${names.cls} ${parts.cls.toFixed(digits)}`),
    h("span", {}, "+ ", h("i", { class: "ot" }), `${names.ot} ${parts.ot.toFixed(digits)}`),
    h("span", { class: "actions" }, actions),
  );
}

function added(terms, least) {
  const given = terms.filter(({ in_query, word, contribution }) => !in_query && !word.startsWith("-") && contribution >= least);
  const words = given.slice(0, WORDS_ADDED);
  if (!words.length) return null;
  const shown = words.map((term) => h("span", {}, `${term.word} `, h("small", {}, term.contribution.toFixed(2))));
  return h("p", { class: "added" }, "The model added ", shown);
}

// Opens the receipt of a score below it, and closes it.
function why(result, view, filter) {
  const toggle = ({ target: button }) => {
    const article = button.closest("article");
    const shown = $(".receipt", article);
    button.setAttribute("aria-expanded", !shown);
    if (shown) shown.remove();
    else article.append(receipt(result, { view, filter }));
  };
  return h("button", { type: "button", "aria-expanded": "false", onclick: toggle }, "Why this?");
}

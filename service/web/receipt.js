// Why a document was found, as a receipt: what the meaning adds, what each word adds, and their sum, which is the score.

import { Problem, ask } from "./api.js";
import { bar, h } from "./dom.js";

const WORDS_SHOWN = 12;
const LONELY_SHOWN = 6;

export function receipt(result, { view, filter }) {
  const box = h("div", { class: "receipt" });
  if (view.mode === "fused" && !view.like) fill(box, result, view, filter);
  else box.append(table(result, result.explain, view));
  return box;
}

async function fill(box, { id }, view, filter) {
  const body = { query: view.query, id, filter, ...(view.index ? { index: view.index } : {}) };
  try {
    const why = await ask("v1/explain", { body });
    box.append(table(why, why.words, view), ...lonely(why.unmatched));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    box.append(h("p", {}, `It cannot be explained now. ${problem.message}`));
  }
}

function table({ score, parts }, words, view) {
  const shown = words.slice(0, WORDS_SHOWN);
  const rest = words.slice(WORDS_SHOWN);
  const widest = Math.max(parts.cls, shown[0]?.contribution ?? 0, Number.EPSILON);
  return h(
    "table",
    {},
    h("caption", { class: "unseen" }, "What meaning and words add to the score"),
    h("thead", {}, h("tr", {}, ...["", view.like ? "Original" : "Question", "Document", "Adds"].map(heading))),
    h(
      "tbody",
      {},
      parts.cls ? line("meaning", ["", "", parts.cls], { cls: parts.cls }, widest) : null,
      ...shown.map((each) => word(each, widest)),
      rest.length ? line(`${rest.length} more words`, ["", "", sum(rest)], null) : null,
    ),
    h("tfoot", {}, line("score", ["", "", score], null)),
  );
}

// The strongest words of each side that the other lacks.
function lonely({ query, document }) {
  const sides = [["Only in the question", query], ["Only in the document", document]];
  return sides
    .filter(([, words]) => words.length)
    .map(([where, words]) =>
      h("p", { class: "lonely" }, `${where}: ${words.slice(0, LONELY_SHOWN).map(({ word }) => word).join(", ")}`),
    );
}

const sum = (terms) => terms.reduce((total, term) => total + term.contribution, 0);

function heading(text) {
  return h("th", { scope: "col" }, text || h("span", { class: "unseen" }, "What"));
}

function word(term, widest) {
  const piece = term.entry && term.entry !== term.word && !term.word.startsWith("-") ? h("small", {}, ` ${term.entry}`) : null;
  const values = [side(term.query_weight, term.in_query), side(term.document_weight, term.in_document), term.contribution];
  return line([term.word, piece], values, { ot: term.contribution }, widest);
}

// A word that a text does not hold was added to it by the model.
function side(weight, holds) {
  return holds ? weight.toFixed(2) : [h("small", {}, "added "), weight.toFixed(2)];
}

function line(name, [question, document, adds], parts, widest) {
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, name),
    h("td", {}, question),
    h("td", {}, document),
    h("td", {}, parts && bar(parts, widest), h("span", { class: "adds" }, adds.toFixed(3))),
  );
}

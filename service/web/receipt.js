// Why a document was found, as a receipt: what the meaning adds, what each word adds, and their sum, which is the score.

import { bar, h } from "./dom.js";

const WORDS_SHOWN = 12;

export function receipt({ score, parts }, terms) {
  const shown = terms.slice(0, WORDS_SHOWN);
  const rest = terms.slice(WORDS_SHOWN);
  const widest = Math.max(parts.cls, shown[0]?.contribution ?? 0, Number.EPSILON);
  return h(
    "div",
    { class: "receipt" },
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, "What meaning and words add to the score"),
      h("thead", {}, h("tr", {}, ...["", "Question", "Document", "Adds"].map(heading))),
      h(
        "tbody",
        {},
        parts.cls ? line("meaning", ["", "", parts.cls], { cls: parts.cls }, widest) : null,
        ...shown.map((term) => word(term, widest)),
        rest.length ? line(`${rest.length} more words`, ["", "", sum(rest)], {}, widest) : null,
      ),
      h("tfoot", {}, line("score", ["", "", score], null)),
    ),
  );
}

export const sum = (terms) => terms.reduce((total, term) => total + term.contribution, 0);

function heading(text) {
  return h("th", { scope: "col" }, text || h("span", { class: "unseen" }, "What"));
}

function word(term, widest) {
  const piece = term.entry !== term.word && !term.word.startsWith("-") ? h("small", {}, ` ${term.entry}`) : null;
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

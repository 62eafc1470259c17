// `/` to the question, arrows through the results, Escape back to the question.

import { $ } from "./dom.js";

const field = $("#query");
const titles = () => [...document.querySelectorAll("#results h2 a")];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const move = moves[event.key];
  if (move?.(event.target)) event.preventDefault();
});

const moves = {
  "/": (at) => !at.matches("select, input:not([type=radio])") && toQuestion(),
  Escape: (at) => at !== field && at.closest("#results, #more, #filters, #chosen") && toQuestion(),
  ArrowDown: (at) => (at === field ? focus(titles()[0]) : step(at, 1)),
  ArrowUp: (at) => step(at, -1),
};

function toQuestion() {
  field.focus();
  field.select();
  return true;
}

function step(at, by) {
  const all = titles();
  const now = all.indexOf(at);
  if (now < 0) return false;
  return now + by < 0 ? toQuestion() : focus(all[now + by]);
}

function focus(title) {
  title?.focus();
  return Boolean(title);
}

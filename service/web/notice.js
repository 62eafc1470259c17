// What went wrong, in words for people, and what can be done about it.

import { key } from "./api.js";
import { $, h } from "./dom.js";

const MOST_TRIES = 5; // of a busy service, before a person has to ask for more
const LONGEST_WAIT_S = 30;

const TITLES = {
  0: "The service cannot be reached",
  400: "The service did not understand the question",
  401: "This service wants an API key",
  403: "This key may not do that",
  404: "Not found",
  410: "These results are out of date",
  413: "The question is too long",
  422: "The question cannot be answered as it is",
  429: "Too many questions at once",
  500: "The service failed",
  502: "Something between here and the service failed",
  503: "The service is not ready",
  504: "No answer in time",
};

const REMEDIES = {
  401: "Whoever runs the service gives keys out.",
  0: "Is it running, and are you online? It is asked again as soon as there is a connection.",
  502: "What came back was not an answer of the service.",
  504: "The service may be busy; asking again often helps.",
};

const box = $("#notice");
let tries = 0;
let clock = 0;

export function clear() {
  clearInterval(clock);
  box.replaceChildren();
}

export function settled() {
  tries = 0;
  clear();
}

// Shows the problem and calls `again` when a person, a connection or the time the service named asks for it.
export function tell(problem, again) {
  clear();
  const title = TITLES[problem.status] ?? `The service answered ${problem.status}`;
  box.replaceChildren(
    h("h2", {}, title),
    h("p", {}, reason(problem)),
    [401, 403].includes(problem.status) && problem.kind !== "not-writable" ? keyForm(again) : retry(problem, again),
    problem.request ? h("p", { class: "request" }, `Request ${problem.request}`) : "",
  );
}

function reason({ status, message }) {
  const unasked = status === 401 && !key.get(); // what a program would be told says nothing to a person
  return (!unasked && message) || (REMEDIES[status] ?? "");
}

function retry(problem, again) {
  const waits = problem.retryAfter && tries < MOST_TRIES;
  const button = h("button", { type: "button", onclick: again }, "Try again");
  if (!waits) return h("p", {}, button);
  let left = Math.min(problem.retryAfter * 2 ** tries++, LONGEST_WAIT_S);
  const told = h("span", { "aria-live": "off" }, ` by itself in ${left} s`);
  clock = setInterval(() => {
    left -= 1;
    told.textContent = ` by itself in ${left} s`;
    if (left <= 0) again();
  }, 1000);
  return h("p", {}, button, told);
}

function keyForm(again) {
  const field = h("input", { id: "key", type: "password", autocomplete: "off", required: true });
  return h(
    "form",
    {
      class: "key",
      onsubmit(event) {
        event.preventDefault();
        key.set(field.value.trim());
        again();
      },
    },
    h("label", { for: "key" }, "API key"),
    field,
    h("button", { type: "submit" }, "Use it"),
    h("p", {}, "It is kept in this tab only, and gone when you close it."),
  );
}

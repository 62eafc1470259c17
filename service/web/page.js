// The page: asks /v1/search, shows the answer. Text from the index only ever becomes text nodes and checked links.

const LIMIT = 10;
const TERMS_SHOWN = 12;
const WORDS_ADDED = 6;

const WEIGHED = new Set(["fused", "ot"]); // modes whose score is made of what the words add

const form = document.querySelector("#form");
const field = document.querySelector("#query");
const status = document.querySelector("#status");
const results = document.querySelector("#results");
const legend = document.querySelector("#legend");
const intro = document.querySelector("#intro");
const footer = document.querySelector("#footer");
const template = document.querySelector("#result");

let asking = null; // the request under way, so that a newer question can end it

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask({ remember: true });
});

form.addEventListener("change", (event) => {
  if (event.target.name === "mode" && field.value.trim()) ask({ remember: true });
});

window.addEventListener("popstate", readAddress);

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== field && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    field.select();
  }
});

readAddress();

function readAddress() {
  const address = new URLSearchParams(location.search);
  const mode = address.get("mode") ?? "fused";
  field.value = address.get("q") ?? "";
  for (const choice of form.elements.mode) choice.checked = choice.value === mode;
  ask({ remember: false });
}

async function ask({ remember }) {
  asking?.abort();
  const query = field.value.trim();
  const address = new URLSearchParams(location.search);
  const mode = form.elements.mode.value || "fused";
  if (remember) history.pushState(null, "", query ? `?${addressOf(query, mode, address.get("index"))}` : "/");
  document.title = query ? `${query} · Search` : "Search";
  if (!query) return showNothing();

  const request = (asking = new AbortController());
  results.setAttribute("aria-busy", "true");
  say("Searching…");
  try {
    const body = { query, mode, limit: LIMIT, with: WEIGHED.has(mode) ? ["parts", "explain"] : ["parts"] };
    if (address.has("index")) body.index = address.get("index");
    show(await post(body, request.signal));
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    if (asking === request) results.removeAttribute("aria-busy");
  }
}

async function post(body, signal) {
  const response = await fetch("/v1/search", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

function addressOf(query, mode, index) {
  const address = new URLSearchParams({ q: query });
  if (mode !== "fused") address.set("mode", mode);
  if (index) address.set("index", index);
  return address;
}

function showNothing() {
  results.replaceChildren();
  results.removeAttribute("aria-busy");
  footer.textContent = "";
  legend.hidden = true;
  intro.hidden = false;
  say("");
}

function show({ results: found, meta }) {
  const best = Math.max(...found.map((result) => Math.abs(result.score)), Number.EPSILON);
  results.replaceChildren(...found.map((result) => item(result, best)));
  intro.hidden = true;
  legend.hidden = !found.length;
  const took = Object.values(meta.took_ms).reduce((sum, stage) => sum + stage, 0);
  const count = found.length === 1 ? "1 result" : `${found.length} results`;
  const cut = meta.query.truncated ? " The question was too long; only its beginning was read." : "";
  const short = meta.complete ? "" : " More documents may match: the best passages belong to these few.";
  say(found.length ? `${count} in ${took.toFixed(0)} ms.${short}${cut}` : `Nothing found. Try other words.${cut}`);
  footer.textContent = `${meta.index.documents.toLocaleString("en")} documents in “${meta.index.name}” · ${meta.model.name}`;
}

function fail(error) {
  results.replaceChildren();
  legend.hidden = true;
  intro.hidden = true;
  footer.textContent = "";
  const unreachable = error instanceof TypeError || error instanceof SyntaxError;
  say(unreachable ? "The service does not answer. Is it running?" : error.message, true);
}

function say(text, problem = false) {
  status.textContent = text;
  status.classList.toggle("problem", problem);
}

function item(result, best) {
  const node = template.content.cloneNode(true);
  const link = node.querySelector("h2 a");
  link.textContent = result.title || result.id;
  if (/^https?:/i.test(result.url)) {
    link.href = result.url;
    node.querySelector(".address").textContent = result.url.replace(/^https?:\/\//i, "");
  } else {
    node.querySelector(".address").remove();
  }
  if (result.passage.of > 1) {
    node.querySelector(".passage").textContent = `passage ${result.passage.number} of ${result.passage.of}`;
  } else {
    node.querySelector(".passage").remove();
  }
  node.querySelector(".snippet").append(...result.highlights.map(run));
  score(node, result, best);
  explain(node, result);
  return node;
}

function run({ text, match }) {
  if (!match) return text;
  const mark = document.createElement("mark");
  mark.textContent = text;
  return mark;
}

function score(node, { score, parts }, best) {
  const bar = node.querySelector(".bar");
  bar.setAttribute("aria-label", `Score ${score.toFixed(3)}: meaning ${parts.cls.toFixed(3)}, words ${parts.ot.toFixed(3)}`);
  for (const part of ["cls", "ot"]) {
    bar.querySelector(`.${part}`).style.width = `${(100 * Math.max(parts[part], 0)) / best}%`;
  }
  node.querySelector(".number").textContent = score.toFixed(3);
}

function explain(node, { explain: terms = [], parts }) {
  const added = terms.filter((term) => !term.in_query && !term.word.startsWith("-")).slice(0, WORDS_ADDED);
  if (added.length) {
    node.querySelector(".added").append("The model added", ...added.map((term) => chip(term.word)));
  }
  if (!terms.length) {
    node.querySelector("details").remove();
    return;
  }
  const heaviest = terms[0].contribution;
  node.querySelector("tbody").append(...terms.slice(0, TERMS_SHOWN).map((term) => row(term, heaviest)));
  const rest = terms.slice(TERMS_SHOWN);
  const more = rest.reduce((sum, term) => sum + term.contribution, 0);
  const words = rest.length ? ` ${rest.length} more words add ${more.toFixed(3)}.` : "";
  node.querySelector(".rest").textContent = `Meaning adds ${parts.cls.toFixed(3)}.${words}`;
}

function chip(word) {
  const span = document.createElement("span");
  span.textContent = word;
  return span;
}

function row(term, heaviest) {
  const tr = document.createElement("tr");
  const share = document.createElement("i");
  share.style.width = `${(100 * term.contribution) / heaviest}%`;
  for (const content of [[term.word, piece(term)], [term.contribution.toFixed(3)], [share], [origin(term)]]) {
    const td = document.createElement("td");
    td.append(...content);
    tr.append(td);
  }
  return tr;
}

// A word of several pieces has a row for each: the piece beside it tells them apart.
function piece({ entry, word }) {
  const small = document.createElement("small");
  if (entry !== word && !word.startsWith("-")) small.textContent = ` ${entry}`;
  return small;
}

function origin({ in_query, in_document }) {
  if (in_query && in_document) return "in both";
  if (in_query) return "in the question, added to the document";
  if (in_document) return "added to the question, in the document";
  return "added to both";
}

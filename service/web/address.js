// What the address says is what the page shows: every view is a link, and the back button needs no code of its own.
//
// `q`, or `like` (a document's id) on top of it, `mode`, `index`, and a parameter per filtered field: `metadata.lang=en`, or
// `metadata.year=1990..2000` for a range, either end of which may be open.

const OWN = new Set(["q", "like", "mode", "index"]);

export function read(search = location.search) {
  const given = new URLSearchParams(search);
  return {
    query: given.get("q") ?? "",
    like: given.get("like") ?? "",
    mode: given.get("mode") ?? "fused",
    index: given.get("index") ?? "",
    filters: [...given].filter(([field]) => !OWN.has(field)),
  };
}

export function link({ query, like, mode, index, filters }) {
  const address = new URLSearchParams();
  if (query.trim()) address.set("q", query.trim());
  if (like) address.set("like", like);
  if (mode !== "fused") address.set("mode", mode);
  if (index) address.set("index", index);
  for (const [field, value] of filters) address.append(field, value);
  return `?${address}`;
}

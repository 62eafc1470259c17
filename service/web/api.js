// The service as the page sees it: JSON in, JSON out, and every failure as one `Problem`.

const PATIENCE_MS = 30_000; // longer than any deadline of the service: it is gone, or something between swallows answers
const KEY = "api-key"; // kept for this tab only

export class Problem extends Error {
  constructor(status, { type = "", detail = "", request_id = "" } = {}, retryAfter = 0) {
    super(detail);
    Object.assign(this, { status, kind: type.replace("urn:dupmae:", ""), request: request_id, retryAfter });
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export async function ask(path, { body, signal } = {}) {
  const ends = [AbortSignal.timeout(PATIENCE_MS), ...(signal ? [signal] : [])];
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  try {
    const request = { method: body ? "POST" : "GET", headers, body: JSON.stringify(body), signal: AbortSignal.any(ends) };
    return await read(await fetch(path, request));
  } catch (error) {
    if (error.name === "TimeoutError") throw new Problem(504);
    if (error instanceof TypeError) throw new Problem(0); // what `fetch` throws when there is nobody
    throw error;
  }
}

async function read(response) {
  const content = await response.text();
  let answer;
  try {
    answer = JSON.parse(content);
  } catch {
    throw new Problem(response.ok ? 502 : response.status); // not the service: something in front of it
  }
  if (response.ok) return answer;
  throw new Problem(response.status, answer, Number(response.headers.get("Retry-After")) || 0);
}

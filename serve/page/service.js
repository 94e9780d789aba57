// The service's routes. Every failure is a ServiceError with the service's own words.

let key = ""; // lives as long as the page, and is sent to this service only

/** Use this API key from now on; an empty text for none. */
export function setKey(value) {
  key = value;
}

/** A request that got an error answer, or none at all (`status` 0). */
export class ServiceError extends Error {
  constructor(status, body) {
    super(body.error);
    this.status = status;
    this.type = body.type;
    this.field = body.field ?? null;
    this.requestId = body.request_id ?? null;
  }
}

/** {models: {name: artifact id}, failures: [{name, version, state, reason, source}]}. */
export async function listModels() {
  return (await ask("models")).json();
}

/** What a model says of itself: artifact, providers, golden report, manifest. */
export async function describe(name) {
  return (await ask(path(name))).json();
}

/** The model card, in Markdown. */
export async function readCard(name) {
  return (await ask(path(name, "card"))).text();
}

/** The inputs of the golden rows, as .npz bytes. */
export async function readGolden(name) {
  return new Uint8Array(await (await ask(path(name, "golden"))).arrayBuffer());
}

/** Send .npy or .npz bytes; the .npz bytes of the answer, and who gave it. */
export async function predict(name, bytes, kind, signal) {
  const response = await ask(path(name, "predict"), {
    method: "POST",
    headers: { "Content-Type": `application/x-${kind}`, Accept: "application/x-npz" },
    body: bytes,
    signal,
  });
  return readAnswer(response);
}

async function readAnswer(response) {
  return {
    bytes: new Uint8Array(await response.arrayBuffer()),
    artifact: response.headers.get("X-Artifact-Id"),
    requestId: response.headers.get("X-Request-Id"),
  };
}

/** Send a recording; the CSV bytes of its predictions. `stretch` holds seconds `start` and `stop`. */
export async function predictRecording(name, bytes, filename, stretch, signal) {
  const query = new URLSearchParams({ filename, ...stretch });
  const response = await ask(`${path(name, "predict-recording")}?${query}`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream", Accept: "text/csv" },
    body: bytes,
    signal,
  });
  return readAnswer(response);
}

function path(name, ...rest) {
  return ["models", encodeURIComponent(name), ...rest].join("/");
}

async function ask(url, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(url, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, {
      error: "The service gave no answer: it is not running, not reachable, or it closed the connection.",
      type: "no_answer",
    });
  }
  if (response.ok) return response;
  const requestId = response.headers.get("X-Request-Id");
  const text = await response.text();
  throw new ServiceError(response.status, { request_id: requestId, ...errorBody(text, response) });
}

/** The service's error body; something before the service may have answered in its own form. */
function errorBody(text, response) {
  try {
    const body = JSON.parse(text);
    if (typeof body.error === "string") return body;
  } catch {
    // no JSON: told below by its status
  }
  return { error: `HTTP ${response.status} ${response.statusText}`.trim(), type: "http_error" };
}

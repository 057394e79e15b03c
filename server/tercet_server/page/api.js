// Calls of this server. The API key lives in this module's memory, and nowhere else.

let key = "";
export const useKey = given => { key = given.trim(); };

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The JSON that a path answers with; paths are relative, so that the page works behind a prefix too. */
export async function call(path, body) {
  const headers = { Accept: "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  const answer = await fetch(path, { method, headers, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body) });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(answer.status, content.error?.message ?? `the server answered ${answer.status}`);
  return content;
}

const of = (what, model) => `v1/${what}/${encodeURIComponent(model)}`;

export const status = () => call("v1/status");
export const encode = (model, text, outputs, isQuery) =>
  call(of("encode", model), { items: [text], params: { output_types: outputs, is_query: isQuery } });
export const score = (model, query, documents) => call(of("score", model), { query, items: documents });
export const interaction = (model, query, document) => call(of("interaction", model), { query, document });
export const tokensOf = (model, ids, text) => call(of("tokens", model), { ids, text });
export const tokensIn = (model, text, isQuery) => call(of("tokens", model), { text, is_query: isQuery });

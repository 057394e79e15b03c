// The encode form: a text as dense, sparse and multivector.

import { encode, tokensIn, tokensOf } from "./api.js";
import { bar, make, readable, tint, whole } from "./dom.js";
import { chosen } from "./models.js";

const TOP = 20;
const SHOWN = 8;
const DRAWN = 96;

export async function showEncoded(form) {
  const { name } = chosen();
  const text = form.querySelector("textarea").value;
  const isQuery = new FormData(form).get("side") === "query";
  const outputs = new FormData(form).getAll("output");
  if (!outputs.length) throw new Error("choose at least one output");
  const answer = await encode(name, text, outputs, isQuery);
  const item = answer.items[0];
  return [
    ...(item.dense ? dense(item.dense) : []),
    ...(item.sparse ? await sparse(name, item.sparse, text) : []),
    ...(item.multivector ? await multivector(name, item.multivector, text, isQuery) : []),
    facts(item, answer.timing),
  ];
}

const title = (name, note) => make("h3", [name, make("span.quiet", note)]);

function dense({ dims, values }) {
  const norm = Math.hypot(...values);
  const first = values.slice(0, SHOWN).map(value => value.toFixed(4)).join(", ");
  const shown = make("code.values", `[${first}${dims > SHOWN ? ", …" : ""}]`);
  return [title("Dense", `${whole(dims)} dimensions, length ${norm.toFixed(3)}`), make("div", [squares(values), shown])];
}

/** One small square for each dimension. */
function squares(values, most = Math.max(...values.map(Math.abs))) {
  const cells = values.map((value, i) => {
    const cell = make("i", [], { title: `${i}: ${value.toFixed(4)}` });
    tint(cell, value, most);
    return cell;
  });
  return make("div.vector", cells, { role: "img", "aria-label": `${values.length} dimensions as colours` });
}

async function sparse(name, { indices, values }, text) {
  const order = values.map((_, i) => i).sort((a, b) => values[b] - values[a]).slice(0, TOP);
  const { tokens } = await tokensOf(name, order.map(i => indices[i]), text);
  const most = values[order[0]] ?? 1;
  const rows = order.flatMap((place, i) => [
    make("span.token", tokens[i] == null ? `#${indices[place]}` : readable(tokens[i]), { title: `index ${indices[place]}` }),
    bar(values[place] / most),
    make("span.number", values[place].toFixed(3)),
  ]);
  const note = `${whole(values.length)} terms${values.length > TOP ? `, the ${TOP} heaviest` : ""}`;
  const shown = make("div.bars", rows);
  shown.id = "sparse-terms";
  return [title("Sparse", note), shown];
}

async function multivector(name, { num_tokens: count, token_dims: dims, values }, text, isQuery) {
  const { tokens } = await tokensIn(name, text, isQuery);
  // A few dimensions are far larger than all others; they may as well look alike.
  const sizes = values.flat().map(Math.abs).sort((a, b) => a - b);
  const most = sizes[Math.floor((sizes.length - 1) * 0.99)];
  const rows = values.flatMap((row, i) => [make("span.token", readable(tokens[i])), squares(row.slice(0, DRAWN), most)]);
  const note = `${whole(count)} vectors of ${whole(dims)} dimensions${dims > DRAWN ? `, the first ${DRAWN} drawn` : ""}`;
  return [title("Multivector", note), make("div.tokens", rows)];
}

function facts({ tokens, truncated }, timing) {
  const parts = [`${whole(tokens)} tokens${truncated ? ", truncated" : ""}`];
  for (const [name, ms] of Object.entries(timing ?? {})) parts.push(`${name.replace("_ms", "")} ${ms.toFixed(1)} ms`);
  return make("p.facts", parts.map(part => make("span", part)));
}

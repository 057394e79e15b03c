// The rerank form: documents in the order of their scores.

import { score } from "./api.js";
import { bar, make } from "./dom.js";
import { chosen } from "./models.js";

/** The ranking; `compare(query, document)` shows a pair token by token. */
export async function showRanking(form, compare) {
  const { name, model } = chosen();
  const query = form.querySelector("input").value;
  const documents = form.querySelector("textarea").value.split("\n").map(line => line.trim()).filter(Boolean);
  const { scores } = await score(name, query, documents);
  const values = scores.map(each => each.score);
  const low = Math.min(0, ...values);
  const span = Math.max(...values) - low || 1;
  const rows = scores.map(({ index, score: value, rank }) => make("li", [
    make("b", String(rank + 1)),
    make("div", documents[index]),
    ...(model?.outputs.includes("multivector") ? [button(() => compare(query, documents[index]))] : [make("i")]),
    make("strong.number", value.toFixed(4)),
    bar((value - low) / span),
  ], { "data-index": index, "data-score": value }));
  return [make("ol.ranking", rows)];
}

function button(act) {
  const node = make("button", "Token by token", { type: "button" });
  node.addEventListener("click", act);
  return node;
}

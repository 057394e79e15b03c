// The heat map: every token of the query against every token of the document, and the sum of the best of each row.

import { interaction } from "./api.js";
import { make, readable, tint, whole } from "./dom.js";
import { chosen } from "./models.js";

const MOST_ROWS = 64;
const MOST_COLUMNS = 200;
// From these shares of a colour on, a cell's text needs another one, on dark and on light ground.
const MIDDLING = 0.6;
const STRONG = 0.8;

export async function showInteraction(form) {
  const { name } = chosen();
  const query = form.querySelector("input").value;
  const text = form.querySelector("textarea").value;
  const answer = await interaction(name, query, text);
  const rows = answer.similarities;
  const shown = rows.slice(0, MOST_ROWS);
  const width = Math.min(answer.document_tokens.length, MOST_COLUMNS);
  const cut = rows.length > shown.length || answer.document_tokens.length > width;
  const note = `${whole(rows.length)} × ${whole(answer.document_tokens.length)} tokens${cut ? ", the first of them" : ""}; framed: the best of each row, whose ${answer.over_query} is the score`;
  return [
    make("h3", [`MaxSim ${answer.score.toFixed(4)}`, make("span.quiet", note)], { "data-score": answer.score }),
    make("div.heat-frame", table(answer, shown, width), { tabindex: 0, role: "region", "aria-label": "Similarities of tokens" }),
  ];
}

function table({ query_tokens: query, document_tokens: tokens }, rows, width) {
  const most = Math.max(...rows.flat().map(Math.abs));
  const heads = tokens.slice(0, width).map(token => make("th", make("span", readable(token)), { scope: "col" }));
  return make("table.heat", [
    make("thead", make("tr", [make("td"), ...heads, make("th", make("span", "best"), { scope: "col" })])),
    make("tbody", rows.map((row, i) => line(readable(query[i]), row, width, most))),
  ]);
}

function line(token, row, width, most) {
  const best = Math.max(...row);
  const cells = row.slice(0, width).map(value => {
    const cell = make("td", value.toFixed(2), { "data-value": value, title: value.toFixed(4) });
    const share = tint(cell, value, most);
    if (share > MIDDLING) cell.classList.add(share > STRONG ? "strong" : "middling");
    if (value === best) cell.classList.add("best");
    return cell;
  });
  return make("tr", [make("th", token, { scope: "row" }), ...cells, make("td.sum", best.toFixed(3))]);
}

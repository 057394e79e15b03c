// Which model the playground uses, and what it can do.

import { $, make } from "./dom.js";

let known = new Map();

/** Take the server's list of models over; the choice stays. */
export function offer(models) {
  const named = models.map(model => [model.aliases[0] ?? model.id, model]);
  const changed = named.length !== known.size || named.some(([name]) => !known.has(name));
  known = new Map(named);
  if (changed) {
    const before = $("model").value;
    $("model").replaceChildren(...named.map(([name]) => make("option", name, { value: name })));
    if (known.has(before)) $("model").value = before;
    else choose();
  }
  allow();
}

/** Tick what the chosen model can do. */
export function choose() {
  allow();
  for (const box of boxes()) box.checked = !box.disabled;
}

/** The name of the chosen model, and what is known of it. */
export function chosen() {
  const name = $("model").value;
  if (!name) throw new Error("the server has no model yet: start it with --model, or call one by its name once");
  return { name, model: known.get(name) };
}

const boxes = () => document.querySelectorAll("#encode [name=output]");

function allow() {
  const outputs = known.get($("model").value)?.outputs ?? [];
  for (const box of boxes()) {
    // A model that was never opened has not said yet what it gives: everything may be asked.
    box.disabled = outputs.length > 0 && !outputs.includes(box.value);
    if (box.disabled) box.checked = false;
  }
}

// The upper half of the page: rates, queue, memory and models, from one answer of v1/status to the next.

import { $, ago, bytes, make, short, whole } from "./dom.js";

const KEPT = 60;
const FEWEST = 15;
const samples = [];

export function showStatus(status) {
  const at = performance.now() / 1000;
  // Rates over less than a second say little: answers that come so soon move the rest of the page alone.
  if (!samples.length || at - samples.at(-1).at > 1) samples.push({ at, ...status.totals, queued: status.queue.tokens });
  if (samples.length > KEPT + 1) samples.shift();
  showHead(status);
  showRates(status);
  showMemory(status);
  $("models").replaceChildren(...(status.models.length ? status.models.flatMap(row) : [empty()]));
}

function showHead({ version, state, device, precision }) {
  $("version").textContent = version;
  $("state").className = `state ${state}`;
  $("state").textContent = state;
  $("device").textContent = `${device}, ${precision}`;
}

function showRates({ totals, queue }) {
  const requests = rates("requests");
  const tokens = rates("tokens");
  $("requests-rate").textContent = requests.length ? short(requests.at(-1)) : "–";
  $("tokens-rate").textContent = tokens.length ? short(tokens.at(-1)) : "–";
  $("requests-note").textContent = `${whole(totals.requests)} so far, ${whole(totals.failures)} failed`;
  $("tokens-note").textContent = `${whole(totals.tokens)} so far`;
  $("queue").textContent = short(queue.tokens);
  $("queue-note").textContent = queue.tokens ? `the oldest for ${queue.oldest_s.toFixed(1)} s; at most ${short(queue.limit_tokens)}` : `at most ${short(queue.limit_tokens)}`;
  chart($("requests-chart"), requests);
  chart($("tokens-chart"), tokens);
  chart($("queue-chart"), samples.map(sample => sample.queued));
}

/** Per second between neighbouring samples; a count that falls means that the server began anew. */
function rates(name) {
  return samples.slice(1).map((sample, i) => Math.max(0, sample[name] - samples[i][name]) / Math.max(0.001, sample.at - samples[i].at));
}

function chart(svg, values) {
  const most = Math.max(1e-9, ...values);
  const width = Math.max(FEWEST, values.length - 1);
  const points = values.map((value, i) => `${width - values.length + 1 + i},${(1 - value / most) * 20}`);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", points.length > 1 ? `M${width - values.length + 1},20L${points.join("L")}L${width},20Z` : "");
  svg.setAttribute("viewBox", `0 0 ${width} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.replaceChildren(path);
}

function showMemory({ memory, models }) {
  const resident = models.filter(model => model.resident_bytes > 0);
  const share = memory.budget_bytes ? memory.used_bytes / memory.budget_bytes : 0;
  $("memory").textContent = bytes(memory.used_bytes);
  $("memory-of").textContent = `of ${bytes(memory.budget_bytes)}`;
  $("memory-note").textContent = resident.length === 1 ? "1 model resident" : `${resident.length} models resident`;
  $("budget").setAttribute("aria-valuenow", Math.round(share * 100));
  $("budget").replaceChildren(...resident.map(model => {
    const part = make("i", [], { title: `${model.id}: ${bytes(model.resident_bytes)}` });
    part.style.width = `${(100 * model.resident_bytes) / memory.budget_bytes}%`;
    return part;
  }));
}

function row(model) {
  const gives = [...model.outputs, ...(model.scoring[0] === "cross-encoder" ? ["score"] : [])];
  const names = model.aliases.length ? [make("div.quiet", `also ${model.aliases.join(", ")}`)] : [];
  const state = make("span.state", model.state + (model.pinned ? ", pinned" : ""));
  state.classList.add(model.state);
  const cells = make("tr", [
    make("td", [make("div.name", model.id), ...names, ...(model.error ? [make("div.error", model.error)] : [])]),
    make("td", state),
    make("td", gives.length ? gives.map(name => make("span.tag", name)) : "–"),
    make("td.number", model.size_bytes ? bytes(model.size_bytes) : "–"),
    make("td.number", model.queued_tokens ? whole(model.queued_tokens) : "–"),
    make("td.number", model.size_bytes ? whole(model.loads) : "–", { title: `${model.evictions} evictions` }),
    make("td.number", ago(model.last_used_s)),
  ]);
  return [cells];
}

const empty = () => make("tr", make("td.quiet", "No model yet. Start the server with --model, or call one by its name.", { colspan: 7 }));

// The page: polls the server's status, and hands the forms to their modules.

import { Refusal, status, useKey } from "./api.js";
import { $ } from "./dom.js";
import { showEncoded } from "./encode.js";
import { showInteraction } from "./interaction.js";
import { choose, offer } from "./models.js";
import { showRanking } from "./rerank.js";
import { showStatus } from "./status.js";
import { tabs } from "./tabs.js";

const EVERY_MS = 2000;
const SLOWEST_MS = 30000;
let pause = EVERY_MS;
let timer;

async function poll() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      const now = await status();
      showStatus(now);
      offer(now.models);
      $("trouble").hidden = true;
      pause = EVERY_MS;
    } catch (error) {
      complain(error);
      pause = Math.min(pause * 2, SLOWEST_MS);
    }
  }
  timer = setTimeout(poll, pause);
}

function complain(error) {
  const needsKey = error instanceof Refusal && error.status === 401;
  if (needsKey) $("key-form").hidden = false;
  $("state").className = "state unreachable";
  $("state").textContent = needsKey ? "needs an API key" : "unreachable";
  $("trouble").hidden = needsKey;
  $("trouble").textContent = `The server does not answer: ${error.message}`;
}

/** Run a form's work on submit: one at a time, what goes wrong is said in its place. */
function onSubmit(id, work) {
  const form = $(id);
  const button = form.querySelector("button.main");
  const result = form.querySelector(".result");
  form.addEventListener("submit", async event => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    try {
      result.replaceChildren(...(await work(form)));
    } catch (error) {
      const fault = document.createElement("p");
      fault.className = "fault";
      fault.textContent = error.message;
      result.replaceChildren(fault);
    } finally {
      button.disabled = false;
      poll();
    }
  });
}

/** Fill the token-by-token form in and go there. */
function compare(query, text) {
  $("interaction-query").value = query;
  $("interaction-document").value = text;
  show("interaction");
  $("interaction").requestSubmit();
}

const show = tabs($("playground"));
onSubmit("encode", showEncoded);
onSubmit("rerank", form => showRanking(form, compare));
onSubmit("interaction", showInteraction);
$("model").addEventListener("change", choose);
$("key-form").addEventListener("submit", event => {
  event.preventDefault();
  useKey($("key").value);
  pause = EVERY_MS;
  poll();
});
document.addEventListener("visibilitychange", () => document.hidden || poll());
poll();

// Questions to a model: the answer from the tokens that are kept, beside the answer from all of them.

import { call, tell } from "./api.js";
import { $, guarded, retention, state } from "./state.js";

const MOST_SHOWN = 4; // questions

function card(title) {
  const box = document.createElement("section");
  box.className = "answer";
  box.innerHTML = `<h3></h3><p class="said" aria-live="polite"></p><p class="note"></p>
    <div class="bars own"></div><p class="note before"></p><div class="bars once"></div>`;
  box.querySelector("h3").textContent = title;
  return box;
}

function megabytes(bytes) {
  return bytes < 2 ** 20 ? `${(bytes / 1024).toFixed(0)} kB` : `${(bytes / 2 ** 20).toFixed(1)} MB`;
}

// A bar for each phase; the longest is the whole width
function drawBars(box, bars, most) {
  const parts = bars.flatMap(({ name, milliseconds }) => {
    const [label, track, fill, time] = ["name", "track", "fill", "time"].map((kind) => {
      const part = document.createElement("span");
      part.className = kind;
      return part;
    });
    label.textContent = name;
    track.append(fill);
    fill.style.width = `${(100 * milliseconds) / most}%`;
    time.textContent = `${milliseconds.toFixed(1)} ms`;
    return [label, track, time];
  });
  box.replaceChildren(...parts);
}

// Milliseconds to the first token: what the question took, on one scale for both answers; below what the clip took, once
function drawTimes(cards, done) {
  for (const [kind, once] of [[".own", false], [".once", true]]) {
    const bars = Object.entries(done).map(([which, one]) => [which, one.bars.filter((bar) => bar.once === once)]);
    const most = Math.max(...bars.flatMap(([, some]) => some.map((bar) => bar.milliseconds)));
    for (const [which, some] of bars) drawBars(cards[which].querySelector(kind), some, most);
  }
  for (const which of Object.keys(done)) {
    const whole = which === "all" && state.offer.gate ? ", by the whole tower" : "";
    cards[which].querySelector(".before").textContent = `Once for this clip${whole}:`;
  }
}

function summary(done, other) {
  const first = done.bars.reduce((sum, bar) => sum + (bar.once ? 0 : bar.milliseconds), 0);
  const parts = [`${done.visual.toLocaleString("en")} visual tokens`, `${done.prompt.toLocaleString("en")} in the prompt`];
  if (done.cacheBytes !== null) parts.push(`${megabytes(done.cacheBytes)} of keys and values`);
  parts.push(`first token ${first.toFixed(0)} ms after the question`);
  if (done.perSecond !== null) parts.push(`then ${done.perSecond} tokens a second`);
  let text = `${parts.join(", ")}.`;
  if (other) {
    const saved = other.visual - done.visual;
    const bytes = done.cacheBytes === null ? "" : ` and ${megabytes(other.cacheBytes - done.cacheBytes)}`;
    text += ` Saved: ${saved.toLocaleString("en")} tokens${bytes}.`;
  }
  return text;
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

const ask = guarded(async (question, compressor) => {
  tell("");
  const percent = `${Number((100 * retention()).toFixed(1))}%`;
  const cards = { kept: card(`${compressor}, ${percent} of the tokens`), all: card("All tokens") };
  const heading = document.createElement("p");
  heading.className = "lead asked";
  heading.textContent = question;
  const pair = document.createElement("div");
  pair.className = "answers";
  pair.append(cards.kept, cards.all);
  $("answers").prepend(heading, pair);
  while ($("answers").children.length > 2 * MOST_SHOWN) $("answers").lastElementChild.remove();
  const body = { ...state.request, compressor, retention: retention(), question };
  const done = {};
  for await (const line of lines(await call("ask", body))) {
    if (line.error) {
      tell(line.error);
      return;
    }
    const said = cards[line.which].querySelector(".said");
    if (line.text) said.textContent += line.text;
    if (!line.done) continue;
    if (!said.textContent.trim()) said.textContent = "(an empty answer)";
    done[line.which] = line.done;
    cards[line.which].querySelector(".note").textContent = summary(line.done);
    drawTimes(cards, done);
  }
  if (done.kept && done.all) cards.kept.querySelector(".note").textContent = summary(done.kept, done.all);
  pair.dataset.done = "true";
});

export function startAsking() {
  $("ask").hidden = !state.offer.questions;
  if (state.offer.gate) $("ask-note").textContent += " For that the whole vision tower runs once more for each clip: it has to see all of them.";
  $("ask-form").onsubmit = async (event) => {
    event.preventDefault();
    const question = $("question").value.trim();
    if (!question || !state.request) return;
    $("ask-button").disabled = true;
    $("ask-button").textContent = "answering …";
    await ask(question, state.columns[0].select.value);
    $("ask-button").disabled = false;
    $("ask-button").textContent = "Ask";
  };
}

// The page: a clip, up to three compressors, a slider.

import { call, open } from "./api.js";
import { startAsking } from "./ask.js";
import { startClips } from "./clip.js";
import { bits, cssColour, drawCurve, drawLegend, Film } from "./draw.js";
import { showPatch } from "./patch.js";
import { startSlider } from "./slider.js";
import { $, compressors, guarded, retention, state } from "./state.js";
import { startExports } from "./take.js";
import { startTheme } from "./theme.js";

const MOST_COLUMNS = 3;
const THUMB = 92; // pixels across, of a frame in the filmstrip

// ---- columns: one for each compressor

function addColumn(name) {
  const number = [0, 1, 2].find((n) => !state.columns.some((column) => column.number === n));
  const box = document.createElement("article");
  box.className = "column";
  box.innerHTML = `<header><span class="dot dot-${number}"></span><select></select>
    <button type="button" class="quiet" hidden>×</button></header>
    <canvas tabindex="0" role="application" aria-roledescription="grid of patches"></canvas>
    <p class="told"><span class="kept"></span><span class="here"></span><span class="fast"></span></p>
    <p class="note warned"></p>`;
  const select = box.querySelector("select");
  select.autocomplete = "off"; // a browser that goes back would mix up the values of the page's controls
  select.setAttribute("aria-label", `Rule ${number + 1}`);
  for (const one of state.offer.compressors) select.add(new Option(one, one, false, one === name));
  for (const [one, reason] of Object.entries(state.offer.refused)) {
    const option = new Option(`${one}: not behind a choice before the tower`, one);
    option.disabled = true;
    option.title = reason;
    select.add(option);
  }
  const column = { number, box, select, canvas: box.querySelector("canvas"), film: document.createElement("canvas") };
  Object.assign(column, { remove: box.querySelector("button"), kept: null, counts: [], asked: null, wanted: null });
  column.remove.setAttribute("aria-label", `Remove rule ${number + 1}`);
  column.remove.onclick = () => {
    state.columns = state.columns.filter((other) => other !== column);
    box.remove();
    column.film.remove();
    arrange();
  };
  select.onchange = () => {
    column.kept = null;
    choose(column);
    showPatch();
  };
  column.canvas.onclick = (event) => {
    const area = column.canvas.getBoundingClientRect();
    const { film } = state;
    if (!film) return;
    const x = Math.min(film.columns - 1, Math.floor(((event.clientX - area.left) / area.width) * film.columns));
    const y = Math.min(film.rows - 1, Math.floor(((event.clientY - area.top) / area.height) * film.rows));
    pick(y * film.columns + x);
  };
  column.canvas.onkeydown = (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !state.film) return;
    event.preventDefault();
    const { rows, columns } = state.film;
    const from = state.place ?? 0;
    const row = Math.min(rows - 1, Math.max(0, Math.floor(from / columns) + (state.place === null ? 0 : step[0])));
    const across = Math.min(columns - 1, Math.max(0, (from % columns) + (state.place === null ? 0 : step[1])));
    pick(row * columns + across);
  };
  column.film.onclick = (event) => {
    const area = column.film.getBoundingClientRect();
    seek(Math.floor(((event.clientX - area.left) / area.width) * state.film.facts.frames));
  };
  column.film.setAttribute("aria-hidden", "true"); // the scrubber below does the same
  state.columns.push(column);
  $("columns").append(box);
  $("film").append(column.film);
  arrange();
  return column;
}

function arrange() {
  $("columns").className = `columns ${["", "one", "two", "three"][state.columns.length]}`;
  $("add").hidden = state.columns.length >= MOST_COLUMNS;
  for (const column of state.columns) column.remove.hidden = state.columns.length === 1;
  drawAll();
  showPatch();
}

// ---- choosing: at most one request of a column at a time; of what was asked meanwhile only the last counts

function choose(column, since = performance.now()) {
  if (!state.request) return;
  column.wanted = { since, retention: retention(), request: state.request, compressor: column.select.value };
  if (!column.asked) guarded(pump)(column);
}

async function pump(column) {
  const slow = setTimeout(() => {
    column.box.classList.add("waiting");
    column.box.querySelector(".fast").textContent = "choosing …";
  }, 250);
  try {
    while (column.wanted) {
      const asked = (column.asked = column.wanted);
      column.wanted = null;
      const { request, compressor, since } = asked;
      const body = { ...request, compressor, retention: asked.retention };
      const answer = await (await call("select", body)).json();
      if (request !== state.request || compressor !== column.select.value) continue;
      column.kept = bits(answer.kept, state.film.surprise.length);
      column.counts = state.film.counts(column.kept);
      tellColumn(column, answer);
      drawColumn(column);
      drawStrip(column);
      drawTime();
      column.box.dataset.retention = asked.retention;
      requestAnimationFrame(() => performance.measure("answer", { start: since, end: performance.now() }));
    }
  } finally {
    clearTimeout(slow);
    column.asked = null;
    column.box.classList.remove("waiting");
  }
}

function tellColumn(column, answer) {
  const total = state.film.surprise.length;
  column.box.querySelector(".kept").textContent = `${answer.count.toLocaleString("en")} of ${total.toLocaleString("en")} kept`;
  const once = answer.first ? " the first time" : "";
  column.box.querySelector(".fast").textContent = `${answer.milliseconds.toFixed(1)} ms${once}`;
  column.box.querySelector(".warned").textContent = state.offer.notes[column.select.value] ?? "";
  $("count").textContent = `${answer.count.toLocaleString("en")} of ${total.toLocaleString("en")} tokens`;
}

// ---- drawing

const colourOf = (column) => cssColour(`--rule-${column.number}`);
const OUTLINES = ["#60d6be", "#fab254", "#8eaaff"]; // on pictures, which are dark in both themes

function drawColumn(column) {
  const { film, frame } = state;
  if (!film) return;
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.max(1, Math.round((column.canvas.clientWidth || film.frameWidth) * ratio));
  const height = Math.max(1, Math.round((width * film.facts.height) / film.facts.width));
  film.draw(column.canvas, [frame], column.kept, width, height, $("heat").checked);
  if (column.kept) film.outline(column.canvas, frame, column.kept, OUTLINES[column.number], Math.max(1.5, width / 320));
  if (state.place !== null) film.mark(column.canvas, state.place);
  const here = column.counts[film.tokenFrame(frame)] ?? 0;
  column.box.querySelector(".here").textContent = column.kept ? `${here} of this frame’s ${film.perFrame}` : "";
  column.canvas.setAttribute("aria-label", `${column.select.value}: ${here} of ${film.perFrame} patches of this frame kept`);
}

function drawStrip(column) {
  const { film } = state;
  if (!film) return;
  const frames = [...Array(film.facts.frames).keys()];
  const height = Math.max(8, Math.round((THUMB * film.facts.height) / film.facts.width));
  film.draw(column.film, frames, column.kept, THUMB, height, $("heat").checked);
  const context = column.film.getContext("2d");
  context.fillStyle = "#0b0d12";
  for (const t of frames) context.fillRect((t + 1) * THUMB - 2, 0, 2, height);
  if (state.columns.length > 1) {
    context.fillStyle = OUTLINES[column.number];
    context.fillRect(0, height - 3, column.film.width, 3);
  }
  context.strokeStyle = "#fff";
  context.lineWidth = 3;
  context.strokeRect(state.frame * THUMB + 1.5, 1.5, THUMB - 5, height - 3);
}

function drawTime() {
  const { film, frame } = state;
  if (!film) return;
  const series = state.columns.filter((one) => one.kept).map((one) => ({ counts: one.counts, colour: colourOf(one) }));
  drawCurve($("curve"), film, series, frame);
  $("curve-note").replaceChildren(
    ...state.columns.map((column) => {
      const item = document.createElement("span");
      const dot = document.createElement("i");
      dot.className = `dot dot-${column.number}`;
      item.append(dot, column.select.value);
      return item;
    }),
  );
  $("moment").textContent = `${film.facts.timestamps[frame].toFixed(2)} s · frame ${frame + 1} of ${film.facts.frames}`;
}

function drawAll() {
  for (const column of state.columns) {
    drawColumn(column);
    drawStrip(column);
  }
  drawTime();
}

// ---- time

function seek(frame) {
  const last = state.film.facts.frames - 1;
  state.frame = Math.min(Math.max(frame, 0), last);
  $("frame").value = state.frame;
  drawAll();
  const film = $("film");
  const from = state.frame * THUMB;
  if (from < film.scrollLeft || from + THUMB > film.scrollLeft + film.clientWidth) film.scrollLeft = from - film.clientWidth / 2;
  showPatch();
}

function play(on) {
  clearInterval(state.playing);
  state.playing = on ? setInterval(() => state.film && seek((state.frame + 1) % state.film.facts.frames), 250) : null;
  $("play").textContent = on ? "❚❚ Pause" : "▶ Play";
  $("play").setAttribute("aria-pressed", String(on));
}

// ---- one patch

function pick(place) {
  state.place = place;
  for (const column of state.columns) drawColumn(column);
  showPatch();
}

// ---- clips

async function show(request, facts) {
  const blob = await (await call("sprite", request)).blob();
  const image = await createImageBitmap(blob);
  state.request = request;
  state.film = new Film(facts, image);
  state.place = null;
  state.frame = Math.min(state.frame, facts.frames - 1);
  $("frame").max = facts.frames - 1;
  for (const column of state.columns) {
    column.kept = null;
    column.counts = [];
    choose(column);
  }
  tellSeen(facts.seen);
  $("legend-text").textContent = `surprise from 0 to ${state.film.scale.toPrecision(2)} (99th percentile)`;
  seek(state.frame);
}

// Where something was chosen before the tower: what it saw
function tellSeen(seen) {
  $("seen-note").hidden = !seen;
  if (!seen) return;
  const [chosen, ran] = seen.counts;
  const share = ((100 * ran) / state.film.surprise.length).toFixed(1);
  const around = ran > chosen ? ` and ${(ran - chosen).toLocaleString("en")} around them (violet), whose tokens are dropped` : "";
  const name = state.offer.gate.name;
  $("seen-note").textContent = `The tower saw ${share}% of its patches: ${chosen.toLocaleString("en")} that ${name} chose (half bright)${around}. Of those that were chosen each rule keeps some (bright). What is dark the tower never saw.`;
}

// ---- beginning

// As many frames as a tower's tokens allow
function offerFrames({ frames, mostFrames }) {
  const select = $("frames");
  for (const option of [...select.options].filter((one) => one.value > mostFrames)) option.remove();
  if (!select.options.length) select.add(new Option(frames));
  select.value = frames;
}

const begin = guarded(async () => {
  state.offer = await open();
  offerFrames(state.offer);
  startSlider((since) => state.columns.forEach((column) => choose(column, since)), showPatch);
  for (const name of state.offer.first) addColumn(name);
  $("add").onclick = () => {
    const unused = state.offer.compressors.find((name) => !compressors().includes(name));
    choose(addColumn(unused ?? state.offer.compressors[0]));
  };
  $("heat").onchange = () => {
    $("legend").hidden = $("legend-text").hidden = !$("heat").checked;
    drawAll();
  };
  $("heat").onchange(); // a browser that goes back may have checked it
  drawLegend($("legend"));
  $("frame").oninput = () => {
    play(false);
    seek(Number($("frame").value));
  };
  $("play").onclick = () => play(!state.playing);
  new ResizeObserver(drawAll).observe($("columns"));
  const { gate, source } = state.offer;
  const { kind, name } = source;
  const shortName = name.split("/").filter(Boolean).at(-1);
  $("badge").textContent = { pixels: "tokens: raw pixels", tower: `tower: ${shortName}`, model: `model: ${shortName}` }[kind];
  if (gate) $("badge").textContent += ` behind ${gate.name}, ${Number((100 * gate.retention).toFixed(1))}%, halo ${gate.halo}`;
  $("source").textContent = {
    pixels: "Tokens are patches of raw pixels, not what a model sees: start with --tower or --model for those.",
    tower: `Tokens are those of the vision tower ${name}.`,
    model: `Tokens are those of the model ${name}.`,
  }[kind];
  startExports();
  startAsking();
  await startClips(show);
});

startTheme(drawAll);
begin();

// What is known of one patch of the frame that is shown.

import { call } from "./api.js";
import { $, guarded, retention, state } from "./state.js";

let asking = null;

function whyUnknown(film, row) {
  if (!film.chosen || film.chosen[row]) return "there is no frame before";
  return film.ran[row] ? "the tower saw it around others, and it was dropped" : "the tower did not see it";
}

export const showPatch = guarded(async () => {
  const { film, place, frame, request } = state;
  if (!film || place === null || state.playing || !request) return;
  asking?.abort();
  asking = new AbortController();
  const row = film.tokenFrame(frame) * film.perFrame + place;
  const shown = state.columns.map((column) => ({ column, name: column.select.value }));
  const body = { ...request, row, retention: retention(), compressors: shown.map((one) => one.name) };
  const { facts } = await (await call("patch", body, asking.signal)).json();
  const surprise = film.surprise[row];
  const lead = document.createElement("p");
  lead.className = "lead";
  const where = `Row ${Math.floor(place / film.columns) + 1}, column ${(place % film.columns) + 1}, at ${film.facts.timestamps[frame].toFixed(2)} s`;
  lead.textContent = `${where}. Surprise ${surprise < 0 ? `unknown: ${whyUnknown(film, row)}` : surprise.toFixed(4)}.`;
  const table = document.createElement("table");
  table.innerHTML = "<thead><tr><th>Rule</th><th>Kept</th><th>Score</th><th title=\"Among all tokens that can be kept, by the score. A policy leaves out what is like a token that is kept.\">Rank</th></tr></thead><tbody></tbody>";
  facts.forEach((fact, i) => {
    const line = table.tBodies[0].insertRow();
    const total = (film.facts.seen?.counts[0] ?? film.surprise.length).toLocaleString("en");
    const score = fact.score === null ? "has none" : typeof fact.score === "number" ? fact.score.toPrecision(4) : fact.score;
    const rank = fact.rank === null ? "–" : `${fact.rank.toLocaleString("en")} of ${total}`;
    for (const text of [shown[i].name, shown[i].column.kept?.[row] ? "yes" : "no", score, rank]) line.insertCell().textContent = text;
  });
  $("patch").replaceChildren(lead, table);
});

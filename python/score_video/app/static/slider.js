// How much is kept: the slider, which ends where a choice before the tower does, and the buttons below it.

import { $, state } from "./state.js";

function tellPercent() {
  const percent = Number($("retention").value);
  $("percent").textContent = `${percent}%`;
  $("retention").setAttribute("aria-valuetext", `${percent} percent`);
}

// What was not chosen before the tower cannot be kept
function endAt(percent) {
  const slider = $("retention");
  slider.step = percent % 0.5 ? 0.1 : 0.5;
  slider.max = percent; // a value beyond becomes this
  for (const button of document.querySelectorAll("[data-percent]")) button.hidden = Number(button.dataset.percent) > percent;
  tellPercent();
}

// moved: called at each move, with its time; settled: once it is over
export function startSlider(moved, settled) {
  const { gate } = state.offer;
  if (gate) endAt(Math.floor(1000 * gate.retention + 1e-6) / 10);
  const move = () => {
    const since = performance.now();
    tellPercent();
    moved(since);
  };
  $("retention").oninput = move;
  $("retention").onchange = settled;
  for (const button of document.querySelectorAll("[data-percent]")) {
    button.onclick = () => {
      $("retention").value = button.dataset.percent;
      move();
      settled();
    };
  }
}

// Dark or light: as was chosen last, or else as the system is.

import { $ } from "./state.js";

// changed: called after each change, for what is drawn in colours of the theme
export function startTheme(changed) {
  const light = () => document.documentElement.dataset.theme === "light";
  const set = (theme) => {
    document.documentElement.dataset.theme = theme;
    changed();
  };
  let kept = null;
  try {
    kept = localStorage.getItem("score-theme");
  } catch {
    // storage may be forbidden
  }
  set(kept || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
  $("theme").onclick = () => {
    set(light() ? "dark" : "light");
    try {
      localStorage.setItem("score-theme", document.documentElement.dataset.theme);
    } catch {
      // then it is as the system says, next time
    }
  };
}

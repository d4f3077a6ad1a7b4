// What one can take along: files to save, text to copy.

import { call, tell } from "./api.js";
import { $, compressors, guarded, retention, state } from "./state.js";

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function textBox(text) {
  const box = document.createElement("pre");
  box.tabIndex = 0;
  box.textContent = text;
  const copy = document.createElement("button");
  copy.type = "button";
  copy.textContent = "Copy";
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(box); // pages that are not served from here may not copy
      copy.textContent = "Selected: copy it";
    }
  };
  return [box, copy];
}

function player(blob) {
  const video = document.createElement("video");
  video.controls = video.muted = video.loop = true;
  video.setAttribute("aria-label", "Overlay: what is kept, and the surprise as heat");
  video.src = URL.createObjectURL(blob);
  const keep = document.createElement("button");
  keep.type = "button";
  keep.textContent = "Save overlay.mp4";
  keep.onclick = () => save(blob, "overlay.mp4");
  return [video, keep];
}

const take = guarded(async (kind, button) => {
  if (!state.request) return;
  tell("");
  const text = button.textContent;
  button.disabled = true;
  button.textContent = "making …";
  try {
    const body = { ...state.request, kind, retention: retention(), compressors: compressors() };
    const response = await call("export", body);
    const blob = await response.blob();
    const name = response.headers.get("score-name");
    if (kind === "command" || kind === "python") $("exported").replaceChildren(...textBox(await blob.text()));
    else if (kind === "overlay") $("exported").replaceChildren(...player(blob));
    else save(blob, name);
  } finally {
    button.disabled = false;
    button.textContent = text;
  }
});

export function startExports() {
  for (const button of document.querySelectorAll("[data-export]")) {
    button.onclick = () => take(button.dataset.export, button);
  }
}

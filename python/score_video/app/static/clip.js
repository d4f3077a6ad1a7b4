// Choosing a clip: examples, uploads, the webcam; and how it is cut.

import { call, tell, upload } from "./api.js";
import { $, guarded, state } from "./state.js";

const RECORDED_SECONDS = 5;
const PATCH = 28;
let latest = 0;
let show = null;

const encode = guarded(async () => {
  const mine = ++latest;
  tell("");
  $("facts").textContent = "reading …";
  const chosen = $("clip").selectedOptions[0];
  const request = { clip: chosen.value, frames: Number($("frames").value), size: Number($("size").value), patch: PATCH };
  try {
    const facts = await (await call("encode", request)).json();
    if (mine !== latest) return;
    await show(request, facts);
    const [, rows, columns] = facts.grid;
    const times = Object.entries(facts.milliseconds).map(([phase, ms]) => `${phase} ${ms.toFixed(0)} ms`).join(", ");
    const fewer = facts.fewer ? ` (${facts.fewer})` : "";
    $("facts").textContent = `${facts.source.seconds.toFixed(1)} s, ${facts.source.width}×${facts.source.height}; ${facts.frames} frames${fewer} of ${columns}×${rows} tokens; ${times}.`;
    $("credit").textContent = chosen.dataset.credit ?? "";
    document.body.dataset.clip = chosen.textContent;
  } catch (error) {
    if (mine === latest) $("facts").textContent = "";
    throw error;
  }
});

const take = guarded(async (blob, name) => {
  tell("");
  $("facts").textContent = `uploading ${name} …`;
  try {
    const clip = await upload(blob, name, state.offer.maxBytes);
    const option = new Option(clip.name, clip.clip, true, true);
    $("clip").add(option);
    await encode();
  } catch (error) {
    $("facts").textContent = "";
    throw error;
  }
});

const record = guarded(async () => {
  const stream = await navigator.mediaDevices.getUserMedia({ video: true }).catch(() => null);
  if (!stream) return tell("The webcam cannot be used: it is busy, or this page may not use it.");
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => {
    for (const track of stream.getTracks()) track.stop();
    $("webcam").disabled = false;
    $("webcam").textContent = "Record 5 s";
    take(new Blob(parts, { type: recorder.mimeType }), recorder.mimeType.includes("mp4") ? "webcam.mp4" : "webcam.webm");
  };
  $("webcam").disabled = true;
  $("webcam").textContent = "Recording …";
  recorder.start();
  setTimeout(() => recorder.stop(), RECORDED_SECONDS * 1000);
  return undefined;
});

async function findWebcam() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  $("webcam").hidden = !devices.some((device) => device.kind === "videoinput") || !window.MediaRecorder;
}

// drawn: called with the request and what came of it, once a clip is there to be drawn
export async function startClips(drawn) {
  show = drawn;
  for (const { clip, name, credit } of state.offer.examples) {
    const option = new Option(name, clip);
    option.dataset.credit = credit;
    $("clip").add(option);
  }
  for (const id of ["clip", "frames", "size"]) $(id).onchange = encode;
  $("file").onchange = () => {
    const [file] = $("file").files;
    if (file) take(file, file.name);
    $("file").value = "";
  };
  $("webcam").onclick = record;
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
    });
  }
  findWebcam().catch(() => {});
  await encode();
}

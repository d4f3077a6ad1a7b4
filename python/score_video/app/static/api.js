// Calls to the server that this page came from, and the line that tells what went wrong.

let page = null;

export function tell(message) {
  const line = document.getElementById("problem");
  line.textContent = message || "";
  line.hidden = !message;
}

export class Refused extends Error {}

async function checked(response) {
  if (response.ok) return response;
  let said = `the server answered ${response.status}`;
  try {
    said = (await response.json()).error || said;
  } catch {
    // no JSON: the number is all there is
  }
  throw new Refused(said[0].toUpperCase() + said.slice(1));
}

export async function call(name, body = {}, signal = undefined) {
  try {
    const headers = { "Content-Type": "application/json", "score-page": page || "" };
    return await checked(await fetch(`/api/${name}`, { method: "POST", headers, body: JSON.stringify(body), signal }));
  } catch (error) {
    if (error instanceof Refused || error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is score app still running?");
  }
}

export async function open() {
  const offer = await (await call("page")).json();
  page = offer.page;
  // the clips that were uploaded go with the page
  addEventListener("pagehide", (event) => {
    if (!event.persisted) navigator.sendBeacon("/api/leave", JSON.stringify({ page }));
  });
  return offer;
}

export async function upload(blob, name, mostBytes) {
  if (blob.size > mostBytes) {
    throw new Refused(`${name} is larger than ${Math.round(mostBytes / 2 ** 20)} MB: take a shorter clip`);
  }
  const headers = { "score-page": page, "score-name": encodeURIComponent(name) };
  let response;
  try {
    response = await fetch("/api/upload", { method: "POST", headers, body: blob });
  } catch {
    throw new Refused("The upload was interrupted");
  }
  return (await checked(response)).json();
}

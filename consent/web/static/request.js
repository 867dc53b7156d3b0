// Answering a request: choose, review the exact text, sign.

import { makeKey, nobodysDid } from "./keys.js";
import { available, gesture } from "./passkey.js";
import { Refused, ask, say, signed } from "./signing.js";

const form = document.querySelector("#answers");
const review = document.querySelector("#review");
const status = document.querySelector("#status");
const words = document.querySelector("#words").dataset;
let prepared = null;
let key = null;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const choices = read();
  if (choices === null) return;
  await working(form, words.preparing, async () => {
    key = await makeKey(form.dataset.key);
    prepared = await ask("/api/prepare", {
      did: key.did,
      request: form.dataset.request,
      version: Number(form.dataset.version),
      choices,
      ...(form.dataset.ward === "yes" ? { ward: await nobodysDid() } : {}),
    });
    show(choices);
  });
});

form.addEventListener("change", (event) => {
  event.target.closest("fieldset").querySelector(".problem").hidden = true;
  say(status, "");
});

document.querySelector("#change").addEventListener("click", () => {
  review.hidden = true;
  form.hidden = false;
  form.querySelector("legend").scrollIntoView({ block: "center" });
  form.querySelector("input:checked").focus();
});

document.querySelector("#sign").addEventListener("click", async () => {
  const confirm = document.querySelector("#gesture");
  await working(review, words.signing, async () => {
    const wanted = confirm !== null && confirm.checked;
    const body = { record: await signed(prepared, key) };
    if (wanted) {
      say(status, words.confirming);
      body.gesture = await gesture(prepared.hash);
    }
    say(status, words.sending);
    const stored = await ask("/api/sign", body);
    say(status, words.done);
    location.assign(stored.receipt);
  });
});

/** The answers, or null after pointing at the first that is missing. */
function read() {
  const choices = {};
  let missing = null;
  for (const group of form.querySelectorAll("fieldset[data-purpose]")) {
    const chosen = group.querySelector("input:checked");
    const hint = group.querySelector(".problem");
    hint.hidden = chosen !== null;
    if (chosen === null) missing ??= group;
    else choices[group.dataset.purpose] = chosen.value === "yes";
  }
  if (missing === null) return choices;
  missing.querySelector("input").focus();
  say(status, words.missing, { problem: true });
  return null;
}

/** Show what will be signed. Text only: nothing here becomes markup. */
function show(choices) {
  const list = document.querySelector("#chosen");
  list.replaceChildren();
  for (const group of form.querySelectorAll("fieldset[data-purpose]")) {
    const line = document.createElement("li");
    const answer = document.createElement("strong");
    answer.textContent = choices[group.dataset.purpose] ? words.yes : words.no;
    line.append(answer, ` · ${group.dataset.title}`);
    list.append(line);
  }
  const refusing = prepared.action === "refuse";
  document.querySelector("#means-grant").hidden = refusing;
  document.querySelector("#means-refuse").hidden = !refusing;
  document.querySelector("#document").textContent = JSON.stringify(prepared.document, null, 2);
  document.querySelector("#hash").textContent = prepared.hash;
  form.hidden = true;
  review.hidden = false;
  say(status, words.ready);
  review.querySelector("h2").focus();
}

/** Do something that takes a moment: no second click, and a word about it at each end. */
async function working(place, text, work) {
  const buttons = place.querySelectorAll("button");
  buttons.forEach((button) => button.setAttribute("aria-disabled", "true"));
  if (place.dataset.busy === "yes") return;
  place.dataset.busy = "yes";
  say(status, text);
  try {
    await work();
  } catch (error) {
    explain(error);
  } finally {
    delete place.dataset.busy;
    buttons.forEach((button) => button.removeAttribute("aria-disabled"));
  }
}

function explain(error) {
  const refused = error instanceof Refused;
  const gestureStopped = error instanceof DOMException && error.name === "NotAllowedError";
  let text = refused ? words.refused : words.failed;
  if (gestureStopped) text = words.stopped;
  if (refused && error.code === "too-many") text = words.wait;
  console.warn(error); // the server's own words, for whoever looks
  say(status, text, { problem: true });
  if (refused && error.code === "OtherKeyError") document.querySelector("#other-key").hidden = false;
  if (refused && error.code === "not-signed-in") location.assign("/return");
}

if (form.dataset.passkeys === "yes" && (await available())) document.querySelector("#gesture-offer").hidden = false;

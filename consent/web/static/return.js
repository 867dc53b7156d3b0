// Coming back: the key in this browser signs a text that the server made up just now.

import { hex, utf8 } from "./encoding.js";
import { findKey, keyNames } from "./keys.js";
import { Refused, ask, say } from "./signing.js";

const button = document.querySelector("#with-key");
const status = document.querySelector("#status");
const words = button.dataset;
const names = await keyNames(words.prefix).catch(() => []);

if (names.length === 0) {
  say(status, words.none);
} else {
  button.parentElement.hidden = false;
  button.addEventListener("click", comeBack);
}

async function comeBack() {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  say(status, words.working);
  try {
    for (const name of names) {
      const path = await tryKey(await findKey(name));
      if (path !== null) {
        location.assign(path);
        return;
      }
    }
    say(status, words.unknown, { problem: true });
  } catch (error) {
    console.warn(error);
    const tooMany = error instanceof Refused && error.code === "too-many";
    say(status, tooMany ? words.wait : words.failed, { problem: true });
  }
  button.removeAttribute("aria-disabled");
}

/** Where to go on with this key; null if it is not known here. */
async function tryKey(key) {
  const { challenge, message } = await ask("/api/challenge", { did: key.did });
  if (!message.startsWith(`accord-consent-return\n${location.origin}\n`)) throw new Error("another site's text");
  const signature = hex(await key.sign(utf8(message)));
  try {
    return (await ask("/api/return", { did: key.did, challenge, signature })).path;
  } catch (error) {
    if (error instanceof Refused && error.code === "UnavailableError") return null;
    throw error;
  }
}

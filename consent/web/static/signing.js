// What is signed, exactly: SHA-256(JCS(proof without value)) || SHA-256(JCS(document)), with Ed25519
// (W3C Data Integrity, eddsa-jcs-2022). The document comes from the server and is shown before it is signed.

import { base58, hex, sha256, utf8 } from "./encoding.js";
import canonicalize from "./vendor/canonicalize.js";

/** An error that a server explained, or that the network caused. */
export class Refused extends Error {
  constructor(code, message, remedy) {
    super(message);
    this.code = code;
    this.remedy = remedy;
  }
}

/** Ask the server, as JSON. */
export async function ask(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    credentials: "same-origin",
    redirect: "error",
  });
  const content = await answer.json();
  if (!answer.ok) {
    const { code = "unknown", message = "", remedy = "" } = content.error ?? {};
    throw new Refused(code, message, remedy);
  }
  return content;
}

/** Sign a document with the person's key: the whole record as JSON text. */
export async function signed({ document, config, hash }, key) {
  const shown = await sha256(utf8(canonicalize(document)));
  if (hex(shown) !== hash) throw new Refused("hash", "", "");
  if (config.verificationMethod.split("#")[0] !== key.did) throw new Refused("key", "", "");
  const message = new Uint8Array(64);
  message.set(await sha256(utf8(canonicalize(config))), 0);
  message.set(shown, 32);
  const signature = await key.sign(message);
  return canonicalize({ ...document, proof: { ...config, proofValue: `z${base58(signature)}` } });
}

/** Say where the work stands, to eyes and to screen readers. */
export function say(element, text, { problem = false } = {}) {
  element.textContent = text;
  element.classList.toggle("problem", problem);
}

// The browser's half of tests: answers lines of JSON on standard input with the shipped modules, one line for each.
import { webcrypto } from "node:crypto";
import { createInterface } from "node:readline";
import canonicalize from "./vendor/canonicalize.js";
import { signed } from "./signing.js";

globalThis.crypto ??= webcrypto; // Node 18, Debian 12's, has it under its own name only

const { publicKey, privateKey } = await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]);
const point = Buffer.from(await crypto.subtle.exportKey("raw", publicKey)).toString("hex");

async function answer({ kind, texts, document, config, hash, did }) {
  if (kind === "canonicalize") {
    return texts.map((text) => {
      try {
        return canonicalize(JSON.parse(text));
      } catch {
        return null;
      }
    });
  }
  if (kind === "key") return point;
  const sign = async (message) => new Uint8Array(await crypto.subtle.sign({ name: "Ed25519" }, privateKey, message));
  return signed({ document, config, hash }, { did, sign });
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
}

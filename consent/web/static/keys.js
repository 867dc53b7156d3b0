// The person's key: made here, kept in this browser's IndexedDB, not extractable. The server never sees it.
//
// Where WebCrypto has Ed25519, the private key is a CryptoKey that cannot be exported. Where it does not, the key comes
// from @noble/ed25519 (vendored) and is stored encrypted under an AES-GCM key that cannot be exported either.

import { didKey } from "./encoding.js";

const DATABASE = "accord";
const STORE = "keys";

/** The key that this browser holds under a name; null if there is none. */
export async function findKey(name) {
  const stored = await request("readonly", (store) => store.get(name));
  return stored === undefined ? null : new Key(stored);
}

/** The key under a name, made now if there is none. Of two tabs that make one at once, one wins and both use it. */
export async function makeKey(name) {
  const known = await findKey(name);
  if (known !== null) return known;
  const fresh = (await hasEd25519()) ? await nativeKey() : await wrappedKey();
  try {
    await request("readwrite", (store) => store.add({ ...fresh, name, made: new Date().toISOString() }));
  } catch (error) {
    if (error?.name !== "ConstraintError") throw error;
  }
  await navigator.storage?.persist?.().catch(() => false);
  return findKey(name);
}

/** A key that nobody keeps, as a did: it stands for somebody for whom a guardian signs. */
export async function nobodysDid() {
  return didKey((await ((await hasEd25519()) ? nativeKey() : wrappedKey())).publicKey);
}

/** Every key's name that begins with a prefix. */
export async function keyNames(prefix) {
  const names = await request("readonly", (store) => store.getAllKeys());
  return names.filter((name) => String(name).startsWith(prefix));
}

class Key {
  #stored;

  constructor(stored) {
    this.#stored = stored;
    this.did = didKey(stored.publicKey);
    this.kind = stored.kind;
  }

  /** An Ed25519 signature, 64 bytes. */
  async sign(message) {
    if (this.#stored.kind === "native") {
      return new Uint8Array(await crypto.subtle.sign("Ed25519", this.#stored.privateKey, message));
    }
    const { signAsync } = await import("./vendor/noble-ed25519.js");
    const { iv, sealed, wrapping } = this.#stored;
    const seed = new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, wrapping, sealed));
    try {
      return await signAsync(message, seed);
    } finally {
      seed.fill(0);
    }
  }
}

async function hasEd25519() {
  try {
    await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]);
    return true;
  } catch {
    return false;
  }
}

async function nativeKey() {
  const pair = await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]);
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { kind: "native", publicKey, privateKey: pair.privateKey };
}

async function wrappedKey() {
  const { getPublicKeyAsync } = await import("./vendor/noble-ed25519.js");
  const seed = crypto.getRandomValues(new Uint8Array(32));
  const publicKey = await getPublicKeyAsync(seed);
  const wrapping = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, wrapping, seed);
  seed.fill(0);
  return { kind: "wrapped", publicKey, iv, sealed, wrapping };
}

function request(mode, ask) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "name" });
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction(STORE, mode);
      const asked = ask(transaction.objectStore(STORE));
      transaction.oncomplete = () => {
        database.close();
        resolve(asked.result);
      };
      transaction.onabort = () => {
        database.close();
        reject(asked.error ?? transaction.error);
      };
    };
  });
}

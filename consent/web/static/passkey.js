// An optional gesture (finger, face, PIN) for the document that is about to be signed: its challenge is the document's hash.

import { fromBase64url, toBase64url } from "./encoding.js";
import { ask } from "./signing.js";

/** Whether this browser and device can do it, without asking the person anything. */
export async function available() {
  if (typeof PublicKeyCredential === "undefined") return false;
  try {
    return await PublicKeyCredential.isUserVerifyingPlatformAuthenticatorAvailable();
  } catch {
    return false;
  }
}

/** Make the gesture; on the first time a passkey is made before. */
export async function gesture(hash) {
  let next = await ask("/api/passkey", { hash });
  if (next.kind === "create") {
    const made = await navigator.credentials.create({ publicKey: creation(next.options) });
    await ask("/api/passkey/register", { credential: plain(made) });
    next = await ask("/api/passkey", { hash });
  }
  return plain(await navigator.credentials.get({ publicKey: assertion(next.options) }));
}

function creation(options) {
  return {
    ...options,
    challenge: fromBase64url(options.challenge),
    user: { ...options.user, id: fromBase64url(options.user.id) },
    excludeCredentials: (options.excludeCredentials ?? []).map(descriptor),
  };
}

function assertion(options) {
  return {
    ...options,
    challenge: fromBase64url(options.challenge),
    allowCredentials: (options.allowCredentials ?? []).map(descriptor),
  };
}

function descriptor(given) {
  return { ...given, id: fromBase64url(given.id) };
}

function plain(credential) {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    const value = credential.response[name];
    if (value instanceof ArrayBuffer) response[name] = toBase64url(value);
  }
  return {
    id: credential.id,
    rawId: toBase64url(credential.rawId),
    type: credential.type,
    response,
    clientExtensionResults: {},
  };
}

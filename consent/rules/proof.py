"""Data Integrity proofs with the cryptosuite ``eddsa-jcs-2022``: one signature inside a JSON document.

Source: W3C "Data Integrity EdDSA Cryptosuites v1.0", section 3.3. What is signed is
SHA-256(JCS(proof configuration)) || SHA-256(JCS(document without its proof)), 64 bytes, with Ed25519.

We are stricter than the recommendation in three places: the document's ``@context`` must equal the proof's (a prefix is
not enough), the verification method must be a ``did:key`` whose fragment is the same key, and there is exactly one
proof with exactly the fields that the suite names. What the document means is not decided here.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import base58

from federation.errors import AccordError, ConsentError
from federation.rules.canonical import canonical_bytes
from federation.rules.instant import format_instant, parse_instant
from federation.rules.keys import SIGNATURE_BYTES, PrivateKey, PublicKey

CRYPTOSUITE: Final = "eddsa-jcs-2022"
PURPOSE: Final = "assertionMethod"
_FIELDS: Final = frozenset(
    {"@context", "created", "cryptosuite", "proofPurpose", "proofValue", "type", "verificationMethod"}
)
# 64 bytes are at most 88 base58 digits; decoding is quadratic, so the text is bounded first.
_PROOF_VALUE_CHARACTERS_MAX: Final = 89


def proof_hash(document: Mapping[str, Any], config: Mapping[str, Any]) -> bytes:
    """The 64 bytes that are signed (section 3.3.4).

    Args:
        document: the document without ``proof``.
        config: the proof without ``proofValue``.

    Raises:
        PeerError: a value that has no canonical form (a float, an integer beyond 2^53 - 1, a lone surrogate).
    """
    return hashlib.sha256(canonical_bytes(config)).digest() + hashlib.sha256(canonical_bytes(document)).digest()


def add_proof(document: Mapping[str, Any], key: PrivateKey, *, created: datetime) -> dict[str, Any]:
    """The document with its proof, signed by ``key``.

    Raises:
        PeerError: the document has no canonical form.
        ValueError: it already has a proof, or no ``@context``.
    """
    if "proof" in document or "@context" not in document:
        raise ValueError("a document to be signed has a context and no proof")
    config = {
        "@context": document["@context"],
        "created": format_instant(created),
        "cryptosuite": CRYPTOSUITE,
        "proofPurpose": PURPOSE,
        "type": "DataIntegrityProof",
        "verificationMethod": verification_method(key.public),
    }
    value = "z" + base58.b58encode(key.sign(proof_hash(document, config))).decode("ascii")
    return {**document, "proof": {**config, "proofValue": value}}


def verify_proof(document: Mapping[str, Any]) -> tuple[PublicKey, datetime]:
    """Verify a document's proof; returns who signed, and when they say they did.

    Whether that key may sign this document is for the caller to decide.

    Raises:
        ConsentError: whatever is wrong with the proof.
    """
    proof = document.get("proof")
    if not isinstance(proof, Mapping) or set(proof) != _FIELDS:
        raise refused("it does not carry exactly one complete proof")
    if (proof["type"], proof["cryptosuite"], proof["proofPurpose"]) != ("DataIntegrityProof", CRYPTOSUITE, PURPOSE):
        raise refused(f"its proof is not a {CRYPTOSUITE} proof made for {PURPOSE}")
    unsecured = {name: value for name, value in document.items() if name != "proof"}
    config = {name: value for name, value in proof.items() if name != "proofValue"}
    if "@context" not in unsecured or unsecured["@context"] != proof["@context"]:
        raise refused("its context differs from the context that was signed")
    try:
        signer = _signer(proof["verificationMethod"])
        created = parse_instant(proof["created"]) if isinstance(proof["created"], str) else None
        message = proof_hash(unsecured, config)
    except AccordError as error:
        raise refused(error.message.rstrip(".")) from error
    if created is None:
        raise refused("its proof has no time")
    if not signer.verify(_signature(proof["proofValue"]), message):
        raise refused("the signature does not match its content")
    return signer, created


def verification_method(key: PublicKey) -> str:
    """The DID URL of a did:key's only key: the DID, ``#``, the multibase key again."""
    return f"{key.did}#{key.multibase}"


def refused(why: str) -> ConsentError:
    """The error for a record that does not verify."""
    return ConsentError(f"The consent record is refused: {why}.", remedy="Ask the person to sign a new record.")


def _signer(method: Any) -> PublicKey:
    if not isinstance(method, str):
        raise refused("its verification method is not a did:key")
    did, _, _ = method.partition("#")
    key = PublicKey.from_did(did)
    if method != verification_method(key):
        raise refused("its verification method names two different keys")
    return key


def _signature(value: Any) -> bytes:
    if not isinstance(value, str) or not value.startswith("z") or len(value) > _PROOF_VALUE_CHARACTERS_MAX:
        raise refused("its proof value is not a base58 multibase text")
    try:
        signature = bytes(base58.b58decode(value[1:]))
    except ValueError as error:
        raise refused("its proof value is not a base58 multibase text") from error
    if len(signature) != SIGNATURE_BYTES or "z" + base58.b58encode(signature).decode("ascii") != value:
        raise refused("its proof value is not one Ed25519 signature")
    return signature

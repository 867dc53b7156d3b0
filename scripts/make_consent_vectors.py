"""Make the consent vectors: documents that every verifier must accept, and documents that it must refuse.

``python scripts/make_consent_vectors.py [FOLDER]`` writes ``must_pass/*.json``, ``must_fail/*.json`` and ``README.md``
under tests/vectors/consent. Keys and times are fixed, so the files are the same each time. A file in must_fail is named
after the reason it is refused for; where several are refused for the same reason, a number follows. Wherever it can be,
a bad document is signed by the right key, so that nothing but the named fault refuses it.
"""

import copy
import hashlib
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import base58
import rfc8785
from nacl.bindings import crypto_core_ed25519_add

from consent.rules.commitment import batch_bytes, commitment
from consent.rules.guardian import issue_authority
from consent.rules.receipt import LogPlace, ModelMention, Receipt, RoundInFlight, build_receipt
from consent.rules.record import Action, ConsentRecord, Mechanism, Terms, build, next_key_hash, open_record
from consent.rules.statement import DataPermit, HipaaAuthorization, Notice, Party, Statement
from federation.rules.canonical import canonical_bytes
from federation.rules.checkpoint import Checkpoint, cosign, sign_checkpoint
from federation.rules.instant import format_instant
from federation.rules.keys import PrivateKey
from federation.rules.merkle import inclusion_proof, leaf_hash, root

Document = dict[str, Any]
Change = Callable[[Document], object]

NOW = datetime(2025, 1, 15, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)
FIELD = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
GRANT, REFUSE, WITHDRAW = Action.GRANT, Action.REFUSE, Action.WITHDRAW


def key(name: str) -> PrivateKey:
    """A fixed key."""
    return PrivateKey(hashlib.sha256(b"accord consent vectors: " + name.encode()).digest())


HOSPITAL, CLINIC, ANNA, BEN, PARENT, COURT = (
    key(name) for name in ("hospital", "clinic", "anna", "ben", "parent", "court")
)
WITNESSES = [key(f"witness {number}") for number in range(3)]
STATEMENT = Statement.for_institution(
    HOSPITAL.public.did,
    name="Hôpital de la Rivière",
    contact="mailto:dpo@hospital.example",
    jurisdiction="loc:FR",
    notice=Notice(hash=hashlib.sha256(b"the text that was read").hexdigest(), version="2025-01", language="fr"),
)


def document(action: Action = GRANT, **changes: Any) -> Document:
    """An unsigned record of Anna's."""
    terms = changes.pop("terms", {})
    parts: dict[str, Any] = {
        "subject": ANNA.public,
        "institution": HOSPITAL.public,
        "action": action,
        "seq": 1,
        "prev": None,
        "valid_from": NOW,
    }
    if action is GRANT:
        parts["statement"] = STATEMENT
        parts["terms"] = Terms(
            **{
                "purposes": ("DUO:0000007", "DUO:0000028"),
                "diseases": ("MONDO:0005267",),
                "conditions": {"DUO:0000028": (HOSPITAL.public.did,)},
                "epsilon_max": Decimal(3),
                "delta_max": Decimal("0.00001"),
                "valid_until": NOW + 3650 * DAY,
                "code_hash": "c0de" * 16,
                "rounds_max": 40,
                **terms,
            }
        )
    return build(**{**parts, **changes})


def signed(unsigned: Document, signer: PrivateKey = ANNA, **proof: Any) -> Document:
    """Sign anything, whether or not it is a record; ``proof`` replaces fields of the proof before it is signed."""
    config: Document = {
        "@context": list(unsigned["@context"]),
        "created": format_instant(NOW),
        "cryptosuite": "eddsa-jcs-2022",
        "proofPurpose": "assertionMethod",
        "type": "DataIntegrityProof",
        "verificationMethod": f"{signer.public.did}#{signer.public.multibase}",
        **proof,
    }
    message = hashlib.sha256(rfc8785.dumps(config)).digest() + hashlib.sha256(rfc8785.dumps(unsigned)).digest()
    return {**unsigned, "proof": {**config, "proofValue": _spelled(signer.sign(message))}}


def changed(change: Change, unsigned: Document | None = None, signer: PrivateKey = ANNA, **proof: Any) -> Document:
    """A document that is changed before it is signed: well signed, and not a record."""
    target = copy.deepcopy(unsigned if unsigned is not None else document())
    change(target)
    return signed(target, signer, **proof)


def tampered(change: Change, good: Document | None = None) -> Document:
    """A record that is changed after it was signed."""
    target = copy.deepcopy(good if good is not None else signed(document()))
    change(target)
    return target


def put(place: str, value: Any) -> Change:
    """A change: set the field at ``place`` (names and numbers, with slashes between)."""

    def change(target: Any) -> None:
        *path, last = place.split("/")
        for name in path:
            target = target[int(name) if isinstance(target, list) else name]
        target[int(last) if isinstance(target, list) else last] = value

    return change


def text(value: Document | list[Any]) -> bytes:
    """A document as it stands in a file."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8") + b"\n"


def opened(value: Document) -> ConsentRecord:
    """A record, verified."""
    return open_record(canonical_bytes(value), authorities=(COURT.public.did,))


def chain(*steps: tuple[Action, dict[str, Any]]) -> list[Document]:
    """Records that follow one another; each step's parts go to :func:`document`, ``signer`` and ``created`` apart."""
    records: list[Document] = []
    for action, parts in steps:
        before = opened(records[-1]) if records else None
        signer = parts.pop("signer", ANNA)
        place = {"seq": 1, "prev": None} if before is None else {"seq": before.seq + 1, "prev": before.digest}
        records.append(signed(document(action, issuer=signer.public, **{**place, **parts}), signer))
    return records


def authority(**changes: Any) -> Document:
    """The hospital's word that the parent speaks for Anna, until she is of age."""
    parts = {
        "issuer": HOSPITAL,
        "guardian": PARENT.public,
        "ward": ANNA.public,
        "valid_from": NOW - 30 * DAY,
        "majority": NOW + 4000 * DAY,
    }
    return issue_authority(**{**parts, **changes})


def guarded(
    held: Document, signer: PrivateKey = PARENT, *, valid_until: datetime = NOW + 365 * DAY, **proof: Any
) -> Document:
    """Anna's grant, signed by a guardian who holds ``held``, whatever it says."""
    unsigned = document(terms={"valid_until": valid_until})
    unsigned["issuer"] = signer.public.did
    unsigned["credentialSubject"]["authority"] = held
    return signed(unsigned, signer, **proof)


HIPAA = HipaaAuthorization(
    information="Diagnoses, laboratory values and treatments of heart disease since 2015",
    discloser=Party(name="Rivière Hospital", id=HOSPITAL.public.did),
    recipients=(Party(name="The members of the heart study"),),
    purpose="Research on heart disease",
    expiration="The end of the heart study, at the latest on the date of validUntil",
    right_to_revoke="You may revoke this authorization in writing, or on the consent page, at any time, except to the"
    " extent that action has been taken in reliance on it.",
    conditioning="Treatment, payment, enrolment and eligibility do not depend on this authorization.",
    redisclosure="Information that is disclosed may be redisclosed by the recipient and is then no longer protected.",
)
PERMIT = DataPermit(
    number="HDAB-FR-2025-0042",
    body=Party(name="Health Data Hub"),
    user=Party(name="Institut du Cœur", id=CLINIC.public.did),
)


def whole_source(mechanism: Mechanism, **parts: Any) -> Document:
    """A device owner's or a health data access body's grant for a whole source."""
    statement = Statement.for_institution(HOSPITAL.public.did, legal_basis=("dpv:Contract",), consent=False)
    return signed(
        document(
            mechanism=mechanism,
            statement=statement,
            terms={"purposes": ("DUO:0000042",), "diseases": (), "conditions": {}},
            **parts,
        )
    )


def notes(*sizes_and_times: tuple[int, int], fork: bool = False) -> list[str]:
    """Cosigned checkpoints of the hospital's log; ``fork`` gives the last another root."""
    found = []
    for number, (size, timestamp) in enumerate(sizes_and_times):
        face = b"other" if fork and number == len(sizes_and_times) - 1 else b"one"
        checkpoint = Checkpoint("hospital/consent", size, hashlib.sha256(face + bytes([size])).digest())
        by = [cosign(checkpoint, witness, timestamp=timestamp) for witness in WITNESSES]
        found.append(sign_checkpoint(checkpoint, HOSPITAL).with_cosignatures(by).to_bytes().decode())
    return found


def seen(given: list[str], **changes: Any) -> Document:
    """What a history says of its log."""
    return {
        "signer": HOSPITAL.public.did,
        "witnesses": [witness.public.did for witness in WITNESSES],
        "quorum": 2,
        "notes": given,
        "ageMaxS": 3600,
        **changes,
    }


def receipt(record: Document, *, logged: bool = True, **parts: Any) -> Document:
    """The hospital's receipt for a record."""
    known = opened(record)
    short = Receipt(
        institution=HOSPITAL.public.did,
        subject_ref="patient-0017",
        subject=known.subject,
        record=known.digest,
        action=known.action,
        seq=known.seq,
        received_at=format_instant(NOW + timedelta(minutes=1)),
    )
    place = _place(known.canonical) if logged else None
    data = build_receipt(short, known.canonical, HOSPITAL, created=NOW + timedelta(hours=1), logged=place, **parts)
    value: Document = json.loads(data)
    return value


def _place(record: bytes) -> LogPlace:
    salt = hashlib.sha256(b"salt").digest()
    padding = [hashlib.sha256(bytes([number])).digest() for number in range(3)]
    batch = batch_bytes([commitment(salt, record)], size=4, padding=padding, appended_at=NOW)
    leaves = [leaf_hash(b"another batch"), leaf_hash(batch), leaf_hash(b"a third batch")]
    checkpoint = Checkpoint("hospital/consent", 3, root(leaves))
    by = [cosign(checkpoint, witness, timestamp=int(NOW.timestamp()) + 60) for witness in WITNESSES]
    note = sign_checkpoint(checkpoint, HOSPITAL).with_cosignatures(by)
    return LogPlace(salt, 1, batch, inclusion_proof(leaves, 1), note)


MENTIONS = {
    "rounds_in_flight": (RoundInFlight("heart-0123456789ab", 7),),
    "models": (ModelMention("heart-0123456789ab", 6, "6d" * 32, Decimal(3), Decimal("0.00001")),),
}


def must_pass() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and description of every document that is accepted."""
    good = signed(document())
    yield "grant", text(good), "a grant with everything that Accord's own terms can say"
    yield "grant-canonical", canonical_bytes(good), "the same grant in canonical form"
    backwards = json.dumps(dict(reversed(list(good.items()))), indent=7).encode()
    yield "grant-spelled-otherwise", backwards, "the same grant, escaped, indented and in another order"
    yield "refusal", text(signed(document(REFUSE, statement=STATEMENT))), "a refusal that names what was refused"
    yield "withdrawal", text(chain((GRANT, {}), (WITHDRAW, {}))[1]), "a withdrawal with the person's key"
    attested = chain((GRANT, {}), (WITHDRAW, {"signer": HOSPITAL}))
    yield "withdrawal-attested", text(attested[1]), "a withdrawal that the institution attests"
    yield (
        "next-key",
        text(signed(document(next_key_hash=next_key_hash(BEN.public.did)))),
        "a grant that names the next key",
    )
    yield "licence", text(whole_source(Mechanism.LICENCE)), "a device owner's licence"
    yield "dpa", text(whole_source(Mechanism.DPA)), "a data processing agreement"
    yield "ehds-permit", text(whole_source(Mechanism.EHDS_PERMIT, permit=PERMIT)), "a data permit of the EHDS"
    optout = signed(document(REFUSE, mechanism=Mechanism.EHDS_OPTOUT))
    yield "ehds-optout", text(optout), "an opt-out from secondary use under the EHDS"
    hipaa = signed(document(mechanism=Mechanism.HIPAA_AUTHORIZATION, hipaa=HIPAA))
    yield "hipaa-authorization", text(hipaa), "an authorization with the elements of 45 CFR 164.508(c)"
    yield "guardian", text(guarded(authority())), "a grant by a guardian on the institution's word"
    history = chain((GRANT, {}), (WITHDRAW, {"signer": HOSPITAL}), (GRANT, {}))
    yield "history", text(history), "granted, withdrawn, granted again"
    rotated = chain(
        (GRANT, {"next_key_hash": next_key_hash(BEN.public.did)}), (GRANT, {"subject": BEN.public, "signer": BEN})
    )
    yield "history-rotation", text(rotated), "the second record is by the key that the first committed to"
    lost = chain((GRANT, {}), (WITHDRAW, {"signer": HOSPITAL}), (GRANT, {"subject": BEN.public, "signer": BEN}))
    yield "history-new-key", text(lost), "a lost key: withdrawn without it, begun again with another"
    stamp = int(NOW.timestamp())
    held = {
        "records": history,
        "head": {"seq": 3, "digest": opened(history[-1]).digest},
        "asOf": format_instant(NOW + timedelta(minutes=5)),
        "log": seen(notes((4, stamp), (5, stamp + 60))),
    }
    yield "history-held-against-its-log", text(held), "a history with its head and a fresh, cosigned log"
    yield "receipt", text(receipt(good)), "a receipt with the record's place in the cosigned log"
    yield "receipt-not-logged", text(receipt(good, logged=False)), "a receipt before the batch is logged"
    yield "receipt-withdrawal", text(receipt(attested[1], **MENTIONS)), "a withdrawal's receipt: rounds and models"


def must_fail() -> Iterator[tuple[str, bytes, str]]:
    """Reason, bytes and description of every document that is refused."""
    yield from _spellings()
    yield from _proofs()
    yield from _keys()
    yield from _mutations()
    yield from _forms()
    yield from _meanings()
    yield from _guardians()
    yield from _histories()
    yield from _receipts()


def _spellings() -> Iterator[tuple[str, bytes, str]]:
    good = canonical_bytes(signed(document()))
    issuer = f'"issuer":"{ANNA.public.did}"'.encode()
    other = f'"issuer":"{BEN.public.did}"'.encode()
    yield "duplicate-key", good.replace(issuer, other + b"," + issuer), "two issuers, the right one last"
    yield "duplicate-key", good.replace(issuer, issuer + b"," + other), "two issuers, the right one first"
    yield (
        "duplicate-key",
        good.replace(issuer, other.replace(b"issuer", b"\\u0069ssuer") + b"," + issuer),
        "one escaped",
    )
    twice = good.replace(b'"epsilonMax":"3"', b'"epsilonMax":"8","epsilonMax":"3"')
    yield "duplicate-key", twice, "two values of epsilonMax, deeper in the document"
    yield "float", text(changed(put("credentialSubject/epsilonMax", 3.5))), "epsilonMax as a number"
    yield "float", good.replace(b'"seq":1', b'"seq":1.0'), "1.0 where 1 was signed"
    yield "float", good.replace(b'"seq":1', b'"seq":1e0'), "1e0 where 1 was signed"
    yield "float", good.replace(b'"seq":1', b'"seq":NaN'), "NaN"
    yield "float", good.replace(b'"seq":1', b'"seq":-Infinity'), "minus infinity"
    for number in (2**53, -(2**53), 10**400):
        yield "integer-too-large", good.replace(b'"seq":1', f'"seq":{number}'.encode()), f"seq {str(number)[:20]}"
    yield "lone-surrogate", good.replace(b"Rivi", b"\\ud800Rivi"), "a high surrogate without its low one"
    yield "lone-surrogate", good.replace(b"Rivi", b"\\udfffRivi"), "a low surrogate without its high one"
    yield "lone-surrogate", good.replace(b'"prev"', b'"\\ud83d"').replace(b'"seq"', b'"\\ud83d":1,"seq"'), "in a key"
    yield "not-json", good[:-1], "the last brace is missing"
    yield "not-json", b"\xef\xbb\xbf" + good, "a byte order mark"
    yield "not-json", good.replace(b"Rivi", b"\xff\xfe"), "not UTF-8"
    yield "not-json", good.replace(b"}", b",}", 1), "a comma too many"
    yield "not-json", good + b"{}", "two documents"
    yield "not-json", b"", "nothing"
    yield "oversize", good + b" " * (16 * 1024), "16 KiB of white space after a good record"
    yield "oversize", text(changed(put("credentialSubject/more", "x" * 17000))), "a long field"
    yield "too-deep", b"[" * 40 + b"]" * 40, "40 arrays in each other"
    yield "too-deep", good.replace(b'"seq":1', b'"seq":' + b"[" * 5000 + b"]" * 5000), "5000 arrays in each other"
    yield "too-deep", good.replace(b'"seq":1', b'"seq":' + b'{"a":' * 40 + b"1" + b"}" * 40), "40 objects in each other"


def _proofs() -> Iterator[tuple[str, bytes, str]]:
    unsigned, good = document(), signed(document())
    more = "https://example.org/more"
    yield (
        "context-mismatch",
        text(tampered(lambda it: it["@context"].append(more))),
        "a context appended to the document",
    )
    without = tampered(lambda it: it["proof"]["@context"].append(more), copy.deepcopy(good))
    yield "context-mismatch", text(without), "a context appended to the proof"
    prefix = changed(lambda it: it["@context"].append(more), **{"@context": list(unsigned["@context"])})
    yield "context-mismatch", text(prefix), "signed so that the proof's context is a prefix of the document's"
    yield "wrong-context", text(changed(lambda it: it["@context"].append(more))), "another context, in both places"
    yield "wrong-context", text(changed(lambda it: it["@context"].reverse())), "the contexts in another order"
    yield "wrong-context", text(changed(put("@context", ["https://www.w3.org/ns/credentials/v2"]))), "ours is missing"
    yield "issuer-not-signer", text(signed(unsigned, BEN)), "Ben signs for Anna"
    other = changed(put("issuer", BEN.public.did))
    yield "no-authority", text(tampered(lambda _: None, signed(changed_issuer(BEN), BEN))), "Ben decides for Anna"
    yield "no-authority", text(other), "issued by Ben, signed by Anna"
    yield "several-proofs", text({**good, "proof": [good["proof"], good["proof"]]}), "the proof twice"
    yield "several-proofs", text({**good, "proof": [good["proof"]]}), "an array of one proof"
    yield "no-proof", text(unsigned), "no proof at all"
    yield "no-proof", text({**good, "proof": []}), "an empty array of proofs"
    yield "no-proof", text({**good, "proof": "z" + "1" * 64}), "a text for a proof"
    yield "wrong-proof-purpose", text(signed(unsigned, proofPurpose="authentication")), "made to log in"
    yield "wrong-cryptosuite", text(signed(unsigned, cryptosuite="eddsa-rdfc-2022")), "another suite"
    yield "wrong-cryptosuite", text(signed(unsigned, type="Ed25519Signature2020")), "a suite that is no longer used"
    yield "malformed-proof", text(signed(unsigned, nonce="1")), "a field that the suite does not know"
    yield "malformed-proof", text(signed(unsigned, created="2025-01-15")), "a day for a time"
    yield "malformed-proof", text(signed(unsigned, created="2025-01-15T09:30:00.000Z")), "another spelling of a time"
    yield "malformed-proof", text(signed(unsigned, verificationMethod=ANNA.public.did)), "no fragment"
    mixed = f"{ANNA.public.did}#{BEN.public.multibase}"
    yield "malformed-proof", text(signed(unsigned, verificationMethod=mixed)), "two keys in one name"
    for value in (
        good["proof"]["proofValue"][1:],
        "z1" + good["proof"]["proofValue"][1:],
        "zIl0O",
        "z",
        "z" + "1" * 500,
    ):
        yield "malformed-proof", text(tampered(put("proof/proofValue", value))), f"the proof value {value[:12]}"
    yield "future-time", text(signed(unsigned, created="2999-01-01T00:00:00Z")), "signed in the year 2999"


def changed_issuer(issuer: PrivateKey) -> Document:
    """Anna's grant, issued by somebody else."""
    return {**document(), "issuer": issuer.public.did}


SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


def _keys() -> Iterator[tuple[str, bytes, str]]:
    sign = 1 << 255
    small = [bytes.fromhex(point) for point in SMALL_ORDER]
    small += [(FIELD + y + top).to_bytes(32, "little") for y in (0, 1) for top in (0, sign)]
    small += [(y + sign).to_bytes(32, "little") for y in (1, FIELD - 1)]
    for point in small:
        yield "small-order-key", text(_by_point(point)), f"the key {point.hex()}; one signature fits every message"
    for y in range(FIELD + 2, 2**255):
        for top in (0, sign):
            point = (y + top).to_bytes(32, "little")
            yield "non-canonical-key", text(_by_point(point)), f"the key {point.hex()}"
    for point in small[1:8]:
        mixed = crypto_core_ed25519_add(ANNA.public.raw, point)
        yield "weak-key", text(_by_point(mixed)), f"Anna's key plus the point {point.hex()[:8]}... of small order"
    for did, why in (
        ("did:key:zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169", "a P-256 key"),
        (ANNA.public.did + " ", "white space after the key"),
        ("did:key:z1" + ANNA.public.multibase[1:], "a leading zero"),
    ):
        unsigned = document()
        unsigned["issuer"] = unsigned["credentialSubject"]["id"] = did
        method = f"{did}#{did.removeprefix('did:key:')}"
        yield "not-a-key", text(signed(unsigned, verificationMethod=method)), why
    web = "did:web:example.org"
    other = {**document(), "issuer": web}
    yield "malformed-proof", text(signed(other, verificationMethod=f"{web}#key-1")), "another did method"
    wide = tampered(put("proof/verificationMethod", "https://example.org/keys#1"))
    yield "malformed-proof", text(wide), "a key from the web"


def _by_point(point: bytes) -> Document:
    """A grant in the name of a key that nobody holds; its signature is R = the neutral element, S = 0."""
    multibase = _spelled(b"\xed\x01" + point)
    did = f"did:key:{multibase}"
    unsigned = document()
    unsigned["issuer"] = unsigned["credentialSubject"]["id"] = did
    forged = signed(unsigned, verificationMethod=f"{did}#{multibase}")
    forged["proof"]["proofValue"] = _spelled(b"\x01" + bytes(63))
    return forged


def _mutations() -> Iterator[tuple[str, bytes, str]]:
    about = "credentialSubject"
    for place, value, what in (
        (f"{about}/purposes", ["DUO:0000004"], "the purposes"),
        (f"{about}/statement/purposes/0", "dpv:Marketing", "a purpose of the statement"),
        (f"{about}/diseases/0", "MONDO:0000001", "the disease"),
        (f"{about}/conditions/DUO:0000028/0", CLINIC.public.did, "the institution that may use it"),
        (f"{about}/statement/recipients/0/name", "Everybody", "a recipient"),
        (f"{about}/codeHash", "any-approved", "the code hash"),
        (f"{about}/codeHash", "0" * 64, "the code hash, by another"),
        (f"{about}/epsilonMax", "8", "epsilonMax"),
        (f"{about}/deltaMax", "0.1", "deltaMax"),
        (f"{about}/maxRounds", 1000, "maxRounds"),
        (f"{about}/statement/notice/hash", "0" * 64, "the notice"),
        (f"{about}/statement/notice/version", "2025-02", "the notice's version"),
        (f"{about}/statement/controller/name", "Another hospital", "the controller"),
        (f"{about}/institution", CLINIC.public.did, "the institution"),
        (f"{about}/action", "refuse", "the action"),
        (f"{about}/id", BEN.public.did, "the subject"),
        ("validUntil", "2099-01-01T00:00:00Z", "the end"),
        ("validFrom", "2020-01-01T00:00:00Z", "the beginning"),
        ("proof/created", "2025-01-15T09:30:01Z", "the time of signing"),
        (
            "proof/proofValue",
            signed(document(REFUSE))["proof"]["proofValue"],
            "the signature, by one for another record",
        ),
    ):
        yield "wrong-signature", text(tampered(put(place, value))), f"changed after signing: {what}"
    good = signed(document())
    raw = bytes(base58.b58decode(good["proof"]["proofValue"][1:]))
    lifted = raw[:32] + (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")
    yield (
        "wrong-signature",
        text(tampered(put("proof/proofValue", _spelled(lifted)))),
        "the same S plus the group's order",
    )
    stolen = tampered(put("proof/verificationMethod", f"{BEN.public.did}#{BEN.public.multibase}"))
    yield "wrong-signature", text(stolen), "Ben's key named for Anna's signature"


def _forms() -> Iterator[tuple[str, bytes, str]]:
    about = "credentialSubject"
    yield "null", text(changed(put(f"{about}/prev", None))), "prev is null"
    yield "null", text(changed(put(f"{about}/statement/authority/contact", None))), "a contact is null"
    yield "null", text(changed(put("validUntil", None))), "the end is null"
    for place in (
        "more",
        f"{about}/more",
        f"{about}/statement/more",
        f"{about}/statement/controller/more",
        "credentialSchema/more",
    ):
        yield "unknown-field", text(changed(put(place, "x"))), f"the field {place}"
    for place, value in (
        (f"{about}/epsilonMax", "3.0"),
        (f"{about}/epsilonMax", "03"),
        (f"{about}/epsilonMax", 3),
        (f"{about}/epsilonMax", "٣"),
        (f"{about}/seq", "1"),
        (f"{about}/seq", True),
        (f"{about}/seq", 0),
        (f"{about}/action", "maybe"),
        (f"{about}/mechanism", "decree"),
        (f"{about}/id", "did:example:anna"),
        (f"{about}/purposes", "DUO:0000006"),
        (f"{about}/purposes", ["GRU"]),
        (f"{about}/purposes", []),
        (f"{about}/codeHash", "any"),
        (f"{about}/codeHash", "C0DE" * 16),
        (f"{about}/statement/purposes/0", "ScientificResearch"),
        (f"{about}/statement/notice/hash", "00"),
        (f"{about}/statement/storage/duration", "ten years"),
        ("validFrom", "2025-01-15"),
        ("type", ["VerifiableCredential"]),
        ("credentialSchema/id", "https://w3id.org/accord/consent/v1/record.schema.json"),
        ("credentialSubject", []),
    ):
        yield "malformed", text(changed(put(place, value))), f"{place} is {json.dumps(value)[:40]}"
    yield "malformed", b'"a consent"\n', "a text"
    yield "malformed", text(changed(lambda it: it.pop("credentialSchema"))), "no schema version"


def _meanings() -> Iterator[tuple[str, bytes, str]]:
    about = "credentialSubject"
    for name in ("purposes", "epsilonMax", "deltaMax", "codeHash", "statement"):
        yield "missing-terms", text(changed(lambda it, name=name: it[about].pop(name))), f"a grant without {name}"
    yield "missing-terms", text(changed(lambda it: it.pop("validUntil"))), "a grant without an end"
    hipaa = document(mechanism=Mechanism.HIPAA_AUTHORIZATION, hipaa=HIPAA)
    yield (
        "missing-terms",
        text(changed(lambda it: it[about].pop("hipaa"), hipaa)),
        "an authorization without its elements",
    )
    for name in ("rightToRevoke", "conditioning", "redisclosure"):
        yield (
            "malformed",
            text(changed(lambda it, name=name: it[about]["hipaa"].pop(name), hipaa)),
            f"HIPAA without {name}",
        )
    permit = document(mechanism=Mechanism.EHDS_PERMIT, permit=PERMIT)
    yield "missing-terms", text(changed(lambda it: it[about].pop("permit"), permit)), "a permit without its number"
    yield "wrong-terms", text(changed(put("validUntil", format_instant(NOW)))), "it ends when it begins"
    yield "wrong-terms", text(changed(put(f"{about}/epsilonMax", "0"))), "epsilonMax 0"
    yield "wrong-terms", text(changed(put(f"{about}/deltaMax", "1"))), "deltaMax 1"
    yield "wrong-terms", text(changed(put(f"{about}/purposes", ["DUO:0000028"] * 2))), "a purpose twice"
    yield "wrong-terms", text(changed(put(f"{about}/purposes", ["DUO:0000007"]))), "a condition without its modifier"
    yield "wrong-terms", text(changed(put(f"{about}/action", "refuse"))), "a refusal with terms"
    yield "wrong-terms", text(changed(put(f"{about}/mechanism", "ehds-optout"))), "an opt-out that grants"
    yield "wrong-chain-fields", text(changed(put(f"{about}/seq", 2))), "number 2 without a predecessor"
    yield "wrong-chain-fields", text(changed(put(f"{about}/prev", "0" * 64))), "number 1 with a predecessor"
    for action in ("grant", "refuse"):
        unsigned = document(GRANT if action == "grant" else REFUSE)
        unsigned["issuer"] = HOSPITAL.public.did
        yield f"attested-{action}", text(signed(unsigned, HOSPITAL)), f"the institution attests a {action}"
    withdrawal = document(WITHDRAW, seq=2, prev="ab" * 32, issuer=HOSPITAL.public)
    withdrawal[about]["nextKeyHash"] = next_key_hash(HOSPITAL.public.did)
    yield "attested-next-key", text(signed(withdrawal, HOSPITAL)), "the institution names the person's next key"
    optout = document(REFUSE, mechanism=Mechanism.EHDS_OPTOUT)
    optout["issuer"], optout[about]["action"] = HOSPITAL.public.did, "withdraw"
    yield "attested-withdraw", text(signed(optout, HOSPITAL)), "the institution takes an opt-out back"


def _guardians() -> Iterator[tuple[str, bytes, str]]:
    alone = document()
    alone["issuer"] = PARENT.public.did
    yield "no-authority", text(signed(alone, PARENT)), "a guardian without an authority"
    yield "wrong-authority", text(guarded(authority(issuer=COURT))), "an authority that the reader does not name"
    yield "wrong-authority", text(guarded(authority(issuer=PARENT))), "a guardian who lends authority to themselves"
    yield "wrong-authority", text(guarded(authority(ward=BEN.public))), "an authority for somebody else"
    yield "wrong-authority", text(guarded(authority(), BEN)), "another than the guardian signs"
    longer = tampered(put("credentialSubject/majority", "2099-01-01T00:00:00Z"), authority())
    longer["validUntil"] = "2099-01-01T00:00:00Z"
    yield "wrong-authority", text(guarded(longer)), "a day of majority that was moved"
    forged = {**authority(issuer=COURT), "issuer": HOSPITAL.public.did}
    yield "wrong-authority", text(guarded(forged)), "an authority that its issuer did not sign"
    unsigned = document()
    unsigned["credentialSubject"]["authority"] = authority()
    yield "wrong-authority", text(signed(unsigned)), "the subject signs beside a guardian's authority"
    until = NOW + 365 * DAY
    old = authority(valid_from=NOW - 900 * DAY, majority=NOW - DAY)
    yield "expired-authority", text(guarded(old)), "signed after the day of majority"
    yield "expired-authority", text(guarded(authority(valid_from=NOW + DAY))), "signed before the authority began"
    soon = authority(majority=until - DAY)
    yield "beyond-majority", text(guarded(soon, valid_until=until)), "a grant that outlives the minority"


def _histories() -> Iterator[tuple[str, bytes, str]]:
    grant, withdrawal, again = chain((GRANT, {}), (WITHDRAW, {"signer": HOSPITAL}), (GRANT, {}))
    stamp = int(NOW.timestamp())
    yield "replayed", text([grant, withdrawal, grant]), "the grant is shown again after the withdrawal"
    yield "gap", text([grant, again]), "the withdrawal is left out"
    yield "gap", text([withdrawal, grant]), "the order is changed"
    yield "gap", text([withdrawal]), "the first record is left out"
    branch = signed(document(seq=2, prev="0" * 64))
    yield "wrong-prev", text([grant, branch]), "another branch"
    taken = signed(document(seq=2, prev=opened(grant).digest, subject=BEN.public), BEN)
    yield "two-subjects", text([grant, taken]), "Ben goes on where Anna granted"
    promised = signed(document(next_key_hash=next_key_hash(PARENT.public.did)))
    usurped = signed(document(seq=2, prev=opened(promised).digest, subject=BEN.public), BEN)
    yield "two-subjects", text([promised, usurped]), "a key that was not committed to"
    elsewhere = signed(document(seq=2, prev=opened(grant).digest, institution=CLINIC.public))
    yield "two-institutions", text([grant, elsewhere]), "a record for another institution"
    optout = signed(document(REFUSE, seq=2, prev=opened(grant).digest, mechanism=Mechanism.EHDS_OPTOUT))
    yield "two-mechanisms", text([grant, optout]), "a record of another kind"
    head = {"seq": 2, "digest": opened(withdrawal).digest}
    yield "rolled-back", text({"records": [grant], "head": head}), "the acknowledged withdrawal is gone"
    as_of = format_instant(NOW + timedelta(minutes=5))
    held = {"records": [grant, withdrawal], "head": head, "asOf": as_of}
    two_faces = seen(notes((5, stamp), (5, stamp + 60), fork=True))
    yield "forked-log", text({**held, "log": two_faces}), "two roots of one size, both signed by the institution"
    yield (
        "stale-checkpoint",
        text({**held, "log": seen(notes((5, stamp - 7200)))}),
        "two hours without a witness's word",
    )
    bare = (
        notes((5, stamp))[0].split("\n\n")[0]
        + "\n\n"
        + "\n".join(notes((5, stamp))[0].split("\n\n")[1].splitlines()[:1])
        + "\n"
    )
    yield "stale-checkpoint", text({**held, "log": seen([bare])}), "no witness's word at all"
    moved = notes((5, stamp))[0].replace("\n5\n", "\n6\n")
    yield "wrong-checkpoint", text({**held, "log": seen([moved])}), "a note whose size was changed"
    early = {**held, "asOf": format_instant(NOW - DAY)}
    yield "future-time", text(early), "records from after the moment at which they are judged"


def _receipts() -> Iterator[tuple[str, bytes, str]]:
    good = signed(document())
    about = "credentialSubject"
    whole = receipt(chain((GRANT, {}), (WITHDRAW, {"signer": HOSPITAL}))[1], **MENTIONS)
    unsigned = {name: value for name, value in receipt(good).items() if name != "proof"}
    for place, value, what in (
        (f"{about}/models/0/epsilon", "0.1", "a model's epsilon"),
        (f"{about}/roundsInFlight/0/round", 1, "a round in flight"),
        (f"{about}/receivedAt", "2025-01-15T00:00:00Z", "the time of receipt"),
    ):
        yield "wrong-signature", text(tampered(put(place, value), whole)), f"a receipt, changed after signing: {what}"
    yield "issuer-not-signer", text(signed(unsigned, CLINIC)), "a receipt by another institution"
    for place, value in ((f"{about}/record", "0" * 64), (f"{about}/seq", 2), (f"{about}/action", "withdraw")):
        yield "wrong-receipt", text(changed(put(place, value), unsigned, HOSPITAL)), f"{place} is not the record's"
    mentions = [{"round": 7, "study": "heart"}]
    listed = changed(put(f"{about}/roundsInFlight", mentions), unsigned, HOSPITAL)
    yield "wrong-receipt", text(listed), "a grant's receipt lists rounds in flight"
    for place, value, what in (
        (f"{about}/log/salt", "00" * 32, "another salt"),
        (f"{about}/log/index", 0, "another place"),
        (f"{about}/log/inclusionPath/0", "00" * 32, "another path"),
    ):
        yield "wrong-inclusion", text(changed(put(place, value), unsigned, HOSPITAL)), what
    note = unsigned[about]["log"]["checkpoint"]
    yield (
        "wrong-checkpoint",
        text(changed(put(f"{about}/log/checkpoint", note.replace("\n3\n", "\n4\n")), unsigned, HOSPITAL)),
        "a receipt whose checkpoint was changed",
    )
    lines = note.splitlines(keepends=True)
    swapped = "".join([*lines[:-1], lines[-1][:-6] + "AAAA=\n"])
    yield (
        "wrong-checkpoint",
        text(changed(put(f"{about}/log/checkpoint", swapped), unsigned, HOSPITAL)),
        "a cosignature that does not verify",
    )


def _spelled(data: bytes) -> str:
    return "z" + str(base58.b58encode(data).decode("ascii"))


def main(folder: Path) -> None:
    """Write every file anew."""
    described: list[tuple[str, str]] = []
    for kind in ("must_pass", "must_fail"):
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind).mkdir(parents=True)
    for name, data, what in must_pass():
        (folder / "must_pass" / f"{name}.json").write_bytes(data)
        described.append((f"must_pass/{name}.json", what))
    groups: dict[str, list[tuple[bytes, str]]] = defaultdict(list)
    for reason, data, what in must_fail():
        groups[reason].append((data, what))
    for reason in sorted(groups):
        several = len(groups[reason]) > 1
        for number, (data, what) in enumerate(groups[reason], start=1):
            name = f"{reason}-{number}" if several else reason
            (folder / "must_fail" / f"{name}.json").write_bytes(data)
            described.append((f"must_fail/{name}.json", what))
    lines = ["# Consent vectors", "", "Made by `python scripts/make_consent_vectors.py`; do not edit.", ""]
    lines += [
        "A file in must_fail is named after the reason for which `accord consent verify FILE --json` refuses it.",
        "",
    ]
    lines += [
        "| file | what it is |",
        "| --- | --- |",
        *(f"| {name} | {what.replace('|', '/')} |" for name, what in described),
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(described)} documents")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "tests" / "vectors" / "consent")

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from consent_people import ANNA, BEN, DAY, HOSPITAL, NOW, record, terms
from hypothesis import given
from hypothesis import strategies as st

from consent.rules.proof import add_proof
from consent.rules.record import RECORD_BYTES_MAX, SEQ_MAX, Action, Mechanism, build, open_record, sign_record
from federation.errors import ConsentError
from federation.rules.canonical import canonical_bytes, sha256_hex

Document = dict[str, Any]


def document(**changes: Any) -> Document:
    parts: dict[str, Any] = {
        "subject": ANNA.public,
        "institution": HOSPITAL.public,
        "action": Action.GRANT,
        "seq": 1,
        "prev": None,
        "valid_from": NOW,
        "terms": terms(),
    }
    return build(**{**parts, **changes})


def resigned(changed: Document) -> bytes:
    """As ``sign_record``, for documents that ``build`` would not make."""
    return json.dumps(add_proof(changed, ANNA, created=NOW)).encode()


def test_a_record_is_read_as_it_was_built() -> None:
    wanted = terms(purposes=("DUO:0000007",), diseases=("MONDO:0005267",), epsilon_max=Decimal("0.50"))
    opened = open_record(sign_record(document(terms=wanted), ANNA, created=NOW))
    assert opened.terms == wanted
    assert (opened.subject, opened.issuer, opened.institution) == (
        ANNA.public.did,
        ANNA.public.did,
        HOSPITAL.public.did,
    )
    assert (opened.seq, opened.prev, opened.action, opened.attested) == (1, None, Action.GRANT, False)
    assert opened.valid_from == opened.signed_at == NOW
    assert opened.digest == sha256_hex(opened.canonical)


def test_white_space_and_order_are_free_and_the_canonical_bytes_stay() -> None:
    data = record()
    spread = json.dumps(dict(reversed(json.loads(data).items())), indent=4).encode()
    assert spread != data
    assert open_record(spread) == open_record(data)


def test_the_document_is_a_verifiable_credential() -> None:
    made = json.loads(record())
    assert made["@context"][0] == "https://www.w3.org/ns/credentials/v2"
    assert made["type"][0] == "VerifiableCredential"
    assert made["credentialSubject"]["epsilonMax"] == "3"
    assert "prev" not in made["credentialSubject"]
    assert None not in made.values()


def test_the_institution_may_attest_a_withdrawal_and_nothing_else() -> None:
    first = record()
    attested = open_record(record(Action.WITHDRAW, after=first, signer=HOSPITAL))
    assert attested.attested
    with pytest.raises(ConsentError, match="only the subject"):
        record(Action.REFUSE, signer=HOSPITAL)
    with pytest.raises(ConsentError, match="only the subject"):
        record(Action.GRANT, signer=HOSPITAL)
    with pytest.raises(ConsentError, match="only the subject"):
        record(Action.WITHDRAW, after=first, signer=BEN)


def test_another_key_cannot_sign_for_the_issuer() -> None:
    with pytest.raises(ConsentError, match="issuer"):
        open_record(sign_record(document(), BEN, created=NOW))


@pytest.mark.parametrize(
    "parts",
    [
        {"terms": None},
        {"action": Action.REFUSE},
        {"action": Action.WITHDRAW},
        {"seq": 0},
        {"seq": SEQ_MAX + 1},
        {"seq": 2},
        {"prev": "0" * 64},
        {"seq": 2, "prev": "not a digest"},
        {"terms": terms(valid_until=NOW)},
        {"terms": terms(purposes=())},
        {"terms": terms(purposes=("GRU",))},
        {"terms": terms(purposes=("DUO:0000006", "DUO:0000006"))},
        {"terms": terms(diseases=("MONDO:0005267",) * 2)},
        {"terms": terms(epsilon_max=Decimal(0))},
        {"terms": terms(epsilon_max=Decimal(-1))},
        {"terms": terms(epsilon_max=Decimal("NaN"))},
        {"terms": terms(epsilon_max=Decimal("1e-30"))},
        {"terms": terms(delta_max=Decimal(1))},
    ],
)
def test_parts_that_make_no_record_are_refused_before_signing(parts: dict[str, Any]) -> None:
    with pytest.raises((ConsentError, ValueError)):
        document(**parts)


def _set(place: str, value: Any) -> Callable[[Document], None]:
    def change(target: Document) -> None:
        *path, last = place.split("/")
        for name in path:
            target = target[name]
        target[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("credentialSubject/epsilonMax", "3.0"),
        _set("credentialSubject/epsilonMax", "03"),
        _set("credentialSubject/epsilonMax", "3e0"),
        _set("credentialSubject/epsilonMax", "٣"),
        _set("credentialSubject/epsilonMax", "."),
        _set("credentialSubject/epsilonMax", 3),
        _set("credentialSubject/epsilonMax", None),
        _set("credentialSubject/prev", None),
        _set("credentialSubject/seq", "1"),
        _set("credentialSubject/seq", True),
        _set("credentialSubject/action", "maybe"),
        _set("credentialSubject/mechanism", "decree"),
        _set("credentialSubject/id", "did:example:anna"),
        _set("credentialSubject/more", "field"),
        _set("credentialSubject/purposes", "DUO:0000006"),
        _set("credentialSubject/purposes", ["DUO:0000006"] * 33),
        _set("credentialSubject", []),
        _set("validFrom", "2026-11-22"),
        _set("validFrom", 5),
        _set("validUntil", None),
        _set("type", ["VerifiableCredential"]),
        _set("@context", ["https://www.w3.org/ns/credentials/v2"]),
        _set("@context", "https://www.w3.org/ns/credentials/v2"),
        _set("name", "more"),
    ],
)
def test_a_well_signed_document_that_is_no_record_is_refused(change: Callable[[Document], None]) -> None:
    changed = document()
    change(changed)
    with pytest.raises(ConsentError):
        open_record(resigned(changed))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b"{}",
        b'{"a":1.5}',
        b'{"a":1,"a":2}',
        b'{"a":9007199254740993}',
        b'{"a":"\\ud800"}',
        b"[" * 5000,
        b" " * (RECORD_BYTES_MAX + 1),
    ],
)
def test_bytes_that_are_no_document_are_refused(data: bytes) -> None:
    with pytest.raises(ConsentError):
        open_record(data)


@given(st.data())
def test_a_flipped_byte_never_passes_as_another_record(data: st.DataObject) -> None:
    good = record()
    place = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        opened = open_record(bytes(changed))
    except ConsentError:
        return
    assert opened.canonical == good  # only the spelling changed, never the content


@given(st.binary(max_size=200))
def test_open_record_leaks_only_its_own_error(data: bytes) -> None:
    with pytest.raises(ConsentError):
        open_record(data)


@given(
    epsilon=st.decimals(min_value=Decimal("0.001"), max_value=8, places=3),
    days=st.integers(1, 10_000),
    seq=st.integers(2, SEQ_MAX),
    mechanism=st.sampled_from([Mechanism.CONSENT, Mechanism.DPA, Mechanism.LICENCE]),
    begin=st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001 -- made aware below
)
def test_every_valid_record_survives_the_wire(
    epsilon: Decimal, days: int, seq: int, mechanism: Mechanism, begin: datetime
) -> None:
    start = begin.replace(microsecond=0, tzinfo=NOW.tzinfo)
    wanted = terms(epsilon_max=epsilon, valid_until=start + days * DAY)
    made = document(terms=wanted, seq=seq, prev="a" * 64, mechanism=mechanism, valid_from=start)
    opened = open_record(sign_record(made, ANNA, created=NOW))
    assert (opened.terms, opened.seq, opened.prev, opened.mechanism) == (wanted, seq, "a" * 64, mechanism)
    assert open_record(opened.canonical) == opened
    assert canonical_bytes(json.loads(opened.canonical)) == opened.canonical

"""Evidence of split views: made from real forked logs, believed only where it proves what it says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes, parse
from federation.rules.checkpoint import Checkpoint, SignedCheckpoint, cosign, sign_checkpoint
from federation.rules.equivocation import EVIDENCE_BYTES_MAX, Evidence, two_leaves, two_roots, verify_evidence
from federation.rules.keys import PrivateKey
from federation.rules.merkle import leaf_hash, root

OPERATOR = PrivateKey(bytes([9]) * 32)
OTHER = PrivateKey(bytes([8]) * 32)
ORIGIN = "consent/did:key:z6MkTest"


def leaves(text: str) -> list[bytes]:
    return [leaf_hash(letter.encode()) for letter in text]


def signed(text: str, *, key: PrivateKey = OPERATOR, origin: str = ORIGIN) -> SignedCheckpoint:
    return sign_checkpoint(Checkpoint(origin, len(text), root(leaves(text))), key)


def of_leaves(one: str, other: str) -> Evidence | None:
    return two_leaves(signed(one), leaves(one), signed(other), leaves(other))


def altered(evidence: Evidence, **changes: object) -> bytes:
    return canonical_bytes({**parse(evidence.to_payload()), **changes}) + b"\n"


def test_two_trees_of_one_size_are_evidence() -> None:
    evidence = two_roots(signed("abc"), signed("abd"))
    assert evidence is not None
    found = verify_evidence(evidence.to_bytes(), signer=OPERATOR.public)
    assert (found.kind, found.origin, found.sizes, found.index) == ("two-roots", ORIGIN, (3, 3), None)
    assert found.signer == OPERATOR.public
    assert "two different trees of 3 entries" in found.sentence


def test_trees_of_two_sizes_that_differ_in_an_entry_are_evidence() -> None:
    evidence = of_leaves("abcde", "abX")
    assert evidence is not None
    found = verify_evidence(evidence.to_bytes(), signer=OPERATOR.public)
    assert (found.kind, sorted(found.sizes), found.index) == ("two-leaves", [3, 5], 2)
    assert "differ in entry 2" in found.sentence


@given(
    st.text("abc", min_size=1, max_size=12),
    st.text("abc", min_size=1, max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_there_is_evidence_exactly_where_one_tree_does_not_extend_the_other(one: str, other: str) -> None:
    forked = not (one.startswith(other) or other.startswith(one))
    evidence = of_leaves(one, other)
    assert (evidence is not None) == forked
    if evidence is not None:
        found = verify_evidence(evidence.to_bytes())
        assert found.index == next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    same_size = len(one) == len(other)
    assert (two_roots(signed(one), signed(other)) is not None) == (same_size and one != other)


def test_one_case_has_one_file_whoever_keeps_it() -> None:
    one, other = signed("abc"), signed("abd")
    cosigned = one.with_cosignatures([cosign(one.checkpoint, OTHER, timestamp=5)])
    first, second = two_roots(cosigned, other), two_roots(other, one)
    assert first is not None
    assert second is not None
    assert first.to_bytes() == second.to_bytes()
    assert len(first.to_bytes()) < EVIDENCE_BYTES_MAX


def test_growth_other_keys_and_other_logs_are_no_evidence() -> None:
    assert two_roots(signed("abc"), signed("abc")) is None
    assert two_roots(signed("abc"), signed("abcd")) is None
    assert two_roots(signed("abc"), signed("abd", key=OTHER)) is None
    assert two_roots(signed("abc"), signed("abd", origin="consent/other")) is None
    assert of_leaves("ab", "abcd") is None
    assert two_leaves(signed("abc"), leaves("abX"), signed("abcd"), leaves("abcd")) is None, "not that tree's leaves"


def test_another_key_is_not_accused() -> None:
    evidence = two_roots(signed("abc"), signed("abd"))
    assert evidence is not None
    with pytest.raises(PeerError, match="it is about"):
        verify_evidence(evidence.to_bytes(), signer=OTHER.public)
    with pytest.raises(PeerError):
        verify_evidence(altered(evidence, signer=OTHER.public.did))


def test_nobody_can_make_evidence_against_an_honest_operator() -> None:
    """Each way to pass growth, or one tree twice, off as a fork."""
    forked = of_leaves("abcde", "abX")
    roots = two_roots(signed("abc"), signed("abd"))
    assert forked is not None
    assert roots is not None
    note = signed("abcd").to_bytes().decode()
    leaf = leaves("abcd")[1].hex()
    attempts = [
        altered(roots, second=parse(roots.to_payload())["first"]),
        altered(roots, first=parse(roots.to_payload())["second"], second=parse(roots.to_payload())["first"]),
        altered(roots, second={"checkpoint": note, "proof": []}),
        altered(roots, first={"checkpoint": signed("abc").to_bytes().decode(), "leaf": leaf, "proof": []}),
        altered(roots, kind="two-leaves"),
        altered(forked, kind="two-roots"),
        altered(forked, index=1),
        altered(forked, first={**parse(forked.to_payload())["first"], "leaf": leaf}),
        altered(forked, first={**parse(forked.to_payload())["first"], "proof": []}),
        altered(forked, second=parse(forked.to_payload())["first"]),
        altered(forked, extra=1),
    ]
    for attempt in attempts:
        with pytest.raises(PeerError):
            verify_evidence(attempt)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{}\n", b"[]\n", b"\xff\n", b"{", b"x" * (EVIDENCE_BYTES_MAX + 9) + b"\n"]
)
def test_garbage_is_a_peer_s_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        verify_evidence(data)


def test_every_flipped_byte_ruins_evidence() -> None:
    evidence = of_leaves("abcde", "abX")
    assert evidence is not None
    data = evidence.to_bytes()
    for place in range(0, len(data), 7):
        with pytest.raises(PeerError):
            verify_evidence(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], signer=OPERATOR.public)

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.rules.proof import add_proof, proof_hash, verify_proof
from federation.errors import ConsentError
from federation.rules.keys import PrivateKey

CREATED = datetime(2026, 11, 22, 0, 10, tzinfo=UTC)
VECTORS = Path(__file__).parents[2] / "vectors"


@pytest.fixture
def vector() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / "eddsa_jcs_2022.json").read_text(encoding="utf-8"))
    return loaded


def test_our_vector_is_reproduced_byte_for_byte(vector: dict[str, Any]) -> None:
    key = PrivateKey(bytes.fromhex(vector["seed"]))
    assert proof_hash(vector["document"], vector["proofConfig"]).hex() == vector["hash"]
    signed = add_proof(vector["document"], key, created=CREATED)
    assert signed["proof"] == {**vector["proofConfig"], "proofValue": vector["proofValue"]}
    assert verify_proof(signed) == (key.public, CREATED)


def test_the_published_vectors_are_reproduced(shared_dir: Path) -> None:
    folder = shared_dir / "vectors" / "eddsa-jcs-2022"
    document = json.loads((folder / "unsigned.json").read_text())
    config = json.loads((folder / "proofConfigJCS.json").read_text())
    signed = json.loads((folder / "signedJCS.json").read_text())
    assert proof_hash(document, config).hex() == (folder / "combinedHashJCS.txt").read_text().strip()
    signer, created = verify_proof(signed)
    pair = json.loads((folder / "keyPair.json").read_text())
    assert signer.multibase == pair["publicKeyMultibase"]
    assert created == datetime(2023, 2, 24, 23, 36, 38, tzinfo=UTC)
    assert signed["proof"]["proofValue"] == (folder / "sigBTC58JCS.txt").read_text().strip()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "Ed25519Signature2020"),
        ("cryptosuite", "eddsa-rdfc-2022"),
        ("proofPurpose", "authentication"),
        ("created", "2026-11-22T00:10:01Z"),
        ("created", "yesterday"),
        ("created", 7),
        ("@context", ["https://www.w3.org/ns/credentials/v2"]),
        ("verificationMethod", "did:key:z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2#other"),
        ("verificationMethod", "https://example.org/key"),
        ("verificationMethod", None),
        ("proofValue", "z1"),
        ("proofValue", "zIl0O"),
        ("proofValue", "z" + "1" * 500),
        ("proofValue", 4),
        ("extra", "field"),
    ],
)
def test_a_changed_proof_is_refused(vector: dict[str, Any], field: str, value: Any) -> None:
    proof = {**vector["proofConfig"], "proofValue": vector["proofValue"], field: value}
    with pytest.raises(ConsentError):
        verify_proof({**vector["document"], "proof": proof})


@pytest.mark.parametrize("proof", [None, [], "text", {}])
def test_a_document_without_one_proof_is_refused(vector: dict[str, Any], proof: Any) -> None:
    with pytest.raises(ConsentError):
        verify_proof({**vector["document"], "proof": proof})
    with pytest.raises(ConsentError):
        verify_proof(vector["document"])


def test_a_context_that_only_begins_with_the_signed_one_is_refused(vector: dict[str, Any]) -> None:
    document = {**vector["document"], "@context": [*vector["document"]["@context"], "https://example.org/more"]}
    proof = {**vector["proofConfig"], "proofValue": vector["proofValue"]}
    with pytest.raises(ConsentError, match="context"):
        verify_proof({**document, "proof": proof})


def test_a_small_order_key_signs_nothing(vector: dict[str, Any]) -> None:
    # The neutral element accepts one signature for every message; `cryptography` alone would take it.
    import base58

    multibase = "z" + base58.b58encode(b"\xed\x01" + b"\x01" + bytes(31)).decode()
    proof = {
        **vector["proofConfig"],
        "verificationMethod": f"did:key:{multibase}#{multibase}",
        "proofValue": "z" + base58.b58encode(b"\x01" + bytes(63)).decode(),
    }
    with pytest.raises(ConsentError, match="strong"):
        verify_proof({**vector["document"], "proof": proof})


@given(
    seed=st.binary(min_size=32, max_size=32),
    words=st.dictionaries(st.text(max_size=8), st.text(max_size=12) | st.integers(-(2**53) + 1, 2**53 - 1), max_size=4),
)
def test_what_is_signed_verifies_and_one_change_more_does_not(seed: bytes, words: dict[str, Any]) -> None:
    key = PrivateKey(seed)
    signed = add_proof({"@context": ["https://example.org"], "words": words}, key, created=CREATED)
    assert verify_proof(signed) == (key.public, CREATED)
    assert verify_proof(json.loads(json.dumps(signed))) == (key.public, CREATED)
    with pytest.raises(ConsentError):
        verify_proof({**signed, "words": {**words, "and": "more"}})


def test_signing_twice_is_a_mistake_of_the_caller(vector: dict[str, Any]) -> None:
    key = PrivateKey(bytes.fromhex(vector["seed"]))
    with pytest.raises(ValueError, match="no proof"):
        add_proof({**vector["document"], "proof": {}}, key, created=CREATED)
    with pytest.raises(ValueError, match="context"):
        add_proof({"a": 1}, key, created=CREATED)

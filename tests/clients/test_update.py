"""An update as it leaves: cut into named pieces, bound by its commitment."""

from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.update import Provenance, cut, prepare_update
from federation.rules.canonical import sha256_hex
from federation.rules.documents import CHUNK_BYTES_MAX, ConsistencyProof, Update, open_signed
from federation.rules.fixedpoint import unpack
from federation.rules.keys import PrivateKey
from federation.rules.terms import Aggregation

KEY = PrivateKey(bytes([1]) * 32)


def prepared(values: list[int], *, nonce: bytes = bytes(32), number: int = 1, party: PrivateKey = KEY):  # noqa: ANN201 - the type is the function's under test
    return prepare_update(
        np.array(values, dtype=np.int64),
        party=party.public,
        study="small-0",
        round_number=number,
        base_model="b" * 64,
        nonce=nonce,
        aggregation=Aggregation(rule="weighted-mean", norm_bound=Decimal(10)),
        provenance=Provenance(
            event={"type": "gaussian", "noise_multiplier": "5"},
            consent_checkpoint="a note",
            consent_consistency=ConsistencyProof(old_size=0),
            dataset_commitment="d" * 64,
            code_hash="c" * 64,
        ),
    )


@given(st.lists(st.integers(-(2**61), 2**61), min_size=1, max_size=50))
def test_the_pieces_joined_are_the_vector_that_the_document_names(values: list[int]) -> None:
    made = prepared(values)
    joined = b"".join(made.chunks)
    assert joined == made.packed
    assert list(unpack(joined, length=len(values))) == values
    assert made.update.update == sha256_hex(joined)
    assert made.update.update_bytes == len(joined)
    assert made.update.chunks == tuple(sha256_hex(chunk) for chunk in made.chunks)


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(-2, 2))
def test_pieces_are_full_but_the_last(pieces: int, more: int) -> None:
    data = bytes(max(1, pieces * CHUNK_BYTES_MAX + more))
    chunks = cut(data)
    assert b"".join(chunks) == data
    assert all(len(chunk) == CHUNK_BYTES_MAX for chunk in chunks[:-1])
    assert 1 <= len(chunks[-1]) <= CHUNK_BYTES_MAX


def test_a_large_model_travels_in_several_pieces() -> None:
    made = prepared([0] * (CHUNK_BYTES_MAX // 8))
    assert len(made.update.chunks) == 2


def test_the_commitment_binds_peer_round_nonce_and_every_number() -> None:
    made = prepared([1, 2, 3])
    assert made.commitment == made.update.commitment(KEY.public)
    others = [
        prepared([1, 2, 4]),
        prepared([1, 2, 3], nonce=bytes([1]) * 32),
        prepared([1, 2, 3], number=2),
        prepared([1, 2, 3], party=PrivateKey(bytes([2]) * 32)),
    ]
    assert len({made.commitment.commitment, *(other.commitment.commitment for other in others)}) == 5


def test_a_signed_update_opens_to_itself() -> None:
    made = prepared([1, 2, 3])
    update, envelope = open_signed(Update, made.update.sign(KEY).to_bytes(), signer=KEY.public)
    assert update == made.update
    assert update.commitment(envelope.signer) == made.commitment

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import OperatorError, PeerError
from federation.rules.checkpoint import (
    NOTE_BYTES_MAX,
    TIMESTAMP_MAX,
    Checkpoint,
    Cosignature,
    SignedCheckpoint,
    cosign,
    cosignature_line,
    finality_quorum,
    key_id,
    open_checkpoint,
    parse_cosignature_line,
    sign_checkpoint,
    verify_cosignature,
)
from federation.rules.keys import PrivateKey
from federation.rules.merkle import leaf_hash, root

COORDINATOR = PrivateKey(bytes([9]) * 32)
WITNESSES = [PrivateKey(bytes([seed]) * 32) for seed in (1, 2, 3, 4)]
PUBLIC = [key.public for key in WITNESSES]
ORIGIN = "accord.example/heart"
CHECKPOINT = Checkpoint(ORIGIN, 3, root([leaf_hash(b"a"), leaf_hash(b"b"), leaf_hash(b"c")]))


def note(count: int = 4) -> SignedCheckpoint:
    signed = sign_checkpoint(CHECKPOINT, COORDINATOR)
    return signed.with_cosignatures(cosign(CHECKPOINT, key, timestamp=1_795_000_000) for key in WITNESSES[:count])


def opened(data: bytes, origin: str = ORIGIN, signer: PrivateKey = COORDINATOR) -> SignedCheckpoint:
    return open_checkpoint(data, origin=origin, signer=signer.public, witnesses=PUBLIC)


def test_the_note_format_of_go_sumdb() -> None:
    """The key, text and signature published as the example of golang.org/x/mod/sumdb/note."""
    key = PrivateKey(base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:])
    text = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    expected = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    made = key_id("PeterNeumann", b"\x01", key.public) + key.sign(text)
    assert base64.b64encode(made).decode() == expected


def test_the_body_has_three_lines() -> None:
    checkpoint = Checkpoint("example.com/behind-the-sofa", 20852163, bytes(32))
    assert checkpoint.body() == b"example.com/behind-the-sofa\n20852163\n" + b"A" * 43 + b"=\n"


def test_a_cosignature_signs_the_c2sp_message() -> None:
    cosignature = cosign(CHECKPOINT, WITNESSES[0], timestamp=1679315147)
    message = b"cosignature/v1\ntime 1679315147\n" + CHECKPOINT.body()
    assert PUBLIC[0].verify(cosignature.signature, message)


@settings(max_examples=20)
@given(st.integers(0, 2**53 - 1), st.binary(min_size=32, max_size=32), st.integers(0, 4), st.integers(1, TIMESTAMP_MAX))
def test_what_is_signed_opens_again(size: int, head: bytes, count: int, timestamp: int) -> None:
    checkpoint = Checkpoint(ORIGIN, size, head)
    signed = sign_checkpoint(checkpoint, COORDINATOR)
    signed = signed.with_cosignatures(cosign(checkpoint, key, timestamp=timestamp) for key in WITNESSES[:count])
    assert opened(signed.to_bytes()) == signed


@settings(max_examples=150)
@given(st.integers(0, len(note(2).to_bytes()) - 1), st.integers(1, 255))
def test_a_flipped_byte_anywhere_is_refused(place: int, flip: int) -> None:
    data = bytearray(note(2).to_bytes())
    data[place] ^= flip
    with pytest.raises(PeerError):
        opened(bytes(data))


@given(st.binary(max_size=200))
def test_noise_is_refused_with_our_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        opened(data)


@given(st.text(max_size=200))
def test_a_noise_line_is_refused_with_our_error(text: str) -> None:
    with pytest.raises(PeerError):
        parse_cosignature_line(text, PUBLIC[0])


def test_cosignatures_are_sorted_whatever_their_order_of_arrival() -> None:
    signed = sign_checkpoint(CHECKPOINT, COORDINATOR)
    parts = [cosign(CHECKPOINT, key, timestamp=5) for key in WITNESSES]
    forward, backward = signed.with_cosignatures(parts), signed.with_cosignatures(reversed(parts))
    assert forward.to_bytes() == backward.to_bytes()
    names = [item.witness.did for item in forward.cosignatures]
    assert names == sorted(names)


def test_the_later_of_two_cosignatures_by_one_witness_counts() -> None:
    early, late = (cosign(CHECKPOINT, WITNESSES[0], timestamp=time) for time in (5, 6))
    signed = sign_checkpoint(CHECKPOINT, COORDINATOR)
    assert signed.with_cosignatures([late, early]).cosignatures == (late,)
    assert signed.with_cosignatures([early]).with_cosignatures([late]).cosignatures == (late,)


def test_a_cosignature_travels_as_its_line() -> None:
    cosignature = cosign(CHECKPOINT, WITNESSES[0], timestamp=7)
    assert parse_cosignature_line(cosignature_line(cosignature), PUBLIC[0]) == cosignature
    with pytest.raises(PeerError):
        parse_cosignature_line(cosignature_line(cosignature), PUBLIC[1])


def test_a_cosignature_of_another_checkpoint_or_time_is_refused() -> None:
    cosignature = cosign(CHECKPOINT, WITNESSES[0], timestamp=7)
    with pytest.raises(PeerError):
        verify_cosignature(Checkpoint(ORIGIN, 4, CHECKPOINT.root), cosignature)
    with pytest.raises(PeerError):
        verify_cosignature(CHECKPOINT, Cosignature(PUBLIC[0], 8, cosignature.signature))
    with pytest.raises(PeerError):
        sign_checkpoint(CHECKPOINT, COORDINATOR).with_cosignatures([Cosignature(PUBLIC[1], 7, cosignature.signature)])


def test_another_log_another_signer_and_an_unknown_witness_are_refused() -> None:
    data = note().to_bytes()
    with pytest.raises(PeerError, match="of the log"):
        opened(data, origin="accord.example/weather")
    with pytest.raises(PeerError):
        opened(data, signer=WITNESSES[0])
    with pytest.raises(PeerError, match="not a witness"):
        open_checkpoint(note(2).to_bytes(), origin=ORIGIN, signer=COORDINATOR.public, witnesses=PUBLIC[1:])


def test_a_repeated_or_disordered_line_is_refused() -> None:
    head, first, second = note(2).to_bytes().decode().rsplit("\n", 3)[:3]
    for lines in ([first, first], [second, first]):
        with pytest.raises(PeerError, match="repeated or out of order"):
            opened(("\n".join([head, *lines]) + "\n").encode())


@pytest.mark.parametrize("size", ["03", "-3", "3 ", "٣", "9" * 20, ""])
def test_a_size_that_is_not_a_plain_number_is_refused(size: str) -> None:
    with pytest.raises(PeerError):
        opened(note().to_bytes().replace(b"\n3\n", b"\n" + size.encode() + b"\n", 1))


def test_extension_lines_and_long_notes_are_refused() -> None:
    with pytest.raises(PeerError, match="lines"):
        opened(note().to_bytes().replace(b"\n\n", b"\nextension\n\n", 1))
    with pytest.raises(PeerError, match="more than"):
        opened(b"x" * (NOTE_BYTES_MAX + 1))


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nbreak", "x" * 201, "nbsp\u00a0", "\ud800"])
def test_a_name_that_a_note_cannot_hold_is_refused(origin: str) -> None:
    with pytest.raises(PeerError):
        Checkpoint(origin, 1, bytes(32))


def test_bad_sizes_roots_and_times_are_refused() -> None:
    with pytest.raises(PeerError):
        Checkpoint(ORIGIN, -1, bytes(32))
    with pytest.raises(PeerError):
        Checkpoint(ORIGIN, 1, bytes(31))
    for timestamp in (0, TIMESTAMP_MAX + 1):
        with pytest.raises(PeerError):
            cosign(CHECKPOINT, WITNESSES[0], timestamp=timestamp)


def test_finality_quorum_leaves_an_honest_witness_in_every_two() -> None:
    assert [finality_quorum(count) for count in range(1, 11)] == [1, 2, 2, 3, 4, 4, 5, 6, 6, 7]
    for count in range(1, 200):
        quorum, faulty = finality_quorum(count), (count - 1) // 3
        assert 2 * quorum - count > faulty
        assert quorum <= count
    with pytest.raises(OperatorError):
        finality_quorum(0)

"""Sealed messages: only the named recipient opens them, for the named study, from the named sender."""

import pytest

from federation.errors import PeerError
from federation.rules.sealing import TAG_BYTES, open_sealed, seal, sealing_key

A, B, C = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
NAMES = {"study": "one", "sender": "a", "recipient": "b"}
SEALED = seal(b"a sketch", secret=A, to=sealing_key(B), **NAMES)


def test_the_recipient_opens_it_and_it_hides_all_but_its_length() -> None:
    assert open_sealed(SEALED, secret=B, by=sealing_key(A), **NAMES) == b"a sketch"
    assert len(SEALED) == len(b"a sketch") + TAG_BYTES
    assert b"sketch" not in SEALED
    assert seal(b"a sketch", secret=A, to=sealing_key(B), **NAMES) == SEALED


@pytest.mark.parametrize("names", [{"study": "two"}, {"sender": "b", "recipient": "a"}, {"recipient": "c"}])
def test_it_opens_for_nothing_else(names: dict[str, str]) -> None:
    with pytest.raises(PeerError, match="does not open"):
        open_sealed(SEALED, secret=B, by=sealing_key(A), **{**NAMES, **names})


def test_neither_a_third_party_nor_a_changed_byte_opens() -> None:
    for secret, by, data in (
        (C, A, SEALED),
        (B, C, SEALED),
        (B, A, SEALED[:-1] + bytes([SEALED[-1] ^ 1])),
        (B, A, b""),
    ):
        with pytest.raises(PeerError, match="does not open"):
            open_sealed(data, secret=secret, by=sealing_key(by), **NAMES)


def test_a_key_of_small_order_is_refused() -> None:
    for public in (bytes(32).hex(), (b"\1" + bytes(31)).hex()):
        with pytest.raises(PeerError, match="X25519"):
            seal(b"a sketch", secret=A, to=public, **NAMES)

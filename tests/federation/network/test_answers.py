import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import AccordError, ConsentError, PeerError
from federation.network.answers import ERROR_BYTES_MAX, encode_error, open_answer
from federation.rules.canonical import canonical_bytes
from federation.rules.keys import PrivateKey

PEER = PrivateKey(b"p" * 32).public


@given(data=st.binary(max_size=200))
def test_nothing_but_accords_errors_leaves_the_parser(data: bytes) -> None:
    with contextlib.suppress(AccordError):
        assert len(open_answer(data, peer=PEER, max_bytes=100)) <= 100


@given(message=st.text(max_size=9000), remedy=st.text(max_size=9000))
def test_an_error_travels_bounded_and_printable(message: str, remedy: str) -> None:
    data = encode_error(ConsentError(message, remedy=remedy))
    assert len(data) <= ERROR_BYTES_MAX
    with pytest.raises(ConsentError) as caught:
        open_answer(data, peer=PEER, max_bytes=0)
    assert caught.value.message.isprintable()
    assert caught.value.remedy.isprintable()


def test_a_class_of_a_later_version_arrives_as_the_peers_error() -> None:
    data = b"\x01" + canonical_bytes({"code": "MoonError", "message": "m", "remedy": "r"})
    with pytest.raises(PeerError) as caught:
        open_answer(data, peer=PEER, max_bytes=0)
    assert type(caught.value) is PeerError


@pytest.mark.parametrize("data", [b"", b"\x02", b"\x01{}", b"\x01[]", b'\x01{"code":1,"message":"m","remedy":"r"}'])
def test_a_malformed_answer_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        open_answer(data, peer=PEER, max_bytes=10)

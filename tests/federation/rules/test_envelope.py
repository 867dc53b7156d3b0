"""Signed envelopes: what is not exactly what was signed is refused, and nothing is read before it is verified."""

import base64
import json

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes
from federation.rules.envelope import open_envelope, pre_authentication_encoding, sign
from federation.rules.keys import PrivateKey

KEY = PrivateKey(bytes([1]) * 32)
OTHER = PrivateKey(bytes([2]) * 32)
TYPE = "application/vnd.accord.test.v1+json"
PAYLOAD = b'{"a":1}'
ENVELOPE = sign(PAYLOAD, TYPE, KEY)


def with_field(name: str, value: object) -> bytes:
    return canonical_bytes({**json.loads(ENVELOPE.to_bytes()), name: value})


def refused(data: bytes, because: str = "") -> None:
    with pytest.raises(PeerError) as error:
        open_envelope(data, payload_type=TYPE)
    assert because in error.value.message
    assert error.value.remedy


def test_the_signed_bytes_are_those_of_dsse() -> None:
    # DSSE v1.0, protocol.md, its own example.
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(st.binary(max_size=200), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_an_envelope_opens_to_what_was_signed(payload: bytes, payload_type: str) -> None:
    envelope = sign(payload, payload_type, KEY)
    assert open_envelope(envelope.to_bytes(), payload_type=payload_type, signer=KEY.public) == envelope
    assert open_envelope(envelope.to_bytes(), payload_type=payload_type) == envelope
    assert envelope.payload == payload


@given(st.data())
def test_every_byte_counts(data: st.DataObject) -> None:
    raw = bytearray(ENVELOPE.to_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[place]))
    refused(bytes(raw))


@given(st.binary(max_size=300))
def test_garbage_leaks_only_the_peer_s_error(data: bytes) -> None:
    refused(data)


def test_a_signature_for_one_type_is_none_for_another() -> None:
    with pytest.raises(PeerError, match="it is of type"):
        open_envelope(ENVELOPE.to_bytes(), payload_type="application/vnd.accord.other.v1+json")
    relabelled = with_field("payloadType", "application/vnd.accord.other.v1+json")
    with pytest.raises(PeerError, match="signature does not match"):
        open_envelope(relabelled, payload_type="application/vnd.accord.other.v1+json")


def test_another_signer_is_refused_even_with_a_good_signature() -> None:
    with pytest.raises(PeerError, match="it is signed by"):
        open_envelope(ENVELOPE.to_bytes(), payload_type=TYPE, signer=OTHER.public)
    refused(with_field("signer", OTHER.public.did), "signature does not match")


def test_another_payload_is_refused() -> None:
    refused(with_field("payload", base64.b64encode(b'{"a":2}').decode()), "signature does not match")


@pytest.mark.parametrize(
    "payload", ["eyJhIjoxfR==", "eyJh IjoxfQ==", "eyJhIjoxfQ=", "eyJhIjoxfQ", "*", "eyJhIjoxfQ==\n"]
)
def test_base64_has_one_spelling(payload: str) -> None:
    refused(with_field("payload", payload), "base64")


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_has_64_bytes(length: int) -> None:
    refused(with_field("signature", base64.b64encode(bytes(length)).decode()), "base64")


def test_fields_are_exactly_four_texts() -> None:
    document = json.loads(ENVELOPE.to_bytes())
    refused(canonical_bytes({**document, "note": "more"}), "exactly the fields")
    refused(canonical_bytes({key: value for key, value in document.items() if key != "signer"}), "exactly the fields")
    refused(with_field("signature", 1), "not a string")
    refused(with_field("payload", None), "not a string")
    refused(canonical_bytes([document]), "exactly the fields")


def test_the_encoding_is_canonical() -> None:
    refused(b" " + ENVELOPE.to_bytes(), "canonical form")


def test_a_weak_signer_is_refused() -> None:
    identity = bytes([1]) + bytes(31)
    refused(
        canonical_bytes(
            {
                "payload": base64.b64encode(PAYLOAD).decode(),
                "payloadType": TYPE,
                "signature": base64.b64encode(identity + bytes(32)).decode(),
                "signer": "did:key:z" + base58.b58encode(b"\xed\x01" + identity).decode(),
            }
        ),
        "",
    )


def test_the_size_is_bounded() -> None:
    data = sign(bytes(1000), TYPE, KEY).to_bytes()
    with pytest.raises(PeerError, match="more than the 1000 allowed"):
        open_envelope(data, payload_type=TYPE, max_bytes=1000)

"""Invitations: a string that survives a mail, and nothing that looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import OperatorError
from federation.rules.invitation import PREFIX, Invitation, parse_invitation, token_hash
from federation.rules.keys import PrivateKey

COORDINATOR = PrivateKey(bytes([7]) * 32).public


def invitation(**changes: str) -> Invitation:
    fields = {
        "address": f"/ip4/127.0.0.1/tcp/4001/p2p/{COORDINATOR.peer_id}",
        "study": "heart-0123456789ab",
        "site": "va_long_beach",
        "token": "ab" * 32,
    }
    return Invitation.model_validate({**fields, **changes})


def test_an_invitation_comes_back_and_names_the_coordinator() -> None:
    text = str(invitation())
    assert text.startswith("accord1.")
    assert "=" not in text
    assert parse_invitation(text) == parse_invitation(f"  {text}\n") == invitation()
    assert parse_invitation(text).coordinator == COORDINATOR


@given(st.binary(min_size=32, max_size=32), st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True))
def test_every_invitation_comes_back(token: bytes, site: str) -> None:
    made = invitation(token=token.hex(), site=site)
    assert parse_invitation(str(made)) == made


@given(st.integers(0, 10_000), st.sampled_from("ABCxyz019-_"))
def test_a_changed_letter_never_passes_for_the_same_invitation(place: int, letter: str) -> None:
    text = str(invitation())
    place %= len(text)
    changed = text[:place] + letter + text[place + 1 :]
    try:
        read = parse_invitation(changed)
    except OperatorError:
        return
    assert changed == text or read != invitation() or str(read) == text


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_part_of_an_invitation_is_refused(cut: int) -> None:
    with pytest.raises(OperatorError, match="not an invitation, or a part of it is missing") as refused:
        parse_invitation(str(invitation())[:-cut])
    assert "whole string" in refused.value.remedy


@pytest.mark.parametrize(
    "text", ["", "accord1.", "accord2.eyJ", "hello", PREFIX + "e30", PREFIX + "*", PREFIX + "A" * 3000, "é"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(OperatorError):
        parse_invitation(text)


def test_an_address_without_a_key_is_no_invitation() -> None:
    made = invitation(address="/ip4/127.0.0.1/tcp/4001")
    with pytest.raises(OperatorError):
        parse_invitation(str(made))


def test_the_coordinator_keeps_a_hash_that_does_not_tell_the_token() -> None:
    made = invitation()
    assert made.token_hash == token_hash(made.token) != made.token
    assert token_hash("ab" * 32) != token_hash("ac" * 32)

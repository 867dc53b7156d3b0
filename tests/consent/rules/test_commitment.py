from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.rules.commitment import batch_bytes, commitment, open_batch
from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes

NOW = datetime(2026, 11, 22, tzinfo=UTC)
values = st.lists(st.binary(min_size=32, max_size=32), min_size=8, max_size=8, unique=True)


def test_the_commitment_is_this_value() -> None:
    # SHA-256("accord/consent-commitment" 00 | 8-byte length, salt | 8-byte length, record), made with hashlib alone.
    expected = "261dc746bae5a68e1a030aab373be05c220a1a988025706ae382a4b5c4a57f2f"
    assert commitment(bytes(32), b"record").hex() == expected


def test_a_short_salt_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        commitment(b"short", b"record")


@given(values, st.integers(0, 8), st.integers(0, 10**9))
def test_neither_number_nor_bytes_tell_how_many_decided(drawn: list[bytes], real: int, later_s: int) -> None:
    later = NOW + timedelta(seconds=later_s)
    data = batch_bytes(drawn[:real], size=8, padding=drawn[real:], appended_at=later)
    nobody = batch_bytes([], size=8, padding=drawn, appended_at=later)
    assert data == nobody
    assert len(data) == len(batch_bytes([], size=8, padding=drawn, appended_at=NOW))
    assert open_batch(data).commitments == tuple(sorted(value.hex() for value in drawn))


@pytest.mark.parametrize(("count", "size"), [(9, 8), (7, 8), (0, 0), (8193, 8193)])
def test_a_batch_of_another_size_is_a_mistake_of_the_caller(count: int, size: int) -> None:
    drawn = [index.to_bytes(32, "big") for index in range(count)]
    with pytest.raises(ValueError, match="cannot hold"):
        batch_bytes(drawn, size=size, padding=[], appended_at=NOW)


def test_a_repeated_or_short_value_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="distinct"):
        batch_bytes([bytes(32)], size=2, padding=[bytes(32)], appended_at=NOW)
    with pytest.raises(ValueError, match="distinct"):
        batch_bytes([b"short"], size=1, padding=[], appended_at=NOW)


def test_a_batch_out_of_order_is_refused() -> None:
    drawn = [bytes([index]) * 32 for index in range(3)]
    good = open_batch(batch_bytes(drawn, size=3, padding=[], appended_at=NOW))
    swapped = good.model_dump(mode="json") | {"commitments": [value.hex() for value in reversed(drawn)]}
    with pytest.raises(PeerError, match="order"):
        open_batch(canonical_bytes(swapped))
    with pytest.raises(PeerError):
        open_batch(b"{}")

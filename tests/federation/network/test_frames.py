import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import PeerError, UnavailableError
from federation.network.frames import HEADER_BYTES, PIECE_BYTES, FrameReader, pieces


@given(payload=st.binary(max_size=3 * PIECE_BYTES), sizes=st.lists(st.integers(1, 70_000), max_size=20))
def test_what_is_framed_is_read_back_however_it_is_cut(payload: bytes, sizes: list[int]) -> None:
    stream = b"".join(pieces(payload))
    reader, position = FrameReader(len(payload)), 0
    while reader.wanted:
        step = min(reader.wanted, sizes[position % len(sizes)] if sizes else reader.wanted)
        reader.feed(stream[position : position + step])
        position += step
    assert reader.payload() == payload
    assert position == len(stream)


@given(size=st.integers(0, 4 * PIECE_BYTES))
def test_no_piece_overfills_a_noise_message(size: int) -> None:
    cut = list(pieces(bytes(size)))
    assert all(0 < len(piece) <= PIECE_BYTES for piece in cut)
    assert sum(map(len, cut)) == size + HEADER_BYTES
    assert all(len(piece) == PIECE_BYTES for piece in cut[:-1])


@given(size=st.integers(0, 4 * PIECE_BYTES), lengths=st.lists(st.integers(HEADER_BYTES, PIECE_BYTES), min_size=1))
def test_pieces_are_as_long_as_the_line_allows_and_join_to_the_same_frame(size: int, lengths: list[int]) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    given_ = iter([*lengths, *[PIECE_BYTES] * 5])
    cut = list(pieces(payload, lambda: next(given_)))
    assert b"".join(cut) == b"".join(pieces(payload))
    assert all(len(piece) <= most for piece, most in zip(cut, lengths, strict=False))


def test_a_frame_above_the_bound_is_refused_at_its_header() -> None:
    reader = FrameReader(1000)
    with pytest.raises(PeerError, match="1001 bytes"):
        reader.feed((1001).to_bytes(HEADER_BYTES, "big"))


def test_an_absurd_length_allocates_nothing() -> None:
    reader = FrameReader(2**63)
    reader.feed((2**63).to_bytes(HEADER_BYTES, "big"))
    assert reader.wanted <= 1 << 20


def test_a_stream_that_ends_inside_a_frame_is_refused() -> None:
    reader = FrameReader(10)
    reader.feed((3).to_bytes(HEADER_BYTES, "big"))
    reader.feed(b"ab")
    with pytest.raises(UnavailableError, match="broke off"):
        reader.feed(b"")
    assert reader.begun == b"ab"
    with pytest.raises(PeerError, match="not complete"):
        reader.payload()


def test_more_bytes_than_announced_are_refused() -> None:
    reader = FrameReader(10)
    reader.feed((1).to_bytes(HEADER_BYTES, "big"))
    with pytest.raises(PeerError, match="more bytes"):
        reader.feed(b"ab")

"""What one connection may hold of this party's memory: streams, and bytes that came and were not read.

py-libp2p 0.8.1 bounds neither. Its Yamux warns about a peer that sends beyond its window and keeps what it sends, also
on a stream that was answered and is not read any more, and it takes any number of streams. So every connection is
looked at several times a second, and one that holds too much is closed.
"""

from typing import Any, Final

LOOK_S: Final = 0.25
"""How often. What a peer can send in that time is what the bounds may be exceeded by."""
STREAMS_MAX: Final = 1024
STRANGER_STREAMS_MAX: Final = 64
UNREAD_BYTES_MAX: Final = 64 << 20
STRANGER_UNREAD_BYTES_MAX: Final = 1 << 20


def within(muxed: Any, *, known: bool) -> bool:
    """Whether a Yamux connection of py-libp2p keeps to the bounds of a peer that passes the gate, or of a stranger."""
    unread = sum(len(buffer) for buffer in muxed.stream_buffers.values())
    if known:
        return len(muxed.streams) <= STREAMS_MAX and unread <= UNREAD_BYTES_MAX
    return len(muxed.streams) <= STRANGER_STREAMS_MAX and unread <= STRANGER_UNREAD_BYTES_MAX

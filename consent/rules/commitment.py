"""What the institution's log holds of a consent: a salted hash, hidden among others in a batch of fixed size.

Rules kept: the log never holds a record, only SHA-256 over a fresh 256-bit salt and the record, so erasing record and
salt erases the person from the log too. A batch has the same number of commitments and the same number of bytes whether
nobody or everybody decided something, and its commitments are sorted, so neither the tree's size nor a position tells
that, or when, somebody withdrew. Salts and padding are random bytes that the caller draws.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes, tagged_hash
from federation.rules.instant import format_instant, parse_instant
from federation.rules.study import read
from federation.rules.wire import Sha256Hex, Wire

SALT_BYTES: Final = 32
COMMITMENT_BYTES: Final = 32
BATCH_SIZE_MAX: Final = 8192
_BATCH_BYTES_MAX: Final = 1 << 20


def commitment(salt: bytes, record: bytes) -> bytes:
    """The commitment to a record's canonical bytes, 32 bytes.

    Raises:
        ValueError: the salt is not 32 bytes (a mistake of the caller).
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, this one {len(salt)}")
    return tagged_hash("consent-commitment", salt, record)


class Batch(Wire):
    """One log entry of a consent log: ``size`` sorted commitments, real ones and padding alike."""

    version: Literal[1] = 1
    kind: Literal["consent-batch"] = "consent-batch"
    appended_at: str
    commitments: Annotated[tuple[Sha256Hex, ...], Field(min_length=1, max_length=BATCH_SIZE_MAX)]


def batch_bytes(commitments: Sequence[bytes], *, size: int, padding: Sequence[bytes], appended_at: datetime) -> bytes:
    """The canonical bytes of a batch; their number depends on ``size`` alone.

    Args:
        commitments: at most ``size`` values of 32 bytes.
        size: commitments in a batch, real and padding.
        padding: exactly ``size - len(commitments)`` fresh random values of 32 bytes.
        appended_at: when the batch was closed.

    Raises:
        ValueError: a count or a length is wrong, or a value appears twice (mistakes of the caller).
    """
    values = [*commitments, *padding]
    if len(values) != size or not 1 <= size <= BATCH_SIZE_MAX:
        raise ValueError(f"a batch of {size} cannot hold {len(commitments)} commitments and {len(padding)} paddings")
    if any(len(value) != COMMITMENT_BYTES for value in values) or len(set(values)) != size:
        raise ValueError(f"commitments and paddings are distinct values of {COMMITMENT_BYTES} bytes")
    batch = Batch(appended_at=format_instant(appended_at), commitments=tuple(sorted(value.hex() for value in values)))
    return canonical_bytes(batch.model_dump(mode="json"))


def open_batch(data: bytes) -> Batch:
    """Read a batch from a log.

    Raises:
        PeerError: malformed, or its commitments are not sorted and distinct.
    """
    batch = read(Batch, data, max_bytes=_BATCH_BYTES_MAX)
    parse_instant(batch.appended_at)
    if list(batch.commitments) != sorted(set(batch.commitments)):
        raise PeerError("A consent batch is not in order.", remedy="Ask the institution for its log again.")
    return batch

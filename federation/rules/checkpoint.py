"""Checkpoints: the signed head of a log, and the witnesses' timestamped cosignatures under it.

Formats, byte for byte: C2SP ``tlog-checkpoint`` (origin, size, root), C2SP ``signed-note`` (text, blank line, signature
lines; key id type 0x01) and C2SP ``tlog-cosignature`` (``cosignature/v1``, type 0x04). The operator's key name is the
log's origin; a witness's key name is its ``did:key``. A checkpoint here has no extension lines, and its cosignature
lines are sorted by witness, so that one signed checkpoint has exactly one encoding. Stricter than C2SP asks, an
unknown, repeated or unverifiable line refuses the whole note: no byte of it stays unproven.
"""

import base64
import binascii
import hashlib
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from federation.errors import OperatorError, PeerError
from federation.rules.keys import SIGNATURE_BYTES, PrivateKey, PublicKey
from federation.rules.merkle import HASH_BYTES

NOTE_BYTES_MAX: Final = 64 * 1024
ORIGIN_CHARACTERS_MAX: Final = 200
SIZE_MAX: Final = 2**53 - 1
TIMESTAMP_MAX: Final = 253_402_300_799
"""The last second of the year 9999: a calendar has to hold what a witness says."""
_SIGNATURE_TYPE: Final = b"\x01"
_COSIGNATURE_TYPE: Final = b"\x04"
_KEY_ID_BYTES: Final = 4
_TIMESTAMP_BYTES: Final = 8
_LINE_START: Final = "\N{EM DASH} "
_BODY_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: its ``origin`` (name), ``size`` (entries) and ``root`` (32 bytes).

    Raises:
        PeerError: on construction, for a name that a note cannot hold, an absurd size, or a root of another length.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.origin):
            raise _refused(f"{self.origin[:80]!r} cannot be the origin of a log")
        if not 0 <= self.size <= SIZE_MAX:
            raise _refused(f"a log cannot have {self.size} entries")
        if len(self.root) != HASH_BYTES:
            raise _refused(f"its root does not have {HASH_BYTES} bytes")

    def body(self) -> bytes:
        """The note's text, which is what is signed: three lines, each with its newline (C2SP tlog-checkpoint)."""
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n".encode()


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's word that it saw this tree, consistent with all it saw before, at ``timestamp`` (POSIX seconds)."""

    witness: PublicKey
    timestamp: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint signed by its log's operator, with the cosignatures collected so far (sorted by witness did)."""

    checkpoint: Checkpoint
    signer: PublicKey
    signature: bytes
    cosignatures: tuple[Cosignature, ...] = ()

    def to_bytes(self) -> bytes:
        """The note: UTF-8 text, a blank line, the operator's line, then one line for each cosignature."""
        line = _signature_line(self.checkpoint.origin, _SIGNATURE_TYPE, self.signer, self.signature)
        lines = [line, *(cosignature_line(item) for item in self.cosignatures)]
        return self.checkpoint.body() + b"\n" + "".join(text + "\n" for text in lines).encode()

    def with_cosignatures(self, cosignatures: Iterable[Cosignature]) -> "SignedCheckpoint":
        """This checkpoint with more cosignatures; of two by one witness, the later counts.

        Raises:
            PeerError: a cosignature does not verify.
        """
        merged = {item.witness.did: item for item in self.cosignatures}
        for item in cosignatures:
            verify_cosignature(self.checkpoint, item)
            known = merged.get(item.witness.did)
            if known is None or known.timestamp < item.timestamp:
                merged[item.witness.did] = item
        return replace(self, cosignatures=tuple(merged[did] for did in sorted(merged)))


def finality_quorum(witnesses: int) -> int:
    """How many of ``witnesses`` must cosign until a checkpoint is final: floor((n + f) / 2) + 1.

    Here n is the number of witnesses and f = floor((n - 1) / 3) how many of them may lie.
    Any two quorums then share an honest witness while at most f of them lie.

    Raises:
        OperatorError: there is no witness.
    """
    if witnesses < 1:
        raise OperatorError("A log without witnesses has no final entries.", remedy="Name at least one witness.")
    faulty = (witnesses - 1) // 3
    return (witnesses + faulty) // 2 + 1


def sign_checkpoint(checkpoint: Checkpoint, key: PrivateKey) -> SignedCheckpoint:
    """Sign as the log's operator (C2SP signed-note, Ed25519)."""
    return SignedCheckpoint(checkpoint=checkpoint, signer=key.public, signature=key.sign(checkpoint.body()))


def cosign(checkpoint: Checkpoint, key: PrivateKey, *, timestamp: int) -> Cosignature:
    """Cosign as a witness at ``timestamp`` (POSIX seconds). Whether to do so is decided by the caller, before.

    Raises:
        PeerError: the timestamp is negative or absurd.
    """
    _check_timestamp(timestamp)
    signature = key.sign(_cosigned_message(checkpoint, timestamp))
    return Cosignature(witness=key.public, timestamp=timestamp, signature=signature)


def verify_cosignature(checkpoint: Checkpoint, cosignature: Cosignature) -> None:
    """Check that the witness made this cosignature, for this checkpoint and at its timestamp.

    Raises:
        PeerError: it did not.
    """
    _check_timestamp(cosignature.timestamp)
    message = _cosigned_message(checkpoint, cosignature.timestamp)
    if not cosignature.witness.verify(cosignature.signature, message):
        raise _refused(f"the cosignature by {cosignature.witness.did} does not match size {checkpoint.size}")


def cosignature_line(cosignature: Cosignature) -> str:
    """The cosignature as a note's signature line, without newline: also its form on the wire."""
    signed = cosignature.timestamp.to_bytes(_TIMESTAMP_BYTES, "big") + cosignature.signature
    return _signature_line(cosignature.witness.did, _COSIGNATURE_TYPE, cosignature.witness, signed)


def parse_cosignature_line(text: str, witness: PublicKey) -> Cosignature:
    """Read a line that must be by ``witness``; the signature itself is checked by :func:`verify_cosignature`.

    Raises:
        PeerError: malformed, or another witness's.
    """
    signed = _parse_line(text, witness.did, _COSIGNATURE_TYPE, witness, length=_TIMESTAMP_BYTES + SIGNATURE_BYTES)
    timestamp = int.from_bytes(signed[:_TIMESTAMP_BYTES], "big")
    _check_timestamp(timestamp)
    return Cosignature(witness=witness, timestamp=timestamp, signature=signed[_TIMESTAMP_BYTES:])


def open_checkpoint(
    data: bytes, *, origin: str, signer: PublicKey, witnesses: Collection[PublicKey]
) -> SignedCheckpoint:
    """Verify a received note: the operator's signature first, then every cosignature, each by one of ``witnesses``.

    How many cosignatures are enough is the caller's question (:func:`finality_quorum`).

    Raises:
        PeerError: too long, malformed, of another log, a line that is unknown, repeated, out of order or wrong, or an
            encoding other than the one of :meth:`SignedCheckpoint.to_bytes`.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise _refused(f"it has {len(data)} bytes, more than the {NOTE_BYTES_MAX} allowed")
    try:
        body, separator, tail = data.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError:
        raise _refused("it is not UTF-8") from None
    if not separator or not tail.endswith("\n"):
        raise _refused("it is not a signed note")
    checkpoint = _parse_body(body, origin)
    first, *rest = tail[:-1].split("\n")
    signature = _parse_line(first, origin, _SIGNATURE_TYPE, signer, length=SIGNATURE_BYTES)
    if not signer.verify(signature, checkpoint.body()):
        raise _refused(f"the signature is not that of {signer.did}")
    opened = SignedCheckpoint(checkpoint, signer, signature, tuple(_cosignatures(checkpoint, rest, witnesses)))
    if opened.to_bytes() != data:
        raise _refused("its encoding is ambiguous")
    return opened


def key_id(name: str, signature_type: bytes, key: PublicKey) -> bytes:
    """The 4 bytes by which a note names a key: SHA-256(name, newline, type, key)[:4] (C2SP signed-note)."""
    return hashlib.sha256(name.encode() + b"\n" + signature_type + key.raw).digest()[:_KEY_ID_BYTES]


def is_key_name(name: str) -> bool:
    """Whether a note can carry this name: not empty, no spaces, no plus, no control characters (C2SP signed-note)."""
    refused = {"Zs", "Zl", "Zp", "Cc", "Cs"}
    return (
        0 < len(name) <= ORIGIN_CHARACTERS_MAX
        and "+" not in name
        and not any(unicodedata.category(character) in refused for character in name)
    )


def _cosignatures(checkpoint: Checkpoint, lines: list[str], witnesses: Collection[PublicKey]) -> Iterable[Cosignature]:
    known = {witness.did: witness for witness in witnesses}
    if len(lines) > len(known):
        raise _refused(f"it has {len(lines)} cosignatures for {len(known)} witnesses")
    previous = ""
    for line in lines:
        name = line.removeprefix(_LINE_START).partition(" ")[0]
        if name not in known:
            raise _refused(f"{name[:80]!r} is not a witness of this log")
        if name <= previous:
            raise _refused(f"the cosignature by {name} is repeated or out of order")
        previous = name
        cosignature = parse_cosignature_line(line, known[name])
        verify_cosignature(checkpoint, cosignature)
        yield cosignature


def _parse_body(body: str, origin: str) -> Checkpoint:
    lines = body.split("\n")
    if len(lines) != _BODY_LINES:
        raise _refused(f"its text has {len(lines)} lines, not {_BODY_LINES}")
    if lines[0] != origin:
        raise _refused(f"it is of the log {lines[0][:80]!r}, not of {origin!r}")
    size = lines[1]
    if not (size.isascii() and size.isdigit()) or len(size) > len(str(SIZE_MAX)) or str(int(size)) != size:
        raise _refused("its size is not a plain number")
    return Checkpoint(origin=origin, size=int(size), root=_decode(lines[2], length=HASH_BYTES))


def _cosigned_message(checkpoint: Checkpoint, timestamp: int) -> bytes:
    return b"cosignature/v1\ntime %d\n%b" % (timestamp, checkpoint.body())


def _signature_line(name: str, signature_type: bytes, key: PublicKey, signature: bytes) -> str:
    return f"{_LINE_START}{name} {_encode(key_id(name, signature_type, key) + signature)}"


def _parse_line(text: str, name: str, signature_type: bytes, key: PublicKey, *, length: int) -> bytes:
    head = f"{_LINE_START}{name} "
    if len(text) > NOTE_BYTES_MAX or not text.startswith(head):
        raise _refused(f"there is no signature line of {name} where one belongs")
    content = _decode(text[len(head) :], length=_KEY_ID_BYTES + length)
    if content[:_KEY_ID_BYTES] != key_id(name, signature_type, key):
        raise _refused(f"the line of {name} was made with another key")
    return content[_KEY_ID_BYTES:]


def _check_timestamp(timestamp: int) -> None:
    if not 0 < timestamp <= TIMESTAMP_MAX:
        raise _refused(f"{timestamp} is not a time")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str, *, length: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refused("a field is not base64") from None
    if len(data) != length or _encode(data) != text:
        raise _refused("a field is not base64 of the right length")
    return data


def _refused(why: str) -> PeerError:
    return PeerError(f"The checkpoint is refused: {why}.", remedy="Fetch it again; if it stays so, keep it.")

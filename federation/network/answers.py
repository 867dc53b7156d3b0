"""What travels back to a requester: an answer, or the error that the handler raised.

One byte says which. An error is canonical JSON with the class's name, the sentence and the remedy, all bounded and free
of control characters, as they end on somebody's terminal. A class that this version does not know arrives as PeerError.
"""

import logging
from typing import Final

from federation.errors import (
    AccordError,
    ConsentError,
    OperatorError,
    PeerError,
    PrivacyError,
    UnavailableError,
    UnprovenSignerError,
)
from federation.network.exchange import Handler
from federation.rules.canonical import canonical_bytes, parse_canonical
from federation.rules.keys import PublicKey

HEADER_BYTES: Final = 1
ERROR_BYTES_MAX: Final = 32 * 1024
_TEXT_CHARACTERS_MAX: Final = 2000
_ANSWER: Final = b"\x00"
_ERROR: Final = b"\x01"
_CLASSES: Final[dict[str, type[AccordError]]] = {
    kind.__name__: kind
    for kind in (OperatorError, UnprovenSignerError, PeerError, PrivacyError, ConsentError, UnavailableError)
}

logger = logging.getLogger(__name__)


def answer(handler: Handler, peer: PublicKey, protocol: str, payload: bytes) -> bytes:
    """Run ``handler`` and encode what it returns or raises. Never raises: this is a task boundary."""
    try:
        return _ANSWER + handler(peer, payload)
    except AccordError as error:
        return encode_error(error)
    except Exception:
        logger.exception("The handler of %s failed on a request of %s.", protocol, peer.did)
        return encode_error(
            PeerError("The other party met an internal error.", remedy="Its log says what happened; ask its operator.")
        )


def encode_error(error: AccordError) -> bytes:
    """``error`` as an answer of at most ``ERROR_BYTES_MAX`` bytes."""
    document = {"code": error.code, "message": _printable(error.message), "remedy": _printable(error.remedy)}
    return _ERROR + canonical_bytes(document)


def open_answer(data: bytes, *, peer: PublicKey, max_bytes: int) -> bytes:
    """The answer inside ``data``.

    Raises:
        PeerError: malformed, or an answer of more than ``max_bytes``.
        AccordError: the error that the peer's handler raised.
    """
    kind, body = data[:HEADER_BYTES], data[HEADER_BYTES:]
    if kind == _ANSWER:
        if len(body) > max_bytes:
            raise _malformed(peer, f"it has {len(body)} bytes, more than the {max_bytes} allowed")
        return body
    if kind != _ERROR:
        raise _malformed(peer, "it is neither an answer nor an error")
    raise _decoded(body, peer)


def begun_answer(data: bytes, *, max_bytes: int) -> bytes:
    """What has come of an answer that broke off; nothing if it was an error, or is longer than ``max_bytes``."""
    kind, body = data[:HEADER_BYTES], data[HEADER_BYTES:]
    return body if kind == _ANSWER and len(body) <= max_bytes else b""


def _decoded(body: bytes, peer: PublicKey) -> AccordError:
    document = parse_canonical(body, max_bytes=ERROR_BYTES_MAX)
    if not isinstance(document, dict) or set(document) != {"code", "message", "remedy"}:
        return _malformed(peer, "its error does not have exactly the fields code, message and remedy")
    if not all(isinstance(text, str) for text in document.values()):
        return _malformed(peer, "a field of its error is not a string")
    kind = _CLASSES.get(document["code"], PeerError)
    return kind(_printable(document["message"]), remedy=_printable(document["remedy"]))


def _malformed(peer: PublicKey, why: str) -> PeerError:
    return PeerError(
        f"The answer of {peer.did} is refused: {why}.", remedy="Both sides need the same version of Accord."
    )


def _printable(text: str) -> str:
    """One line that a terminal can show: no control characters, no lone surrogates, bounded."""
    shown = text.encode("utf-8", "replace").decode("utf-8")[:_TEXT_CHARACTERS_MAX]
    return "".join(character if character.isprintable() else " " for character in shown)

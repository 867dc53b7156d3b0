"""Reading many records that are alike: those of one request differ in the key, the times, the chain and the signature.

A hundred thousand people who agree to the same thing sign the same text around their own few values. Once a record has
been read with care, the canonical text around its values is remembered as a shape. A record that has exactly this text
around values of the same form is canonical JSON too, and would be read to the same fields; so only its values are read:
the key must be a strong one, times must be times, the signature must verify over this record's own bytes. Whatever is
unusual in the least is read with care (:func:`~consent.rules.record.open_record`), which also words every refusal: what
is accepted, and as what, is the same. A property test holds the two against each other.

Only grants that a subject signed for themselves have shapes; withdrawals are few.
"""

import functools
import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from consent.rules.record import RECORD_BYTES_MAX, ConsentRecord, open_record
from consent.rules.signature import signature_of, strong_point, verify
from consent.rules.terms import Action, Terms
from federation.errors import AccordError
from federation.rules.instant import format_instant, parse_instant

SHAPES_MAX: Final = 32
_PREFIX: Final = "did:key:"
_HEX: Final = frozenset(b"0123456789abcdef")


@dataclass(frozen=True, slots=True)
class _Shape:
    """The text around the values of one record.

    All values but the signature have a fixed length, so that places before the signature are counted from the
    beginning, and those behind it from the end.

    Attributes:
        like: the record; its values are not looked at.
        terms: its terms.
        texts: the text between the values, and where it stands.
        values: where each value stands, by its name.
        content: what surrounds the proof: the two parts of the document that was signed.
        config: the two parts of the proof around its ``proofValue``.
    """

    like: ConsentRecord
    terms: Terms
    texts: tuple[tuple[slice, bytes], ...]
    values: Mapping[str, slice]
    content: tuple[slice, slice]
    config: tuple[slice, slice]

    def fits(self, data: bytes) -> bool:
        """Whether the text around the values is this one."""
        return all(data[place] == text for place, text in self.texts)


class AlikeReader:
    """``open_record``, quick where records are alike.

    Args:
        known: dids whose keys were found strong before (:func:`consent.rules.signature.strong_point`).
    """

    def __init__(self, known: Container[str] = ()) -> None:
        self._known = known
        self._shapes: list[_Shape] = []

    def open(self, data: bytes) -> ConsentRecord:
        """Verify and read a record.

        Raises:
            ConsentError: as :func:`~consent.rules.record.open_record`.
        """
        fitting = None
        if len(data) <= RECORD_BYTES_MAX:
            fitting = next((shape for shape in self._shapes if shape.fits(data)), None)
        record = None if fitting is None else _read(fitting, data, self._known)
        if record is not None:
            return record
        record = open_record(data, known=self._known)
        if fitting is None and (shape := _shape_of(record)) is not None:
            self._shapes = [shape, *self._shapes[: SHAPES_MAX - 1]]
        return record


def _read(shape: _Shape, data: bytes, known: Container[str]) -> ConsentRecord | None:
    """The record, if all its values are in order; None leaves it to the careful reader."""
    try:
        values = {name: data[place].decode("ascii") for name, place in shape.values.items()}
        did = values["subject"]
        point = strong_point(did, known=known)
        created, valid_from = _instant(values["created"]), _instant(values["validFrom"])
        valid_until = _instant(values["validUntil"])
    except (AccordError, UnicodeDecodeError):
        return None
    signature = signature_of(values["proofValue"])
    prev, next_key_hash = values.get("prev"), values.get("nextKeyHash")
    in_order = (
        signature is not None
        and values["issuer"] == did
        and values["verificationMethod"] == f"{did}#{did.removeprefix(_PREFIX)}"
        and valid_from < valid_until
        and (prev is None or _HEX.issuperset(prev.encode("ascii")))
        and (next_key_hash is None or _HEX.issuperset(next_key_hash.encode("ascii")))
    )
    content, config = (data[first] + data[second] for first, second in (shape.content, shape.config))
    signed = hashlib.sha256(config).digest() + hashlib.sha256(content).digest()
    if not in_order or signature is None or not verify(point, signature, signed):
        return None
    like, terms = shape.like, shape.terms
    return ConsentRecord(
        canonical=data,
        digest=hashlib.sha256(data).hexdigest(),
        issuer=did,
        subject=did,
        institution=like.institution,
        mechanism=like.mechanism,
        action=like.action,
        terms=Terms(
            purposes=terms.purposes,
            epsilon_max=terms.epsilon_max,
            delta_max=terms.delta_max,
            valid_until=valid_until,
            diseases=terms.diseases,
            conditions=terms.conditions,
            code_hash=terms.code_hash,
            rounds_max=terms.rounds_max,
        ),
        seq=like.seq,
        prev=prev,
        valid_from=valid_from,
        signed_at=created,
        statement=like.statement,
        next_key_hash=next_key_hash,
        hipaa=like.hipaa,
        permit=like.permit,
    )


@functools.lru_cache(maxsize=1 << 14)
def _instant(text: str) -> datetime:
    return parse_instant(text)


def _shape_of(record: ConsentRecord) -> _Shape | None:
    """The shape of a record that was read with care; None if its values cannot be told from the text around them."""
    text, terms, did = record.canonical.decode("utf-8"), record.terms, record.subject
    if record.action is not Action.GRANT or terms is None or record.guardian is not None or record.issuer != did:
        return None
    key = did.removeprefix(_PREFIX)
    proof_value = text.partition('"proofValue":"')[2].partition('"')[0]
    values = {
        "id": did,
        "issuer": did,
        "nextKeyHash": record.next_key_hash,
        "prev": record.prev,
        "created": format_instant(record.signed_at),
        "proofValue": proof_value,
        "verificationMethod": f"{did}#{key}",
        "validFrom": format_instant(record.valid_from),
        "validUntil": format_instant(terms.valid_until),
    }
    members = {name: f'"{name}":"{value}"' for name, value in values.items() if value is not None}
    # The key stands where it is expected and nowhere else: as subject, as issuer, and twice in the method.
    expected = 4
    if not text.isascii() or text.count(key) != expected or any(text.count(each) != 1 for each in members.values()):
        return None
    return _measured(record, terms, text, members)


def _measured(record: ConsentRecord, terms: Terms, text: str, members: Mapping[str, str]) -> _Shape | None:
    """Where everything stands in ``text`` (canonical, so that the members of the proof have a known order)."""
    places = {
        name: (text.index(member) + len(name) + 4, text.index(member) + len(member) - 1)
        for name, member in members.items()
    }
    size, (value_start, value_stop) = len(text), places["proofValue"]
    proof, proof_end = text.index(',"proof":{'), places["verificationMethod"][1] + len('"}')

    def place(start: int, stop: int) -> slice:
        """Counted from the end behind the signature."""
        if stop <= value_start:
            return slice(start, stop)
        return slice(start if start <= value_start else start - size, stop - size if stop < size else None)

    values = {("subject" if name == "id" else name): place(*found) for name, found in places.items()}
    edges = [0, *(edge for found in sorted(places.values()) for edge in found), size]
    between = [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    return _Shape(
        like=record,
        terms=terms,
        texts=tuple((place(start, stop), text[start:stop].encode("ascii")) for start, stop in between),
        values=values,
        content=(place(0, proof), place(proof_end, size)),
        config=(
            place(proof + len(',"proof":'), value_start - len(',"proofValue":"')),
            place(value_stop + 1, proof_end),
        ),
    )

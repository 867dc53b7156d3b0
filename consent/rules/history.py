"""A consent file, judged offline: one record, a receipt, or a whole history with what is known about its log.

A history is a JSON array of records, oldest first, or an object that also says what it is held against:

- ``records``: the array;
- ``head``: the newest record that was acknowledged (``seq``, ``digest``): one that ends elsewhere was rolled back;
- ``asOf``: the moment at which it is judged, instead of the reader's clock;
- ``log``: the institution's log as its witnesses saw it: ``signer`` (did), ``witnesses`` (dids), ``quorum``, ``notes``
  (C2SP signed notes) and ``ageMaxS``, the age in seconds at which the word of enough witnesses counts as stale.

Two notes of one size with different roots show that the log has two faces; a record that stands twice was replayed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, ValidationError

from consent.rules.binding import Witnesses, is_stale, newest_quorum
from consent.rules.chain import broken
from consent.rules.receipt import RECEIPT_BYTES_MAX, ReceiptCredential, open_note, open_receipt
from consent.rules.record import ConsentRecord, open_record
from consent.rules.refusal import RefusedRecordError, refused
from consent.rules.statement import Did, Digest
from consent.rules.wire import SEQ_MAX, Instant, Strict, misfit
from federation.errors import AccordError, PeerError
from federation.rules.canonical import canonical_bytes, parse
from federation.rules.checkpoint import NOTE_BYTES_MAX, SignedCheckpoint
from federation.rules.keys import PublicKey

FILE_BYTES_MAX: Final = RECEIPT_BYTES_MAX
_RECORDS_MAX: Final = 500
_NOTES_MAX: Final = 64


class HeadFields(Strict):
    """The newest record that was acknowledged."""

    seq: Annotated[int, Field(ge=1, le=SEQ_MAX)]
    digest: Digest


class LogSeen(Strict):
    """What the witnesses of a log saw."""

    signer: Did
    witnesses: Annotated[tuple[Did, ...], Field(max_length=_NOTES_MAX)] = ()
    quorum: Annotated[int, Field(ge=0, le=_NOTES_MAX)] = 0
    notes: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=NOTE_BYTES_MAX)], ...],
        Field(min_length=1, max_length=_NOTES_MAX),
    ]
    age_max_s: Annotated[int, Field(ge=1, le=10**9)]


class HistoryFields(Strict):
    """A history file; the records themselves are opened one by one."""

    records: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=_RECORDS_MAX)]
    head: HeadFields | None = None
    as_of: Instant | None = None
    log: LogSeen | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a file holds: its records (one at least), oldest first; a receipt, if it is one; when it was judged."""

    records: tuple[ConsentRecord, ...]
    receipt: ReceiptCredential | None
    as_of: datetime


def open_file(data: bytes, now: datetime, *, authorities: Collection[str] = ()) -> Verified:
    """Verify a consent file.

    Args:
        data: the file's bytes.
        now: the reader's clock, aware.
        authorities: as for :func:`consent.rules.record.open_record`.

    Raises:
        ConsentError: whatever is wrong; its ``reason`` is the code.
    """
    try:
        document = parse(data, max_bytes=FILE_BYTES_MAX)
    except PeerError as error:
        raise refused(error.message.rstrip("."), reason=getattr(error, "reason", "malformed")) from error
    if isinstance(document, list):
        return _history({"records": document}, now, authorities)
    if isinstance(document, dict) and "records" in document:
        return _history(document, now, authorities)
    kind = document.get("type") if isinstance(document, dict) else None
    if isinstance(kind, list) and "AccordConsentReceipt" in kind:
        receipt = open_receipt(data, authorities=authorities)
        return Verified((receipt.record,), receipt, now)
    return Verified((open_record(data, authorities=authorities, now=now),), None, now)


def _history(document: dict[str, Any], now: datetime, authorities: Collection[str]) -> Verified:
    try:
        fields = HistoryFields.model_validate_json(canonical_bytes(document))
    except ValidationError as error:
        raise misfit(error) from error
    as_of = fields.as_of or now
    records = tuple(
        open_record(canonical_bytes(item), authorities=authorities, now=as_of) for item in document["records"]
    )
    fault = broken(records)
    if fault is not None:
        raise _refused(fault.text, reason=fault.code.replace("_", "-"))
    newest = records[-1]
    if fields.head is not None and (newest.seq, newest.digest) != (fields.head.seq, fields.head.digest):
        raise _refused("the newest record is not the one that was last acknowledged", reason="rolled-back")
    if fields.log is not None:
        _check_log(fields.log, as_of)
    return Verified(records, None, as_of)


def _check_log(log: LogSeen, as_of: datetime) -> None:
    signer = PublicKey.from_did(log.signer)
    seen: dict[int, SignedCheckpoint] = {}
    try:
        notes = [open_note(note.encode("utf-8"), signer) for note in log.notes]
        witnesses = Witnesses(keys=frozenset(PublicKey.from_did(did) for did in log.witnesses), quorum=log.quorum)
    except AccordError as error:
        raise _refused(error.message.rstrip("."), reason="wrong-checkpoint") from error
    for note in notes:
        other = seen.setdefault(note.checkpoint.size, note)
        if other.checkpoint != note.checkpoint:
            raise _refused(f"the log has two faces of size {note.checkpoint.size}", reason="forked-log")
    if not witnesses.quorum:
        return
    given = [(note.checkpoint.size, item) for note in notes for item in note.cosignatures]
    if is_stale(newest_quorum(given, witnesses), as_of, age_max=timedelta(seconds=log.age_max_s)):
        raise _refused("the word of enough witnesses is too old", reason="stale-checkpoint")


def _refused(why: str, *, reason: str) -> RefusedRecordError:
    return RefusedRecordError(
        f"The history is refused: {why}.", remedy="Ask the institution for the whole history again.", reason=reason
    )

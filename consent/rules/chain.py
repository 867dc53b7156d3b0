"""May this record follow that one? The only place that knows: registry, decision and command line all ask here.

A chain is one subject's records for one institution under one mechanism, ``seq`` 1, 2, 3 and so on, each ``prev`` the
digest of the record before. The subject's key may change in two ways: the record before committed to the next key
(``nextKeyHash``, pre-rotation), or the record before is a withdrawal, after which nothing is permitted and a person who
lost their key begins again, as at enrolment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consent.rules.record import Action, ConsentRecord, next_key_hash


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record does not belong where it stands: ``code`` for machines, ``text`` for people, its ``values``."""

    code: str
    text: str
    values: Mapping[str, str] = field(default_factory=dict, hash=False)


def continues(previous: ConsentRecord | None, record: ConsentRecord) -> Fault | None:
    """Why ``record`` may not follow ``previous`` (None: may not begin a chain); None if it may.

    Codes: ``gap``, ``wrong_prev``, ``two_institutions``, ``two_mechanisms``, ``two_subjects``.
    """
    expected = 1 if previous is None else previous.seq + 1
    if record.seq != expected:
        values = {"expected": str(expected), "found": str(record.seq)}
        return Fault("gap", f"record {expected} of the chain is missing (found number {record.seq})", values)
    if record.prev != (None if previous is None else previous.digest):
        return Fault("wrong_prev", f"record {expected} does not continue the record before it", {"seq": str(expected)})
    if previous is None:
        return None
    if record.institution != previous.institution:
        return Fault("two_institutions", "the chain mixes records for two institutions")
    if record.mechanism is not previous.mechanism:
        return Fault("two_mechanisms", "the chain mixes two kinds of record")
    if record.subject != previous.subject and not may_take_over(previous, record.subject):
        return Fault("two_subjects", "the chain mixes records of two people")
    if record.attested and record.subject != previous.subject:
        return Fault("two_subjects", "only the person can bring a new key into the chain")
    return None


def may_take_over(previous: ConsentRecord, subject: str) -> bool:
    """Whether the key ``subject`` (a did) may continue a chain that ``previous`` ends, though it is another's key."""
    return previous.action is Action.WITHDRAW or (
        previous.next_key_hash is not None and previous.next_key_hash == next_key_hash(subject)
    )


def broken(records: Sequence[ConsentRecord]) -> Fault | None:
    """Why verified records, oldest first, are not one whole, unbroken chain from its first record on; None if they are.

    Codes: those of :func:`continues`, and ``replayed`` where a record stands twice.
    """
    if len({record.digest for record in records}) != len(records):
        return Fault("replayed", "a record of the chain stands there twice")
    previous: ConsentRecord | None = None
    for record in records:
        fault = continues(previous, record)
        if fault is not None:
            return fault
        previous = record
    return None

"""Whether a subject's data may be used now: ``permits(history, use, now)``.

The history is the subject's whole chain of records. Everything must hold: each signature, no gap in ``seq``, each
``prev`` the digest before it, one subject, this institution, this mechanism, and the newest record exactly the one that
the registry last acknowledged. Then the newest record alone decides. Fail closed: whatever is missing, unknown, broken,
expired, not yet valid or needs a person to judge means no. A withdrawal or a refusal holds at once, whatever time it
names; a grant holds from ``validFrom`` until just before ``validUntil``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from consent.rules.purposes import Consented, Wanted, covers, in_words, needs_person
from consent.rules.record import Action, ConsentRecord, Mechanism, Terms, open_record
from federation.errors import ConsentError
from federation.rules.instant import format_instant
from federation.rules.study import StudyPlan, plain_decimal


class Status(StrEnum):
    """The decision in one word."""

    PERMITTED = "permitted"
    REFUSED = "refused"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    MISSING = "missing"
    NOT_COVERED = "not_covered"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: ``code`` for machines, ``text`` for people (no full stop, reads after "because")."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one subject, one use, one moment. ``reasons`` is empty only when permitted."""

    permitted: bool
    status: Status
    reasons: tuple[Reason, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Use:
    """What somebody wants to do with the data: where, under which mechanism, what for, at which privacy loss."""

    institution: str
    kind: Mechanism
    duo: str
    disease: str | None
    epsilon: Decimal
    delta: Decimal


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record that the registry acknowledged: a history that ends elsewhere was rolled back."""

    seq: int
    digest: str


_MISSING: Final = Reason("missing", "there is no consent record")


def use_of(plan: StudyPlan, institution: str) -> Use:
    """The use that a study makes of one institution's data (``institution`` is its did)."""
    return Use(
        institution=institution,
        kind=Mechanism(plan.consent.kind),
        duo=plan.purpose.duo,
        disease=plan.purpose.disease,
        epsilon=plan.privacy.epsilon,
        delta=plan.privacy.delta,
    )


def permits(
    history: Sequence[bytes],
    use: Use,
    now: datetime,
    *,
    head: Head | None = None,
    reader: Callable[[bytes], ConsentRecord] = open_record,
) -> Decision:
    """Decide about one subject.

    Args:
        history: the subject's records, oldest first, as stored.
        use: what is wanted.
        now: the moment of the first read of data (aware).
        head: the newest record that the registry acknowledged; None leaves roll-back to the caller.
        reader: verifies one record; a registry passes one that remembers what it has verified.

    Raises:
        ValueError: ``now`` has no time zone (a mistake of the caller).
    """
    if now.tzinfo is None:
        raise ValueError("the moment of a decision needs a time zone")
    if not history:
        if head is not None:
            return _no(Status.INVALID, Reason("rolled_back", "records that were acknowledged are gone"))
        return _no(Status.MISSING, _MISSING)
    try:
        records = [reader(data) for data in history]
    except ConsentError as error:
        return _no(Status.INVALID, Reason("unverified", _lower(error.message)))
    broken = chain_fault(records, institution=use.institution, kind=use.kind, head=head)
    if broken is not None:
        return _no(Status.INVALID, broken)
    return _newest_decides(records[-1], use, now)


def chain_fault(
    records: Sequence[ConsentRecord], *, institution: str, kind: Mechanism | None = None, head: Head | None = None
) -> Reason | None:
    """Why verified records (one at least) are not one subject's whole, unbroken chain for this institution.

    None if they are. ``kind`` None accepts either mechanism; ``head`` None leaves roll-back to the caller.
    """
    first = records[0]
    prev: str | None = None
    for seq, record in enumerate(records, start=1):
        if record.seq != seq:
            return Reason("gap", f"record {seq} of the chain is missing (found number {record.seq})")
        if record.prev != prev:
            return Reason("wrong_prev", f"record {seq} does not continue the record before it")
        if record.subject != first.subject:
            return Reason("two_subjects", "the chain mixes records of two people")
        if record.mechanism is not first.mechanism:
            return Reason("two_mechanisms", "the chain mixes consent and licence")
        if record.institution != institution:
            return Reason("other_institution", "the record was given to another institution")
        prev = record.digest
    if kind is not None and first.mechanism is not kind:
        return Reason("other_mechanism", f"the study needs a {kind.value}, the record is a {first.mechanism.value}")
    if head is not None and (records[-1].seq, prev) != (head.seq, head.digest):
        return Reason("rolled_back", "the newest record is not the one that was last acknowledged")
    return None


def _newest_decides(record: ConsentRecord, use: Use, now: datetime) -> Decision:
    if record.action is Action.WITHDRAW:
        by = "the institution on the person's request" if record.attested else "the person"
        return _no(Status.WITHDRAWN, Reason("withdrawn", f"{by} withdrew on {format_instant(record.signed_at)}"))
    if record.action is Action.REFUSE or record.terms is None:
        return _no(Status.REFUSED, Reason("refused", f"the person said no on {format_instant(record.signed_at)}"))
    terms = record.terms
    if now < record.valid_from:
        return _no(
            Status.INVALID, Reason("not_yet_valid", f"the consent begins on {format_instant(record.valid_from)}")
        )
    if now >= terms.valid_until:
        return _no(Status.EXPIRED, Reason("expired", f"the consent ended on {format_instant(terms.valid_until)}"))
    uncovered = _uncovered(terms, use)
    if uncovered:
        return _no(Status.NOT_COVERED, *uncovered)
    return Decision(
        permitted=True,
        status=Status.PERMITTED,
        reasons=(),
        sentence=f"Permitted until {format_instant(terms.valid_until)}.",
    )


def _uncovered(terms: Terms, use: Use) -> tuple[Reason, ...]:
    reasons: list[Reason] = []
    consented, wanted = Consented(terms.purposes, terms.diseases), Wanted(use.duo, use.disease)
    undecidable = needs_person(consented, wanted)
    if undecidable is not None:
        reasons.append(Reason("needs_person", f"a person has to judge {undecidable}"))
    elif not covers(consented, wanted):
        diseases = (use.disease,) if use.disease else ()
        given = " and ".join(in_words(purpose, terms.diseases) for purpose in terms.purposes)
        reasons.append(Reason("purpose", f"the consent allows {given}, the study is {in_words(use.duo, diseases)}"))
    if use.epsilon > terms.epsilon_max:
        allowed, asked = plain_decimal(terms.epsilon_max), plain_decimal(use.epsilon)
        reasons.append(Reason("epsilon", f"the consent allows epsilon {allowed}, the study asks {asked}"))
    if use.delta > terms.delta_max:
        allowed, asked = plain_decimal(terms.delta_max), plain_decimal(use.delta)
        reasons.append(Reason("delta", f"the consent allows delta {allowed}, the study asks {asked}"))
    return tuple(reasons)


def _no(status: Status, *reasons: Reason) -> Decision:
    because = "; ".join(reason.text for reason in reasons).rstrip(".")
    return Decision(permitted=False, status=status, reasons=reasons, sentence=f"Not permitted: {because}.")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]

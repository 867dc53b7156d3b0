"""Whether a subject's data may be used now: ``permits(history, use, now)``.

The history is the subject's whole chain of records. Everything must hold: each signature, the whole unbroken chain
(:mod:`consent.rules.chain`), this institution, this mechanism, and the newest record exactly the one that the registry
last acknowledged. Then the newest record alone decides. Fail closed: whatever is missing, unknown, broken,
expired, not yet valid, not yet witnessed, given on information that has changed since, or needs a person to judge means
no. A withdrawal or a refusal holds at once, whatever time it names, and waits for nobody's signature; a grant holds
from ``validFrom`` until just before ``validUntil``, and a guardian's until the child comes of age.

Who speaks: under ``consent`` and ``hipaa-authorization`` each subject does; under ``licence``, ``dpa`` and
``ehds-permit`` one record speaks for a holder's whole source, and a person may still have said no for themselves
(:func:`objection`): the opt-out of the European Health Data Space, or any refusal or withdrawal of their own.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from consent.rules.approval import Approval, approved
from consent.rules.chain import broken
from consent.rules.duo import NOTHING_DECLARED, TIME_LIMIT, Declared, moment_of
from consent.rules.message import msg
from consent.rules.purposes import Consented, Wanted, judge
from consent.rules.reasons import Reason, reason
from consent.rules.record import Action, ConsentRecord, Mechanism, Terms, open_record
from federation.errors import ConsentError
from federation.rules.instant import format_instant
from federation.rules.study import StudyPlan
from federation.rules.wire import plain_decimal

__all__ = [
    "Decision",
    "Head",
    "NoticePolicy",
    "Reason",
    "Status",
    "Use",
    "chain_fault",
    "objection",
    "permits",
    "use_of",
]


class Status(StrEnum):
    """The decision in one word."""

    PERMITTED = "permitted"
    REFUSED = "refused"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    MISSING = "missing"
    PENDING = "pending"
    NEEDS_PERSON = "needs_person"
    NOT_COVERED = "not_covered"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one subject, one use, one moment.

    ``reasons`` is empty only when permitted. ``sentence`` is in plain English; :func:`consent.language.sentence` says
    it in the reader's language. ``until`` is when a permission ends by itself.
    """

    permitted: bool
    status: Status
    reasons: tuple[Reason, ...]
    sentence: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """What somebody wants to do with the data: where, under which mechanism, what for, at which privacy loss.

    ``declared`` is what the study says about itself beyond that; ``code`` the SHA-256 of every program that may run,
    and ``rounds`` how many rounds there are (empty and None: it does not say, which never counts in its favour).
    """

    institution: str
    kind: Mechanism
    duo: str
    disease: str | None
    epsilon: Decimal
    delta: Decimal
    declared: Declared = NOTHING_DECLARED
    code: tuple[str, ...] = ()
    rounds: int | None = None

    @property
    def plan_hash(self) -> str | None:
        """The hash of the study's plan; None if it is no study's use."""
        names = self.declared.study
        return names[-1] if names else None


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record that the registry acknowledged: a history that ends elsewhere was rolled back."""

    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class NoticePolicy:
    """Which notices (SHA-256 of the text as rendered) no longer carry a consent.

    ``replaced`` names those that a newer, materially different version replaced. With ``known``, a grant that names a
    notice outside of it is a no too.
    """

    replaced: frozenset[str] = frozenset()
    known: frozenset[str] | None = None

    def accepts(self, notice: str | None) -> bool:
        """Whether a grant given on this notice still stands."""
        if notice in self.replaced:
            return False
        return self.known is None or notice in self.known


PERMITTED_UNTIL: Final = msg("Permitted until {until}.")
NOT_PERMITTED: Final = msg("Not permitted: {because}.")


def use_of(plan: StudyPlan, institution: str) -> Use:
    """The use that a study makes of one institution's data (``institution`` is its did)."""
    purpose = plan.purpose
    return Use(
        institution=institution,
        kind=Mechanism(plan.consent.kind),
        duo=purpose.duo,
        disease=purpose.disease,
        epsilon=plan.privacy.epsilon,
        delta=plan.privacy.delta,
        declared=Declared(
            commercial=purpose.commercial,
            organisation=purpose.organisation,
            countries=purpose.countries or (),
            methods_development=purpose.methods_development,
            ancestry=purpose.ancestry,
            genetic=purpose.genetic,
            clinical_care=purpose.clinical_care,
            research_types=purpose.research_types or (),
            institutions=purpose.institutions or (),
            users=purpose.users or (),
            project=purpose.project,
            publication_from=None if purpose.publication_from is None else moment_of(purpose.publication_from),
            approvals=purpose.approvals or (),
            study=(plan.study_id, plan.plan_hash),
        ),
        code=plan.code_approved,
        rounds=plan.rounds.count,
    )


def permits(
    history: Sequence[bytes],
    use: Use,
    now: datetime,
    *,
    head: Head | None = None,
    reader: Callable[[bytes], ConsentRecord] = open_record,
    binding: Callable[[ConsentRecord], bool] | None = None,
    notices: NoticePolicy | None = None,
    approvals: Collection[Approval] = (),
) -> Decision:
    """Decide about one subject.

    Args:
        history: the subject's records, oldest first, as stored.
        use: what is wanted.
        now: the moment of the first read of data (aware).
        head: the newest record that the registry acknowledged; None leaves roll-back to the caller.
        reader: verifies one record; a registry passes one that remembers what it has verified.
        binding: whether a grant binds yet (enough named witnesses cosigned it); None: from its receipt on. A withdrawal
            or a refusal is never asked about: it binds at once.
        notices: which notices still carry a consent; None: all of them.
        approvals: what people at the institution found about studies, where a machine cannot decide.

    Raises:
        ValueError: ``now`` has no time zone (a mistake of the caller).
    """
    if now.tzinfo is None:
        raise ValueError("the moment of a decision needs a time zone")
    if not history:
        if head is not None:
            return _no(Status.INVALID, reason("rolled_back"))
        return _no(Status.MISSING, reason("missing"))
    try:
        records = [reader(data) for data in history]
    except ConsentError as error:
        return _no(Status.INVALID, _unverified(error))
    opt_out = records[-1].mechanism is Mechanism.EHDS_OPTOUT and records[-1].action is not Action.WITHDRAW
    fault = chain_fault(records, institution=use.institution, kind=None if opt_out else use.kind, head=head)
    if fault is not None:
        return _no(Status.INVALID, fault)
    if opt_out:
        return _opted_out(records[-1])
    return _newest_decides(records[-1], use, now, binding=binding, notices=notices, approvals=approvals)


def objection(
    history: Sequence[bytes],
    *,
    institution: str,
    head: Head | None = None,
    reader: Callable[[bytes], ConsentRecord] = open_record,
) -> Decision | None:
    """Whether a person's own records stand against a use that one record allows for a whole source; None: they do not.

    An opt-out stands until it is withdrawn. A refusal, or the withdrawal of a consent, is a no here too: who said no
    for themselves is left out, whoever else allows it. Records that do not verify, or are not the acknowledged ones,
    are a no.
    """
    if not history:
        return None if head is None else _no(Status.INVALID, reason("rolled_back"))
    try:
        records = [reader(data) for data in history]
    except ConsentError as error:
        return _no(Status.INVALID, _unverified(error))
    fault = chain_fault(records, institution=institution, head=head)
    if fault is not None:
        return _no(Status.INVALID, fault)
    newest = records[-1]
    if newest.mechanism is Mechanism.EHDS_OPTOUT:
        return None if newest.action is Action.WITHDRAW else _opted_out(newest)
    if newest.action is Action.GRANT:
        return None
    return _said_no(newest)


def chain_fault(
    records: Sequence[ConsentRecord], *, institution: str, kind: Mechanism | None = None, head: Head | None = None
) -> Reason | None:
    """Why verified records (one at least) are not one subject's whole, unbroken chain for this institution.

    None if they are. ``kind`` None accepts any mechanism; ``head`` None leaves roll-back to the caller.
    """
    if any(record.institution != institution for record in records):
        return reason("other_institution")
    fault = broken(records)
    if fault is not None:
        return reason(fault.code, **fault.values)
    newest = records[-1]
    if kind is not None and newest.mechanism is not kind:
        return reason("other_mechanism", kind_asked=kind.value, kind_given=newest.mechanism.value)
    if head is not None and (newest.seq, newest.digest) != (head.seq, head.digest):
        return reason("rolled_back")
    return None


def _newest_decides(
    record: ConsentRecord,
    use: Use,
    now: datetime,
    *,
    binding: Callable[[ConsentRecord], bool] | None,
    notices: NoticePolicy | None,
    approvals: Collection[Approval],
) -> Decision:
    if record.action is not Action.GRANT or record.terms is None:
        return _said_no(record)
    terms = record.terms
    if now < record.valid_from:
        return _no(Status.INVALID, reason("not_yet_valid", at=format_instant(record.valid_from)))
    if record.guardian is not None and now >= record.guardian.majority:
        return _no(Status.EXPIRED, reason("majority", at=format_instant(record.guardian.majority)))
    if now >= terms.valid_until:
        return _no(Status.EXPIRED, reason("expired", at=format_instant(terms.valid_until)))
    if notices is not None and not notices.accepts(_notice_of(record)):
        return _no(Status.EXPIRED, reason("notice"))
    ends = _ends(record, terms)
    uncovered = []
    for against in _uncovered(terms, use, now):
        approval = approved(against, approvals, plan_hash=use.plan_hash, now=now)
        if approval is None:
            uncovered.append(against)
        else:
            ends.append(approval.ends)
    if uncovered:
        person = all(found.code == "needs_person" for found in uncovered)
        return _no(Status.NEEDS_PERSON if person else Status.NOT_COVERED, *uncovered)
    if binding is not None and not binding(record):
        return _no(Status.PENDING, reason("pending"))
    until = min(ends)
    return Decision(
        permitted=True,
        status=Status.PERMITTED,
        reasons=(),
        sentence=PERMITTED_UNTIL.format(until=format_instant(until)),
        until=until,
    )


def _ends(record: ConsentRecord, terms: Terms) -> list[datetime]:
    """When a permission ends by itself, whatever comes first: its end, the child's majority, a time limit."""
    ends = [terms.valid_until]
    if record.guardian is not None:
        ends.append(record.guardian.majority)
    if TIME_LIMIT in terms.conditions:
        ends += [end for end in map(moment_of, terms.conditions[TIME_LIMIT]) if end is not None]
    return ends


def _uncovered(terms: Terms, use: Use, now: datetime) -> tuple[Reason, ...]:
    consented = Consented(terms.purposes, terms.diseases, terms.conditions)
    found = judge(consented, Wanted(use.duo, use.disease, use.declared), now)
    reasons = [reason(finding.code, **finding.values) for finding in found]
    if use.epsilon > terms.epsilon_max:
        reasons.append(reason("epsilon", allowed=plain_decimal(terms.epsilon_max), asked=plain_decimal(use.epsilon)))
    if use.delta > terms.delta_max:
        reasons.append(reason("delta", allowed=plain_decimal(terms.delta_max), asked=plain_decimal(use.delta)))
    if terms.code_hash is not None and set(use.code) != {terms.code_hash}:
        reasons.append(reason("code", allowed_code=terms.code_hash))
    if terms.rounds_max is not None and use.rounds is None:
        reasons.append(reason("rounds_unknown", allowed=str(terms.rounds_max)))
    elif terms.rounds_max is not None and use.rounds is not None and use.rounds > terms.rounds_max:
        reasons.append(reason("rounds", allowed=str(terms.rounds_max), asked=str(use.rounds)))
    return tuple(reasons)


def _notice_of(record: ConsentRecord) -> str | None:
    return None if record.statement is None else record.statement.notice.hash


def _said_no(record: ConsentRecord) -> Decision:
    at = format_instant(record.signed_at)
    if record.action is Action.WITHDRAW:
        return _no(Status.WITHDRAWN, _withdrawn(at, attested=record.attested))
    return _no(Status.REFUSED, reason("refused", at=at))


def _withdrawn(at: str, *, attested: bool) -> Reason:
    return reason("withdrawn", at=at, about="attested") if attested else reason("withdrawn", at=at)


def _opted_out(record: ConsentRecord) -> Decision:
    return _no(Status.REFUSED, reason("opted_out", at=format_instant(record.signed_at)))


def _unverified(error: ConsentError) -> Reason:
    said = error.message.rstrip(".")
    return Reason("unverified", said[:1].lower() + said[1:], {"detail": said})


def _no(status: Status, *reasons: Reason) -> Decision:
    because = "; ".join(given.text for given in reasons).rstrip(".")
    return Decision(permitted=False, status=status, reasons=reasons, sentence=NOT_PERMITTED.format(because=because))

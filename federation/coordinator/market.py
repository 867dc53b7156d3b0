"""The coordinator's side of a market: a call, what comes in, the list of sealed prices, the outcome, its plan.

Documents travel as files. What was taken, and when, is in the database before the command answers; the list and the
outcome are signed once and given again unchanged. No price is shown to anybody before the outcome.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import ValidationError
from sqlmodel import Session, col, select

from federation.errors import OperatorError, PeerError
from federation.rules.documents import open_signed
from federation.rules.instant import format_instant, parse_instant
from federation.rules.offers import (
    Decision,
    MarketCall,
    MarketOutcome,
    OpenedCall,
    OpenedList,
    RevealedPrice,
    SealedList,
    SealedPrice,
    kind_of,
    may_close,
    may_decide,
    open_call,
    open_list,
    open_offer,
    open_outcome,
    open_price,
    payments,
    plan_of,
    selected,
)
from federation.rules.study import StudyPlan
from federation.rules.validation import read_validation
from federation.rules.wire import describe, parse_toml
from federation.storage.database import read as reading
from federation.storage.database import write

from .folder import CoordinatorFolder, publish
from .tables import AnnouncedCall, ReceivedOffer

Kind = Literal["sealed", "opened"]


@dataclass(frozen=True, slots=True)
class MarketState:
    """Where a market stands. ``received``: kind -> did -> document; ``sealed`` and ``decision`` once they exist."""

    call: OpenedCall
    received: dict[Kind, dict[str, bytes]]
    sealed: OpenedList | None
    decision: Decision | None


def call_from_toml(text: str, plan: StudyPlan, *, source: str) -> MarketCall:
    """Read a call that a person wrote; the draft plan comes from its own file.

    Raises:
        OperatorError: not TOML, or a field is missing, unknown, mistyped or out of range.
    """
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise OperatorError(f"{source} is not valid TOML: {error}.", remedy="Mend the line that is named.") from error
    for name in ("seal_until", "open_until"):
        instant = document.get(name)
        if isinstance(instant, datetime):  # TOML's own form; only UTC says the same as the text of it
            document[name] = instant.isoformat().replace("+00:00", "Z")
    document["plan"] = plan.to_payload().decode("utf-8")
    try:
        return MarketCall.model_validate(document)
    except ValidationError as error:
        raise OperatorError(
            f"{source} is not a valid call: {describe(error)}.",
            remedy="Mend the fields that are named; docs/reference/market.md shows a call.",
        ) from error


def announce(folder: CoordinatorFolder, document: MarketCall, *, now: datetime) -> OpenedCall:
    """Sign and store a call; the same call again is the same.

    Raises:
        OperatorError: its time to seal has passed, or the draft's validation set is not here or does not fit.
        PeerError: no study could follow from it.
    """
    envelope = document.sign(folder.key).to_bytes()
    call = open_call(envelope, signer=folder.key.public)
    with reading(folder.engine) as session:
        if session.exec(select(AnnouncedCall).where(AnnouncedCall.hash == call.hash)).first() is not None:
            return call
    if now >= parse_instant(document.seal_until):
        raise OperatorError(f"seal_until, {document.seal_until}, has passed.", remedy="Give institutions some days.")
    _, rows = folder.validation(call.plan.validation.commitment)
    read_validation(call.plan, rows)
    with write(folder.engine) as session:
        session.add(AnnouncedCall(hash=call.hash, call=envelope))
    return call


def document_of(folder: CoordinatorFolder, call: str, kind: Literal["call", "sealed_list", "outcome"]) -> bytes:
    """A signed document of the market of this hash, as it was signed; empty where there is none yet."""
    with reading(folder.engine) as session:
        data: bytes = getattr(_row(session, call), kind)
    return data


def take(folder: CoordinatorFolder, data: bytes, *, now: datetime) -> tuple[Kind, OpenedCall, str]:
    """Take what an institution sent, a sealed price or an opening; the same again is acknowledged again.

    Returns:
        what it is, for which call, and the institution's did.

    Raises:
        OperatorError: of another market, or the list of sealed prices is not signed yet.
        PeerError: it does not verify, comes too late, or the institution has sent another one before.
    """
    kind = _incoming(data)
    with write(folder.engine) as session:
        call, row = _addressed(session, folder, data, kind)
        did = open_offer(data, call)[0] if kind == "sealed" else open_price(data, call, _sealed(row, call))[0]
        before = _received(session, call.hash, kind).get(did)
        if before == data:
            return kind, call, did
        site = call.candidates[did].site
        if before is not None:
            raise PeerError(
                f"{site} has sent another one before; the first one counts.",
                remedy="Tell the institution; it keeps what it sealed.",
            )
        _in_time(call, kind, over=bool(row.sealed_list if kind == "sealed" else row.outcome), now=now)
        session.add(ReceivedOffer(call=call.hash, did=did, kind=kind, envelope=data, received_at=format_instant(now)))
    return kind, call, did


def close(folder: CoordinatorFolder, name: str | None, *, now: datetime) -> tuple[OpenedCall, bytes]:
    """Sign the list of all sealed prices, once; later the same list again.

    Raises:
        OperatorError: nobody has offered, somebody still may, or the time to open has passed.
    """
    with write(folder.engine) as session:
        row = _row(session, name)
        call = open_call(row.call, signer=folder.key.public)
        if not row.sealed_list:
            offers = _received(session, call.hash, "sealed")
            until = call.document.seal_until
            if not may_close(call, now, offers):
                waiting = ", ".join(each.site for each in call.document.candidates if each.did not in offers)
                raise OperatorError(f"Sealed prices are taken until {until}.", remedy=f"Wait for {waiting}.")
            if not offers or now >= parse_instant(call.document.open_until):
                raise OperatorError(
                    "Nobody has offered."
                    if not offers
                    else f"The time to open, until {call.document.open_until}, is over.",
                    remedy="Make a new call.",
                )
            document = SealedList(
                call=call.hash,
                offers=tuple(offers[did].decode("utf-8") for did in sorted(offers)),
                closed_at=format_instant(now),
            )
            row.sealed_list = document.sign(folder.key).to_bytes()
            open_list(row.sealed_list, call)
            session.add(row)
        return call, row.sealed_list


def decide(folder: CoordinatorFolder, name: str | None, *, now: datetime) -> tuple[Decision, bytes]:
    """Select among those who have opened, and sign the outcome, once; later the same outcome again.

    Raises:
        OperatorError: sealed prices are not listed yet, or somebody may still open.
    """
    with write(folder.engine) as session:
        row = _row(session, name)
        call = open_call(row.call, signer=folder.key.public)
        if not row.outcome:
            sealed = _sealed(row, call)
            openings = _received(session, call.hash, "opened")
            if not may_decide(call, sealed, now, openings):
                waiting = ", ".join(call.candidates[did].site for did in sealed.commitments if did not in openings)
                raise OperatorError(
                    f"Sealed prices may be opened until {call.document.open_until}.", remedy=f"Wait for {waiting}."
                )
            prices = dict(open_price(data, call, sealed) for data in openings.values())
            document = MarketOutcome(
                call=row.call.decode("utf-8"),
                sealed_list=row.sealed_list.decode("utf-8"),
                openings=tuple(openings[did].decode("utf-8") for did in sorted(openings)),
                payments=payments(call, selected(call, prices)),
                decided_at=format_instant(now),
            )
            row.outcome = document.sign(folder.key).to_bytes()
            session.add(row)
        return open_outcome(row.outcome, signer=folder.key.public), row.outcome


def publish_outcome(folder: CoordinatorFolder, name: str | None) -> tuple[StudyPlan, list[str]]:
    """Publish the plan that the outcome leads to; the plan, and the winners' short names.

    Raises:
        OperatorError: nothing is decided yet, or no study follows.
    """
    decision = state(folder, name).decision
    if decision is None:
        raise OperatorError("Nothing is decided yet.", remedy="Decide with `accord market select`.")
    plan = plan_of(decision)
    publish(folder, plan)
    return plan, list(decision.selection.payments)


def state(folder: CoordinatorFolder, name: str | None) -> MarketState:
    """Where a market stands.

    Raises:
        OperatorError: there is none of that name.
    """
    with reading(folder.engine) as session:
        row = _row(session, name)
        received: dict[Kind, dict[str, bytes]] = {
            "sealed": _received(session, row.hash, "sealed"),
            "opened": _received(session, row.hash, "opened"),
        }
    call = open_call(row.call, signer=folder.key.public)
    return MarketState(
        call=call,
        received=received,
        sealed=open_list(row.sealed_list, call) if row.sealed_list else None,
        decision=open_outcome(row.outcome, signer=folder.key.public) if row.outcome else None,
    )


def _incoming(data: bytes) -> Kind:
    kinds: dict[str, Kind] = {"SealedPrice": "sealed", "RevealedPrice": "opened"}
    name = kind_of(data)
    if name not in kinds:
        raise OperatorError(
            "Institutions send sealed prices and openings; this is neither.",
            remedy="Look at it with `accord market show FILE`.",
        )
    return kinds[name]


def _row(session: Session, name: str | None) -> AnnouncedCall:
    """The call of this hash or readable id; without a name, the newest."""
    rows = list(session.exec(select(AnnouncedCall).order_by(col(AnnouncedCall.number))))
    wanted = (name or "").rpartition("-")[2]
    chosen = [row for row in rows if row.hash.startswith(wanted)] if name is None or wanted else []
    if not chosen:
        known = ", ".join(open_call(row.call).id for row in rows) or "none yet"
        raise OperatorError(
            f"There is no call {name or ''} here (calls: {known}).",
            remedy="Name one of those, or make one with `accord market call`.",
        )
    return chosen[-1]


def _received(session: Session, call: str, kind: Kind) -> dict[str, bytes]:
    rows = session.exec(select(ReceivedOffer).where(ReceivedOffer.call == call, ReceivedOffer.kind == kind))
    return {row.did: row.envelope for row in rows}


def _addressed(
    session: Session, folder: CoordinatorFolder, data: bytes, kind: Kind
) -> tuple[OpenedCall, AnnouncedCall]:
    """The call that a document names."""
    sealed = kind == "sealed"
    name = open_signed(SealedPrice, data)[0].call if sealed else open_signed(RevealedPrice, data)[0].call
    row = _row(session, name)
    return open_call(row.call, signer=folder.key.public), row


def _sealed(row: AnnouncedCall, call: OpenedCall) -> OpenedList:
    if not row.sealed_list:
        raise OperatorError(
            "The list of sealed prices is not signed yet: nothing can be opened.",
            remedy="Sign it with `accord market close` and send it to everybody who offered.",
        )
    return open_list(row.sealed_list, call)


def _in_time(call: OpenedCall, kind: Kind, *, over: bool, now: datetime) -> None:
    until = call.document.seal_until if kind == "sealed" else call.document.open_until
    if over or now >= parse_instant(until):
        what, because = ("sealed price", "list is signed") if kind == "sealed" else ("opening", "market is decided")
        why = f"they were taken until {until}" if now >= parse_instant(until) else f"the {because}"
        raise PeerError(
            f"This {what} comes too late: {why}.", remedy="Tell the institution; it may offer again next time."
        )

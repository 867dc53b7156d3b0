"""A market for taking part, as documents that parties sign and pass on as files.

1. The coordinator signs a :class:`MarketCall`: a draft plan, a budget, who may offer, what each is worth, deadlines.
2. Each institution signs a :class:`SealedPrice`, which hides its price.
3. The coordinator signs the :class:`SealedList`: every sealed price, as it was signed.
4. Each institution that finds its own in the list signs a :class:`RevealedPrice`, which names that very list. So nobody
   shows a price while another may still be added, and a coordinator that would add one must sign two lists.
5. The coordinator signs a :class:`MarketOutcome`. It holds all of the above, so that anybody recomputes who won and
   what they are paid (``market.select``), and the study's plan follows from it (:func:`plan_of`).

Every document is checked here from the received bytes. What no document can show: that one was sent in time and the
coordinator left it out. Times are the coordinator's.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from federation.errors import OperatorError, PeerError
from federation.rules.canonical import parse_canonical, sha256_hex, tagged_hash
from federation.rules.documents import Hash, Signed, open_signed
from federation.rules.entries import EnvelopeText
from federation.rules.instant import parse_instant
from federation.rules.keys import PublicKey
from federation.rules.ledger import AMOUNT_MAX
from federation.rules.market import WORTH_MAX, Offer, Selection, select
from federation.rules.study import StudyPlan, read
from federation.rules.terms import MINTED_MAX
from federation.rules.wire import Did, Slug, Text, Wire, describe

NONCE_BYTES: Final = 32
DRAFT_BYTES_MAX: Final = 64 * 1024
MARKET_BYTES_MAX: Final = 512 * 1024
CANDIDATES_MAX: Final = 14
"""As many institutions as a study can have: all may win."""
_ASK: Final = "Ask the coordinator to explain it, and keep the file: its signature is evidence."


def _instant(text: str) -> str:
    try:
        parse_instant(text)
    except PeerError as error:
        raise ValueError(f"{error.message} {error.remedy}") from error
    return text


Instant = Annotated[str, AfterValidator(_instant)]
Price = Annotated[int, Field(ge=0, le=AMOUNT_MAX)]


class Candidate(Wire):
    """An institution that may offer: short name, key, and what it is worth to the sponsor (proportions matter)."""

    site: Slug
    did: Did
    worth: Annotated[int, Field(ge=1, le=WORTH_MAX)]


class MarketCall(Signed):
    """A call for offers: what for, with how much, by whom, until when.

    Attributes:
        plan: the draft plan's canonical bytes, as text; ``rounds.participants`` and the fees follow from the market.
        budget_microcredits: what all fees together cost at most.
        worth: by which public figures the candidates' worths were set.
        seal_until: until when sealed prices are taken.
        open_until: until when they are opened.
        candidates: who may offer; their worths do not depend on any price.
    """

    version: Literal[1] = 1
    plan: Annotated[str, StringConstraints(min_length=2, max_length=DRAFT_BYTES_MAX)]
    budget_microcredits: Price
    worth: Text
    seal_until: Instant
    open_until: Instant
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1, max_length=CANDIDATES_MAX)]

    @model_validator(mode="after")
    def _consistent(self) -> "MarketCall":
        for what in ("site", "did"):
            if len({getattr(each, what) for each in self.candidates}) != len(self.candidates):
                raise ValueError(f"candidates: a {what} is there twice")
        if parse_instant(self.open_until) <= parse_instant(self.seal_until):
            raise ValueError("open_until must be after seal_until")
        return self


class SealedPrice(Signed):
    """An institution's promise of a price that nobody can read yet, for the call of this hash."""

    version: Literal[1] = 1
    call: Hash
    commitment: Hash


class SealedList(Signed):
    """All sealed prices of a call, each as its institution signed it, in the order of their did: no more are taken."""

    version: Literal[1] = 1
    call: Hash
    offers: Annotated[tuple[EnvelopeText, ...], Field(min_length=1, max_length=CANDIDATES_MAX)]
    closed_at: Instant


class RevealedPrice(Signed):
    """The price behind a :class:`SealedPrice`, in micro-credits, and the nonce that hid it; for one list alone."""

    version: Literal[1] = 1
    call: Hash
    sealed_list: Hash
    price: Price
    nonce: Hash

    def commitment(self, party: str) -> str:
        """What ``party`` must have committed to."""
        return commitment(call=self.call, party=party, price=self.price, nonce=bytes.fromhex(self.nonce))


class MarketOutcome(Signed):
    """Who takes part at which fee. ``payments``: did -> micro-credits; ``openings`` in the order of their did."""

    version: Literal[1] = 1
    call: EnvelopeText
    sealed_list: EnvelopeText
    openings: Annotated[tuple[EnvelopeText, ...], Field(max_length=CANDIDATES_MAX)]
    payments: Annotated[dict[Did, Price], Field(max_length=CANDIDATES_MAX)]
    decided_at: Instant


def commitment(*, call: str, party: str, price: int, nonce: bytes) -> str:
    """The hash that seals a price: of call, party (did), price and a fresh 32-byte nonce; hexadecimal.

    Raises:
        OperatorError: a price that is not an amount, or a nonce of another length.
    """
    if not 0 <= price <= AMOUNT_MAX or len(nonce) != NONCE_BYTES:
        raise OperatorError(
            f"A price of {price} micro-credits with a nonce of {len(nonce)} bytes cannot be sealed.",
            remedy=f"Name 0 to {AMOUNT_MAX} micro-credits and draw {NONCE_BYTES} fresh bytes.",
        )
    parts = (bytes.fromhex(call), party.encode("ascii"), str(price).encode("ascii"), nonce)
    return tagged_hash("price-commitment", *parts).hex()


@dataclass(frozen=True, slots=True)
class OpenedCall:
    """A verified call: what it says, who signed it, and the hash that every later document names (of its bytes)."""

    document: MarketCall
    hash: str
    signer: PublicKey
    plan: StudyPlan

    @property
    def id(self) -> str:
        """A name that people can read: the plan's, ``call`` and 12 digits of the hash."""
        return f"{self.plan.name}-call-{self.hash[:12]}"

    @property
    def candidates(self) -> Mapping[str, Candidate]:
        """Did -> candidate."""
        return {each.did: each for each in self.document.candidates}


@dataclass(frozen=True, slots=True)
class OpenedList:
    """A verified list; ``commitments``: did -> commitment; ``envelopes``: did -> the sealed price as it was signed."""

    hash: str
    closed_at: datetime
    commitments: Mapping[str, str]
    envelopes: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Decision:
    """A verified outcome, recomputed. ``prices``: did -> what it asked, of those who opened."""

    document: MarketOutcome
    hash: str
    call: OpenedCall
    sealed: OpenedList
    prices: Mapping[str, int]
    selection: Selection


def open_call(data: bytes, *, signer: PublicKey | None = None) -> OpenedCall:
    """Verify and read a call.

    Raises:
        PeerError: the signature, the document or its draft plan is not valid, or no study could follow.
    """
    document, envelope = open_signed(MarketCall, data, signer=signer)
    plan = read(StudyPlan, document.plan.encode("utf-8"), max_bytes=DRAFT_BYTES_MAX)
    _require(plan.reward.fees is None, "the draft plan names fees already")
    _require(
        plan.reward.pool_microcredits + document.budget_microcredits <= MINTED_MAX,
        f"the pool and the budget together are above {MINTED_MAX} micro-credits",
    )
    quorum = plan.rounds.quorum
    _require(quorum <= len(document.candidates), f"a round needs {quorum} institutions, more than may offer")
    return OpenedCall(document=document, hash=sha256_hex(data), signer=envelope.signer, plan=plan)


def open_offer(data: bytes, call: OpenedCall) -> tuple[str, SealedPrice]:
    """Verify a sealed price; the did of who made it, and the document.

    Raises:
        PeerError: not valid, for another call, or by somebody who is not called.
    """
    document, envelope = open_signed(SealedPrice, data)
    did = envelope.signer.did
    _require(document.call == call.hash, "the sealed price is for another call")
    _require(did in call.candidates, f"{did} is not among those who may offer")
    return did, document


def open_list(data: bytes, call: OpenedCall) -> OpenedList:
    """Verify the list of sealed prices.

    Raises:
        PeerError: not valid, not by who called, closed too early or too late, or an offer in it is not valid.
    """
    document, _ = open_signed(SealedList, data, signer=call.signer)
    _require(document.call == call.hash, "the list of sealed prices is for another call")
    opened = [(open_offer(text.encode("utf-8"), call), text.encode("utf-8")) for text in document.offers]
    dids = [did for (did, _), _ in opened]
    _require(dids == sorted(set(dids)), "the list of sealed prices is not in order, or somebody is there twice")
    closed_at = parse_instant(document.closed_at)
    _require(may_close(call, closed_at, dids), "the list was closed while somebody could still offer")
    _require(
        closed_at < parse_instant(call.document.open_until), "the list was closed when the time to open had passed"
    )
    return OpenedList(
        hash=sha256_hex(data),
        closed_at=closed_at,
        commitments=MappingProxyType({did: offer.commitment for (did, offer), _ in opened}),
        envelopes=MappingProxyType({did: text for (did, _), text in opened}),
    )


def open_price(data: bytes, call: OpenedCall, sealed: OpenedList) -> tuple[str, int]:
    """Verify the opening of a sealed price; the did of who made it, and the price.

    Raises:
        PeerError: not valid, for another call or list, by somebody without a sealed price, or another price.
    """
    document, envelope = open_signed(RevealedPrice, data)
    did = envelope.signer.did
    _require(document.call == call.hash, "the opening is for another call")
    _require(document.sealed_list == sealed.hash, "the opening is for another list of sealed prices")
    _require(did in sealed.commitments, f"{did} has no sealed price in the list")
    site = call.candidates[did].site
    _require(document.commitment(did) == sealed.commitments[did], f"{site} shows another price than it sealed")
    return did, document.price


def open_outcome(data: bytes, *, signer: PublicKey | None = None) -> Decision:
    """Verify an outcome, down to the selection, which is recomputed.

    Raises:
        PeerError: anything in it is not valid, it was decided too early, or its payments do not follow from its prices.
    """
    document, envelope = open_signed(MarketOutcome, data, signer=signer)
    call = open_call(document.call.encode("utf-8"), signer=envelope.signer)
    sealed = open_list(document.sealed_list.encode("utf-8"), call)
    opened = [open_price(text.encode("utf-8"), call, sealed) for text in document.openings]
    dids = [did for did, _ in opened]
    _require(dids == sorted(set(dids)), "the openings are not in order, or somebody is there twice")
    decided_at = parse_instant(document.decided_at)
    _require(decided_at >= sealed.closed_at, "it was decided before the list was closed")
    _require(may_decide(call, sealed, decided_at, dids), "it was decided while somebody could still open")
    prices = dict(opened)
    selection = selected(call, prices)
    _require(dict(document.payments) == payments(call, selection), "its payments do not follow from the prices")
    return Decision(
        document=document,
        hash=sha256_hex(data),
        call=call,
        sealed=sealed,
        prices=MappingProxyType(prices),
        selection=selection,
    )


def may_close(call: OpenedCall, now: datetime, offered: Collection[str]) -> bool:
    """Whether nobody can offer any more: the time has passed, or everybody has."""
    return now >= parse_instant(call.document.seal_until) or len(offered) == len(call.candidates)


def may_decide(call: OpenedCall, sealed: OpenedList, now: datetime, opened: Collection[str]) -> bool:
    """Whether nobody can open any more: the time has passed, or everybody has."""
    return now >= parse_instant(call.document.open_until) or len(opened) == len(sealed.commitments)


def offers_of(call: OpenedCall, prices: Mapping[str, int]) -> list[Offer]:
    """What the selection sees, from did -> price.

    Institutions go by their short names: equal ranks go to the first name, and the call gave those, whereas a key that
    comes first could be searched for.
    """
    candidates = call.candidates
    return [Offer(candidates[did].site, price, candidates[did].worth) for did, price in sorted(prices.items())]


def selected(call: OpenedCall, prices: Mapping[str, int]) -> Selection:
    """Who wins, by short name, among those who opened (did -> price)."""
    return select(offers_of(call, prices), call.document.budget_microcredits)


def payments(call: OpenedCall, selection: Selection) -> dict[str, int]:
    """The selection's payments by did."""
    dids = {each.site: each.did for each in call.document.candidates}
    return {dids[site]: amount for site, amount in selection.payments.items()}


def plan_of(decision: Decision) -> StudyPlan:
    """The plan that an outcome leads to: the draft with its winners as the only participants, their fees, and its hash.

    So the study's id follows from the outcome, and nobody writes a fee by hand.

    Raises:
        OperatorError: too few have won for the draft's quorum, or for another of its rules.
    """
    draft, winners = decision.call.plan, dict(decision.document.payments)
    quorum = draft.rounds.quorum
    remedy = "Nothing was published. Make a new call: with a larger budget, more candidates or a smaller quorum."
    if len(winners) < max(1, quorum):
        raise OperatorError(
            f"{len(winners)} institutions won, and a round needs {quorum}: no study follows.", remedy=remedy
        )
    document = draft.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["rounds"]["participants"] = len(winners)
    document["reward"] |= {"fees": winners, "outcome": decision.hash}
    try:
        return StudyPlan.model_validate(document)
    except ValidationError as error:
        raise OperatorError(f"No study follows: {describe(error)}.", remedy=remedy) from error


def kind_of(data: bytes) -> str:
    """The name of a market document's class, as the file says; what it says is not verified yet.

    Raises:
        PeerError: it is no signed document of a market.
    """
    kinds: Sequence[type[Signed]] = (MarketCall, SealedPrice, SealedList, RevealedPrice, MarketOutcome)
    document = parse_canonical(data, max_bytes=2 * MARKET_BYTES_MAX)
    shown = document.get("payloadType") if isinstance(document, dict) else None
    for kind in kinds:
        if shown == kind.payload_type():
            return kind.__name__
    raise PeerError("This file is no document of a market.", remedy="Give the file as it was sent.")


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise PeerError(f"The market's document is refused: {why}.", remedy=_ASK)

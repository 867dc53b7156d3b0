"""Who takes part at which price, when institutions name theirs: sealed prices, then a selection within the budget.

Prices are committed to before anybody shows one (commit, then reveal), so that nobody bids on another's bid. The
selection is Singer's proportional share rule for additive worth (Singer 2010, "Budget feasible mechanisms", FOCS,
section 3; Chen, Gravin and Lu 2011, SODA): institutions in order of price per worth, for as long as each asks no more
than its part of the budget among those so far. Each winner is paid its critical price, the highest with which it
would still have won. So

- whoever wins with a price also wins with a lower one (monotone);
- nobody is paid less than asked (individually rational), and all payments together are within the budget;
- naming one's true cost is best, whatever the others do: a price decides whether one wins, not what one is paid.

What an institution is worth to the sponsor (its nominal cohort, say) is an argument and must not depend on its price.
Whoever does not reveal is out. The rule costs: it may take institutions worth a little less than half of what the
sponsor could buy if it knew every cost (at least ``(best - largest worth) / 2``).

All amounts are integers of micro-credits; ties go to the name that comes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field

from federation.errors import OperatorError, PeerError
from federation.rules.canonical import tagged_hash
from federation.rules.documents import Hash, Signed, StudyId
from federation.rules.ledger import AMOUNT_MAX

NONCE_BYTES: Final = 32
WORTH_MAX: Final = 10**12


class SealedPrice(Signed):
    """An institution's promise of a price that nobody can read yet."""

    version: Literal[1] = 1
    study: StudyId
    commitment: Hash


class RevealedPrice(Signed):
    """The price behind a :class:`SealedPrice`, in micro-credits, and the nonce that hid it."""

    version: Literal[1] = 1
    study: StudyId
    price: Annotated[int, Field(ge=0, le=AMOUNT_MAX)]
    nonce: Hash

    def sealed(self, party: str) -> SealedPrice:
        """What ``party`` must have committed to."""
        value = commitment(study=self.study, party=party, price=self.price, nonce=bytes.fromhex(self.nonce))
        return SealedPrice(study=self.study, commitment=value)


def commitment(*, study: str, party: str, price: int, nonce: bytes) -> str:
    """The hash that seals a price: of study, party (did), price and a fresh 32-byte nonce; hexadecimal.

    Raises:
        OperatorError: a price that is not an amount, or a nonce of another length.
    """
    if not 0 <= price <= AMOUNT_MAX or len(nonce) != NONCE_BYTES:
        raise OperatorError(
            f"A price of {price} micro-credits with a nonce of {len(nonce)} bytes cannot be sealed.",
            remedy=f"Name 0 to {AMOUNT_MAX} micro-credits and draw {NONCE_BYTES} fresh bytes.",
        )
    parts = (study.encode("utf-8"), party.encode("utf-8"), str(price).encode("ascii"), nonce)
    return tagged_hash("price-commitment", *parts).hex()


@dataclass(frozen=True, slots=True)
class Offer:
    """What one institution asks and what it is worth to the sponsor.

    Attributes:
        party: its did, or any unique name.
        price: micro-credits that it asks for taking part.
        worth: a positive integer; only proportions matter.
    """

    party: str
    price: int
    worth: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Who takes part and gets what.

    Attributes:
        payments: winner -> micro-credits, at least what it asked; sorted by name.
        budget: what there was to spend.
    """

    payments: Mapping[str, int]
    budget: int

    @property
    def spent(self) -> int:
        """All payments; never above the budget."""
        return sum(self.payments.values())


def select(offers: Sequence[Offer], budget: int) -> Selection:
    """Choose institutions and set their payments.

    Args:
        offers: one for each institution, in any order.
        budget: micro-credits, not negative.

    Raises:
        OperatorError: a price, worth or budget out of range, or an institution with two offers.
    """
    _check(offers, budget)
    ranked = sorted(offers, key=_rank)
    winners: list[Offer] = []
    worth = 0
    for offer in ranked:
        worth += offer.worth
        if offer.price * worth > budget * offer.worth:
            break
        winners.append(offer)
    payments = {offer.party: _critical_price(offer, ranked, budget) for offer in winners}
    result = Selection(payments=MappingProxyType(dict(sorted(payments.items()))), budget=budget)
    if result.spent > budget or any(payments[offer.party] < offer.price for offer in winners):
        raise OperatorError(
            f"The selection would spend {result.spent} of {budget} micro-credits, or pay less than was asked.",
            remedy="Nothing was decided. This is a defect of the program: please report the offers.",
        )
    return result


def critical_price(party: str, offers: Sequence[Offer], budget: int) -> int | None:
    """The highest price with which ``party`` wins against the other offers; None where no price would do.

    Raises:
        OperatorError: as :func:`select`, or ``party`` made no offer.
    """
    _check(offers, budget)
    own = next((offer for offer in offers if offer.party == party), None)
    if own is None:
        raise OperatorError(f"{party} made no offer.", remedy="Ask for one of those who did.")
    highest = _critical_price(own, sorted(offers, key=_rank), budget)
    return None if highest < 0 else highest


def _rank(offer: Offer) -> tuple[Fraction, str]:
    return Fraction(offer.price, offer.worth), offer.party


def _critical_price(own: Offer, ranked: Sequence[Offer], budget: int) -> int:
    """-1 where no price wins.

    Behind the first m others, ``own`` wins with a price b if ``b <= budget * worth / (W_m + worth)``, and it stands
    there, or further ahead, if it ranks before the next one. Standing further ahead only helps: the best of all m.
    """
    others = [offer for offer in ranked if offer.party != own.party]
    best, before = -1, 0
    for follower in (*others, None):
        highest = budget * own.worth // (before + own.worth)
        if follower is not None:
            level = follower.price * own.worth
            ahead = level // follower.worth
            if ahead * follower.worth == level and own.party > follower.party:
                ahead -= 1  # an equal rank goes to the name that comes first
            highest = min(highest, ahead)
            before += follower.worth
        best = max(best, highest)
    return best


def _check(offers: Sequence[Offer], budget: int) -> None:
    wrong = [offer.party for offer in offers if not 0 <= offer.price <= AMOUNT_MAX or not 1 <= offer.worth <= WORTH_MAX]
    if wrong or len({offer.party for offer in offers}) != len(offers) or not 0 <= budget <= AMOUNT_MAX:
        raise OperatorError(
            f"These offers cannot be compared: a budget of {budget}, {len(offers)} offers, "
            f"out of range: {', '.join(wrong) or 'none'}.",
            remedy=f"Each institution makes one offer of 0 to {AMOUNT_MAX} and has a worth of 1 to {WORTH_MAX}.",
        )


@dataclass(frozen=True, slots=True)
class Market:
    """One study's market: prices are sealed, then revealed, then decided. Every step returns the next state.

    Attributes:
        study: the study's id.
        budget: micro-credits.
        worths: party -> what it is worth to the sponsor, fixed before anybody commits.
        phase: ``sealing``, ``revealing`` or ``decided``.
        sealed: party -> commitment.
        revealed: party -> price.
        selection: who won; None until it is decided.
    """

    study: str
    budget: int
    worths: Mapping[str, int]
    phase: Literal["sealing", "revealing", "decided"] = "sealing"
    sealed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    revealed: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    selection: Selection | None = None

    def seal(self, party: str, document: SealedPrice) -> "Market":
        """Take a commitment.

        Raises:
            PeerError: not the time, another study, a party that is not invited or has committed already.
        """
        self._require(self.phase == "sealing", f"{party} commits after sealing ended")
        self._require(document.study == self.study, f"{party} commits to a price for {document.study}")
        self._require(party in self.worths, f"{party} is not invited")
        self._require(party not in self.sealed, f"{party} has committed already")
        return replace(self, sealed=MappingProxyType({**self.sealed, party: document.commitment}))

    def close(self) -> "Market":
        """No commitment is taken any more; from here on prices are shown.

        Raises:
            PeerError: not the time.
        """
        self._require(self.phase == "sealing", "sealing ended already")
        return replace(self, phase="revealing")

    def reveal(self, party: str, document: RevealedPrice) -> "Market":
        """Take the price behind a commitment.

        Raises:
            PeerError: not the time, no commitment, another price than was committed to, or revealed already.
        """
        self._require(self.phase == "revealing", f"{party} shows a price while prices are {self.phase}")
        self._require(party in self.sealed, f"{party} has not committed")
        self._require(party not in self.revealed, f"{party} has shown its price already")
        self._require(document.study == self.study, f"{party} shows a price for {document.study}")
        same = document.sealed(party).commitment == self.sealed[party]
        self._require(same, f"{party} shows another price than it committed to")
        return replace(self, revealed=MappingProxyType({**self.revealed, party: document.price}))

    def decide(self) -> "Market":
        """Select among those who revealed.

        Raises:
            PeerError: not the time.
            OperatorError: worths or budget out of range.
        """
        self._require(self.phase == "revealing", f"nothing can be decided while prices are {self.phase}")
        offers = [Offer(party, price, self.worths[party]) for party, price in sorted(self.revealed.items())]
        return replace(self, phase="decided", selection=select(offers, self.budget))

    def _require(self, condition: bool, why: str) -> None:
        if not condition:
            raise PeerError(
                f"The market of {self.study} refuses: {why}.", remedy="Follow the order: commit, wait, then reveal."
            )

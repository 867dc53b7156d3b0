"""What a settlement pays out: fees for taking part, which follow from the log alone, and every transfer out of escrow.

A fee (the plan's ``reward.fees``) is what taking part in all rounds that count is worth; whoever took part in some of
them is paid that part of it, rounded down, and the rest is burned. A round counts when it had its quorum. What an
update was worth does not matter here: that is what the pool is for (``rewards``).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from federation.rules.entries import StudySettled
from federation.rules.ledger import Transfer


class CountedRound(Protocol):
    """What of a closed round decides about fees (``replay.ClosedRound``)."""

    @property
    def outcome(self) -> str:
        """``aggregated`` when the round counts."""

    @property
    def admitted(self) -> Mapping[str, object]:
        """By did, whose update is in the model."""


def fees_due(fees: Mapping[str, int] | None, rounds: Sequence[CountedRound]) -> dict[str, int]:
    """What each party is paid of its fee, in micro-credits.

    Args:
        fees: did -> the whole fee; None where the plan has none.
        rounds: the study's closed rounds.

    Returns:
        did -> what is paid, for those of ``fees``.
    """
    counted = [done for done in rounds if done.outcome == "aggregated"]
    return {
        did: fee * sum(did in done.admitted for done in counted) // max(1, len(counted))
        for did, fee in sorted((fees or {}).items())
    }


def transfers(entry_id: str, escrow: str, body: StudySettled) -> Iterable[Transfer]:
    """The settlement's transfers: rewards and fees to institutions, the rest burned; nothing for amounts of zero."""
    due = [
        *((payment.site, f"institution:{payment.site}", payment.reward) for payment in body.payments),
        *((f"{payment.site}:fee", f"institution:{payment.site}", payment.fee or 0) for payment in body.payments),
        ("burned", "burned:study", body.burned),
    ]
    for name, account, amount in due:
        if amount:
            yield Transfer(id=f"{entry_id}:{name}", debit=escrow, credit=account, amount=amount)

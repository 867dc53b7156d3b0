"""What each institution earned over all settled studies of a folder, from logs that were verified just now.

Paid on a chain means paid for ever, so a study counts only once its settlement is final: a quorum of its institutions
cosigned a checkpoint that covers it. What counts is what stands on an institution's account and is not held: earned,
and neither staked nor passed on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from federation.coordinator.books import Books, books_of
from federation.coordinator.source import studies_in
from federation.errors import OperatorError, PeerError, UnavailableError
from federation.export.folding import Settlement, open_newest
from federation.rules.checkpoint import finality_quorum
from federation.rules.ledger import INSTITUTION, account_kind
from federation.rules.merkle import root

_PREFIX: Final = f"{INSTITUTION}:"


@dataclass(frozen=True, slots=True)
class StudyEarnings:
    """One settled study.

    Attributes:
        study: its id.
        size: of its log, entries.
        root: of its log, hexadecimal.
        amounts: institution's account -> micro-credits, those above zero.
        parties: institution's account -> the did that signed the agreement.
        total: micro-credits, from the other side of the books: minted, less pools, burned and others' credits.
    """

    study: str
    size: int
    root: str
    amounts: Mapping[str, int]
    parties: Mapping[str, str]
    total: int


@dataclass(frozen=True, slots=True)
class Earnings:
    """All settled studies, and the ids of those that are not settled yet."""

    studies: tuple[StudyEarnings, ...]
    unsettled: tuple[str, ...]

    @property
    def amounts(self) -> dict[str, int]:
        """Institution's account -> micro-credits over all studies, sorted by account."""
        sums: dict[str, int] = {}
        for study in self.studies:
            for account, amount in study.amounts.items():
                sums[account] = sums.get(account, 0) + amount
        return dict(sorted(sums.items()))

    @property
    def total(self) -> int:
        """Micro-credits of all studies, not computed from ``amounts``."""
        return sum(study.total for study in self.studies)


def earnings_in(folder: Path) -> Earnings:
    """Read and verify every study in a folder.

    Args:
        folder: a coordinator's or a node's folder, an exported study, or a folder of exported studies.

    Raises:
        OperatorError: no study, none that is settled, one that is there twice, or one name for two institutions.
        PeerError: a log, a table, a checkpoint or the payments do not verify.
        UnavailableError: a part has not arrived in this folder yet, or a settlement is not final.
    """
    studies = studies_in(folder)
    names = [name for _, name in studies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OperatorError(
            f"The study {twice[0]} is in {folder} twice and would be paid twice.",
            remedy="Leave its newest export there.",
        )
    settled, unsettled = [], []
    for path, name in studies:
        books = books_of(path, study=name)
        settlement = books.folded.settlement
        if settlement is None:
            unsettled.append(name)
        else:
            _check_final(books, settlement)
            settled.append(study_earnings(books))
    if not settled:
        raise OperatorError(
            f"No study in {folder} is settled: {', '.join(unsettled)}.", remedy="Wait until one has paid its pool out."
        )
    _check_names(settled)
    return Earnings(studies=tuple(settled), unsettled=tuple(unsettled))


def study_earnings(books: Books) -> StudyEarnings:
    """What the institutions of one settled study have on their accounts."""
    state, ledger = books.folded.state, books.ledger
    accounts = [account for account in ledger.balances if account_kind(account) == INSTITUTION]
    amounts = {account: ledger.available(account) for account in accounts if ledger.available(account)}
    others = sum(amount for account, amount in ledger.balances.items() if account not in accounts)
    held = sum(ledger.held.get(account, 0) for account in accounts)
    return StudyEarnings(
        study=state.study,
        size=state.size,
        root=root(books.folded.leaves).hex(),
        amounts=amounts,
        parties={f"{_PREFIX}{agreement.site}": did for did, agreement in state.agreements.items()},
        total=ledger.minted - ledger.escrow - ledger.burned - others - held,
    )


def _check_final(books: Books, settlement: Settlement) -> None:
    folded = books.folded
    signed = open_newest(folded, books.newest, settlement.index)
    if signed.checkpoint.root != root(folded.leaves[: signed.checkpoint.size]):
        raise PeerError(
            f"The newest checkpoint of {folded.state.study} is of another log.", remedy="Keep both as evidence."
        )
    witnesses = len(folded.witnesses[-1])
    if len(signed.cosignatures) < finality_quorum(witnesses):
        raise UnavailableError(
            f"The settlement of {folded.state.study} is not final here: {len(signed.cosignatures)} of {witnesses} "
            f"institutions cosigned it, {finality_quorum(witnesses)} are needed.",
            remedy="Use the coordinator's folder or its export: cosignatures are collected there while it runs.",
        )


def _check_names(studies: Iterable[StudyEarnings]) -> None:
    """One account name is one institution: two that are called alike would be paid to one address."""
    known: dict[str, tuple[str, str]] = {}
    for study in studies:
        for account in study.amounts:
            did = study.parties[account]
            before, where = known.setdefault(account, (did, study.study))
            if before != did:
                raise OperatorError(
                    f"{account} is {before} in {where} and {did} in {study.study}: perhaps two institutions.",
                    remedy="Put the studies of each into a folder of its own, and make a tree and a contract for each.",
                )

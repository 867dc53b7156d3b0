"""Challenging one utility of a closed round, from a folder that holds the study and its validation rows.

The challenge is put together from the folder and then verified as any stranger would verify it: what is said here is
what its file shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federation.errors import OperatorError
from federation.export.folding import FoldedLog, fold, open_newest
from federation.learning.evaluation import committed_utility
from federation.rules import audit
from federation.rules.challenge import DRAWN, NOBODY, Finding, make_challenge, verify_challenge
from federation.rules.entries import Entry, RoundOpened, StudyPublished, StudyStarted
from federation.rules.state import ClosedRound
from federation.rules.study import open_plan
from federation.rules.value_sample import coalitions_of, is_sampled

from .source import open_source


@dataclass(frozen=True, slots=True)
class StudyChallenge:
    """A verified challenge: its file's bytes, what it shows, and the parties' short names by did."""

    data: bytes
    finding: Finding
    sites: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``: as the finding, and the coalition's short names."""
        return {**self.finding.to_json(), "sites": sorted(self.sites[did] for did in self.finding.coalition)}


def challenge_of(folder: Path, *, coalition: str, round_number: int, study: str | None) -> StudyChallenge:
    """Recompute the utility of ``coalition`` in a round, and compare it with the one that the log committed to.

    Args:
        folder: an exported study with its validation rows, or a coordinator's folder.
        coalition: short names joined by commas; ``-`` is nobody, that is the round's base model; in a sampled table
            also ``drawn:PLACE``.
        round_number: the round.
        study: which study; None takes the only or the newest one.

    Raises:
        OperatorError: no such folder, study, round or coalition, the study is not settled, or its rows are sealed.
        PeerError: the log, the checkpoint, the table, the rows or a blob do not verify.
        UnavailableError: a part is not in this folder.
    """
    source = open_source(folder, study)
    plan, envelope = open_plan(source.plan)
    folded = fold(plan, source.plan, envelope.signer, source.entries)
    state = folded.state
    if not state.settled:
        raise OperatorError(
            f"{state.study} is not settled: its value tables are still closed.",
            remedy="Challenge it after the settlement, which opens them.",
        )
    if plan.validation.disclosure != "public":
        raise OperatorError(
            f"{state.study} keeps its validation rows sealed, and a challenge would show them.",
            remedy='Only a plan with validation.disclosure = "public" has utilities that others can recompute.',
        )
    done = _round(folded, round_number)
    members = _members(folded, done, coalition, source.blobs)
    challenge = make_challenge(
        plan=source.plan,
        signed=open_newest(folded, source.newest, done.entry_index),
        entries=source.entries,
        places=(
            _place(folded, StudyPublished),
            _place(folded, StudyStarted),
            _place(folded, RoundOpened, done.number),
            done.entry_index,
        ),
        table=source.blobs(done.value_table),
        validation=source.validation(plan.validation.commitment),
        base=source.blobs(done.base_model),
        updates={did: b"".join(source.blobs(name) for name in done.admitted[did].chunks) for did in members},
        reference=None if done.reference is None else source.blobs(done.reference),
    )
    data = challenge.to_bytes()
    finding = verify_challenge(data, coordinator=envelope.signer, utility=committed_utility)
    return StudyChallenge(data=data, finding=finding, sites={did: state.site(did) for did in state.agreements})


def _round(folded: FoldedLog, number: int) -> ClosedRound:
    closed = folded.state.closed
    if not 1 <= number <= len(closed):
        raise OperatorError(
            f"{folded.state.study} has no closed round {number}.", remedy=f"Its rounds are 1 to {len(closed)}."
        )
    return closed[number - 1]


def _members(folded: FoldedLog, done: ClosedRound, coalition: str, blobs: audit.Blobs) -> list[str]:
    """The did of each member."""
    if not is_sampled(len(done.admitted)):
        return _named(folded, done, coalition)
    table = audit.open_table(done, folded.state, blobs(done.value_table))
    valuation = folded.state.plan.valuation
    coalitions = coalitions_of(table, valuation)
    place = coalition.removeprefix(DRAWN.format(""))
    if place != coalition and place.isascii() and place.isdigit() and int(place) < len(coalitions):
        return [did for bit, did in enumerate(table.players) if coalitions[int(place)] >> bit & 1]
    members = _named(folded, done, coalition) if place == coalition else []
    mask = sum(1 << bit for bit, did in enumerate(table.players) if did in members)
    if place != coalition or mask not in coalitions:
        raise OperatorError(
            f"{coalition} is none of the {len(coalitions)} coalitions that were drawn for round {done.number}.",
            remedy=f"Name one of them by its place: {DRAWN.format(0)} to {DRAWN.format(len(coalitions) - 1)}.",
        )
    return members


def _named(folded: FoldedLog, done: ClosedRound, coalition: str) -> list[str]:
    present = {folded.state.site(did): did for did in done.admitted}
    names = [] if coalition == NOBODY else coalition.split(",")
    for name in names:
        if name not in present:
            raise OperatorError(
                f"{name!r} has no update in round {done.number}.",
                remedy=f"Join names of these by commas: {', '.join(sorted(present)) or 'nobody'}; or give {NOBODY} for "
                "the round's base model.",
            )
    return sorted({present[name] for name in names})


def _place(
    folded: FoldedLog, kind: type[StudyPublished | StudyStarted | RoundOpened], number: int | None = None
) -> int:
    """Where the one entry of this kind (and round) is: the log was replayed, so it is there."""

    def wanted(entry: Entry) -> bool:
        return isinstance(entry.body, kind) and entry.round == number

    return next(index for index, entry in enumerate(folded.entries) if wanted(entry))

"""How many people permit a use, and whose answer a person has to judge, in the words of the page's reader.

The counts stay on the institution's own page: nothing here travels, and no export carries a count of persons.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from consent.language import sentence
from consent.registry import LICENCE_REF
from consent.rules.decision import Decision, Status, Use, use_of
from consent.rules.duo import NOT_FOR_PROFIT, Declared
from consent.web.officer_draft import ONE_PROJECT
from consent.web.officer_people import known
from consent.web.request import ConsentRequest
from consent.web.state import Web
from federation.rules.study import open_plan

AGAIN: Final = "again"
"""Who said yes to a text that was replaced: asked again, and counted apart from a yes that ended by itself."""

ORDER: Final = (
    Status.PERMITTED.value,
    Status.PENDING.value,
    AGAIN,
    Status.NEEDS_PERSON.value,
    Status.NOT_COVERED.value,
    Status.REFUSED.value,
    Status.WITHDRAWN.value,
    Status.EXPIRED.value,
    Status.MISSING.value,
    Status.INVALID.value,
)
# What an officer can do something about, by looking at a person.
_JUDGED: Final = frozenset({Status.NEEDS_PERSON.value, Status.INVALID.value})


@dataclass(frozen=True, slots=True)
class Study:
    """A study that takes place here, as its plan says."""

    name: str
    title: str
    use: Use


@dataclass(frozen=True, slots=True)
class Coverage:
    """The answers to one use: how many of each kind, and the ones that a person has to look at, in words."""

    counts: Mapping[str, int]
    people: Mapping[str, tuple[str, ...]]
    judged: tuple[tuple[str, str], ...]

    @property
    def total(self) -> int:
        """How many people were looked at."""
        return sum(self.counts.values())

    def bars(self, width: int) -> list[tuple[str, int, float, float]]:
        """The kinds that occur, for a bar of ``width``: (kind, count, where it begins, how wide it is)."""
        found: list[tuple[str, int, float, float]] = []
        at = 0.0
        for kind in ORDER:
            count = self.counts[kind]
            if count:
                wide = width * count / self.total
                found.append((kind, count, round(at, 2), round(wide, 2)))
                at += wide
        return found


def kind_of(decision: Decision) -> str:
    """The kind under which a decision is counted."""
    if decision.status is Status.EXPIRED and any(reason.code == "notice" for reason in decision.reasons):
        return AGAIN
    return decision.status.value


def cover(web: Web, use: Use, language: str, refs: Sequence[str] | None = None) -> Coverage:
    """Decide about everybody who is known (or ``refs``), now; for a whole source, about its owner."""
    registry = web.registry
    everybody = known(web) if refs is None else refs
    decisions = registry.decide_all(use, registry.now(), (LICENCE_REF,) if use.kind.whole_source else everybody)
    people: dict[str, list[str]] = {kind: [] for kind in ORDER}
    for ref, decision in decisions.items():
        people[kind_of(decision)].append(ref)
    counts = Counter({kind: len(found) for kind, found in people.items()})
    judged = tuple(
        (ref, sentence(decision, language)) for ref, decision in decisions.items() if kind_of(decision) in _JUDGED
    )
    return Coverage(counts, {kind: tuple(found) for kind, found in people.items()}, judged)


def uses_of(asked: ConsentRequest, institution: str) -> list[tuple[str, Use]]:
    """For each purpose of a request that allows something: its key, and the use that it is meant for.

    A request is no study and declares nothing; the use is that of a study that is not for profit, and the one that is
    asked for, if it is only one.
    """
    declared = Declared(commercial=False, organisation=NOT_FOR_PROFIT, study=asked.conditions.get(ONE_PROJECT, ()))
    return [
        (
            purpose.key,
            Use(
                institution=institution,
                kind=asked.mechanism,
                duo=purpose.codes[0],
                disease=purpose.diseases[0] if purpose.diseases else None,
                epsilon=asked.epsilon_max,
                delta=asked.delta_max,
                declared=declared,
            ),
        )
        for purpose in asked.purposes
        if purpose.codes
    ]


def studies(web: Web) -> list[Study]:
    """Every study whose plan is known here, by name."""
    found = []
    for row in web.registry.studies():
        if row.plan:
            plan, _ = open_plan(row.plan)
            found.append(Study(row.study, row.title or plan.title, use_of(plan, web.registry.institution.did)))
    return found


def plan_bytes(web: Web, study: str) -> bytes:
    """The signed plan of a study; empty if it is not known here."""
    return next((row.plan for row in web.registry.studies() if row.study == study), b"")

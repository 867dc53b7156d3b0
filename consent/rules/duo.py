"""GA4GH's Data Use Ontology as Accord matches it: five permissions and eighteen modifiers, each with its rule.

Source: EBISPOT/DUO, release 2021-02-23 (labels and definitions). A permission says what a use is for; a modifier says
what must hold besides. Each modifier's rule looks at what the consent names (``conditions``), at what the study
declares about itself (:class:`Declared`) and at the moment, and answers yes, no, or that a person has to judge. Rules
kept: what a study does not declare never counts in its favour; what only a document, a promise or a profession can show
(an ethics approval, a collaboration, a publication, a return of results, genetics) is never a yes from a machine; a
modifier never allows more, but for "clinical care use", which is DUO's one modifier that widens
(:mod:`consent.rules.purposes`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from consent.rules.message import msg
from federation.errors import AccordError
from federation.rules.instant import parse_instant

NO_RESTRICTION: Final = "DUO:0000004"
GENERAL_RESEARCH: Final = "DUO:0000042"
HEALTH_RESEARCH: Final = "DUO:0000006"
DISEASE_RESEARCH: Final = "DUO:0000007"
ANCESTRY_RESEARCH: Final = "DUO:0000011"
CLINICAL_CARE: Final = "DUO:0000043"
TIME_LIMIT: Final = "DUO:0000025"
NOT_FOR_PROFIT: Final = "not-for-profit"


class Verdict(IntEnum):
    """What a rule answers; the greatest of several is the answer to all of them."""

    YES = 0
    PERSON = 1
    NO = 2


@dataclass(frozen=True, slots=True)
class Declared:
    """What a study says about itself beyond its purpose. None and empty mean: it does not say.

    Attributes:
        commercial: whether the use, or what comes of it, is commercial.
        organisation: ``not-for-profit`` if every organisation that uses the data is; else ``for-profit``.
        countries: ISO 3166-1 alpha-2 codes of every country where the data or the results are used.
        methods_development: whether it develops methods, software or algorithms for their own sake.
        ancestry: whether it studies population origins or ancestry.
        genetic: whether it studies genotypes.
        clinical_care: whether it is (also) for clinical use and care.
        research_types: the types of research that it is.
        institutions: every institution that uses the data (names or dids).
        users: every person who uses the data.
        project: the approved project that it belongs to.
        publication_from: before which moment it publishes nothing.
        approvals: ethics approvals that it refers to, for the person who judges them.
        study: the names that identify it beyond doubt (its study id, its plan's hash).
    """

    commercial: bool | None = None
    organisation: str | None = None
    countries: tuple[str, ...] = ()
    methods_development: bool | None = None
    ancestry: bool | None = None
    genetic: bool | None = None
    clinical_care: bool | None = None
    research_types: tuple[str, ...] = ()
    institutions: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    project: str | None = None
    publication_from: datetime | None = None
    approvals: tuple[str, ...] = ()
    study: tuple[str, ...] = ()


NOTHING_DECLARED: Final = Declared()

# What the consent names for this modifier, what the study declares, the moment (None: unknown).
Rule = Callable[[tuple[str, ...], Declared, datetime | None], Verdict]


@dataclass(frozen=True, slots=True)
class Permission:
    """A DUO permission: its short name, a label for readers, and which permissions it contains (itself included)."""

    code: str
    short: str
    label: str
    contains: frozenset[str]


@dataclass(frozen=True, slots=True)
class Modifier:
    """A DUO modifier: its short name, a label for readers, what the values of its condition are (if any), its rule."""

    code: str
    short: str
    label: str
    values: str | None
    rule: Rule


def moment_of(text: str) -> datetime | None:
    """The moment that a condition names: an instant, or a day (its beginning, UTC). None if it is neither."""
    try:
        if "T" in text:
            return parse_instant(text)
        day = date.fromisoformat(text)
    except (AccordError, ValueError):
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _must_be(actual: object, required: object) -> Verdict:
    if actual is None:
        return Verdict.PERSON
    return Verdict.YES if actual == required else Verdict.NO


def _all_among(declared: tuple[str, ...], allowed: tuple[str, ...]) -> Verdict:
    if not declared or not allowed:
        return Verdict.PERSON
    return Verdict.YES if set(declared) <= set(allowed) else Verdict.NO


def _person(_allowed: tuple[str, ...], _declared: Declared, _now: datetime | None) -> Verdict:
    return Verdict.PERSON


def _genetic(_allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    # "Genetic studies only" asks for genotypes, alone or with phenotypes: a study without is a no, one with is judged.
    return Verdict.NO if declared.genetic is False else Verdict.PERSON


def _commerce(_allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    return _must_be(declared.commercial, required=False)


def _organisation(_allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    return _must_be(declared.organisation, NOT_FOR_PROFIT)


def _neither(allowed: tuple[str, ...], declared: Declared, now: datetime | None) -> Verdict:
    return max(_commerce(allowed, declared, now), _organisation(allowed, declared, now))


def _no_methods(_allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    return _must_be(declared.methods_development, required=False)


def _no_ancestry(_allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    return _must_be(declared.ancestry, required=False)


def _research_type(allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    return _all_among(declared.research_types, allowed)


def _country(allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    return _all_among(declared.countries, allowed)


def _institution(allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    return _all_among(declared.institutions, allowed)


def _user(allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    return _all_among(declared.users, allowed)


def _project(allowed: tuple[str, ...], declared: Declared, _now: datetime | None) -> Verdict:
    if not set(declared.study).isdisjoint(allowed):
        return Verdict.YES
    return _all_among((declared.project,) if declared.project else (), allowed)


def _until(allowed: tuple[str, ...], _declared: Declared, now: datetime | None) -> Verdict:
    ends = [moment_of(text) for text in allowed]
    known = [end for end in ends if end is not None]
    if now is None or not known or len(known) != len(ends):
        return Verdict.PERSON
    return Verdict.YES if now < min(known) else Verdict.NO


def _not_published_before(allowed: tuple[str, ...], declared: Declared, now: datetime | None) -> Verdict:
    ends = [moment_of(text) for text in allowed]
    known = [end for end in ends if end is not None]
    if now is None or not known or len(known) != len(ends):
        return Verdict.PERSON
    if now >= max(known):
        return Verdict.YES
    if declared.publication_from is None:
        return Verdict.PERSON
    return Verdict.YES if declared.publication_from >= max(known) else Verdict.NO


def _widens(_allowed: tuple[str, ...], _declared: Declared, _now: datetime | None) -> Verdict:
    return Verdict.YES


_RESEARCH: Final = frozenset({GENERAL_RESEARCH, HEALTH_RESEARCH, DISEASE_RESEARCH, ANCESTRY_RESEARCH})

PERMISSIONS: Final[Mapping[str, Permission]] = MappingProxyType(
    {
        permission.code: permission
        for permission in (
            Permission(
                NO_RESTRICTION, "NRES", msg("any use, without restriction"), _RESEARCH | frozenset({NO_RESTRICTION})
            ),
            Permission(GENERAL_RESEARCH, "GRU", msg("general research"), _RESEARCH),
            Permission(
                HEALTH_RESEARCH,
                "HMB",
                msg("health, medical or biomedical research"),
                frozenset({HEALTH_RESEARCH, DISEASE_RESEARCH}),
            ),
            Permission(DISEASE_RESEARCH, "DS", msg("research on a named disease"), frozenset({DISEASE_RESEARCH})),
            Permission(
                ANCESTRY_RESEARCH,
                "POA",
                msg("research on population origins or ancestry"),
                frozenset({ANCESTRY_RESEARCH}),
            ),
        )
    }
)

MODIFIERS: Final[Mapping[str, Modifier]] = MappingProxyType(
    {
        modifier.code: modifier
        for modifier in (
            Modifier("DUO:0000012", "RS", msg("only research of certain types"), "research types", _research_type),
            Modifier("DUO:0000015", "NMDS", msg("no research that develops general methods"), None, _no_methods),
            Modifier("DUO:0000016", "GSO", msg("genetic studies only"), None, _genetic),
            Modifier(
                "DUO:0000018", "NPUNCU", msg("only by not-for-profit organisations, not commercial"), None, _neither
            ),
            Modifier("DUO:0000019", "PUB", msg("results must be made public"), None, _person),
            Modifier("DUO:0000020", "COL", msg("only together with the original investigators"), None, _person),
            Modifier("DUO:0000021", "IRB", msg("only with an ethics approval"), None, _person),
            Modifier("DUO:0000022", "GS", msg("only in certain countries"), "countries (ISO 3166-1)", _country),
            Modifier(
                "DUO:0000024", "MOR", msg("nothing is published before a certain day"), "a day", _not_published_before
            ),
            Modifier(TIME_LIMIT, "TS", msg("only until a certain day"), "a day", _until),
            Modifier("DUO:0000026", "US", msg("only by certain people"), "users", _user),
            Modifier("DUO:0000027", "PS", msg("only in a certain project"), "projects or studies", _project),
            Modifier("DUO:0000028", "IS", msg("only in certain institutions"), "institutions", _institution),
            Modifier("DUO:0000029", "RTN", msg("results must be returned"), None, _person),
            Modifier(CLINICAL_CARE, "CC", msg("also for clinical use and care"), None, _widens),
            Modifier("DUO:0000044", "NPOA", msg("no research on population origins or ancestry"), None, _no_ancestry),
            Modifier("DUO:0000045", "NPU", msg("only by not-for-profit organisations"), None, _organisation),
            Modifier("DUO:0000046", "NCU", msg("no commercial use"), None, _commerce),
        )
    }
)


def label_of(code: str) -> str:
    """A DUO code's English label; the code itself if it is unknown."""
    known = PERMISSIONS.get(code) or MODIFIERS.get(code)
    return code if known is None else known.label

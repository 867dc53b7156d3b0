"""Which uses a consent covers: GA4GH Data Use Ontology (DUO) permissions, modifiers, and diseases.

DUO's permissions form a short ladder: "no restriction" contains "general research use", which contains "health, medical
or biomedical research", which contains "disease-specific research"; general research also contains "population origins
or ancestry", health research does not. Several permissions in one consent add up. Modifiers then narrow what is
allowed, each by its own rule (:mod:`consent.rules.duo`), and all of them must hold. Whatever a machine cannot know (a
code that is unknown, a disease that is not named, a fact that the study does not declare) needs a person, and what
needs a person is answered with no.

Laws, each tested: adding a modifier never turns a no into a yes (but for "clinical care use", which allows a study that
declares clinical care); narrowing a study's purpose or its disease never turns a yes into a no, widening it never a no
into a yes; an unknown code is never covered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from consent.rules.diseases import BROADER, ancestors
from consent.rules.duo import (
    ANCESTRY_RESEARCH,
    CLINICAL_CARE,
    DISEASE_RESEARCH,
    GENERAL_RESEARCH,
    HEALTH_RESEARCH,
    MODIFIERS,
    NO_RESTRICTION,
    NOTHING_DECLARED,
    PERMISSIONS,
    Declared,
    Modifier,
    Verdict,
    label_of,
    moment_of,
)

__all__ = [
    "ANCESTRY_RESEARCH",
    "BROADER",
    "DISEASE_RESEARCH",
    "GENERAL_RESEARCH",
    "HEALTH_RESEARCH",
    "LABELS",
    "NO_RESTRICTION",
    "Consented",
    "Finding",
    "Wanted",
    "ancestors",
    "covers",
    "in_words",
    "judge",
    "needs_person",
]

LABELS: Final[Mapping[str, str]] = MappingProxyType({code: known.label for code, known in PERMISSIONS.items()})


@dataclass(frozen=True, slots=True)
class Consented:
    """What a person allows.

    Attributes:
        purposes: DUO codes, permissions and modifiers together.
        diseases: for disease-specific research, which diseases (MONDO).
        conditions: DUO modifier -> what it names (countries, institutions, a day, ...).
    """

    purposes: tuple[str, ...]
    diseases: tuple[str, ...] = ()
    conditions: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a study wants to do: one DUO permission; its disease (MONDO); what else it declares."""

    duo: str
    disease: str | None = None
    declared: Declared = NOTHING_DECLARED


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that stands against a yes: ``code`` (purpose, modifier, needs_person) and its particulars."""

    code: str
    values: Mapping[str, str] = field(hash=False)

    @property
    def person(self) -> bool:
        """Whether a person could still find that it is allowed."""
        return self.code == "needs_person"


def judge(consented: Consented, wanted: Wanted, now: datetime | None = None) -> tuple[Finding, ...]:
    """Everything that stands against a yes; empty means that the consent surely covers the use.

    Args:
        consented: what the person allows.
        wanted: what the study wants.
        now: the moment of the use, for modifiers with a day; without it they need a person.
    """
    findings = [*_purpose(consented, wanted)]
    for code in sorted(code for code in consented.purposes if code in MODIFIERS):
        modifier, allowed = MODIFIERS[code], tuple(consented.conditions.get(code, ()))
        verdict = modifier.rule(allowed, wanted.declared, now)
        if verdict is not Verdict.YES:
            findings.append(_against(modifier, allowed, wanted.declared, verdict))
    stray = sorted(code for code in consented.conditions if code not in consented.purposes)
    if stray:  # a condition without its modifier: nobody can know what was meant
        findings.append(_person("unknown", codes=", ".join(stray)))
    return tuple(findings)


def covers(consented: Consented, wanted: Wanted, now: datetime | None = None) -> bool:
    """Whether the consent surely covers the use. Anything unknown is a no (see :func:`needs_person`)."""
    return not judge(consented, wanted, now)


def needs_person(consented: Consented, wanted: Wanted, now: datetime | None = None) -> bool:
    """Whether it is a no only because a machine cannot decide it."""
    findings = judge(consented, wanted, now)
    return bool(findings) and all(finding.person for finding in findings)


def in_words(duo: str, diseases: tuple[str, ...] = ()) -> str:
    """A DUO code as a reader would say it."""
    label = label_of(duo)
    return f"{label} ({', '.join(diseases)})" if duo == DISEASE_RESEARCH and diseases else label


def _purpose(consented: Consented, wanted: Wanted) -> list[Finding]:
    findings: list[Finding] = []
    unknown = {code for code in consented.purposes if code not in PERMISSIONS and code not in MODIFIERS}
    if wanted.duo not in PERMISSIONS:
        unknown.add(wanted.duo)
    if unknown:
        findings.append(_person("unknown", codes=", ".join(sorted(unknown))))
    if wanted.duo == DISEASE_RESEARCH and wanted.disease is None:
        findings.append(_person("disease"))
    permissions = [code for code in consented.purposes if code in PERMISSIONS]
    if wanted.duo in PERMISSIONS and not any(_covers(code, consented.diseases, wanted) for code in permissions):
        values = {
            "allowed_purposes": " ".join(permissions),
            "asked_purpose": wanted.duo,
            "disease": wanted.disease or "",
            "diseases": " ".join(consented.diseases),
        }
        findings.append(Finding("purpose", values))
    if wanted.declared.ancestry and not any(ANCESTRY_RESEARCH in PERMISSIONS[code].contains for code in permissions):
        findings.append(Finding("modifier", {"about": "POA", "duo": ANCESTRY_RESEARCH}))
    if wanted.declared.clinical_care and not {CLINICAL_CARE, NO_RESTRICTION} & set(consented.purposes):
        findings.append(Finding("modifier", {"about": "CC", "duo": CLINICAL_CARE}))
    return findings


def _covers(permission: str, diseases: tuple[str, ...], wanted: Wanted) -> bool:
    if wanted.duo not in PERMISSIONS[permission].contains:
        return False
    if permission != DISEASE_RESEARCH or wanted.disease is None:
        return True
    return not ancestors(wanted.disease).isdisjoint(diseases)


def _against(modifier: Modifier, allowed: tuple[str, ...], declared: Declared, verdict: Verdict) -> Finding:
    values = {"about": modifier.short, "duo": modifier.code}
    if modifier.short in ("MOR", "TS"):
        days = [day for day in map(moment_of, allowed) if day is not None]
        if len(days) != len(allowed) or not days:
            return _person("unclear", restriction=modifier.code)
        values["day"] = (min if modifier.short == "TS" else max)(days).strftime("%Y-%m-%dT%H:%M:%SZ")
    elif modifier.values is not None:
        if not allowed:
            return _person("unclear", restriction=modifier.code)
        values["allowed_values"] = ", ".join(allowed)
    elif modifier.short == "IRB" and declared.approvals:
        values = {"about": "approvals", "duo": modifier.code, "approvals": ", ".join(declared.approvals)}
    return Finding("needs_person" if verdict is Verdict.PERSON else "modifier", values)


def _person(about: str, **values: str) -> Finding:
    return Finding("needs_person", {"about": about, **values})

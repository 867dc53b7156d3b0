"""Who speaks for the data, as the command line reads it: the kind of record, its own elements, a guardian's authority.

The elements of a HIPAA authorization or of an EHDS data permit are too many for options: they stand in a small TOML
file, of which ``accord consent elements KIND`` prints a template.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from consent.cli.texts import instant
from consent.registry import LICENCE_REF
from consent.rules.record import Action, Mechanism
from consent.rules.statement import DataPermit, HipaaAuthorization
from federation.errors import OperatorError
from federation.rules.canonical import canonical_bytes
from federation.rules.keys import PrivateKey
from federation.rules.wire import describe, parse_toml

_FILE_BYTES_MAX: Final = 64 * 1024
_HIPAA_TEMPLATE: Final = """\
# An authorization under HIPAA, 45 CFR 164.508(c): replace what stands in quotes; the three statements may stay.
information = "Laboratory results and diagnoses of 2015 to 2025"        # (c)(1)(i) what may be used
purpose = "Research on heart disease"                                   # (c)(1)(iv)
expiration = "The end of the research study"                            # (c)(1)(v) a date or an event

# (c)(2) what the person has to be told
right_to_revoke = "You may revoke this authorization in writing, or on the consent page, at any time."
conditioning = "Your treatment and payment do not depend on whether you sign."
redisclosure = "Information that is disclosed may be disclosed again and is then no longer protected by HIPAA."

[discloser]                                                             # (c)(1)(ii) who discloses
name = "Our Hospital"
contact = "privacy@hospital.example"

[[recipients]]                                                          # (c)(1)(iii) to whom
name = "The members of the study: results, never the data"
"""
_PERMIT_TEMPLATE: Final = """\
# A data permit of the European Health Data Space, Regulation (EU) 2025/327, Article 68.
number = "HDAB-2026-0042"                # as the health data access body issued it

[body]                                   # the health data access body
name = "The Health Data Access Body"
contact = "permits@hdab.example"

[user]                                   # the health data user to whom it was issued
name = "The University"
"""
TEMPLATES: Final[Mapping[Mechanism, str]] = {
    Mechanism.HIPAA_AUTHORIZATION: _HIPAA_TEMPLATE,
    Mechanism.EHDS_PERMIT: _PERMIT_TEMPLATE,
}
_FORMS: Final[Mapping[Mechanism, TypeAdapter[Any]]] = {
    Mechanism.HIPAA_AUTHORIZATION: TypeAdapter(HipaaAuthorization),
    Mechanism.EHDS_PERMIT: TypeAdapter(DataPermit),
}


@dataclass(frozen=True, slots=True)
class Elements:
    """What a kind of record carries beyond its terms."""

    hipaa: HipaaAuthorization | None = None
    permit: DataPermit | None = None


@dataclass(frozen=True, slots=True)
class Guardianship:
    """Whose key signs for a minor, and the day on which that ends."""

    ref: str
    majority: datetime


@dataclass(frozen=True, slots=True)
class Special:
    """What is not as usual about the records of one command.

    Attributes:
        kind: who speaks for the data; None goes on as each chain began (a consent, for somebody new).
        elements: what this kind carries beyond its terms, for grants.
        guardianship: who signs in the people's place; None: they themselves.
        authority: the institution's key, which lends the guardian its word.
    """

    kind: Mechanism | None = None
    elements: Elements = Elements()
    guardianship: Guardianship | None = None
    authority: PrivateKey | None = None


USUAL: Final = Special()


def kind_of(name: str | None, *, licence: bool) -> Mechanism | None:
    """The kind that options name; None leaves it to each chain (a consent, for somebody new).

    Raises:
        OperatorError: no such kind, or two that do not fit.
    """
    if name is None:
        return Mechanism.LICENCE if licence else None
    try:
        kind = Mechanism(name)
    except ValueError as error:
        raise OperatorError(
            f"--kind: {name[:40]!r}.", remedy=f"Write one of: {', '.join(map(str, Mechanism))}."
        ) from error
    if licence and kind is not Mechanism.LICENCE:
        raise OperatorError(f"--licence and --kind {kind} are two kinds of record.", remedy="Leave one of them out.")
    return kind


def check_people(kind: Mechanism | None, refs: list[str], actions: set[Action]) -> list[str]:
    """The names that records of a kind are for: a whole source has one.

    Raises:
        OperatorError: people are named for a whole source, or an opt-out is to grant.
    """
    if kind is not None and kind.whole_source:
        if any(ref != LICENCE_REF for ref in refs):
            raise OperatorError(
                f"A {kind} is one record for the whole source, and people are named.",
                remedy="Leave out --subject, --all and --decisions.",
            )
        return [LICENCE_REF]
    if kind is Mechanism.EHDS_OPTOUT and Action.GRANT in actions:
        raise OperatorError(
            "An opt-out says no and never grants.",
            remedy="Add --refuse to opt out; `accord consent withdraw --wallet ...` takes an opt-out back.",
        )
    return refs


def guardianship(ref: str | None, majority: str | None) -> Guardianship | None:
    """The guardian that options name.

    Raises:
        OperatorError: one of the two is missing, or the day is not one.
    """
    if ref is None and majority is None:
        return None
    if ref is None or majority is None:
        raise OperatorError(
            "A guardian signs until the minor comes of age.", remedy="Give both --guardian and --majority."
        )
    return Guardianship(ref, instant(majority, "--majority"))


def read_elements(kind: Mechanism | None, path: Path | None) -> Elements:
    """The elements of a kind, from their file.

    Raises:
        OperatorError: the kind has none, the file is missing, or a field is missing, unknown or malformed.
    """
    form = None if kind is None else _FORMS.get(kind)
    if form is None:
        if path is not None:
            raise OperatorError(
                f"A {kind or 'consent'} has no elements of its own.",
                remedy="Leave out --elements, or name the --kind: hipaa-authorization or ehds-permit.",
            )
        return Elements()
    template = f"`accord consent elements {kind} > elements.toml` writes a template; mend it and give --elements."
    if path is None:
        raise OperatorError(f"A {kind} says more than its terms.", remedy=template)
    try:
        with path.open("rb") as file:
            document = parse_toml(file.read(_FILE_BYTES_MAX).decode("utf-8"))
        value = form.validate_json(canonical_bytes(_camel(document)))
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.", remedy="Check --elements.") from error
    except ValidationError as error:
        raise OperatorError(f"{path} is not whole: {describe(error)}.", remedy=template) from error
    except ValueError as error:
        raise OperatorError(f"{path} is not valid TOML: {error}.", remedy="Mend the line that is named.") from error
    return Elements(hipaa=value) if kind is Mechanism.HIPAA_AUTHORIZATION else Elements(permit=value)


def _camel(value: Any) -> Any:
    """The names of the form on the wire."""
    if isinstance(value, dict):
        return {to_camel(name): _camel(item) for name, item in value.items()}
    return [_camel(item) for item in value] if isinstance(value, list) else value

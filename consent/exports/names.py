"""The names that exports share: whose vocabulary a code belongs to, and how its identifier is written there."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from consent.rules.record import Terms
from federation.errors import ConsentError, PeerError
from federation.rules.instant import parse_instant

OBO: Final = "http://purl.obolibrary.org/obo/"
DUO_SYSTEM: Final = f"{OBO}duo.owl"
MONDO_SYSTEM: Final = f"{OBO}mondo.owl"
ACCORD: Final = "https://w3id.org/accord/consent/v2#"
DPV_SYSTEMS: Final[Mapping[str, str]] = {
    "dpv": "https://w3id.org/dpv#",
    "pd": "https://w3id.org/dpv/pd#",
    "loc": "https://w3id.org/dpv/loc#",
    "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
}


def obo_iri(code: str) -> str:
    """``DUO:0000006`` as the ontology's IRI."""
    return OBO + code.replace(":", "_", 1)


def obo_code(iri: str) -> str:
    """The ontology's IRI as ``DUO:0000006``.

    Raises:
        ConsentError: it is not such an IRI.
    """
    name, _, digits = iri.removeprefix(OBO).partition("_")
    if not iri.startswith(OBO) or not name.isalpha() or not digits.isdigit():
        raise unreadable(f"{iri[:80]!r} is no OBO identifier")
    return f"{name}:{digits}"


def split_term(term: str) -> tuple[str, str]:
    """``eu-gdpr:A6-1-a`` as the vocabulary's address and the name in it."""
    prefix, _, name = term.partition(":")
    return DPV_SYSTEMS.get(prefix, prefix), name


def unreadable(why: str) -> ConsentError:
    """The error of a document that is not one of these exports."""
    return ConsentError(
        f"The document is not an exported consent: {why}.",
        remedy="Export the consent again with `accord consent export`.",
    )


def terms_of(
    *,
    purposes: list[str],
    diseases: list[str],
    conditions: Mapping[str, tuple[str, ...]],
    limits: Mapping[str, Any],
    valid_until: Any,
) -> Terms:
    """Terms from what an export carried.

    Raises:
        ConsentError: a part is missing or malformed.
    """
    try:
        rounds = limits.get("rounds-max")
        return Terms(
            purposes=tuple(purposes),
            epsilon_max=Decimal(limits["epsilon-max"]),
            delta_max=Decimal(limits["delta-max"]),
            valid_until=_instant(valid_until),
            diseases=tuple(diseases),
            conditions=dict(conditions),
            code_hash=limits.get("code-hash"),
            rounds_max=None if rounds is None else int(rounds),
        )
    except KeyError as error:
        raise unreadable(f"it has no {error.args[0]}") from error
    except (InvalidOperation, TypeError, ValueError, PeerError) as error:
        raise unreadable("a limit or a date in it cannot be read") from error


def _instant(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    return parse_instant(str(value))

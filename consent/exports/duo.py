"""A consent as data use codes alone, for catalogues of data (GA4GH DUO, with MONDO for diseases).

DUO says what data may be used for; it has no words for privacy loss, programs or the end of a consent. What it can
carry comes back whole from :func:`consented_from_duo`.
"""

from collections.abc import Mapping
from typing import Any

from consent.exports.names import obo_iri, unreadable
from consent.language import Reader
from consent.rules.duo import MODIFIERS, PERMISSIONS, label_of
from consent.rules.purposes import Consented
from consent.rules.record import ConsentRecord


def to_duo(record: ConsentRecord, language: str = "en") -> dict[str, Any]:
    """The record's data use codes with labels in a language; no codes if it grants nothing."""
    reader, terms = Reader(language), record.terms
    return {
        "record": record.digest,
        "action": record.action.value,
        "language": language,
        "dataUse": [] if terms is None else [_code(code, terms.conditions, reader) for code in terms.purposes],
        "diseases": []
        if terms is None
        else [{"code": code, "iri": obo_iri(code), "label": reader.disease(code)} for code in terms.diseases],
    }


def consented_from_duo(document: Mapping[str, Any]) -> Consented:
    """What :func:`to_duo` carries of a consent.

    Raises:
        ConsentError: it is not such a document.
    """
    try:
        uses = document["dataUse"]
        return Consented(
            purposes=tuple(str(use["code"]) for use in uses),
            diseases=tuple(str(disease["code"]) for disease in document["diseases"]),
            conditions={str(use["code"]): tuple(map(str, use["values"])) for use in uses if "values" in use},
        )
    except (KeyError, TypeError) as error:
        raise unreadable("it does not hold dataUse and diseases") from error


def _code(code: str, conditions: Mapping[str, tuple[str, ...]], reader: Reader) -> dict[str, Any]:
    known = PERMISSIONS.get(code) or MODIFIERS.get(code)
    shown: dict[str, Any] = {"code": code, "iri": obo_iri(code), "label": reader.gettext(label_of(code))}
    if known is not None:
        shown |= {"short": known.short, "kind": "permission" if code in PERMISSIONS else "modifier"}
    if code in conditions:
        shown["values"] = list(conditions[code])
    return shown

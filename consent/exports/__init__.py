"""A record in the forms that others read: FHIR R5, ODRL 2.2, DUO codes, a Kantara receipt, paper. All are pure."""

from consent.exports.duo import consented_from_duo, to_duo
from consent.exports.fhir import terms_from_fhir, to_fhir
from consent.exports.kantara import to_kantara
from consent.exports.odrl import terms_from_odrl, to_odrl
from consent.exports.printed import printed

__all__ = [
    "consented_from_duo",
    "printed",
    "terms_from_fhir",
    "terms_from_odrl",
    "to_duo",
    "to_fhir",
    "to_kantara",
    "to_odrl",
]

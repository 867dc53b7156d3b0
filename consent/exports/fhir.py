"""A consent as a FHIR R5 Consent resource, validated by ``fhir.resources``, and its terms back again.

The base decision is *deny*; a grant's terms are one provision, the exception to it. DUO codes are the provision's
purposes, with diseases and conditions as extensions of the coding that they belong to; privacy loss, program and
rounds, for which FHIR has no words, are extensions of the provision (texts, so that no reader rounds them). The signed
record itself is attached. Source: HL7 FHIR R5, Consent (https://hl7.org/fhir/R5/consent.html).
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

from consent.exports.names import ACCORD, DUO_SYSTEM, MONDO_SYSTEM, split_term, terms_of, unreadable
from consent.rules.diseases import NAMES
from consent.rules.duo import DISEASE_RESEARCH, label_of
from consent.rules.record import Action, ConsentRecord, Terms
from federation.rules.instant import format_instant
from federation.rules.wire import plain_decimal

_DID: Final = "https://www.w3.org/ns/did"
_STATUS: Final = {Action.GRANT: "active", Action.REFUSE: "active", Action.WITHDRAW: "inactive"}


def to_fhir(record: ConsentRecord) -> dict[str, Any]:
    """The record as a FHIR R5 Consent, as JSON types."""
    from fhir.resources.consent import Consent

    statement = record.statement
    institution = _party(record.institution, None if statement is None else statement.controller.name)
    document: dict[str, Any] = {
        "resourceType": "Consent",
        "id": record.digest,
        "identifier": [{"system": f"{ACCORD}digest", "value": record.digest}],
        "status": _STATUS[record.action],
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0", "display": "Patient Consent"}]}],
        "subject": _party(record.subject),
        "date": record.signed_at.date().isoformat(),
        "grantor": [_party(record.subject)],
        "grantee": [institution],
        "controller": [institution],
        "decision": "deny",
        "verification": [{"verified": True, "verificationDate": [format_instant(record.signed_at)]}],
        "sourceAttachment": [
            {
                "contentType": "application/vc",
                "data": base64.b64encode(record.canonical).decode("ascii"),
                "title": "The signed record",
                "creation": format_instant(record.signed_at),
            }
        ],
    }
    if statement is not None:
        document["regulatoryBasis"] = [{"coding": [_term(term)]} for term in statement.legal_basis]
    if record.terms is not None:
        document["period"] = _period(record, record.terms)
        document["provision"] = [_provision(record, record.terms)]
    # Validated, and given back exactly as we wrote it: the library would rewrite instants.
    Consent.model_validate(document)
    return document


def terms_from_fhir(document: Mapping[str, Any]) -> Terms:
    """The terms that a Consent of :func:`to_fhir` carries.

    Raises:
        ConsentError: it is not a FHIR R5 Consent, or not one that carries Accord's terms.
    """
    from fhir.resources.consent import Consent
    from pydantic import ValidationError

    try:
        Consent.model_validate(dict(document))
    except (ValidationError, TypeError, ValueError) as error:
        raise unreadable("it is no FHIR R5 Consent") from error
    provisions = document.get("provision") or []
    if document.get("decision") != "deny" or len(provisions) != 1:
        raise unreadable("it is not a denial with one exception")
    provision = provisions[0]
    purposes, diseases, conditions = [], [], {}
    for coding in provision.get("purpose", []):
        if coding.get("system") != DUO_SYSTEM:
            raise unreadable("a purpose in it is no DUO code")
        code = coding.get("code")
        purposes.append(code)
        found = coding.get("extension", [])
        diseases += [item["valueCoding"]["code"] for item in found if item.get("url") == f"{ACCORD}disease"]
        values = tuple(item["valueString"] for item in found if item.get("url") == f"{ACCORD}condition")
        if values:
            conditions[code] = values
    limits = {
        item["url"].removeprefix(ACCORD): item["valueString"]
        for item in provision.get("extension", [])
        if str(item.get("url")).startswith(ACCORD) and "valueString" in item
    }
    return terms_of(
        purposes=purposes,
        diseases=diseases,
        conditions=conditions,
        limits=limits,
        valid_until=provision.get("period", {}).get("end"),
    )


def _provision(record: ConsentRecord, terms: Terms) -> dict[str, Any]:
    limits = {
        "epsilon-max": plain_decimal(terms.epsilon_max),
        "delta-max": plain_decimal(terms.delta_max),
        "code-hash": terms.code_hash,
        "rounds-max": None if terms.rounds_max is None else str(terms.rounds_max),
    }
    holder = terms.purposes[0] if DISEASE_RESEARCH not in terms.purposes else DISEASE_RESEARCH
    return {
        "extension": [
            {"url": f"{ACCORD}{name}", "valueString": value} for name, value in limits.items() if value is not None
        ],
        "period": _period(record, terms),
        "purpose": [_purpose(code, terms, with_diseases=code == holder) for code in terms.purposes],
    }


def _purpose(code: str, terms: Terms, *, with_diseases: bool) -> dict[str, Any]:
    extensions: list[dict[str, Any]] = [
        {"url": f"{ACCORD}condition", "valueString": value} for value in terms.conditions.get(code, ())
    ]
    for disease in terms.diseases if with_diseases else ():
        coding = {"system": MONDO_SYSTEM, "code": disease, "display": NAMES.get(disease, disease)}
        extensions.append({"url": f"{ACCORD}disease", "valueCoding": coding})
    coding = {"system": DUO_SYSTEM, "code": code, "display": label_of(code)}
    return {**coding, "extension": extensions} if extensions else coding


def _period(record: ConsentRecord, terms: Terms) -> dict[str, str]:
    return {"start": format_instant(record.valid_from), "end": format_instant(terms.valid_until)}


def _party(did: str, name: str | None = None) -> dict[str, Any]:
    reference: dict[str, Any] = {"identifier": {"system": _DID, "value": did}}
    return reference if name is None else {**reference, "display": name}


def _term(term: str) -> dict[str, str]:
    system, code = split_term(term)
    return {"system": system, "code": code}

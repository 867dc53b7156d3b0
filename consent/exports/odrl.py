"""A consent as an ODRL 2.2 policy in JSON-LD, and its terms back again.

A grant is an agreement: the subject (assigner) permits the institution (assignee) to use the data, under constraints
that must all hold. A refusal or a withdrawal is a prohibition. What ODRL has no left operand for is in Accord's own
profile, as ODRL provides. Source: W3C ODRL Information Model 2.2 and ODRL Vocabulary 2.2.
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

from consent.exports.names import ACCORD, OBO, obo_code, obo_iri, terms_of, unreadable
from consent.rules.duo import PERMISSIONS
from consent.rules.record import ConsentRecord, Terms
from federation.rules.instant import format_instant
from federation.rules.wire import plain_decimal

CONTEXT: Final = (
    "http://www.w3.org/ns/odrl.jsonld",
    {"accord": ACCORD, "dct": "http://purl.org/dc/terms/", "obo": OBO, "xsd": "http://www.w3.org/2001/XMLSchema#"},
)
PROFILE: Final = "https://w3id.org/accord/odrl/v1"
# A modifier's left operand where ODRL has one; any other is the profile's.
_OPERANDS: Final[Mapping[str, str]] = {
    "DUO:0000022": "spatial",
    "DUO:0000024": "accord:publication",
    "DUO:0000026": "recipient",
    "DUO:0000028": "recipient",
}
_LIMITS: Final = ("epsilon-max", "delta-max", "rounds-max", "code-hash")


def to_odrl(record: ConsentRecord) -> dict[str, Any]:
    """The record as an ODRL policy, as JSON types."""
    digest = base64.urlsafe_b64encode(bytes.fromhex(record.digest)).decode("ascii").rstrip("=")
    rule: dict[str, Any] = {"target": f"{record.subject}#data", "action": "use"}
    policy: dict[str, Any] = {
        "@context": list(CONTEXT),
        "@type": "Agreement",
        "uid": f"ni:///sha-256;{digest}",  # RFC 6920: the record's own digest
        "profile": PROFILE,
        "assigner": record.subject,
        "assignee": record.institution,
        "dct:issued": format_instant(record.signed_at),
    }
    if record.terms is None:
        return {**policy, "prohibition": [rule]}
    return {**policy, "permission": [{**rule, "constraint": _constraints(record, record.terms)}]}


def terms_from_odrl(policy: Mapping[str, Any]) -> Terms:
    """The terms that a policy of :func:`to_odrl` carries.

    Raises:
        ConsentError: it is not such a policy, or it permits nothing.
    """
    permissions = policy.get("permission")
    if policy.get("profile") != PROFILE or not isinstance(permissions, list) or len(permissions) != 1:
        raise unreadable("it is no policy of Accord's profile with one permission")
    purposes: list[str] = []
    diseases: list[str] = []
    conditions: dict[str, tuple[str, ...]] = {}
    limits: dict[str, Any] = {}
    until = None
    try:
        for constraint in permissions[0]["constraint"]:
            operand, right = constraint["leftOperand"], constraint["rightOperand"]
            if "accord:modifier" in constraint:
                code = obo_code(constraint["accord:modifier"]["@id"])
                purposes.append(code)
                if right != constraint["accord:modifier"]:
                    conditions[code] = tuple(right)
            elif operand == "purpose":
                purposes += [obo_code(item["@id"]) for item in right]
            elif operand == "accord:disease":
                diseases = [obo_code(item["@id"]) for item in right]
            elif operand == "dateTime" and constraint["operator"] == "lt":
                until = right["@value"]
            elif operand.removeprefix("accord:") in _LIMITS:
                limits[operand.removeprefix("accord:")] = right["@value"]
            elif operand != "dateTime":
                raise unreadable(f"it has an unknown constraint {str(operand)[:40]!r}")
    except (KeyError, TypeError, AttributeError) as error:
        raise unreadable("a constraint in it is malformed") from error
    return terms_of(purposes=purposes, diseases=diseases, conditions=conditions, limits=limits, valid_until=until)


def _constraints(record: ConsentRecord, terms: Terms) -> list[dict[str, Any]]:
    permissions = [code for code in terms.purposes if code in PERMISSIONS]
    constraints = [_constraint("purpose", "isAnyOf", [{"@id": obo_iri(code)} for code in permissions])]
    constraints += [_modifier(code, terms) for code in terms.purposes if code not in PERMISSIONS]
    if terms.diseases:
        named = [{"@id": obo_iri(code)} for code in terms.diseases]
        constraints.append(_constraint("accord:disease", "isAnyOf", named))
    constraints += [
        _constraint("dateTime", "gteq", _typed(format_instant(record.valid_from), "dateTime")),
        _constraint("dateTime", "lt", _typed(format_instant(terms.valid_until), "dateTime")),
        _constraint("accord:epsilon-max", "lteq", _typed(plain_decimal(terms.epsilon_max), "decimal")),
        _constraint("accord:delta-max", "lteq", _typed(plain_decimal(terms.delta_max), "decimal")),
    ]
    if terms.rounds_max is not None:
        constraints.append(_constraint("accord:rounds-max", "lteq", _typed(str(terms.rounds_max), "integer")))
    if terms.code_hash is not None:
        constraints.append(_constraint("accord:code-hash", "eq", _typed(terms.code_hash, "string")))
    return constraints


def _modifier(code: str, terms: Terms) -> dict[str, Any]:
    named, itself = terms.conditions.get(code), {"@id": obo_iri(code)}
    operand = _OPERANDS.get(code, "accord:data-use") if named else "accord:data-use"
    constraint = _constraint(operand, "isAnyOf" if named else "eq", list(named) if named else itself)
    return {**constraint, "accord:modifier": itself}


def _constraint(operand: str, operator: str, right: Any) -> dict[str, Any]:
    return {"leftOperand": operand, "operator": operator, "rightOperand": right}


def _typed(value: str, kind: str) -> dict[str, str]:
    return {"@value": value, "@type": f"xsd:{kind}"}

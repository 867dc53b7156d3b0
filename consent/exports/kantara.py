"""A consent as a Kantara Initiative consent receipt, version 1.1: a view for wallets and dashboards that read these.

It is a view and nothing more: the signed record is what counts. Source: Kantara Initiative, Consent Receipt
Specification 1.1.0 (2018-02-20), section 7.
"""

import uuid
from typing import Any, Final

from consent.language import Reader, purposes
from consent.rules.duo import MODIFIERS, PERMISSIONS, label_of
from consent.rules.message import msg
from consent.rules.record import ConsentRecord, Terms
from consent.rules.statement import Statement
from federation.rules.instant import format_instant
from federation.rules.wire import plain_decimal

VERSION: Final = "KI-CR-v1.1.0"
_SERVICE: Final = msg("Research that computes on the data where it is")
_METHOD: Final = msg("Signed with the person's own key")
_METHOD_ATTESTED: Final = msg("Attested by the institution at the person's request")
_SENSITIVE: Final = ("pd:MedicalHealth", "pd:Health", "pd:Genetic")


def to_kantara(record: ConsentRecord, language: str = "en") -> dict[str, Any]:
    """The record as a consent receipt, as JSON types; a record that grants nothing has no services."""
    reader, statement = Reader(language), record.statement
    categories = () if statement is None else statement.data_categories
    sensitive = [category for category in categories if category in _SENSITIVE]
    return {
        "version": VERSION,
        "jurisdiction": "" if statement is None else statement.jurisdiction.partition(":")[2],
        "consentTimestamp": int(record.signed_at.timestamp()),
        "collectionMethod": reader.gettext(_METHOD_ATTESTED if record.attested else _METHOD),
        "consentReceiptID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:sha256:{record.digest}")),
        "publicKey": record.institution.removeprefix("did:key:"),
        "language": language,
        "piiPrincipalId": record.subject,
        "piiControllers": [_controller(record, statement)],
        "policyUrl": "" if statement is None else f"urn:sha256:{statement.notice.hash}",
        "services": []
        if record.terms is None
        else [
            {"service": reader.gettext(_SERVICE), "purposes": _purposes(record.terms, categories, statement, language)}
        ],
        "sensitive": bool(sensitive),
        "spiCat": sensitive,
    }


def _controller(record: ConsentRecord, statement: Statement | None) -> dict[str, Any]:
    contact = None if statement is None else statement.controller.contact
    return {
        "piiController": record.institution if statement is None else statement.controller.name,
        "contact": contact or record.institution,
        "address": {},
        "email": contact if contact is not None and "@" in contact else "",
        "phone": "",
    }


def _purposes(
    terms: Terms, categories: tuple[str, ...], statement: Statement | None, language: str
) -> list[dict[str, Any]]:
    reader = Reader(language)
    limits = [reader.gettext(label_of(code)) for code in terms.purposes if code in MODIFIERS]
    epsilon = f"epsilon <= {plain_decimal(terms.epsilon_max)}, delta <= {plain_decimal(terms.delta_max)}"
    return [
        {
            "purpose": "; ".join((purposes((code,), terms.diseases, language), *limits, epsilon)),
            "purposeCategory": [code, *(() if statement is None else statement.purposes)],
            "consentType": "EXPLICIT",
            "piiCategory": list(categories),
            "primaryPurpose": number == 0,
            "termination": format_instant(terms.valid_until),
            "thirdPartyDisclosure": False,  # results leave under differential privacy, the data never does
        }
        for number, code in enumerate(code for code in terms.purposes if code in PERMISSIONS)
    ]

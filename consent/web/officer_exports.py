"""All records in the forms that others read: a table, FHIR R5, ODRL, DUO, Kantara receipts. One record a line.

A record that does not verify is in none of them: it is no consent. The coverage pages name whose it is.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response, StreamingResponse

from consent.exports import to_duo, to_fhir, to_kantara, to_odrl
from consent.registry import LICENCE_REF
from consent.rules.record import ConsentRecord, open_record
from consent.web.officer_people import known, plain_cell
from consent.web.officer_trail import Act, trail_of
from consent.web.pages import render
from consent.web.state import Web, web_of
from federation.errors import ConsentError
from federation.rules.instant import format_instant
from federation.rules.wire import plain_decimal

router = APIRouter(prefix="/officer/exports", include_in_schema=False)
COLUMNS: Final = (
    "name", "number", "action", "mechanism", "signed_at", "received_at", "attested", "purposes", "diseases",
    "conditions", "epsilon_max", "delta_max", "valid_from", "valid_until", "notice_version", "notice_language",
    "notice_sha256", "record_sha256",
)  # fmt: skip


class Kind(StrEnum):
    """The forms."""

    CSV = "csv"
    FHIR = "fhir"
    ODRL = "odrl"
    DUO = "duo"
    KANTARA = "kantara"


_DOCUMENTS: Final[Mapping[Kind, tuple[Callable[[ConsentRecord], dict[str, Any]], str]]] = MappingProxyType(
    {
        Kind.FHIR: (to_fhir, "application/fhir+ndjson"),
        Kind.ODRL: (to_odrl, "application/x-ndjson"),
        Kind.DUO: (to_duo, "application/x-ndjson"),
        Kind.KANTARA: (to_kantara, "application/x-ndjson"),
    }
)


@router.get("")
def exports(request: Request) -> Response:
    """The forms to choose from."""
    return render(request, "officer/exports.html")


@router.post("/{kind}")
def export(request: Request, kind: Annotated[Kind, Path()]) -> Response:
    """All records, as a file; it is written into the trail that they were taken."""
    web = web_of(request)
    trail_of(request).add(Act.EXPORTED, kind=kind.value)
    if kind is Kind.CSV:
        lines, media_type, name = _table(web), "text/csv", "consents.csv"
    else:
        make, media_type = _DOCUMENTS[kind]
        lines, name = _documents(web, make), f"consents-{kind.value}.ndjson"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type=media_type, headers=headers)


def _records(web: Web) -> Iterator[tuple[str, ConsentRecord, datetime]]:
    """Every record that verifies, by name and age; a source's licence after everybody's."""
    for ref in [*known(web), LICENCE_REF]:
        for data, received_at in web.store.chain(ref):
            try:
                record = open_record(data)
            except ConsentError:
                continue  # damaged: counted and shown on the coverage pages, and never a consent
            yield ref, record, received_at


def _documents(web: Web, make: Callable[[ConsentRecord], dict[str, Any]]) -> Iterator[str]:
    for _, record, _ in _records(web):
        yield json.dumps(make(record), ensure_ascii=False, separators=(",", ":")) + "\n"


def _table(web: Web) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for ref, record, received_at in _records(web):
        writer.writerow([plain_cell(cell) for cell in _row(ref, record, received_at)])
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    yield out.getvalue()


def _row(ref: str, record: ConsentRecord, received_at: datetime) -> list[str]:
    terms, statement = record.terms, record.statement
    notice = None if statement is None else statement.notice
    conditions = {} if terms is None else terms.conditions
    return [
        ref,
        str(record.seq),
        record.action.value,
        record.mechanism.value,
        format_instant(record.signed_at),
        format_instant(received_at),
        "yes" if record.attested else "no",
        "" if terms is None else " ".join(terms.purposes),
        "" if terms is None else " ".join(terms.diseases),
        "; ".join(f"{code}: {', '.join(values)}" for code, values in sorted(conditions.items())),
        "" if terms is None else plain_decimal(terms.epsilon_max),
        "" if terms is None else plain_decimal(terms.delta_max),
        format_instant(record.valid_from),
        "" if terms is None else format_instant(terms.valid_until),
        "" if notice is None else notice.version,
        "" if notice is None else notice.language,
        "" if notice is None else notice.hash,
        record.digest,
    ]

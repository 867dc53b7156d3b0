"""Whom an institution knows: who was invited, who answered, and what each of them may be asked or told.

A person's local name is often a patient number, so it stands in no address of a page: pages name people by
:func:`person_id`.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlmodel import col, delete, select

from consent.registry import LICENCE_REF
from consent.rules.receipt import REF_CHARACTERS_MAX
from consent.web.sessions import Role
from consent.web.state import Web
from consent.web.tables import WEB_TABLES, WebInvitation
from federation.errors import OperatorError, UnavailableError
from federation.rules.canonical import tagged_hash
from federation.storage.database import read, write

PEOPLE_AT_ONCE_MAX: Final = 500
_ID_BYTES: Final = 12
# A spreadsheet takes a cell that begins like this for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
# Every table of the pages that names people does so in this column.
_PERSONAL: Final = tuple(table for table in WEB_TABLES if "ref" in table.model_fields)


@dataclass(frozen=True, slots=True)
class Invited:
    """One person's fresh one-time code; it is nowhere else."""

    ref: str
    code: str
    until: datetime


def person_id(ref: str) -> str:
    """The name of a person in a page's address: short, stable, and not their local name."""
    return tagged_hash("web-person", ref.encode()).hex()[: 2 * _ID_BYTES]


def known(web: Web) -> list[str]:
    """Everybody who was invited or answered, by local name (a whole source's licence is nobody)."""
    with read(web.store.engine) as session:
        query = select(WebInvitation.ref).where(col(WebInvitation.role) == Role.PERSON.value).distinct()
        invited = set(session.exec(query))
    return sorted((invited | set(web.registry.heads())) - {LICENCE_REF, ""})


def find(web: Web, identifier: str) -> str:
    """The local name behind a page's address.

    Raises:
        UnavailableError: nobody is known by it.
    """
    for ref in (*known(web), LICENCE_REF):
        if person_id(ref) == identifier:
            return ref
    raise UnavailableError("Nobody is known here by this address.", remedy="Look the person up in the list of people.")


def names_in(text: str) -> list[str]:
    """The local names in a pasted list: one a line, or the first column of a table; each once, in order.

    Raises:
        OperatorError: nobody is named, a name is too long, or there are too many.
    """
    cells = (re.split(r"[\t;,]", line, maxsplit=1)[0] for line in text.splitlines())
    found = list(dict.fromkeys(cell.strip().strip('"') for cell in cells if cell.strip().strip('"')))
    wrong = next((name for name in found if len(name) > REF_CHARACTERS_MAX or not name.isprintable()), None)
    if wrong is not None or LICENCE_REF in found:
        raise OperatorError(
            f"{(wrong or LICENCE_REF)[:40]!r} cannot be a person's name here.",
            remedy=f"Use the names of the data, one a line, at most {REF_CHARACTERS_MAX} characters each.",
        )
    if not 1 <= len(found) <= PEOPLE_AT_ONCE_MAX:
        raise OperatorError(
            f"The list holds {len(found)} names.", remedy=f"Invite between 1 and {PEOPLE_AT_ONCE_MAX} people at once."
        )
    return found


def invite(web: Web, refs: Iterable[str], request: str | None) -> list[Invited]:
    """A one-time code for each of ``refs``, or for who is their guardian now."""
    made = []
    for ref in refs:
        web.guardians.settle(ref, web.sessions)
        made.append(Invited(ref, *web.sessions.invite(Role.PERSON, ref, request=request)))
    return made


def table_of(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A CSV text (RFC 4180) that no spreadsheet takes for formulas."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([plain_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def plain_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def erase(web: Web, ref: str) -> None:
    """Forget a person: the pages' tables first, then the registry's, so that what is left over can be erased again."""
    with write(web.store.engine) as session:
        for table in _PERSONAL:
            session.exec(delete(table).where(col(vars(table)["ref"]) == ref))
    web.registry.erase(ref)

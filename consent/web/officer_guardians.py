"""The officer's pages about guardians: who speaks for a person who cannot, and until when.

Each change closes what was open in the person's name: sessions and links of before lead nowhere any more.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from gettext import NullTranslations
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from consent.language import translations
from consent.web.guardians import Relation
from consent.web.officer_forms import Form
from consent.web.officer_people import find, invite, names_in
from consent.web.officer_persons import Identifier, Name, links
from consent.web.officer_trail import Act, trail_of
from consent.web.pages import language_of, render
from consent.web.state import Web, web_of
from federation.errors import OperatorError

router = APIRouter(prefix="/officer", include_in_schema=False)
_NAME_CHARACTERS_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a form asks for, and what is wrong with it, by field."""

    ref: str
    name: str
    relation: Relation
    until: datetime
    problems: dict[str, str]


@router.get("/requests/{name}/guardian")
def new_form(request: Request, name: Name) -> Response:
    """Invite a guardian for somebody who may not be known yet."""
    return _page(request, {"request": name}, {}, {}, back=f"/officer/requests/{name}/invite")


@router.post("/requests/{name}/guardian")
def appoint_for(request: Request, name: Name, form: Form) -> Response:
    """Appoint a guardian, and make the link."""
    web = web_of(request)
    wanted = _read(form, translations(language_of(request)), web)
    if web.store.open_request(name) is None:
        wanted.problems.setdefault("ref", translations(language_of(request)).gettext("The request is closed."))
    if wanted.problems:
        return _page(request, {"request": name}, form, wanted.problems, back=f"/officer/requests/{name}/invite")
    return _appoint(request, wanted, name, back=f"/officer/requests/{name}")


@router.get("/people/{identifier}/guardian")
def form_of(request: Request, identifier: Identifier) -> Response:
    """Appoint another guardian, or a first one, for somebody who is known."""
    web = web_of(request)
    ref = find(web, identifier)
    now = web.guardians.of(ref)
    values = {} if now is None else {"name": now.name, "relation": now.relation.value, "until": f"{now.until:%Y-%m-%d}"}
    return _page(request, {"ref": ref}, values, {}, back=f"/officer/people/{identifier}")


@router.post("/people/{identifier}/guardian")
def appoint(request: Request, identifier: Identifier, form: Form) -> Response:
    """Appoint the guardian of a known person, and make a new link."""
    web = web_of(request)
    ref = find(web, identifier)
    wanted = _read(form, translations(language_of(request)), web, ref=ref)
    back = f"/officer/people/{identifier}"
    if wanted.problems:
        return _page(request, {"ref": ref}, form, wanted.problems, back=back)
    notice = web.store.open_request()
    return _appoint(request, wanted, None if notice is None else notice.request, back=back)


@router.post("/people/{identifier}/guardian/end")
def dismiss(request: Request, identifier: Identifier) -> Response:
    """Let the guardian speak no more; what they signed holds until it is withdrawn or ends."""
    web = web_of(request)
    ref = find(web, identifier)
    web.guardians.dismiss(ref)
    web.sessions.revoke(ref)
    trail_of(request).add(Act.GUARDIAN, change="ended")
    return RedirectResponse(f"/officer/people/{identifier}", status_code=303)


def _appoint(request: Request, wanted: _Wanted, asked: str | None, *, back: str) -> Response:
    web = web_of(request)
    web.guardians.appoint(wanted.ref, name=wanted.name, relation=wanted.relation, until=wanted.until)
    web.sessions.revoke(wanted.ref)
    made = invite(web, [wanted.ref], asked)
    trail_of(request).add(Act.GUARDIAN, change="appointed")
    return links(request, made, back)


def _read(form: FormData, catalog: NullTranslations, web: Web, *, ref: str = "") -> _Wanted:
    _ = catalog.gettext
    problems: dict[str, str] = {}
    typed = {name: str(form.get(name, "")).strip() for name in ("ref", "name", "relation", "until")}
    if not ref:
        try:
            (ref,) = names_in(typed["ref"])
        except (OperatorError, ValueError):
            problems["ref"] = _("Please fill in one name, as it stands in the data.")
    if not 1 <= len(typed["name"]) <= _NAME_CHARACTERS_MAX or not typed["name"].isprintable():
        problems["name"] = _("Please fill this in.")
    relation = Relation(typed["relation"]) if typed["relation"] in set(Relation) else None
    if relation is None:
        problems["relation"] = _("Please choose one.")
    try:
        until = datetime.combine(date.fromisoformat(typed["until"]), time(), UTC)
    except ValueError:
        until = datetime.min.replace(tzinfo=UTC)
    if until <= web.clock():
        problems["until"] = _("Please name a day that is still to come, as in 2031-05-17.")
    return _Wanted(ref, typed["name"], relation or Relation.OTHER, until, problems)


def _page(request: Request, whom: dict[str, str], values: Any, problems: dict[str, str], *, back: str) -> Response:
    return render(
        request,
        "officer/guardian.html",
        status=422 if problems else 200,
        ref=whom.get("ref", ""),
        values=values,
        problems=problems,
        back=back,
        tomorrow=f"{web_of(request).clock():%Y-%m-%d}",
    )

"""The officer's pages about people: invite them, look one up, give a new link, withdraw for them, erase them."""

from typing import Annotated, Final

import segno
from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from consent.language import sentence, translations
from consent.registry import LICENCE_REF
from consent.rules.record import Action, open_record
from consent.web.officer_coverage import AGAIN, cover, kind_of, studies, uses_of
from consent.web.officer_forms import Form
from consent.web.officer_people import (
    PEOPLE_AT_ONCE_MAX,
    Invited,
    erase,
    find,
    invite,
    known,
    names_in,
    person_id,
    table_of,
)
from consent.web.officer_trail import Act, trail_of
from consent.web.pages import language_of, render
from consent.web.state import public_origin, web_of
from consent.web.store import Notice
from federation.errors import OperatorError, UnavailableError

router = APIRouter(prefix="/officer", include_in_schema=False)
Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Identifier = Annotated[str, Path(pattern=r"^[0-9a-f]{24}$")]
SHOWN_MAX: Final = 200
_QUIET: Final = 4
_PREFILLED: Final = {"missing": "missing", "again": AGAIN, "expired": "expired"}


@router.get("/requests/{name}/invite")
def invite_form(request: Request, name: Name) -> Response:
    """Whom to invite: pasted names, or those who have not answered."""
    web = web_of(request)
    notice = web.store.open_request(name)
    wanted = _PREFILLED.get(request.query_params.get("who", ""))
    names: list[str] = []
    if notice is not None and wanted is not None:
        for _, use in uses_of(notice.asked, web.registry.institution.did)[:1]:
            names = list(cover(web, use, language_of(request)).people[wanted][:PEOPLE_AT_ONCE_MAX])
    return render(
        request,
        "officer/invite.html",
        name=name,
        notice=notice,
        names="\n".join(names),
        problem="",
        most=PEOPLE_AT_ONCE_MAX,
    )


@router.post("/requests/{name}/invite")
def invite_people(request: Request, name: Name, form: Form) -> Response:
    """Fresh one-time links, shown this once: as a list, and one a page with its QR code."""
    web = web_of(request)
    notice = web.store.open_request(name)
    text = str(form.get("names", ""))
    try:
        owned = notice is not None and notice.asked.mechanism.whole_source
        names = [LICENCE_REF] if owned else names_in(text)
        if notice is None:
            raise OperatorError("The request is closed.", remedy="Publish a new version of it first.")
    except OperatorError as error:
        return _invite_page(request, name, notice, text, f"{error.message} {error.remedy}")
    made = invite(web, names, name)
    trail_of(request).add(Act.INVITED, request=name, people=len(made))
    return links(request, made, f"/officer/requests/{name}")


@router.post("/links.csv")
def links_table(form: Form) -> Response:
    """The links that the page before holds, as a table: they are stored nowhere, so the page hands them back."""
    cells = [str(form.get(name, "")).split("\n") for name in ("refs", "links", "until")]
    rows = [[cell.strip() for cell in row] for row in zip(*cells, strict=False) if row[0].strip()]
    return _download(table_of(("name", "link", "opens_until"), rows), "invitations.csv", "text/csv")


@router.get("/people")
def people(request: Request) -> Response:
    """Everybody who is known, newest action first."""
    return _people_page(request, "")


@router.post("/people")
def search(request: Request, form: Form) -> Response:
    """The people whose name holds what was typed; a name never stands in an address."""
    return _people_page(request, str(form.get("q", "")).strip()[:200])


@router.get("/people/{identifier}")
def one(request: Request, identifier: Identifier) -> Response:
    """One person: what they decided, what it means now, and what can be done for them."""
    web = web_of(request)
    ref = find(web, identifier)
    language = language_of(request)
    records = [(open_record(data), received) for data, received in web.store.chain(ref)]
    now = web.registry.now()
    means = []
    for study in studies(web):
        decision = web.registry.decide_all(study.use, now, [ref])[ref]
        means.append((study.title, "", kind_of(decision), sentence(decision, language)))
    for row in web.store.requests():
        notice = web.store.open_request(row.id)
        if notice is None:
            continue
        words = notice.asked.words[notice.asked.language(language)]
        for key, use in uses_of(notice.asked, web.registry.institution.did):
            purpose = next(purpose for purpose in notice.asked.purposes if purpose.key == key)
            decision = web.registry.decide_all(use, now, [ref])[ref]
            said = purpose.words[notice.asked.language(language)].title
            means.append((words.title, said, kind_of(decision), sentence(decision, language)))
    return render(
        request,
        "officer/person.html",
        ref=ref,
        identifier=identifier,
        records=records[::-1],
        guardian=web.guardians.of(ref),
        withdrawn=not records or records[-1][0].action is Action.WITHDRAW,
        means=means,
        invitations=web.sessions.pending_invitations(ref),
        participation=web.registry.participation(ref),
        in_flight=web.registry.in_flight(ref),
    )


@router.post("/people/{identifier}/withdraw")
def withdraw(request: Request, identifier: Identifier) -> Response:
    """Withdraw for somebody who asks; the institution attests it."""
    web = web_of(request)
    receipt = web.registry.withdraw(find(web, identifier))
    trail_of(request).add(Act.WITHDREW, record=receipt.record)
    return RedirectResponse(f"/officer/people/{identifier}", status_code=303)


@router.post("/people/{identifier}/link")
def new_link(request: Request, identifier: Identifier) -> Response:
    """A new link for somebody who lost theirs, or their key; sessions that are open are closed."""
    web = web_of(request)
    ref = find(web, identifier)
    notice = web.store.open_request()
    web.sessions.end_all(ref)
    made = invite(web, [ref], None if notice is None else notice.request)
    trail_of(request).add(Act.INVITED, people=1)
    return links(request, made, f"/officer/people/{identifier}")


@router.get("/people/{identifier}/erase")
def erase_form(request: Request, identifier: Identifier) -> Response:
    """What erasing does and cannot undo; the name has to be typed."""
    ref = find(web_of(request), identifier)
    return render(request, "officer/erase.html", ref=ref, identifier=identifier, problem="")


@router.post("/people/{identifier}/erase")
def erase_person(request: Request, identifier: Identifier, form: Form) -> Response:
    """Erase a person, after the second step."""
    web = web_of(request)
    ref = find(web, identifier)
    if str(form.get("typed", "")).strip() != ref:
        _ = translations(language_of(request)).gettext
        problem = _("This is not the name of this person. Nothing was erased.")
        return render(request, "officer/erase.html", status=422, ref=ref, identifier=identifier, problem=problem)
    left = ""
    try:
        erase(web, ref)
    except UnavailableError as error:  # the rows are gone; the database's files are not swept yet
        left = f"{error.message} {error.remedy}"
    trail_of(request).add(Act.ERASED, people=1)
    return render(request, "officer/erased.html", left=left)


def _invite_page(request: Request, name: str, notice: Notice | None, names: str, problem: str) -> Response:
    values = {"name": name, "notice": notice, "names": names, "problem": problem, "most": PEOPLE_AT_ONCE_MAX}
    return render(request, "officer/invite.html", status=422 if problem else 200, **values)


def _people_page(request: Request, query: str) -> Response:
    web = web_of(request)
    heads = web.registry.heads()
    found = [ref for ref in known(web) if query.casefold() in ref.casefold()]
    rows = [(ref, person_id(ref), heads[ref].seq if ref in heads else 0) for ref in found[:SHOWN_MAX]]
    return render(request, "officer/people.html", rows=rows, total=len(found), query=query, shown_max=SHOWN_MAX)


def links(request: Request, made: list[Invited], back: str) -> Response:
    """The page that shows fresh links, this once."""
    origin = public_origin(request)
    shown = []
    for invited in made:
        link = f"{origin}/invitation#{invited.code}"
        path, side = qr_path(link)
        guardian = web_of(request).guardians.of(invited.ref)
        shown.append(
            {"ref": invited.ref, "link": link, "until": invited.until, "path": path, "side": side}
            | {"guardian": None if guardian is None else guardian.name}
        )
    return render(request, "officer/links.html", links=shown, back=back, address=origin)


def qr_path(text: str) -> tuple[str, int]:
    """A QR code as the path of an SVG picture, and the picture's side in modules (the quiet zone of 4 included)."""
    matrix = segno.make(text, error="m", boost_error=False).matrix
    dark = [(x, y) for y, row in enumerate(matrix) for x, module in enumerate(row) if module]
    return "".join(f"M{x + _QUIET} {y + _QUIET}h1v1h-1z" for x, y in dark), len(matrix) + 2 * _QUIET


def _download(text: str, name: str, media_type: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type=media_type, headers=headers)

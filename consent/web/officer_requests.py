"""The officer's pages about requests: draft one, publish a version, see what changed, close it."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse, Response

from consent.language import translations
from consent.rules.diseases import NAMES
from consent.rules.duo import MODIFIERS
from consent.web.notices import asks_otherwise, changes, counting, unchanged
from consent.web.officer_coverage import plan_bytes, studies
from consent.web.officer_draft import (
    CATEGORIES,
    PERMISSIONS,
    Outline,
    data_words,
    outline_of,
    purpose_words,
    unsaid,
    write_request,
)
from consent.web.officer_forms import Form, Problem, fields_of, nested, problems_of
from consent.web.officer_publishing import publish, versions
from consent.web.officer_trail import Act, trail_of
from consent.web.pages import LANGUAGES, language_of, render
from consent.web.request import LAYERS, ConsentRequest, notice_hash, notice_text
from consent.web.state import web_of
from federation.errors import AccordError, OperatorError
from federation.rules.instant import parse_instant
from federation.rules.study import PLAN_BYTES_MAX, StudyPlan, open_plan, plan_from_toml

router = APIRouter(prefix="/officer/requests", include_in_schema=False)
_CHANGE_CHARACTERS_MAX: Final = 400
Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
_USUAL: Final[dict[str, Any]] = {
    "epsilon_max": "1",
    "delta_max": "0.00001",
    "valid_days": "365",
    "purposes": [],
    "data": [],
    "languages": list(LANGUAGES),
}


@router.get("")
def requests(request: Request) -> Response:
    """Every request."""
    store = web_of(request).store
    rows = [
        (row, store.notice(row.id, row.version).asked, parse_instant(row.created_at))
        for row in store.requests()
        if row.version
    ]
    return render(request, "officer/requests.html", rows=rows)


@router.get("/new")
def new(request: Request) -> Response:
    """The few questions that a draft is made from."""
    return _outline_page(request, {**_USUAL, "controller": web_of(request).settings.name}, [])


@router.post("/prefill")
def prefill(request: Request, form: Form) -> Response:
    """The same questions, answered as far as a study's plan goes."""
    values = {**_USUAL, "controller": web_of(request).settings.name}
    try:
        values |= outline_of(_plan(request, form))
    except AccordError as error:
        return _outline_page(request, values, [Problem("plan", f"{error.message} {error.remedy}")])
    return _outline_page(request, values, [])


@router.post("/draft")
def draft(request: Request, form: Form) -> Response:
    """Every word of the notice, drafted; nothing is published yet."""
    pairs = list(form.multi_items())
    document = nested(pairs)
    languages = document.pop("languages", [])
    document["words"] = {name: said for name, said in document.get("words", {}).items() if name in languages}
    document["companies_asked"] = "companies_asked" in document
    _ = translations(language_of(request)).gettext
    try:
        outline = Outline.model_validate(document)
        if web_of(request).store.notices(outline.name):
            raise OperatorError(_("There is a request of this name already."), remedy=_("Choose another name."))
        asked = write_request(outline, {name: translations(name) for name in LANGUAGES})
    except ValidationError as error:
        problems = problems_of(error, translations(language_of(request)))
        return _outline_page(request, _values(pairs), problems)
    except OperatorError as error:
        return _outline_page(request, _values(pairs), [Problem("name", f"{error.message} {error.remedy}")])
    return _words_page(request, outline.name, fields_of(asked), [])


@router.get("/{name}")
def one(request: Request, name: Name) -> Response:
    """One request with its versions."""
    store = web_of(request).store
    found = versions(store, name)
    newest = store.notice(name, found[-1].number if found else 0)
    row = next(row for row in store.requests() if row.id == name)
    history = [
        {
            "number": version.number,
            "notice": store.notice(name, version.number),
            "counts": version in counting(found),
            "material": version.material or (place > 0 and asks_otherwise(found[place - 1].asked, version.asked)),
        }
        for place, version in enumerate(found)
    ]
    shown = newest.asked.language(language_of(request))
    return render(
        request,
        "officer/request.html",
        name=name,
        asked=newest.asked,
        words=newest.asked.words[shown],
        shown=shown,
        closed=row.closed_at is not None,
        history=history[::-1],
        modifiers=MODIFIERS,
    )


@router.get("/{name}/edit")
def edit(request: Request, name: Name) -> Response:
    """The newest version's words, to be changed into the next version."""
    store = web_of(request).store
    found = store.notices(name)
    newest = store.notice(name, found[-1].version if found else 0)
    return _words_page(request, name, fields_of(newest.asked), [], version=newest.version)


@router.post("/{name}/publish")
def publish_version(request: Request, name: Name, form: Form) -> Response:
    """Publish what was written as the next version."""
    web = web_of(request)
    catalog = translations(language_of(request))
    _ = catalog.gettext
    fields = {key: value for key, value in form.multi_items() if isinstance(value, str)}
    change, again = fields.pop("change", "").strip(), fields.pop("again", "")
    found = web.store.notices(name)
    version = found[-1].version if found else 0
    problems: list[Problem] = []
    asked = None
    try:
        asked = ConsentRequest.model_validate(nested(fields.items()))
        problems += [
            Problem(field, _("This text has to name the figure that it asks for: %(figure)s.") % {"figure": figure})
            for field, figure in unsaid(asked)
        ]
        if again == "yes":
            problems += [
                Problem(
                    f"words.{language}.title", _("This text is the same as before, so its readers are not asked again.")
                )
                for language in unchanged(found[-1].asked, asked)
            ]
    except ValidationError as error:
        problems += problems_of(error, catalog)
    if version and again not in {"yes", "no"}:
        problems.append(Problem("again", _("Please choose whether people are asked again.")))
    if version and not 1 <= len(change) <= _CHANGE_CHARACTERS_MAX:
        problems.append(Problem("change", _("Please say in one or two sentences what changed.")))
    if problems or asked is None:
        return _words_page(request, name, {**fields, "change": change, "again": again}, problems, version=version)
    notice = publish(web.store, web.registry, name, asked, change=change, material=again == "yes")
    if notice.version != version:
        trail_of(request).add(Act.PUBLISHED, request=name, version=notice.version, material=again or "yes")
    return RedirectResponse(f"/officer/requests/{name}", status_code=303)


@router.get("/{name}/versions/{number}")
def version_page(request: Request, name: Name, number: Annotated[int, Path(ge=1, le=100_000)]) -> Response:
    """One version in the reader's language (or the one that is asked for), and what it changed."""
    store = web_of(request).store
    notice = store.notice(name, number)
    wanted = request.query_params.get("in", language_of(request))
    shown = notice.asked.language(wanted)
    before = store.notice(name, number - 1) if number > 1 else None
    return render(
        request,
        "officer/version.html",
        name=name,
        notice=notice,
        shown=shown,
        text=notice_text(notice.asked, shown),
        sha256=notice_hash(notice.asked, shown),
        paragraphs=changes(before.asked, notice.asked, shown) if before else None,
    )


@router.post("/{name}/close")
def close(request: Request, name: Name) -> Response:
    """Ask nobody any more."""
    web_of(request).store.close(name)
    trail_of(request).add(Act.CLOSED, request=name)
    return RedirectResponse(f"/officer/requests/{name}", status_code=303)


def _plan(request: Request, form: Form) -> StudyPlan:
    """The plan in the uploaded file, or of the study that was chosen."""
    upload = form.get("plan")
    data = upload.file.read(2 * PLAN_BYTES_MAX + 1) if isinstance(upload, UploadFile) else b""
    name = (upload.filename or "plan")[:80] if isinstance(upload, UploadFile) else ""
    if not data:
        name = str(form.get("study", ""))
        data = plan_bytes(web_of(request), name)
    if not data:
        _ = translations(language_of(request)).gettext
        raise OperatorError(_("No plan was chosen."), remedy=_("Choose a file, or a study of the list."))
    if data.startswith(b"{"):
        return open_plan(data.rstrip(b"\n"))[0]
    return plan_from_toml(data.decode("utf-8", errors="replace"), source=name)


def _values(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What was typed, as the form shows it again."""
    values: dict[str, Any] = {"purposes": [], "data": [], "languages": []}
    for name, value in pairs:
        if isinstance(values.get(name), list):
            values[name].append(value)
        elif isinstance(value, str):
            values[name] = value
    return values


def _outline_page(request: Request, values: dict[str, Any], problems: list[Problem]) -> Response:
    catalog = translations(language_of(request))
    named = {code: purpose_words(code, "", catalog) for code in PERMISSIONS}
    return render(
        request,
        "officer/outline.html",
        status=422 if problems else 200,
        values=values,
        problems={problem.field: problem.text for problem in problems},
        permissions=[(code, f"{named[code].title} ({code})") for code in PERMISSIONS],
        categories=[(name, data_words(catalog)[name]) for name in CATEGORIES],
        diseases={code: catalog.gettext(name) for code, name in NAMES.items()},
        studies=[(study.name, study.title) for study in studies(web_of(request))],
    )


def _words_page(
    request: Request, name: str, values: dict[str, str], problems: list[Problem], *, version: int = 0
) -> Response:
    codes = {
        word for key, value in values.items() if key.endswith((".codes", ".codes_if_no")) for word in value.split()
    }
    places = {key.split(".")[1] for key in values if key.startswith("purposes.") and key.count(".") > 1}
    return render(
        request,
        "officer/words.html",
        status=422 if problems else 200,
        name=name,
        values=values,
        problems={problem.field: problem.text for problem in problems},
        layers=LAYERS,
        written=[code for code in LANGUAGES if any(key.startswith(f"words.{code}.") for key in values)],
        limits=[code for code in sorted(codes) if code in MODIFIERS and MODIFIERS[code].values],
        modifiers=MODIFIERS,
        purposes=sorted((place for place in places if place.isdecimal()), key=int),
        version=version,
    )

"""The officer's pages that only show: the overview, coverage, withdrawals, the log's health, the trail."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Annotated, Any, Final

from babel.dates import format_timedelta
from fastapi import APIRouter, Path, Request
from starlette.responses import PlainTextResponse, Response

from consent.language import translations
from consent.language.catalogs import TERRITORIES
from consent.registry import Withdrawal
from consent.registry.approving import KeptApproval
from consent.rules.duo import MODIFIERS
from consent.rules.message import msg
from consent.web.officer_coverage import ORDER, Coverage, cover, studies, uses_of
from consent.web.officer_people import known, person_id
from consent.web.officer_trail import trail_of
from consent.web.pages import language_of, render
from consent.web.state import Web, web_of
from federation.errors import OperatorError, UnavailableError
from federation.rules.instant import parse_instant

router = APIRouter(prefix="/officer", include_in_schema=False)
Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
StudyName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,80}$")]
SHOWN_MAX: Final = 200
BATCH_AGE_MAX: Final = timedelta(minutes=15)
_BAR: Final = 600
_INSTANTLY: Final = msg("less than a second")


@router.get("")
def overview(request: Request) -> Response:
    """What needs attention, and where to find the rest."""
    web = web_of(request)
    language = language_of(request)
    rows = []
    everybody = known(web)
    for row in web.store.requests():
        notice = web.store.open_request(row.id)
        if notice is not None:
            (_, use), *_ = uses_of(notice.asked, web.registry.institution.did)
            shown = notice.asked.words[notice.asked.language(language)].title
            rows.append((row.id, shown, cover(web, use, language, everybody)))
    everything = web.registry.withdrawals()
    return render(
        request,
        "officer/overview.html",
        rows=rows,
        people=len(everybody),
        withdrawals=len(everything),
        running=sum(item.time_to_stop is None for item in everything),
        problems=_problems(web, language)[1],
        entries=_entries(request, 5),
    )


@router.get("/requests/{name}/coverage")
def request_coverage(request: Request, name: Name) -> Response:
    """Who permits what a request asks, purpose by purpose."""
    web = web_of(request)
    language = language_of(request)
    notice = web.store.open_request(name)
    if notice is None:
        raise UnavailableError(f"The request {name} asks nobody now.", remedy="Open the list of requests.")
    shown = notice.asked.language(language)
    words = {purpose.key: purpose.words[shown].title for purpose in notice.asked.purposes}
    parts = [(words[key], covered) for key, covered in _covered(web, notice.asked, language)]
    title = notice.asked.words[shown].title
    return _coverage_page(request, title, parts, back=f"/officer/requests/{name}", name=name, shown=shown)


@router.get("/studies/{name}")
def study_coverage(request: Request, name: StudyName) -> Response:
    """Who permits a study that takes place here."""
    web = web_of(request)
    found = next((study for study in studies(web) if study.name == name), None)
    if found is None:
        raise UnavailableError("There is no such study here.", remedy="Open the list of studies.")
    parts = [(found.title, cover(web, found.use, language_of(request)))]
    findings = [kept for kept in web.registry.approvals() if kept.approval.plan_hash == found.use.plan_hash]
    return _coverage_page(request, found.title, parts, back="/officer", name="", shown="en", findings=findings)


@router.get("/withdrawals")
def withdrawals(request: Request) -> Response:
    """Each withdrawal, and how long it took to stop."""
    web = web_of(request)
    language = language_of(request)
    found = web.registry.withdrawals()
    times = sorted(item.time_to_stop.total_seconds() for item in found if item.time_to_stop is not None)
    return render(
        request,
        "officer/withdrawals.html",
        rows=[_withdrawal(item, language) for item in found[::-1][:SHOWN_MAX]],
        total=len(found),
        running=len(found) - len(times),
        middle=duration(timedelta(seconds=median(times)), language) if times else "",
        longest=duration(timedelta(seconds=times[-1]), language) if times else "",
        shown_max=SHOWN_MAX,
    )


@router.get("/log")
def log(request: Request) -> Response:
    """Whether the log is well, and how anybody can check it."""
    web = web_of(request)
    language = language_of(request)
    health, problems = _problems(web, language)
    checkpoint = web.registry.checkpoint()
    age = None if health is None or health.cosigned_age is None else duration(health.cosigned_age, language)
    return render(
        request,
        "officer/log.html",
        health=health,
        problems=problems,
        age=age,
        origin=web.registry.origin,
        did=web.registry.institution.did,
        note=checkpoint.to_bytes().decode(),
    )


@router.get("/log/checkpoint")
def checkpoint(request: Request) -> Response:
    """The log's present state as a signed note (C2SP tlog-checkpoint), for an auditor."""
    headers = {"Content-Disposition": 'attachment; filename="consent-checkpoint.txt"'}
    return PlainTextResponse(web_of(request).registry.checkpoint().to_bytes(), headers=headers)


@router.get("/trail")
def trail(request: Request) -> Response:
    """What officers did."""
    return render(
        request, "officer/trail.html", entries=_entries(request, SHOWN_MAX), broken=trail_of(request).broken_at()
    )


def duration(length: timedelta, language: str) -> str:
    """A length of time in its largest unit, as people of this language write it."""
    if length < timedelta(seconds=1):
        return str(translations(language).gettext(_INSTANTLY))
    return str(format_timedelta(length, granularity="second", threshold=2, locale=TERRITORIES[language]))


def _covered(web: Web, asked: Any, language: str) -> list[tuple[str, Coverage]]:
    refs = known(web)
    return [(key, cover(web, use, language, refs)) for key, use in uses_of(asked, web.registry.institution.did)]


def _coverage_page(
    request: Request,
    title: str,
    parts: list[tuple[str, Coverage]],
    *,
    back: str,
    name: str,
    shown: str,
    findings: Sequence[KeptApproval] = (),
) -> Response:
    judged = [
        (label, [(person_id(ref), ref, said) for ref, said in covered.judged[:SHOWN_MAX]]) for label, covered in parts
    ]
    return render(
        request,
        "officer/coverage.html",
        title=title,
        parts=[(label, covered, covered.bars(_BAR)) for label, covered in parts],
        judged=[(label, people) for label, people in judged if people],
        order=ORDER,
        width=_BAR,
        back=back,
        name=name,
        shown=shown,
        findings=[(kept, parse_instant(kept.approval.given_at)) for kept in findings],
        modifiers=MODIFIERS,
        now=web_of(request).registry.now(),
    )


def _withdrawal(item: Withdrawal, language: str) -> dict[str, Any]:
    time = item.time_to_stop
    return {
        "id": person_id(item.ref),
        "ref": item.ref,
        "received": item.received_at,
        "decided": item.decided_at,
        "rounds": [(of.study, of.round) for of in item.in_flight],
        "time": None if time is None else duration(time, language),
    }


def _entries(request: Request, newest: int) -> list[Any]:
    return trail_of(request).entries(newest=newest)


def _problems(web: Web, language: str) -> tuple[Any, list[tuple[str, str]]]:
    """The log's health (None where it cannot be read), and what is wrong with it: (what, what to do)."""
    _ = translations(language).gettext
    now = web.registry.now()
    try:
        health = web.registry.health()
    except OperatorError as error:
        return None, [(error.message, error.remedy)]
    found: list[tuple[str, str]] = []
    if health.records and _age(health.batched_at, now) > BATCH_AGE_MAX:
        found.append(
            (
                _("No batch has been closed for a while, so new decisions are not in the log yet."),
                _("Check that this page's program or the node keeps running. Withdrawals count all the same."),
            )
        )
    if health.stale:
        found.append(
            (
                _("The witnesses have not cosigned the log for too long, so nothing is permitted at present."),
                _("Check that the node runs and that its peers can be reached."),
            )
        )
    return health, found


def _age(moment: datetime | None, now: datetime) -> timedelta:
    return timedelta.max if moment is None else now - moment

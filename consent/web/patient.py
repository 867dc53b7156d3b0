"""The pages of a patient or a device owner: a request, a receipt, everything of theirs, withdrawing, coming back.

Each shows its own reader's data and nobody else's. Reading and withdrawing work without scripts and without a key; only
signing needs both.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from consent.language import day, purposes, translations
from consent.rules.receipt import ReceiptCredential, open_receipt
from consent.rules.record import Action, ConsentRecord
from consent.web.belongings import binds, everything, part_of, read_chain
from consent.web.guardians import Appointment
from consent.web.pages import language_of, render
from consent.web.passkeys import gesture_for, relying_party
from consent.web.renewal import Renewal, renewal
from consent.web.request import LAYERS, notice_hash, notice_text, right_guesses_max
from consent.web.sessions import SignedIn
from consent.web.state import Web, person, session_token, signed_in, web_of
from consent.web.store import Answer
from federation.errors import UnavailableError
from federation.rules.canonical import tagged_hash
from federation.rules.instant import parse_instant

router = APIRouter(include_in_schema=False)
Person = Annotated[SignedIn, Depends(person)]
_KEY_NAME_BYTES: Final = 12
_SENTENCE_END: Final = (". ", "? ", "! ", ".\n", "?\n", "!\n")


@router.get("/request/{name}")
def ask(request: Request, name: str, who: Person) -> Response:
    """A request, in layers, with one question for each purpose."""
    web, language = web_of(request), language_of(request)
    notice = web.store.open_request(name)
    if notice is None:
        raise _not_there()
    _ = translations(language).gettext
    shown = notice.asked.language(language)
    chain = read_chain(web, who.ref)
    labels = {
        "what": _("What is asked"),
        "who": _("Who asks, and who receives what"),
        "why": _("Why"),
        "data": _("Which data"),
        "duration": _("For how long"),
        "privacy": _("How you are protected"),
        "reward": _("What you get"),
        "withdrawal": _("If you change your mind"),
    }
    return render(
        request,
        "request.html",
        notice=notice,
        said=notice.asked.words[shown],
        text_language=shown,
        layers=[(layer, labels[layer]) for layer in LAYERS if layer != "what"],
        first_sentence=first_sentence,
        text=notice_text(notice.asked, shown),
        text_hash=notice_hash(notice.asked, shown),
        until=web.clock() + notice.asked.lasts,
        right_guesses=right_guesses_max(notice.asked.epsilon_max, notice.asked.delta_max),
        key_name=key_name(web, who.ref),
        wants_ward=web.guardians.of(who.ref) is not None and web.store.did_of(who.ref) is None,
        passkeys=relying_party(request) is not None,
        current=None if not chain else {"sentence": sentence_of(chain[-1].record, language)},
        renewal=_renewal(web, who.ref, language, notice.request),
    )


@router.get("/receipt/{digest}.json")
def receipt_file(request: Request, digest: str, who: Person) -> Response:
    """The receipt credential, signed by the institution: proves the receipt offline."""
    return _download(_receipt_bytes(web_of(request), digest, who), f"receipt-{digest[:16]}.json", "application/json")


@router.get("/receipt/{digest}")
def receipt(request: Request, digest: str, who: Person) -> Response:
    """A receipt to be read, printed, downloaded."""
    web, language = web_of(request), language_of(request)
    credential = open_receipt(_receipt_bytes(web, digest, who), trust_guardian=True)
    answer = next((item for item in web.store.answers(ref=who.ref) if item.digest == digest), None)
    return render(
        request,
        "receipt.html",
        record=credential.record,
        receipt=credential.receipt,
        received_at=parse_instant(credential.receipt.received_at),
        meaning=_meaning(credential, language),
        allowed=_allowed(credential.record, language),
        answer=answer,
        answers=[] if answer is None else _answers(web, answer, language),
        gesture=gesture_for(web, digest),
        guardian=_guardian_of(web, who.ref, credential.record),
        in_log=None if credential.place is None else credential.place.index,
        in_flight=credential.rounds_in_flight,
        models=credential.models,
    )


@router.get("/mine")
def mine(request: Request, who: Person) -> Response:
    """Everything of this person's: what holds now, history, participation, privacy, rewards."""
    web, language = web_of(request), language_of(request)
    chain = read_chain(web, who.ref)
    newest = chain[-1].record if chain else None
    return render(
        request,
        "mine.html",
        newest=newest,
        state=state_of(newest, web),
        history=[
            {
                "digest": entry.record.digest,
                "action": entry.record.action.value,
                "sentence": sentence_of(entry.record, language),
                "received_at": entry.received_at,
                "answer": entry.answer,
            }
            for entry in reversed(chain)
        ],
        part=part_of(web, who.ref),
        lifetime=web.settings.lifetime_epsilon,
        open_request=web.store.open_request(who.request),
        renewal=renewal(web, who.ref, language),
    )


@router.get("/mine/everything.zip")
def download_everything(request: Request, who: Person) -> Response:
    """All of it in one file: records, receipts, notices, participation."""
    return _download(everything(web_of(request), who.ref), "my-consents.zip", "application/zip")


@router.get("/withdraw")
def ask_to_withdraw(request: Request, who: Person) -> Response:
    """What withdrawing does, and one button."""
    web = web_of(request)
    if web.registry.head(who.ref) is None:
        return RedirectResponse("/mine", status_code=303)
    guardian = web.guardians.of(who.ref)
    did = web.store.did_of(who.ref) if guardian is None else guardian.did or ""
    return render(request, "withdraw.html", key_name=key_name(web, who.ref), did=did)


@router.post("/withdraw")
def withdraw(request: Request, who: Person) -> Response:
    """Withdraw without a key: the institution attests that the person asked for it."""
    taken = web_of(request).registry.withdraw(who.ref)
    return RedirectResponse(f"/receipt/{taken.record}", status_code=303)


@router.get("/return")
def come_back(request: Request) -> Response:
    """Coming back with the key, or how to get a new link."""
    web = web_of(request)
    known = web.store.profile()
    contact = known.contact if known else "-"
    prefix = f"{web.registry.institution.did}|"
    ended = session_token(request) is not None and signed_in(request) is None
    return render(request, "return.html", key_prefix=prefix, contact=contact, ended=ended)


def key_name(web: Web, ref: str) -> str:
    """The name of a person's key in their browser: people who share one browser, and guardians, have a key each."""
    tag = "web-key" if web.guardians.of(ref) is None else "web-guardian-key"
    handle = tagged_hash(tag, ref.encode("utf-8")).hex()[: 2 * _KEY_NAME_BYTES]
    return f"{web.registry.institution.did}|{handle}"


def first_sentence(text: str) -> str:
    """The first sentence of a layer: what is read before the layer is opened."""
    ends = [at + 1 for end in _SENTENCE_END if (at := text.find(end)) >= 0]
    return text[: min(ends)] if ends else text


def state_of(newest: ConsentRecord | None, web: Web) -> str:
    """What holds now, in one word: none, granted, pending, expired, refused or withdrawn."""
    if newest is None:
        return "none"
    if newest.action is Action.REFUSE:
        return "refused"
    if newest.action is Action.WITHDRAW or newest.terms is None:
        return "withdrawn"
    if web.clock() >= newest.terms.valid_until:
        return "expired"
    return "granted" if binds(web, newest.digest) else "pending"


def sentence_of(record: ConsentRecord, language: str) -> str:
    """A record in one sentence."""
    _ = translations(language).gettext
    if record.terms is not None:
        allowed, until = _allowed(record, language), day(record.terms.valid_until, language)
        return _("You allowed: %(allowed)s. It holds until %(until)s.") % {"allowed": allowed, "until": until}
    if record.action is Action.REFUSE:
        return _("You said no.")
    if record.attested:
        return _("You withdrew; the institution signed for you.")
    return _("You withdrew.")


def _renewal(web: Web, ref: str, language: str, request: str) -> Renewal | None:
    found = renewal(web, ref, language)
    return found if found is not None and found.notice.request == request else None


def _allowed(record: ConsentRecord, language: str) -> str:
    terms = record.terms
    return "" if terms is None else purposes(terms.purposes, terms.diseases, language)


def _answers(web: Web, answer: Answer, language: str) -> list[tuple[str, bool]]:
    """What was answered, question by question, in the reader's language."""
    asked = web.store.notice(answer.request, answer.version).asked
    shown = asked.language(language)
    return [(purpose.words[shown].title, answer.answers[purpose.key]) for purpose in asked.purposes]


def _guardian_of(web: Web, ref: str, record: ConsentRecord) -> Appointment | None:
    return None if record.guardian is None else web.guardians.who_signed(ref, record.guardian.did)


def _meaning(credential: ReceiptCredential, language: str) -> str:
    _ = translations(language).gettext
    if credential.record.action is Action.GRANT:
        return _(
            "Studies that fit your answers may compute with your data, within your limits. You can stop it any time."
        )
    if credential.record.action is Action.REFUSE:
        return _("None of your data is used. This has no disadvantage for you.")
    return _("It counts since the moment below. From the next round on, no study uses your data.")


def _receipt_bytes(web: Web, digest: str, who: SignedIn) -> bytes:
    if not web.store.belongs_to(digest, who.ref):
        raise _not_there()
    return web.registry.receipt_credential(digest)


def _download(data: bytes, name: str, media_type: str) -> Response:
    return Response(data, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _not_there() -> UnavailableError:
    return UnavailableError("There is no such page for you.", remedy="Open it from your own page.")
